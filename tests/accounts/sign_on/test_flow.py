"""Single sign-on, step by step: each is for one browser, one provider, once, and in time."""

from __future__ import annotations

from datetime import timedelta

import pytest

from accounts.audit_log import AuditLog
from accounts.invitations import Invitations
from accounts.one_time_states import OneTimeStates, SessionOver
from accounts.recovery_codes import RecoveryCodes
from accounts.refused_log_ins import RefusedLogIns
from accounts.registration import Registration, RegistrationMode
from accounts.sessions import UserSessions
from accounts.sign_on.flow import InactiveThere, SingleSignOn
from accounts.sign_on.identities import ProviderIdentities
from accounts.sign_on.provider import ProviderFailed, ProviderProfile, SignOnAttempt, SignOnRule
from accounts.step_up import StepUp
from accounts.users import Users, UserState
from db import Database
from foundation.counts import Counts
from foundation.crypto import DerivedKeyHasher, Envelopes
from foundation.errors import BadRequest, Conflict, Forbidden, NotFound, Unauthorized
from tests.support.movable_clock import MovableClock
from tests.support.second_factors import second_factors
from tests.support.sign_on import query_of

ANN = ProviderProfile("1", "Ann")


class Scripted:
    """A provider that knows its own codes: who comes with one, and which attempt it was made for."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.rule = SignOnRule()
        self.people: dict[str, ProviderProfile] = {}
        self.attempts: dict[str, SignOnAttempt] = {}

    def authorize_url(self, attempt: SignOnAttempt, state: str) -> str:
        self.attempts[state] = attempt
        return f"https://{self.title}.test/?state={state}"

    def agree(self, state: str, profile: ProviderProfile = ANN) -> str:
        """The code that a browser comes back with."""
        self.people[state] = profile
        return f"code of {state}"

    def profile(self, attempt: SignOnAttempt, code: str) -> ProviderProfile:
        state = code.removeprefix("code of ")
        if self.attempts.get(state) != attempt or state not in self.people:
            raise ProviderFailed(self.title)
        return self.people.pop(state)


PASSES = id  # no second factor is asked for


@pytest.fixture
def providers() -> dict[str, Scripted]:
    return {name: Scripted(name) for name in ("github", "linuxdo")}


@pytest.fixture
def users(db: Database, clock: MovableClock) -> Users:
    return Users(db, b"k" * 32, clock)


@pytest.fixture
def sessions(db: Database, clock: MovableClock) -> UserSessions:
    return UserSessions(db, clock, timedelta(minutes=5), timedelta(days=7), b"r" * 32)


@pytest.fixture
def sso(db, envelopes: Envelopes, clock, providers, users, sessions) -> SingleSignOn:
    states = OneTimeStates(db, envelopes, clock)
    registration = Registration(RegistrationMode.OPEN, Invitations(db, clock), lambda *_: None)
    identities = ProviderIdentities(db, clock)
    refused = RefusedLogIns(AuditLog(db, clock), Counts())
    factors = second_factors(db, envelopes, clock, RecoveryCodes(db, clock), refused)
    step_up = StepUp(users, sessions, DerivedKeyHasher(1), factors, refused)
    return SingleSignOn(providers, "https://gateway.test", states, identities, users, step_up, registration)


def begun(sso: SingleSignOn, name: str = "github") -> tuple[str, str]:
    """A browser and its state."""
    one = sso.begin(name, "/here")
    return one.browser, query_of(one.url)["state"]


def code_of(sso: SingleSignOn, providers, name: str = "github", profile: ProviderProfile = ANN) -> tuple[str, str, int]:
    """A browser that has come back, our code, and the account."""
    browser, state = begun(sso, name)
    noted = sso.consume(name, browser, state)
    code, entered = sso.log_in(name, noted, providers[name].agree(state, profile), browser)
    return browser, code, entered.user_id


def test_the_callback_is_one_exact_address_for_each_provider(sso, providers):
    for name in providers:
        begun(sso, name)
    callbacks = {name: {one.callback for one in provider.attempts.values()} for name, provider in providers.items()}
    assert callbacks == {name: {f"https://gateway.test/api/auth/sso/{name}/callback"} for name in providers}


def test_each_log_in_has_a_state_a_verifier_a_nonce_and_a_browser_of_its_own(sso, providers):
    browsers = {begun(sso)[0] for _ in range(5)}
    attempts = providers["github"].attempts
    texts = {
        *browsers,
        *attempts,
        *(one.verifier for one in attempts.values()),
        *(one.nonce for one in attempts.values()),
    }
    assert len(texts) == 20
    assert {len(text) for text in texts} == {43}


def test_a_code_opens_a_session_once_and_for_its_browser(sso, providers):
    browser, code, user_id = code_of(sso, providers)
    assert sso.redeem(browser, code, PASSES) == (user_id, "github")
    with pytest.raises(BadRequest):
        sso.redeem(browser, code, PASSES)
    browser, code, _ = code_of(sso, providers)
    with pytest.raises(BadRequest):
        sso.redeem(begun(sso)[0], code, PASSES)


def test_a_code_opens_a_session_within_five_minutes(sso, providers, clock):
    browser, code, user_id = code_of(sso, providers)
    clock.advance(seconds=299)
    assert sso.redeem(browser, code, PASSES)[0] == user_id
    browser, code, _ = code_of(sso, providers)
    clock.advance(seconds=300)
    with pytest.raises(BadRequest):
        sso.redeem(browser, code, PASSES)


def test_a_state_is_no_code_and_a_code_no_state(sso, providers):
    browser, state = begun(sso)
    with pytest.raises(BadRequest):
        sso.redeem(browser, state, PASSES)
    browser, code, _ = code_of(sso, providers)
    with pytest.raises(NotFound):
        sso.consume("session", browser, code)
    with pytest.raises(BadRequest):
        sso.consume("github", browser, code)


@pytest.mark.parametrize("what", ["provider", "browser", "state", "late"])
def test_a_return_that_does_not_fit_its_begin_is_refused(sso, clock, what):
    browser, state = begun(sso)
    other_browser, other_state = begun(sso)
    if what == "late":
        clock.advance(minutes=10)
    with pytest.raises(BadRequest):
        sso.consume(
            "linuxdo" if what == "provider" else "github",
            other_browser if what == "browser" else browser,
            other_state if what == "state" else state,
        )


def test_a_return_works_once(sso):
    browser, state = begun(sso)
    assert sso.consume("github", browser, state).next_path == "/here"
    with pytest.raises(BadRequest):
        sso.consume("github", browser, state)


def test_a_code_of_another_log_in_is_worth_nothing(sso, providers):
    """Injected by whoever has got hold of somebody's code: it goes with another verifier."""
    browser, state = begun(sso)
    _, victims_state = begun(sso)
    stolen = providers["github"].agree(victims_state)
    with pytest.raises(ProviderFailed):
        sso.log_in("github", sso.consume("github", browser, state), stolen, browser)


