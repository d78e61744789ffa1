"""Who is calling: what makes an account, what opens a session, and every token that opens nothing."""

from __future__ import annotations

import base64
import json
import re
import secrets
import string
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import argon2
import jwt
import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

import auth as module
from accounts.api_tokens import ApiTokens
from accounts.audit_log import AuditLog
from accounts.caller import Caller, Credential
from accounts.client_keys import ClientKeys
from accounts.recovery_codes import RecoveryCodes
from accounts.refused_log_ins import RefusedLogIns
from accounts.sessions import UNKNOWN, Origin, UserSession, UserSessions
from accounts.teams import Teams
from accounts.users import Users, UserState
from auth import ACCESS_TOKEN, AUDIENCE, FOR_CALLS, FOR_READING, ISSUER, PAGE_TOKEN, Auth, SigningKeys
from db import Database
from foundation.counts import Counts
from foundation.crypto import DerivedKeyHasher, Envelopes, sha256_hex
from foundation.errors import BadRequest, Busy, Forbidden, Unauthorized, UsernameTaken
from tables import user_sessions as session_table
from tables import users as user_table
from tests.conftest import ENCRYPTION_KEY
from tests.support.gateway import new_derived_key
from tests.support.movable_clock import MovableClock
from tests.support.rows import each_row
from tests.support.second_factors import second_factors

SECRET_KEY = "a secret key of tests, more than 32 bytes"
KEY_ID = SigningKeys([SECRET_KEY]).newest_id
LIFE = timedelta(hours=24)
OWNER, TEAMMATE, STRANGER = "owner@example.com", "teammate@example.com", "stranger@example.com"
BASE64URL = string.ascii_letters + string.digits + "-_"


class CountingHasher(DerivedKeyHasher):
    """The real hasher, which writes down what it was asked."""

    def __init__(self) -> None:
        super().__init__(permits=2)
        self.asked: list[str] = []

    def hash(self, derived_key: str) -> str:
        self.asked.append("hash")
        return super().hash(derived_key)

    def verify(self, stored: str | None, derived_key: str) -> None:
        self.asked.append("verify")
        super().verify(stored, derived_key)


class House:
    """Everything behind the door, over one database."""

    def __init__(self, db: Database, clock: MovableClock, hasher: CountingHasher, *keys: str) -> None:
        keys = keys or (SECRET_KEY,)
        self.db, self.clock, self.hasher = db, clock, hasher
        self.users = Users(db, b"k" * 32, clock)
        self.sessions = UserSessions(db, clock, LIFE, timedelta(days=7), b"r" * 32)
        self.sessions.known.note(SESSION.id, SESSION.user_id)
        self.client_keys, self.api_tokens = ClientKeys(db, clock, 50), ApiTokens(db, clock)
        held = self.client_keys.live, self.api_tokens.live
        self.audit = AuditLog(db, clock)
        self.refused = RefusedLogIns(self.audit, Counts())
        doors = self.users, self.sessions, self.hasher, SigningKeys(keys)
        codes = RecoveryCodes(db, clock)
        self.second_factors = second_factors(db, Envelopes([ENCRYPTION_KEY]), clock, codes, self.refused)
        self.teams = Teams(db, clock, self.client_keys, lambda: None, lambda *_: None)
        self.auth = Auth(*doors, clock, *held, self.refused, self.second_factors, self.teams)

    def person(self, name: str) -> tuple[str, str]:
        """Register somebody; returns their derived key and their Authorization header."""
        key = new_derived_key()
        self.auth.register(name, key)
        return key, f"Bearer {self.auth.login(name, key)[1]}"

    def count(self, table: sa.Table) -> int:
        with self.db.reading() as tx:
            return tx.scalar(sa.select(sa.func.count()).select_from(table))


@pytest.fixture(scope="module")
def shared_hasher() -> CountingHasher:
    return CountingHasher()


@pytest.fixture
def hasher(shared_hasher: CountingHasher) -> CountingHasher:
    shared_hasher.asked.clear()
    return shared_hasher


@pytest.fixture
def house(db: Database, clock: MovableClock, hasher: CountingHasher) -> House:
    return House(db, clock, hasher)


@pytest.fixture
def door(tmp_path: Path, clock: MovableClock, hasher: CountingHasher) -> House:
    """A house whose database is not there: what works, and what is refused, here needs none and writes nothing."""
    return House(Database(sa.URL.create("sqlite", database=f"{tmp_path}/nowhere/x.db")), clock, hasher)


# ── registration


def test_who_registers_can_log_in_and_call(house):
    key = new_derived_key()
    user_id = house.auth.register(OWNER, key)
    session, token = house.auth.login(OWNER, key)
    assert session.user_id == user_id
    caller = house.auth.authenticate(f"Bearer {token}")
    assert (caller.user_id, caller.session_id) == (user_id, session.id)
    assert caller.expires_at == (house.clock.now() + LIFE).timestamp()


def test_the_key_is_stored_as_an_argon2id_hash_only(house):
    key, _ = house.person(OWNER)
    with house.db.reading() as tx:
        row = tx.execute(sa.select(user_table)).one()
    assert row.key_hash.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert key not in str(row)


