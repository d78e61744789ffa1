"""Accounts: one for each name, found by a keyed hash, and in memory those who may not call."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crypto import keyed_name
from db import Database
from errors import NotFound, UsernameTaken
from tables import revisions
from tables import users as table
from tests.movable_clock import MovableClock
from users import UpstreamChoice, Users, UserState

KEY = b"k" * 32
OWNER, TEAMMATE, STRANGER = "owner@example.com", "teammate@example.com", "stranger@example.com"


@pytest.fixture
def users(db: Database, clock: MovableClock) -> Users:
    return Users(db, KEY, clock)


def stored(db: Database) -> list[dict[str, object]]:
    with db.reading() as tx:
        return [row._asdict() for row in tx.execute(sa.select(table).order_by(table.c.id))]


def revision(db: Database) -> int:
    with db.reading() as tx:
        return tx.scalar(sa.select(revisions.c.value).where(revisions.c.name == "users"))


def test_a_new_account_is_active_and_has_never_logged_in(users, clock):
    user_id = users.create(OWNER, "hash")
    user = users.find(OWNER)
    assert (user.id, user.key_hash, user.state) == (user_id, "hash", UserState.ACTIVE)
    assert (user.created_at, user.last_login) == (clock.now(), None)
    assert users.find_by_id(user_id) == user


def test_a_name_is_stored_as_a_keyed_hash_only(db, users):
    users.create(OWNER, "hash")
    [row] = stored(db)
    assert row["username_hash"] == keyed_name(KEY, OWNER) == users.name_hash(OWNER)
    assert "owner" not in str(row)


def test_people_are_told_apart(users):
    owner, teammate = users.create(OWNER, "owner's"), users.create(TEAMMATE, "teammate's")
    assert users.find(OWNER).id == owner != teammate == users.find(TEAMMATE).id
    assert users.find(TEAMMATE).key_hash == "teammate's"
    assert users.find(STRANGER) is None
    assert not users.exists(STRANGER)
    assert users.find_by_id(owner + teammate + 1) is None


def test_another_username_key_finds_nobody(db, users, clock):
    users.create(OWNER, "hash")
    assert Users(db, b"l" * 32, clock).find(OWNER) is None


def test_a_taken_name_is_refused_and_its_account_untouched(db, users):
    users.create(OWNER, "hash")
    before = stored(db)
    assert users.exists(OWNER)
    with pytest.raises(UsernameTaken):
        users.create(OWNER, "other hash")
    assert stored(db) == before


def test_of_parallel_registrations_of_one_name_exactly_one_wins(db, users):
    def register(number: int) -> int | None:
        try:
            return users.create(OWNER, f"hash {number}")
        except UsernameTaken:
            return None

    with ThreadPoolExecutor(8) as threads:
        made = [user_id for user_id in threads.map(register, range(24)) if user_id is not None]
    assert [row["id"] for row in stored(db)] == made
    assert len(made) == 1


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text(st.characters(codec="utf-8"), min_size=1), min_size=1, max_size=5, unique=True))
def test_names_that_differ_in_anything_are_different_accounts(db, users, names):
    db.transact(lambda tx: tx.execute(table.delete()))
    made = {name: users.create(name, "hash") for name in names}
    assert len(set(made.values())) == len(names)
    assert {name: users.find(name).id for name in names} == made


def test_a_login_is_noted(users, clock):
    user_id, other_id = users.create(OWNER, "hash"), users.create(TEAMMATE, "hash")
    clock.advance(hours=1)
    users.logged_in(user_id)
    assert users.find(OWNER).last_login == clock.now()
    assert users.find(OWNER).key_hash == "hash"
    users.logged_in(user_id, "newer hash")
    assert users.find(OWNER).key_hash == "newer hash"
    assert (users.find_by_id(other_id).last_login, users.find_by_id(other_id).key_hash) == (None, "hash")


def test_memory_holds_those_who_may_not_call_and_nobody_else(db, users):
    owner, teammate, _ = (users.create(name, "hash") for name in (OWNER, TEAMMATE, STRANGER))
    users.reload()
    assert users.restricted == {}
    users.set_state(owner, UserState.DISABLED)
    users.set_state(teammate, UserState.SILENCED)
    assert users.restricted == {}
    users.reload()
    assert users.restricted == {owner: UserState.DISABLED, teammate: UserState.SILENCED}
    users.set_state(owner, UserState.ACTIVE)
    users.reload()
    assert users.restricted == {teammate: UserState.SILENCED}


def test_memory_holds_the_choices_that_differ_and_no_others(db, users):
    owner, teammate, stranger = (users.create(name, "hash") for name in (OWNER, TEAMMATE, STRANGER))
    before = revision(db)
    users.set_upstream_choice(owner, UpstreamChoice.DEDICATED_ONLY)
    users.set_upstream_choice(teammate, UpstreamChoice.SHARED_FIRST)
    assert revision(db) == before + 2
    assert users.upstream_choice(owner) is UpstreamChoice.DEDICATED_FIRST
    users.reload()
    choices = [users.upstream_choice(user_id) for user_id in (owner, teammate, stranger)]
    assert choices == [UpstreamChoice.DEDICATED_ONLY, UpstreamChoice.SHARED_FIRST, UpstreamChoice.DEDICATED_FIRST]
    assert [users.get(user_id).upstream_choice for user_id in (owner, teammate, stranger)] == choices
    assert users.restricted == {}
    users.set_upstream_choice(owner, UpstreamChoice.DEDICATED_FIRST)
    users.reload()
    assert set(users._choices) == {teammate}
    assert [row["upstream_choice"] for row in stored(db)] == [None, "shared_first", None]
    assert users.get(teammate).state is UserState.ACTIVE
    with pytest.raises(NotFound):
        users.get(owner + teammate + stranger)


def test_a_change_of_state_tells_every_process(db, users, clock):
    user_id = users.create(OWNER, "hash")
    before = revision(db)
    clock.advance(hours=1)
    users.set_state(user_id, UserState.DISABLED)
    assert revision(db) == before + 1
    assert users.find(OWNER).state is UserState.DISABLED
    assert stored(db)[0]["updated_at"] == clock.now()


def test_a_login_tells_nobody(db, users):
    user_id = users.create(OWNER, "hash")
    before = revision(db)
    users.logged_in(user_id)
    assert revision(db) == before
