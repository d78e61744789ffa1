"""Identities: one account for each person of each provider, whatever else a provider says of them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta

import pytest
import sqlalchemy as sa

from accounts.sign_on.identities import ProviderIdentities
from accounts.sign_on.provider import ProviderProfile
from accounts.users import User, Users, UserState
from db import Database
from foundation.clock import Clock
from foundation.crypto import DerivedKeyHasher, WrongDerivedKey
from foundation.errors import Conflict, NotFound
from replicas import revisions
from tables import identities as table
from tables import users as users_table
from tests.support.gateway import new_derived_key
from tests.support.movable_clock import MovableClock

ANN = ProviderProfile("4711", "Ann", "https://avatars.people.test/ann.png", trust_level=2)
BOB = ProviderProfile("4712", "Ann", "https://avatars.people.test/ann.png", trust_level=2)  # calls himself Ann


@pytest.fixture
def users(db: Database, clock: MovableClock) -> Users:
    return Users(db, b"k" * 32, clock)


@pytest.fixture
def identities(db: Database, clock: MovableClock) -> ProviderIdentities:
    return ProviderIdentities(db, clock)


def entered(
    identities: ProviderIdentities, users: Users, profile: ProviderProfile = ANN, provider: str = "linuxdo"
) -> User:
    return users.get(identities.enter(provider, profile)[0])


def row_of(db: Database, user_id: int) -> sa.Row:
    with db.reading() as tx:
        return tx.execute(sa.select(users_table).where(users_table.c.id == user_id)).one()


def revision(db: Database) -> int:
    with db.reading() as tx:
        return revisions.current(tx, "users")


def test_somebody_new_gets_an_account_and_finds_it_again(db, identities, users, clock):
    user_id, is_new, *_ = identities.enter("linuxdo", ANN)
    assert is_new
    row = row_of(db, user_id)
    assert (row.display_name, row.avatar_url) == ("Ann", ANN.avatar_url)
    assert (row.state, row.role, row.trust_level) == ("active", "user", 2)
    clock.advance(days=1)
    assert identities.enter("linuxdo", replace(ANN, display_name="Ann B."))[:3] == (user_id, False, False)
    assert row_of(db, user_id).display_name == "Ann"  # the owner may have changed it here
    [shown] = identities.of(user_id)
    assert (shown.provider, shown.display_name) == ("linuxdo", "Ann B.")
    assert shown.last_login - shown.linked_at == timedelta(days=1)


def test_the_same_id_elsewhere_or_the_same_name_is_somebody_else(identities):
    people = [("linuxdo", ANN), ("github", ANN), ("linuxdo", BOB), ("github", BOB)]
    accounts = [identities.enter(provider, profile) for provider, profile in people]
    assert len({user_id for user_id, *_ in accounts}) == 4
    assert all(is_new for _, is_new, *_ in accounts)


def test_the_same_id_at_another_address_of_the_provider_is_somebody_else(identities, users):
    here, there = (replace(ANN, issuer=f"https://{name}.example") for name in ("github", "git.company"))
    account = entered(identities, users, here)
    assert identities.enter("linuxdo", here)[:3] == (account.id, False, False)
    assert entered(identities, users, there).id != account.id
    owner = users.create("bob@example.com", "x")
    identities.link(owner, "github", here)
    assert identities.enter("github", there).user_id != owner


def test_nobody_logs_in_to_such_an_account_with_a_name_and_a_key(db, identities, users):
    user = entered(identities, users)
    row = row_of(db, user.id)
    for name in ("linuxdo/4711", "4711", "Ann", row.username_hash):
        assert users.find(name) is None
    assert "4711" not in row.username_hash
    with pytest.raises(WrongDerivedKey):
        DerivedKeyHasher(1).verify(user.key_hash, new_derived_key())


def test_a_new_account_of_somebody_silenced_there_is_silenced_here(db, identities, users):
    before = revision(db)
    user_id, *_ = identities.enter("linuxdo", replace(ANN, is_silenced=True))
    assert row_of(db, user_id).state == "silenced"
    assert revision(db) > before
    users.reload()
    assert users.restricted == {user_id: UserState.SILENCED}


def test_who_is_silenced_there_later_is_silenced_here_at_the_next_log_in_and_once(db, identities, users):
    user = entered(identities, users)
    before = revision(db)
    assert identities.enter("linuxdo", replace(ANN, is_silenced=True))[:3] == (user.id, False, True)
    assert row_of(db, user.id).state == "silenced"
    assert revision(db) > before
    users.set_state(user.id, UserState.ACTIVE)  # by an operator, who has the last word
    assert identities.enter("linuxdo", replace(ANN, is_silenced=True))[:3] == (user.id, False, False)
    assert row_of(db, user.id).state == "active"
    identities.enter("linuxdo", ANN)
    assert identities.enter("linuxdo", replace(ANN, is_silenced=True))[:3] == (user.id, False, True)
    identities.enter("linuxdo", ANN)
    assert row_of(db, user.id).state == "silenced"  # only an operator lifts it


def test_what_a_provider_silences_stays_disabled_and_a_linked_account_is_left_alone(db, identities, users):
    user = entered(identities, users)
    users.set_state(user.id, UserState.DISABLED)
    assert not identities.enter("linuxdo", replace(ANN, is_silenced=True)).is_silenced
    assert row_of(db, user.id).state == "disabled"
    owner = users.create("bob@example.com", "x")
    identities.link(owner, "linuxdo", BOB)
    assert identities.enter("linuxdo", replace(BOB, is_silenced=True))[:3] == (owner, False, False)
    assert row_of(db, owner).state == "active"


def test_trust_follows_the_provider_until_an_operator_sets_it(db, identities, users):
    user = entered(identities, users)
    for level in (4, 0, 3):
        assert entered(identities, users, replace(ANN, trust_level=level)).trust_level == level
    users.change(user.id, trust_level=1)
    for level in (3, 4, 2):
        assert entered(identities, users, replace(ANN, trust_level=level)).trust_level == 1


def test_linking_gives_no_trust(identities, users):
    user_id = users.create("ann@example.com", "x")
    identities.link(user_id, "linuxdo", replace(ANN, trust_level=4))
    assert identities.enter("linuxdo", replace(ANN, trust_level=4))[:3] == (user_id, False, False)
    assert users.get(user_id).trust_level == 0


def test_of_parallel_first_log_ins_one_makes_the_account(db):
    identities = ProviderIdentities(db, Clock())
    for number in range(5):
        profile = replace(ANN, subject=str(number))
        with ThreadPoolExecutor(8) as threads:
            found = list(threads.map(lambda _, profile=profile: identities.enter("github", profile), range(8)))
        assert len({user_id for user_id, *_ in found}) == 1
        assert [is_new for _, is_new, *_ in found].count(True) == 1


def test_a_linked_log_in_leads_to_the_account_it_was_linked_to(identities, users):
    owner, teammate = (users.create(f"{name}@example.com", "x") for name in "ab")
    stranger = entered(identities, users, BOB).id
    identities.link(owner, "linuxdo", ANN)
    assert identities.enter("linuxdo", ANN)[:3] == (owner, False, False)
    assert [len(identities.of(user_id)) for user_id in (owner, teammate, stranger)] == [1, 0, 1]


def test_a_log_in_has_one_account_and_an_account_one_of_each_provider(identities, users):
    owner, teammate = (users.create(f"{name}@example.com", "x") for name in "ab")
    stranger = entered(identities, users, BOB).id
    identities.link(owner, "linuxdo", ANN)
    for user_id, profile in (
        (teammate, ANN),
        (stranger, ANN),
        (teammate, BOB),
        (owner, BOB),
        (owner, replace(ANN, subject="9")),
    ):
        with pytest.raises(Conflict):
            identities.link(user_id, "linuxdo", profile)
    assert identities.enter("linuxdo", ANN)[:3] == (owner, False, False)
    assert identities.enter("linuxdo", BOB)[:3] == (stranger, False, False)
    identities.link(owner, "github", ANN)
    assert [one.provider for one in identities.of(owner)] == ["github", "linuxdo"]


def test_one_unlinks_ones_own_and_nobody_elses(identities, users):
    owner, teammate = (users.create(f"{name}@example.com", "x") for name in "ab")
    identities.link(owner, "linuxdo", ANN)
    for user_id, provider in ((teammate, "linuxdo"), (owner, "github")):
        with pytest.raises(NotFound):
            identities.unlink(user_id, provider)
    identities.unlink(owner, "linuxdo")
    assert identities.of(owner) == []
    user_id, is_new, *_ = identities.enter("linuxdo", ANN)
    assert (is_new, user_id == owner) == (True, False)


def test_an_account_without_a_key_keeps_its_last_log_in(identities, users):
    owner = entered(identities, users).id
    with pytest.raises(Conflict, match="only way"):
        identities.unlink(owner, "linuxdo")
    identities.link(owner, "github", ANN)
    identities.unlink(owner, "linuxdo")
    with pytest.raises(Conflict):
        identities.unlink(owner, "github")
    # Whoever comes with what was unlinked is somebody new, although the account was once made for it.
    assert identities.enter("linuxdo", ANN)[1]


def test_of_parallel_unlinkings_one_leaves_the_last_log_in(db):
    identities, users = ProviderIdentities(db, Clock()), Users(db, b"k" * 32, Clock())
    for number in range(10):
        profile = replace(ANN, subject=str(number))
        owner = entered(identities, users, profile).id
        identities.link(owner, "github", profile)

        def unlink(provider: str, owner: int = owner) -> bool:
            try:
                identities.unlink(owner, provider)
            except Conflict:
                return False
            return True

        with ThreadPoolExecutor(2) as threads:
            assert sorted(threads.map(unlink, ["github", "linuxdo"])) == [False, True]
        assert len(identities.of(owner)) == 1


def test_subjects_differ_in_their_case(identities):
    ids = [identities.enter("oidc", replace(ANN, subject=subject))[0] for subject in ("abc", "ABC")]
    assert len(set(ids)) == 2


def test_nothing_of_an_e_mail_address_is_kept(db):
    assert not [column for column in (*table.columns, *users_table.columns) if "mail" in column.name]