def test_a_taken_name_is_refused_before_the_costly_hash(house):
    house.person(OWNER)
    house.hasher.asked.clear()
    with pytest.raises(UsernameTaken, match=r"^Username already exists$"):
        house.auth.register(OWNER, new_derived_key())
    assert house.hasher.asked == []


GOOD = new_derived_key()
REFUSED_KEYS = {
    "none at all": (None, "must be a text of 64 characters"),
    "a number": (7, "must be a text of 64 characters"),
    "a list": ([GOOD], "must be a text of 64 characters"),
    "an object": ({"$ne": ""}, "must be a text of 64 characters"),
    "true": (True, "must be a text of 64 characters"),
    "empty": ("", "must be a text of 64 characters"),
    "huge": ("x" * 513, "must be a text of 64 characters"),
    "Argon2's encoded text": (argon2.PasswordHasher(2, 1953, 1).hash("x")[:64], "holds the salt and 66 bits of hash"),
    "Argon2's encoded text, short": ("$argon2id$v=19", "holds the salt and 66 bits of hash"),
    "short": (GOOD[:63], "has 63 characters, which looks truncated"),
    "a password": ("hunter2", "has 7 characters, which looks truncated"),
    "hex digits": (secrets.token_hex(32), "looks like a pattern or hex digits"),
    "a pattern": ("abcd0123" * 8, "looks like a pattern or hex digits"),
    "one character": ("A" * 64, "looks like a pattern or hex digits"),
    "base64 that is not URL-safe": (GOOD[:62] + "+/", "must be exactly 64 characters of A-Z a-z 0-9 - _"),
    "padding": (GOOD[:62] + "==", "must be exactly 64 characters of A-Z a-z 0-9 - _"),
    "a line end": (GOOD + "\n", "must be exactly 64 characters of A-Z a-z 0-9 - _"),
    "uncut": (base64.urlsafe_b64encode(secrets.token_bytes(64)).decode()[:86], "must be exactly 64 characters"),
    "another alphabet": ("é" * 64, "must hold only A-Z a-z 0-9 - _"),
    "full-width letters": ("ａ" * 64, "must hold only A-Z a-z 0-9 - _"),
}


@pytest.mark.parametrize(("key", "reason"), REFUSED_KEYS.values(), ids=REFUSED_KEYS)
def test_a_key_in_the_wrong_form_is_refused_with_the_reason_and_writes_nothing(door, key, reason):
    with pytest.raises(BadRequest, match=re.escape(reason)) as raised:
        door.auth.register(OWNER, key)
    assert "/api/auth/kdf" in raised.value.message
    assert door.hasher.asked == []


REFUSED_NAMES = [None, 7, True, [OWNER], {"a": 1}, "", "x" * 256, " a", "a ", "\ta", "a\n", "a\0b", "a\x7fb", "a\x9fb"]


@pytest.mark.parametrize("name", [*REFUSED_NAMES, "a\ud800b", "\u3000a"], ids=lambda value: ascii(value)[:12])
def test_an_unusable_name_is_refused_with_the_reason_and_writes_nothing(door, name):
    for attempt in (door.auth.register, door.auth.login):
        with pytest.raises(BadRequest, match=r"^username must"):
            attempt(name, GOOD)
    assert door.hasher.asked == []


@pytest.mark.parametrize("name", ["a", "x" * 255, "Ünïcödé 名前 🔑", "o'neill; DROP TABLE users; --", "%", "a b"])
def test_any_other_name_is_accepted_and_kept_apart(house, name):
    key = new_derived_key()
    user_id = house.auth.register(name, key)
    assert house.auth.login(name, key)[0].user_id == user_id


@given(st.text(st.sampled_from(BASE64URL), min_size=64, max_size=64))
def test_every_text_of_64_base64url_characters_has_the_form_of_a_key(key):
    assert module.check_derived_key(key) == key


def test_no_derived_key_of_many_is_called_weak():
    assert min(len(set(new_derived_key())) for _ in range(20_000)) >= module.MIN_DIFFERENT_CHARACTERS


@given(st.from_type(object) | st.text() | st.recursive(st.none() | st.floats(), st.lists))
def test_whatever_is_sent_as_name_or_key_is_accepted_or_refused_but_never_a_fault(value):
    for check in (module.check_username, module.check_login_key, module.check_derived_key):
        try:
            assert check(value) is value
        except BadRequest as error:
            assert error.message


# ── login


def test_unknown_user_and_wrong_key_get_the_same_answer_after_the_same_steps(house):
    house.person(OWNER)
    answers = []
    for name, key in ((OWNER, new_derived_key()), (STRANGER, new_derived_key()), (OWNER, "x"), (STRANGER, "x")):
        house.hasher.asked.clear()
        with pytest.raises(Unauthorized) as raised:
            house.auth.login(name, key)
        answers.append((raised.value.to_json(), raised.value.headers, tuple(house.hasher.asked)))
    assert len(set(map(str, answers))) == 1
    assert raised.value.message == "Invalid credentials"
    assert house.hasher.asked == ["verify"]


def test_one_persons_key_does_not_open_anothers_account(house):
    house.person(OWNER)
    teammates_key, _ = house.person(TEAMMATE)
    with pytest.raises(Unauthorized):
        house.auth.login(OWNER, teammates_key)


def test_the_encoded_text_is_refused_at_login_too(door):
    with pytest.raises(BadRequest, match="holds the salt"):
        door.auth.login(OWNER, "$argon2id$v=19$m=1953,t=2,p=1$abc")