def test_who_is_not_active_there_does_not_get_in_here(sso, providers):
    with pytest.raises(InactiveThere, match="github"):
        code_of(sso, providers, profile=ProviderProfile("1", is_active=False))
    _, _, user_id = code_of(sso, providers)  # nor later
    with pytest.raises(InactiveThere):
        code_of(sso, providers, profile=ProviderProfile("1", is_active=False))
    assert code_of(sso, providers)[2] == user_id


def test_who_is_silenced_there_is_silenced_here_at_once(sso, providers, users):
    _, _, user_id = code_of(sso, providers, profile=ProviderProfile("1", is_silenced=True))
    assert users.restricted == {user_id: UserState.SILENCED}


# ── linking


@pytest.fixture
def owner(users, sessions) -> tuple[int, str]:
    """An account with a key, and its session."""
    user_id = users.create("owner@example.com", "x")
    return user_id, sessions.start(user_id).id


def linked(sso, providers, owner, profile: ProviderProfile = ANN) -> int:
    one = sso.begin_link("github", *owner, "/profile")
    state = query_of(one.url)["state"]
    noted = sso.consume("github", one.browser, state)
    assert noted.next_path == "/profile"
    return sso.link("github", noted, providers["github"].agree(state, profile))


def test_a_linked_log_in_opens_the_account_and_makes_none(sso, providers, owner):
    assert linked(sso, providers, owner) == owner[0]
    assert code_of(sso, providers)[2] == owner[0]


