"""Accounts: one for each name, found by a keyed hash, and in memory those who may not call."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from accounts.sessions import UserSessions
from accounts.users import UpstreamChoice, UserRole, Users, UserState
from db import Database
from foundation.crypto import keyed_name
from foundation.errors import Conflict, NotFound, Unauthorized, UsernameTaken
from tables import revisions
from tables import users as table
from tests.support.movable_clock import MovableClock

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


@given(st.lists(st.text(st.characters(codec="utf-8"), min_size=1), min_size=1, max_size=5, unique=True))
def test_names_that_differ_in_anything_are_different_accounts(db, users, names):
    db.transact(lambda tx: tx.execute(table.delete()))
    made = {name: users.create(name, "hash") for name in names}
    assert len(set(made.values())) == len(names)
    assert {name: users.find(name).id for name in names} == made


def test_a_login_is_noted(db, users, clock):
    _, other_id = users.create(OWNER, "hash"), users.create(TEAMMATE, "hash")
    clock.advance(hours=1)
    before = users.find(OWNER)
    db.transact(lambda tx: users.note_log_in(tx, before))
    assert users.find(OWNER).last_login == clock.now()
    assert users.find(OWNER).key_hash == "hash"
    db.transact(lambda tx: users.note_log_in(tx, before, "newer hash"))
    assert users.find(OWNER).key_hash == "newer hash"
    with pytest.raises(Unauthorized):  # the key was proved with the hash of before
        db.transact(lambda tx: users.note_log_in(tx, before))
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
    db.transact(lambda tx: users.note_log_in(tx, users.get(user_id)))
    assert revision(db) == before


def test_memory_holds_the_active_people_with_a_role_and_nobody_else(db, users):
    owner, teammate, stranger = (users.create(name, "hash") for name in (OWNER, TEAMMATE, STRANGER))
    users.reload()
    assert users.roles == {}
    users.change(owner, role=UserRole.ADMIN)
    users.change(teammate, role=UserRole.AUDITOR)
    users.change(stranger, trust_level=4)
    assert users.roles == {}
    users.reload()
    assert users.roles == {owner: UserRole.ADMIN, teammate: UserRole.AUDITOR}
    for state in (UserState.SILENCED, UserState.DISABLED):
        users.change(owner, state=state)
        users.reload()
        assert users.roles == {teammate: UserRole.AUDITOR}
    users.change(owner, state=UserState.ACTIVE)
    users.change(teammate, role=UserRole.USER)
    users.reload()
    assert users.roles == {owner: UserRole.ADMIN}


def test_a_change_returns_what_was_and_what_is_and_touches_nobody_else(db, users, clock):
    owner, teammate = users.create(OWNER, "hash"), users.create(TEAMMATE, "hash")
    before, stored_teammate, number = users.get(owner), stored(db)[1], revision(db)
    clock.advance(hours=1)
    was, now = users.change(owner, UserState.SILENCED, UserRole.ADMIN, 3)
    assert was == before
    assert now == users.get(owner)
    assert (now.state, now.role, now.trust_level) == (UserState.SILENCED, UserRole.ADMIN, 3)
    assert now.changes_since(was)["user_changed"] == {
        "state": "silenced",
        "old_state": "active",
        "role": "admin",
        "old_role": "user",
        "trust_level": 3,
        "old_trust_level": 0,
    }
    assert (stored(db)[0]["updated_at"], stored(db)[1], revision(db)) == (clock.now(), stored_teammate, number + 1)
    clock.advance(hours=1)
    was, now = users.change(owner, role=UserRole.ADMIN, trust_level=3)
    assert (was, now.changes_since(was)) == (now, {})
    assert revision(db) == number + 1
    was, now = users.change(owner, label="laptop 3")
    assert (now.label, now.changes_since(was)) == ("laptop 3", {"user_labelled": {}})  # not what it is called
    assert users.change(owner, trust_level=3, label="")[1].label is None
    with pytest.raises(NotFound):
        users.change(owner + teammate, trust_level=1)


def test_disabling_ends_the_sessions_of_this_user_and_silencing_none(db, users, clock):
    sessions = UserSessions(db, clock, timedelta(hours=1), timedelta(days=7), b"r" * 32)
    owner, teammate = users.create(OWNER, "hash"), users.create(TEAMMATE, "hash")
    of_owner, _ = sessions.start(owner), sessions.start(teammate)
    users.change(owner, state=UserState.SILENCED)
    sessions.reload()
    assert sessions.ended == set()
    users.change(owner, state=UserState.DISABLED)
    sessions.reload()
    assert sessions.ended == {of_owner.id}


def test_a_service_account_stays_one_and_nobody_becomes_one(db, users):
    owner, service = users.create(OWNER, "hash"), users.create(TEAMMATE, "none")
    db.transact(lambda tx: tx.execute(table.update().where(table.c.id == service).values(role=UserRole.SERVICE)))
    for user_id, role in ((service, UserRole.ADMIN), (service, UserRole.USER), (owner, UserRole.SERVICE)):
        with pytest.raises(Conflict):
            users.change(user_id, UserState.SILENCED, role)
    assert [row["role"] for row in stored(db)] == ["user", "service"]
    assert {row["state"] for row in stored(db)} == {"active"}
    users.change(service, UserState.DISABLED, UserRole.SERVICE)
    assert users.get(service).state is UserState.DISABLED


def test_pages_are_newest_first_and_filters_hold_together(users):
    ids = [users.create(f"{number}", "hash") for number in range(5)]
    users.change(ids[1], UserState.SILENCED, trust_level=2)
    users.change(ids[3], UserState.SILENCED, UserRole.ADMIN)

    def found(page: int, size: int, **wanted: object) -> tuple[list[int], int]:
        items, total = users.page(page, size, wanted)
        assert all(item == users.get(item.id) for item in items)
        return [item.id for item in items], total

    assert found(1, 2) == ([ids[4], ids[3]], 5)
    assert found(3, 2) == ([ids[0]], 5)
    assert found(4, 2) == ([], 5)
    assert found(1, 20, state="silenced") == ([ids[3], ids[1]], 2)
    assert found(1, 20, state="silenced", trust_level=0) == ([ids[3]], 1)
    assert found(1, 20, role="admin", trust_level=2) == ([], 0)


@pytest.mark.parametrize("name", ["Ann", "用户 🔑 é", "é" * 100, None])
def test_a_name_to_be_called_by_is_ones_own_and_tells_no_process(db, users, clock, name):
    owner, teammate = users.create(OWNER, "h"), users.create(TEAMMATE, "h")
    before, seen = users.get(teammate), revision(db)
    users.set_display_name(owner, "before")
    clock.advance(seconds=1)
    users.set_display_name(owner, name)
    assert users.get(owner).display_name == name
    assert users.get(teammate) == before
    assert [row["updated_at"] for row in stored(db)] == [clock.now(), before.created_at]
    assert revision(db) == seen


def test_what_the_owner_sees_of_an_account_operators_do_not_and_neither_sees_a_hash(users):
    user_id = users.create(OWNER, "the hash")
    users.set_display_name(user_id, "Ann")
    user = users.get(user_id)
    assert user.profile().keys() - user.to_dict().keys() == {"display_name", "shares_display_name", "avatar_url"}
    assert user.to_dict().keys() - user.profile().keys() == {"label", "user_label"}
    assert (user.profile()["display_name"], user.profile()["avatar_url"]) == ("Ann", None)
    assert "the hash" not in str(user.profile())
    assert "Ann" not in str(user.to_dict())