def test_a_login_is_noted_and_a_failed_one_is_not(house):
    key, _ = house.person(OWNER)
    house.clock.advance(hours=1)
    with pytest.raises(Unauthorized):
        house.auth.login(OWNER, new_derived_key())
    assert house.users.find(OWNER).last_login == house.clock.now() - timedelta(hours=1)
    house.auth.login(OWNER, key)
    assert house.users.find(OWNER).last_login == house.clock.now()


def test_a_hash_of_old_parameters_is_renewed_at_login(house):
    key = new_derived_key()
    user_id = house.users.create(OWNER, argon2.PasswordHasher(1, 8, 1).hash(key))
    house.auth.login(OWNER, key)
    renewed = house.users.find(OWNER).key_hash
    assert renewed.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert house.auth.login(OWNER, key)[0].user_id == user_id
    assert house.users.find(OWNER).key_hash == renewed


def test_a_disabled_user_is_told_so_only_after_the_right_key(house):
    key, _ = house.person(OWNER)
    house.users.set_state(house.users.find(OWNER).id, UserState.DISABLED)
    before = house.count(session_table)
    with pytest.raises(Unauthorized, match=r"^Invalid credentials$"):
        house.auth.login(OWNER, new_derived_key())
    with pytest.raises(Forbidden, match="disabled"):
        house.auth.login(OWNER, key)
    assert house.count(session_table) == before


def test_a_silenced_user_may_log_in(house):
    key, _ = house.person(OWNER)
    house.users.set_state(house.users.find(OWNER).id, UserState.SILENCED)
    assert house.auth.login(OWNER, key)


def test_no_login_and_no_registration_when_too_many_run(house):
    key, _ = house.person(OWNER)
    house.auth._hasher = DerivedKeyHasher(permits=1, queue=0)
    with house.auth._hasher._permit():
        with pytest.raises(Busy):
            house.auth.login(OWNER, key)
        with pytest.raises(Busy):
            house.auth.register(STRANGER, key)
    assert not house.users.exists(STRANGER)


def test_neither_names_nor_keys_nor_tokens_are_logged(house, caplog):
    caplog.set_level("DEBUG")
    key, authorization = house.person(OWNER)
    with pytest.raises(Unauthorized):
        house.auth.login(OWNER, new_derived_key())
    house.auth.logout(house.auth.authenticate(authorization))
    logged = " ".join(f"{record.getMessage()} {record.__dict__}" for record in caplog.records)
    assert "login_failed" in logged
    assert "login_succeeded" in logged
    for secret in (OWNER, key, authorization[7:], authorization[-43:]):
        assert secret not in logged


# ── refresh and logout


def test_refreshing_keeps_the_session_and_gives_a_new_access_token(house):
    key, _ = house.person(OWNER)
    session, token = house.auth.login(OWNER, key)
    house.clock.advance(hours=30)
    renewed, new_token = house.auth.refresh(session.refresh_token)
    assert renewed.id == session.id
    assert new_token != token
    assert house.auth.authenticate(f"Bearer {new_token}").session_id == session.id
    house.clock.advance(seconds=11)  # until then a client that lost the answer gets it again
    with pytest.raises(Unauthorized):
        house.auth.refresh(session.refresh_token)


def test_a_call_token_is_of_the_same_session_ends_with_it_and_never_outlives_the_one_that_asks(house, clock):
    key, _ = house.person(OWNER)
    session, token = house.auth.login(OWNER, key)
    caller = house.auth.authenticate(f"Bearer {token}")
    brief = f"Bearer {house.auth.issue_call_token(caller, timedelta(minutes=5))}"
    found = house.auth.authenticate(brief, FOR_CALLS)
    assert (found.user_id, found.session_id) == (caller.user_id, session.id)
    assert found.expires_at - clock.timestamp() == pytest.approx(300, abs=1)
    clock.advance(seconds=301)
    with pytest.raises(Unauthorized, match="expired"):
        house.auth.authenticate(brief, FOR_CALLS)
    for asked in (timedelta(days=1000), timedelta(hours=25)):
        longest = f"Bearer {house.auth.issue_call_token(caller, asked)}"
        assert house.auth.authenticate(longest, FOR_CALLS).expires_at <= caller.expires_at
    clock.advance(seconds=caller.expires_at - clock.timestamp() - 0.5)
    with pytest.raises(Unauthorized, match="expired"):  # it has no whole second left
        house.auth.authenticate(f"Bearer {house.auth.issue_call_token(caller, timedelta(minutes=5))}", FOR_CALLS)


def test_each_of_a_sessions_tokens_is_good_for_one_thing(house):
    """What leaks from a browser opens neither the API nor the account."""
    key, _ = house.person(OWNER)
    session, access = house.auth.login(OWNER, key)
    caller = house.auth.authenticate(f"Bearer {access}")
    page = house.auth.issue_page_token(caller.user_id, caller.session_id)
    call = house.auth.issue_call_token(caller, timedelta(minutes=5))
    uses = {page: [PAGE_TOKEN], call: [FOR_CALLS], access: [ACCESS_TOKEN, FOR_CALLS, FOR_READING]}
    for token, good_for in uses.items():
        for accepted in (ACCESS_TOKEN, FOR_CALLS, FOR_READING, PAGE_TOKEN):
            if accepted in good_for:
                assert house.auth.authenticate(f"Bearer {token}", accepted).session_id == session.id
            else:
                with pytest.raises(Forbidden, match="of another kind"):
                    house.auth.authenticate(f"Bearer {token}", accepted)
    house.sessions.end(session.id)
    house.sessions.reload()
    for token, good_for in uses.items():
        with pytest.raises(Unauthorized, match="has ended"):
            house.auth.authenticate(f"Bearer {token}", good_for[0])
    with pytest.raises(Unauthorized):
        house.auth.issue_page_token(caller.user_id, caller.session_id)