def test_what_belongs_to_another_account_is_not_linked(sso, providers, owner):
    stranger = code_of(sso, providers)[2]
    with pytest.raises(Conflict):
        linked(sso, providers, owner)
    assert code_of(sso, providers)[2] == stranger
    assert sso.identities.of(owner[0]) == []


def test_linking_takes_a_session_that_is_new_open_and_ones_own(sso, users, sessions, owner, clock):
    user_id, session_id = owner
    teammate = users.create("teammate@example.com", "x")
    with pytest.raises(Forbidden):
        sso.begin_link("github", teammate, session_id, "/")
    clock.advance(minutes=14)
    assert sso.begin_link("github", user_id, session_id, "/")
    clock.advance(minutes=1)
    with pytest.raises(Forbidden, match="prove first"):
        sso.begin_link("github", user_id, session_id, "/")
    new = sessions.start(user_id)
    with pytest.raises(Forbidden):
        sso.begin_link("github", user_id, session_id, "/")  # that one is as old as before
    assert sso.begin_link("github", user_id, new.id, "/")
    sessions.end(new.id)
    with pytest.raises(Forbidden):
        sso.begin_link("github", user_id, new.id, "/")


@pytest.mark.parametrize("told", ["at once", "not yet", "forgotten"])
def test_nothing_is_linked_once_the_session_has_ended(sso, providers, users, sessions, owner, clock, told):
    """Neither where this process does not know of the end yet, nor where it has forgotten it with the access tokens."""
    one, teammate = sso.begin_link("github", *owner, "/"), users.create("teammate@example.com", "x")
    theirs = sso.begin_link("github", teammate, sessions.start(teammate).id, "/")
    sessions.end(owner[1])
    if told == "forgotten":
        clock.advance(minutes=6)
    if told != "not yet":
        sessions.reload()
    assert (owner[1] in sessions.ended) == (told == "at once")
    with pytest.raises(SessionOver) as over:
        sso.consume("github", one.browser, query_of(one.url)["state"])
    assert over.value.next_path == "/"
    state = query_of(theirs.url)["state"]
    sso.link("github", sso.consume("github", theirs.browser, state), providers["github"].agree(state))
    assert [len(sso.identities.of(user_id)) for user_id in (owner[0], teammate)] == [0, 1]


def test_nothing_is_linked_if_the_session_ends_while_the_provider_is_asked(sso, providers, sessions, owner):
    one = sso.begin_link("github", *owner, "/")
    state = query_of(one.url)["state"]
    noted = sso.consume("github", one.browser, state)
    sessions.end(owner[1])
    with pytest.raises(Unauthorized):
        sso.link("github", noted, providers["github"].agree(state))
    assert sso.identities.of(owner[0]) == []


def test_a_code_that_opens_a_session_ends_with_all_sessions(sso, providers, sessions):
    browser, code, user_id = code_of(sso, providers)
    others = code_of(sso, providers, profile=ProviderProfile("2", "Bob"))
    sessions.end_all(user_id)
    with pytest.raises(BadRequest):
        sso.redeem(browser, code, PASSES)
    assert sso.redeem(*others[:2], PASSES)[0] == others[2]


def test_a_provider_that_is_not_configured_is_named_with_those_that_are(sso):
    for name in ("oidc", "", "session"):
        with pytest.raises(NotFound, match="github, linuxdo"):
            sso.begin(name, "/")
        with pytest.raises(NotFound):
            sso.consume(name, "b", "s")


def test_a_provider_has_to_be_named_only_where_there_is_a_choice(sso, providers):
    assert sso.provider_name("linuxdo") == "linuxdo"
    with pytest.raises(BadRequest, match="one of github, linuxdo"):
        sso.provider_name("")
    del providers["linuxdo"]
    assert sso.provider_name("") == "github"
    del providers["github"]
    assert sso.provider_name("") == ""