@pytest.mark.parametrize("token", [None, 7, True, ["x"], {}, "", "x" * 201, "é"], ids=ascii)
def test_what_cannot_be_a_refresh_token_is_refused_with_the_reason(door, token):
    with pytest.raises(BadRequest, match="refresh_token must be the text"):
        door.auth.refresh(token)


@pytest.mark.parametrize("token", ["x", ".", "a" * 32 + "." + "b" * 43, "\0", "' OR 1=1 --", "x" * 200])
def test_an_unknown_refresh_token_is_refused(house, token):
    with pytest.raises(Unauthorized):
        house.auth.refresh(token)


def test_an_access_token_is_no_refresh_token(house):
    _, authorization = house.person(OWNER)
    with pytest.raises((Unauthorized, BadRequest)):
        house.auth.refresh(authorization[7:])


def test_a_disabled_user_cannot_refresh_a_silenced_one_can(house):
    key, _ = house.person(OWNER)
    user_id = house.users.find(OWNER).id
    session, _ = house.auth.login(OWNER, key)
    house.users.set_state(user_id, UserState.SILENCED)
    session, _ = house.auth.refresh(session.refresh_token)
    house.users.set_state(user_id, UserState.DISABLED)
    with pytest.raises(Unauthorized, match="revoked"):  # disabling has ended the session
        house.auth.refresh(session.refresh_token)
    with pytest.raises(Forbidden, match="disabled"):
        house.auth.refresh(house.sessions.start(user_id).refresh_token)


class _SlowHasher(CountingHasher):
    """Something happens to the account between the look-up and the end of the check."""

    def __init__(self) -> None:
        super().__init__()
        self.meanwhile: Callable[[], object] = lambda: None

    def verify(self, stored: str | None, derived_key: str) -> None:
        super().verify(stored, derived_key)
        meanwhile, self.meanwhile = self.meanwhile, lambda: None
        meanwhile()


@pytest.mark.parametrize("what", ["a new key", "disabled and enabled again", "disabled"])
def test_a_log_in_that_was_under_way_opens_no_session_once_all_have_ended(db, clock, what):
    hasher = _SlowHasher()
    house = House(db, clock, hasher)
    key, authorization = house.person(OWNER)
    caller, user = house.auth.authenticate(authorization), house.users.find(OWNER)

    def meanwhile() -> None:
        if what == "a new key":
            house.auth.change_derived_key(caller, key, new_derived_key(), UNKNOWN)
        else:
            house.users.set_state(user.id, UserState.DISABLED)

    hasher.meanwhile = meanwhile
    with pytest.raises(Unauthorized, match="changed at this moment"):
        house.auth.login(OWNER, key)
    open_ones = house.sessions.open_ones(user.id)
    assert len(open_ones) == (what == "a new key")  # that of the change


def test_of_two_changes_of_the_key_at_once_one_counts_and_its_hash_stays(db, clock):
    hasher = _SlowHasher()
    house = House(db, clock, hasher)
    key, authorization = house.person(OWNER)
    caller, first, second = house.auth.authenticate(authorization), new_derived_key(), new_derived_key()
    hasher.meanwhile = lambda: house.auth.change_derived_key(caller, key, first, UNKNOWN)
    with pytest.raises(Unauthorized, match="changed at this moment"):
        house.auth.change_derived_key(caller, key, second, UNKNOWN)
    assert house.auth.login(OWNER, first)
    for wrong in (key, second):
        with pytest.raises(Unauthorized):
            house.auth.login(OWNER, wrong)


def test_refused_log_ins_are_in_the_audit_log_of_whom_they_concern(house):
    key, authorization = house.person(OWNER)
    house.person(TEAMMATE)
    user = house.users.find(OWNER)
    home = Origin("password", "192.0.2.1", "a browser")
    for _ in range(3):
        with pytest.raises(Unauthorized):
            house.auth.login(OWNER, new_derived_key(), home)
        with pytest.raises(Unauthorized):
            house.auth.login(STRANGER, new_derived_key(), home)
    with pytest.raises(Unauthorized):
        house.auth.change_derived_key(
            house.auth.authenticate(authorization), new_derived_key(), new_derived_key(), home
        )
    house.users.set_state(user.id, UserState.DISABLED)
    with pytest.raises(Forbidden):
        house.auth.login(OWNER, key, home)
    assert house.audit.page(1, 10)[1] == 0  # nothing is written while somebody waits for the answer
    house.refused.sums.write()
    told = {(one.action, one.user_id, one.address, one.details["count"]) for one in house.audit.page(1, 10)[0]}
    own = {(name, user.id, "192.0.2.1", 1) for name in ("key_change_refused", "login_refused")}
    assert told == own | {("login_failed", user.id, "192.0.2.1", 3), ("login_failed", None, None, 3)}


def test_an_access_token_that_outlasts_its_sessions_time_ends_with_the_others(house):
    key, _ = house.person(OWNER)
    session, token = house.auth.login(OWNER, key)
    for days in (6, 6, 6, 6, 5.9):  # of thirty
        house.clock.advance(days=days)
        session, token = house.auth.refresh(session.refresh_token)
    house.clock.advance(hours=20)
    with pytest.raises(Unauthorized):
        house.auth.refresh(session.refresh_token)
    _, teammates = house.person(TEAMMATE)
    assert house.auth.authenticate(f"Bearer {token}").user_id == session.user_id
    assert house.sessions.end_all(session.user_id) == 0
    house.sessions.reload()
    with pytest.raises(Unauthorized, match="session has ended"):
        house.auth.authenticate(f"Bearer {token}")
    assert house.auth.authenticate(teammates)


def test_after_logging_out_neither_token_of_the_session_works_and_others_do(house):
    key, _ = house.person(OWNER)
    session, token = house.auth.login(OWNER, key)
    _, of_other_device = house.auth.login(OWNER, key)
    _, of_teammate = house.person(TEAMMATE)
    house.auth.logout(house.auth.authenticate(f"Bearer {token}"))
    with pytest.raises(Unauthorized, match="session has ended"):
        house.auth.authenticate(f"Bearer {token}")
    with pytest.raises(Unauthorized):
        house.auth.refresh(session.refresh_token)
    assert house.auth.authenticate(f"Bearer {of_other_device}")
    assert house.auth.authenticate(of_teammate)


# ── tokens

SESSION = UserSession("s" * 32, 7, "")


def test_a_token_says_who_for_whom_how_long_and_nothing_else(door):
    token = door.auth._access_token(SESSION)
    claims = jwt.decode(token, options={"verify_signature": False})
    now = int(door.clock.timestamp())
    assert re.fullmatch(r"[0-9a-f]{32}", claims.pop("jti"))
    times = {"iat": now, "exp": now + 24 * 3600}
    assert claims == {"iss": ISSUER, "aud": AUDIENCE, "sub": "7", "sid": "s" * 32, "token_use": "access"} | times
    assert jwt.get_unverified_header(token) == {"alg": "HS256", "typ": "JWT", "kid": KEY_ID}


def test_a_token_runs_out_to_the_second_remembered_or_not(door):
    authorization = f"Bearer {door.auth._access_token(SESSION)}"
    door.clock.advance(hours=24, seconds=-1)
    assert door.auth.authenticate(authorization)
    door.clock.advance(seconds=1)
    for memory in (door.auth, House(door.db, door.clock, door.hasher).auth):
        with pytest.raises(Unauthorized, match="expired"):
            memory.authenticate(authorization)


def test_users_who_may_not_call_are_refused_remembered_or_not(door):
    authorization = f"Bearer {door.auth._access_token(SESSION)}"
    caller = door.auth.authenticate(authorization)
    door.users.restricted = {caller.user_id: UserState.SILENCED}
    with pytest.raises(Forbidden, match="may not make calls"):
        door.auth.authenticate(authorization)
    assert door.auth.authenticate(authorization, may_call=False) == caller
    door.users.restricted = {caller.user_id: UserState.DISABLED}
    for may_call in (True, False):
        with pytest.raises(Forbidden, match="disabled"):
            door.auth.authenticate(authorization, may_call)
    door.users.restricted = {caller.user_id + 1: UserState.DISABLED}
    assert door.auth.authenticate(authorization) == caller


def test_memory_of_tokens_is_bounded(door, monkeypatch):
    monkeypatch.setattr(module, "CACHED_TOKENS", 3)
    authorization = f"Bearer {door.auth._access_token(SESSION)}"
    for _ in range(10):
        door.auth.authenticate(f"Bearer {door.auth._access_token(SESSION)}")
        assert len(door.auth._verified) <= 3
    assert door.auth.authenticate(authorization)


@pytest.fixture
def claims(door: House) -> dict[str, Any]:
    """The claims of a good token, at hand to be spoilt."""
    now = int(door.clock.timestamp())
    good = {"iss": ISSUER, "aud": AUDIENCE, "sub": "7", "sid": "s" * 32, "jti": "j" * 32}
    return good | {"iat": now, "exp": now + 3600, "token_use": "access"}


@pytest.fixture
def refuses(door: House) -> Callable[..., Unauthorized]:
    """Authenticate with a token that must be refused; it must not be remembered either."""

    def refuse(token: str) -> Unauthorized:
        door.auth._verified.clear()
        for _ in range(2):
            with pytest.raises(Unauthorized) as raised:
                door.auth.authenticate(f"Bearer {token}")
        assert door.auth._verified == {}
        assert raised.value.headers == {"WWW-Authenticate": 'Bearer realm="openrouter-proxy"'}
        return raised.value

    return refuse


def signed(claims: dict[str, Any], key: str = SECRET_KEY, algorithm: str = "HS256", **header: Any) -> str:
    """A token as an attacker, or another program with our key, might make it: nothing is checked."""
    parts = [{"alg": algorithm, "typ": "JWT", "kid": KEY_ID} | header, claims]
    texts = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in parts]
    message = b".".join(texts)
    if algorithm == "none":
        return message.decode() + "."
    signature = jwt.get_algorithm_by_name(algorithm).sign(message, key.encode())
    return (message + b"." + base64.urlsafe_b64encode(signature).rstrip(b"=")).decode()


def test_the_good_token_of_these_tests_is_accepted(door, claims):
    assert door.auth.authenticate(f"Bearer {signed(claims)}") == Caller(int(claims["sub"]), "s" * 32, claims["exp"])


@pytest.mark.parametrize("algorithm", ["none", "HS384", "HS512"])
def test_another_algorithm_is_refused(claims, refuses, algorithm):
    refuses(signed(claims, SECRET_KEY * 2, algorithm))
    refuses(signed(claims, SECRET_KEY, algorithm) if algorithm != "none" else signed(claims, algorithm="none") + "x")


@pytest.mark.parametrize("alg", ["None", "NONE", "nOnE", "", None, "RS256", "hs256", ["HS256"], {"a": 1}, 1])
def test_a_header_that_claims_another_algorithm_is_refused(claims, refuses, alg):
    refuses(signed(claims, alg=alg))
    refuses(signed(claims, alg=alg).rpartition(".")[0] + ".")


@pytest.mark.parametrize(
    "key", ["another key of tests, more than 32 bytes!", "short", SECRET_KEY[:-1], SECRET_KEY + " "]
)
def test_another_key_is_refused(claims, refuses, key):
    refuses(signed(claims, key))


def test_a_key_that_is_too_short_to_sign_with_verifies_nothing_either(door, claims):
    """The settings refuse it; this is for who makes the objects otherwise."""
    house = House(door.db, door.clock, door.hasher, "short")
    token = signed(claims, "short", kid=SigningKeys(["short"]).newest_id)
    with pytest.raises((Unauthorized, jwt.InvalidKeyError)):
        house.auth.authenticate(f"Bearer {token}")


@pytest.mark.parametrize("header", [{"crit": ["exp"]}, {"crit": ["b64"], "b64": False}, {"crit": "exp"}, {"crit": []}])
def test_a_critical_extension_that_nobody_knows_is_refused(claims, refuses, header):
    refuses(signed(claims, **header))


@pytest.mark.parametrize("kid", ["../../dev/null", "' OR 1=1 --", "", None, 7, ["a"], {"a": 1}, "0" * 8, "x" * 3000])
def test_a_key_id_that_names_none_of_our_keys_is_refused(claims, refuses, kid):
    refuses(signed(claims, kid=kid))


def test_a_token_of_a_former_key_counts_as_long_as_that_is_accepted(door, claims):
    new = "another secret key of tests, 32 bytes and more"
    both, only_new = (House(door.db, door.clock, door.hasher, *keys).auth for keys in ((new, SECRET_KEY), (new,)))
    of_old, of_new = f"Bearer {signed(claims)}", f"Bearer {both._access_token(SESSION)}"
    for auth in (both, House(door.db, door.clock, door.hasher, SECRET_KEY, new).auth):  # before, and after, the change
        assert auth.authenticate(of_old)
        assert auth.authenticate(of_new)
    assert only_new.authenticate(of_new)
    with pytest.raises(Unauthorized):
        only_new.authenticate(of_old)
    with pytest.raises(Unauthorized):
        door.auth.authenticate(of_new)


@pytest.mark.parametrize("header", [{"jku": "http://127.0.0.1/"}, {"jwk": {"k": "AA"}}, {"x5u": "http://127.0.0.1/"}])
def test_keys_that_the_header_offers_are_ignored(door, claims, refuses, header):
    assert door.auth.authenticate(f"Bearer {signed(claims, **header)}")
    refuses(signed(claims, "another key of tests, more than 32 bytes!", **header))


CLAIMS = ["iss", "aud", "sub", "sid", "jti", "iat", "exp", "token_use"]


@pytest.mark.parametrize("name", CLAIMS)
def test_every_claim_is_required(claims, refuses, name):
    del claims[name]
    refuses(signed(claims))


ODD_VALUES = [None, "", [], {}, True, False, 0, -1, 1.5, "x", ["x"], {"x": 1}, 10**30, -(10**30), 1e308]
ODD_VALUES += [float("inf"), float("-inf"), float("nan"), "0", "9" * 40, "\ud800", "\0"]


@each_row("name", CLAIMS)
@each_row("value", ODD_VALUES)
def test_claims_of_other_types_and_values_are_refused(door, claims, refuses, name, value):
    if name in {"sid", "jti"} and isinstance(value, str):
        return  # any text will do
    if name == "sub" and value == "0":
        return  # a number, though nobody's
    refuses(signed(claims | {name: value}))


@pytest.mark.parametrize("issuer", ["openrouter-prox", "openrouter-proxy ", "OPENROUTER-PROXY", "o", [ISSUER]])
def test_another_issuer_is_refused_prefixes_included(claims, refuses, issuer):
    refuses(signed(claims | {"iss": issuer}))


@pytest.mark.parametrize("audience", ["openrouter-proxy", "openrouter-proxy-api2", "api", ["other"], [AUDIENCE[:-1]]])
def test_another_audience_is_refused_prefixes_included(claims, refuses, audience):
    refuses(signed(claims | {"aud": audience}))


@pytest.mark.parametrize("use", ["refresh", "ACCESS", "access ", ["access"], {"access": 1}])
def test_a_token_for_another_use_is_refused(claims, refuses, use):
    refuses(signed(claims | {"token_use": use}))


@pytest.mark.parametrize("subject", ["-1", "1.0", "１", " 1", "1 ", "1\n", "1' OR '1'='1", "0x1", "9" * 19, "alice"])
def test_a_subject_that_is_no_user_number_is_refused(claims, refuses, subject):
    refuses(signed(claims | {"sub": subject}))


def test_a_token_that_would_outlive_our_own_is_refused(door, claims, refuses):
    longest = claims | {"exp": claims["iat"] + 24 * 3600}
    assert door.auth.authenticate(f"Bearer {signed(longest)}")
    refuses(signed(claims | {"exp": claims["iat"] + 24 * 3600 + 1}))
    refuses(signed(claims | {"exp": 10**30}))
    refuses(signed(claims | {"iat": claims["iat"] - 24 * 3600}))


def test_an_expired_token_is_told_apart_and_refused_without_grace(claims, refuses):
    assert "expired" in refuses(signed(claims | {"exp": claims["iat"], "iat": claims["iat"] - 60})).message
    assert "expired" in refuses(signed(claims | {"exp": claims["iat"] - 10, "iat": claims["iat"] - 60})).message


def test_a_token_of_the_future_is_refused_but_for_what_clocks_differ(door, claims, refuses):
    assert door.auth.authenticate(f"Bearer {signed(claims | {'iat': claims['iat'] + 29})}")
    refuses(signed(claims | {"iat": claims["iat"] + 31}))
    refuses(signed(claims | {"nbf": 2**40}))
    refuses(signed(claims | {"nbf": float("inf")}))


def test_a_signature_is_checked_whole(claims, refuses):
    token = signed(claims)
    for spoilt in (token[:-2], token + "AA", token.rpartition(".")[0], token + ".x", "." + token, token.swapcase()):
        refuses(spoilt)


def test_another_spelling_of_a_token_is_refused(door, claims, refuses):
    head, payload, signature = signed(claims).split(".")
    for junk in ("=", "==", "!", "\n", " ", "~" * 3000, "+", "/"):
        for parts in (
            (head, payload, signature + junk),
            (head, payload, signature[:20] + junk + signature[20:]),
            (head, payload + junk, signature),
            (head + junk, payload, signature),
        ):
            refuses(".".join(parts))
    in_order = string.ascii_uppercase + string.ascii_lowercase + string.digits + "-_"
    after = in_order[in_order.index(signature[-1]) + 1]  # the last two bits of 43 characters say nothing
    refuses(f"{head}.{payload}.{signature[:-1]}{after}")


def test_two_tokens_that_begin_alike_are_told_apart(door, claims, refuses):
    good = signed(claims)
    assert door.auth.authenticate(f"Bearer {good}")
    other = signed(claims | {"jti": "k" * 32})
    assert good[:60] == other[:60]
    assert door.auth.authenticate(f"Bearer {other}")
    refuses(good[:-6] + other[-6:])


@pytest.mark.parametrize(
    "token",
    [
        "x",
        "x.y",
        "x.y.z",
        "...",
        "é.é.é",
        "\udc80",
        "a" * 100_000,
        "e30.e30.e30",
        "null",
        "Bearer x",
        " ",
        "\0",
        "x\ny",
    ],
    ids=lambda token: ascii(token[:12]),
)
def test_what_is_no_token_is_refused(door, refuses, token):
    refuses(token)


def test_a_deeply_nested_payload_is_refused(door, refuses):
    head, deep = (base64.urlsafe_b64encode(text).rstrip(b"=").decode() for text in (b'{"alg":"HS256"}', b"[" * 2500))
    refuses(f"{head}.{deep}.AAAA")
    refuses(f"{deep}.{head}.AAAA")


def test_no_token_is_so_long_that_reading_it_costs_much(claims, refuses):
    """Not one that we have signed ourselves either."""
    refuses(signed(claims | {"more": "x" * 100_000}))


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "Basic dXNlcjpwYXNz", "Token x", "bearer", "x"])
def test_no_token_at_all_is_refused_with_how_to_send_one(door, header):
    with pytest.raises(Unauthorized, match="Authorization: Bearer <token>"):
        door.auth.authenticate(header)


@pytest.mark.parametrize("scheme", ["bearer", "BEARER", "BeArEr"])
def test_the_word_bearer_may_be_written_in_any_case(door, claims, scheme):
    assert door.auth.authenticate(f"{scheme} {signed(claims)}")


@given(header=st.text() | st.text(st.characters(codec="latin-1")).map("Bearer ".__add__))
def test_no_header_whatever_is_a_fault(door, header):
    with pytest.raises(Unauthorized):
        door.auth.authenticate(header)


# ── another key


def test_a_new_key_needs_the_old_one_and_the_name_if_that_is_told(house):
    keys = {name: house.person(name)[0] for name in (OWNER, TEAMMATE)}
    session, token = house.auth.login(OWNER, keys[OWNER])
    caller, new_key = house.auth.authenticate(f"Bearer {token}"), new_derived_key()
    house.hasher.asked.clear()
    refused = set()
    for key, name in ((new_key, None), (keys[OWNER], TEAMMATE), (keys[TEAMMATE], TEAMMATE), (keys[OWNER], STRANGER)):
        with pytest.raises(Unauthorized) as raised:
            house.auth.change_derived_key(caller, key, new_key, module.UNKNOWN, name)
        refused.add(raised.value.message)
    assert refused == {"Invalid credentials"}
    assert house.hasher.asked == ["verify"] * 4
    assert house.auth.authenticate(f"Bearer {token}") == caller
    for key, after, name in ((keys[OWNER], new_key, OWNER), (new_key, keys[OWNER], None)):
        session, token = house.auth.change_derived_key(caller, key, after, module.UNKNOWN, name)
        assert house.auth.login(OWNER, after)[0].user_id == session.user_id == caller.user_id
        assert house.auth.authenticate(f"Bearer {token}").session_id == session.id
    assert house.auth.login(TEAMMATE, keys[TEAMMATE])


# ── client keys and API tokens


def with_secrets(house: House) -> dict[Credential, tuple[int, str]]:
    """Somebody's user id and Authorization header, by the kind of what it holds."""
    _, header = house.person(OWNER)
    user_id = house.auth.authenticate(header).user_id
    key = house.client_keys.create(user_id, {"name": "k"}, None)[1]
    token = house.api_tokens.create(user_id, "t", None)[1]
    texts = {Credential.ACCESS_TOKEN: header, Credential.CLIENT_KEY: f"Bearer {key}"}
    return {kind: (user_id, text) for kind, text in (texts | {Credential.API_TOKEN: f"Bearer {token}"}).items()}


@pytest.mark.parametrize("accepted", [ACCESS_TOKEN, FOR_CALLS, FOR_READING])
def test_each_kind_of_credential_works_where_it_is_accepted_and_nowhere_else(house, accepted):
    for kind, (user_id, header) in with_secrets(house).items():
        if kind in accepted:
            caller = house.auth.authenticate(header, accepted)
            assert (caller.user_id, caller.credential) == (user_id, kind)
            assert (caller.client_key_id is None) == (kind is not Credential.CLIENT_KEY)
        else:
            with pytest.raises(Forbidden, match=rf"This takes an access token.*of another kind \({kind}\)"):
                house.auth.authenticate(header, accepted)


def test_where_nothing_is_said_only_access_tokens_are_accepted(house):
    for kind, (_, header) in with_secrets(house).items():
        if kind is not Credential.ACCESS_TOKEN:
            with pytest.raises(Forbidden):
                house.auth.authenticate(header)


@pytest.mark.parametrize("state", [UserState.SILENCED, UserState.DISABLED])
def test_who_may_not_call_cannot_with_any_credential(house, state):
    everything = ACCESS_TOKEN | FOR_CALLS | FOR_READING
    held = with_secrets(house)
    [user_id] = {user_id for user_id, _ in held.values()}
    house.users.set_state(user_id, state)
    house.users.reload()
    for _, header in held.values():
        with pytest.raises(Forbidden, match="This account"):
            house.auth.authenticate(header, everything)
        if state is UserState.SILENCED:
            assert house.auth.authenticate(header, everything, may_call=False)
    house.users.set_state(user_id, UserState.ACTIVE)
    house.users.reload()
    assert all(house.auth.authenticate(header, everything) for _, header in held.values())


def test_an_unknown_a_revoked_and_an_expired_key_get_one_answer(house):
    user_id = house.auth.authenticate(house.person(OWNER)[1]).user_id
    revoked, revoked_text = house.client_keys.create(user_id, {"name": "k"}, None)
    house.client_keys.revoke(revoked.id)
    soon = house.clock.now() + timedelta(minutes=1)
    expired_text = house.client_keys.create(user_id, {"name": "k", "expires_at": soon}, None)[1]
    assert house.auth.authenticate(f"Bearer {expired_text}", FOR_CALLS)
    house.clock.advance(minutes=1)
    said = set()
    for text in (revoked_text, expired_text, "sk-auto-", "sk-auto-' OR 1=1-- ", "sk-auto-" + "A" * 43):
        with pytest.raises(Unauthorized) as raised:
            house.auth.authenticate(f"Bearer {text}", FOR_CALLS)
        said.add(raised.value.message)
    assert said == {"The client key is unknown, revoked or expired"}
    with pytest.raises(Unauthorized, match="The API token is unknown, revoked or expired"):
        house.auth.authenticate("Bearer or_api_' OR 1=1-- ", FOR_READING)


def test_a_key_is_no_api_token_and_no_hash_is_either(house):
    held = with_secrets(house)
    key = held[Credential.CLIENT_KEY][1].removeprefix("Bearer sk-auto-")
    for text in (f"or_api_{key}", key, sha256_hex(f"sk-auto-{key}"), f"sk-auto-{sha256_hex(f'sk-auto-{key}')}"):
        with pytest.raises(Unauthorized):
            house.auth.authenticate(f"Bearer {text}", FOR_CALLS | FOR_READING)


def test_logging_out_ends_no_key(house):
    held = with_secrets(house)
    house.auth.logout(house.auth.authenticate(held[Credential.ACCESS_TOKEN][1]))
    assert house.auth.authenticate(held[Credential.CLIENT_KEY][1], FOR_CALLS)
