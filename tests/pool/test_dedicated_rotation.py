"""Users' own keys, against the stand-in: each active user has one, with the limit asked for, and nobody else has any."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from accounts.users import UpstreamChoice, Users, UserState
from api_key_manager import ApiKeyManager
from config.settings import Config
from db import Database, database_url
from foundation.crypto import Envelopes
from foundation.money import NANO
from pool.life import PoolKeyRow, PoolKeySource, PoolKeyState
from pool.rotation_plan import MAX_DEDICATED, MIN_LIMIT_NANO
from replicas.processes import GatewayProcess
from tests.sandbox.conftest import Running
from tests.support.gateway import run
from tests.support.movable_clock import MovableClock
from tests.support.rotor import PREFIX, Account, Rotor
from tests.test_key_rotation import all_rows, opened, settings_of
from upstream.openrouter.management_api import ManagementError

OWNER, OTHER, STRANGER = "owner", "other", "stranger"
ON = {"dedicated_keys": "on"}


class World(Rotor):
    """A rotation with users."""

    def __init__(self, *parts: Any, **settings: Any) -> None:
        super().__init__(*parts, **ON | settings)
        self.users = Users(self.db, b"k" * 32, self.clock)

    def user(self, name: str) -> int:
        found = self.users.find(name)
        return found.id if found else self.users.create(name, "hash")

    def own(self, user_id: int) -> PoolKeyRow | None:
        """The key that gateways would pick for this user."""
        return self.keys.dedicated([user_id]).get(user_id)

    def get(self, user_id: int) -> PoolKeyRow:
        row = self.own(user_id)
        assert row
        return row

    def remote(self, user_id: int) -> Any:
        """A user's key as OpenRouter lists it."""
        return self.account.listed()[self.get(user_id).name]

    def spend(self, user_id: int) -> int:
        """One call with the user's own key; returns what it has spent so far, in nano-dollars."""
        row = self.get(user_id)
        assert self.account.stand_in.chat(self.keys.text(row.id)).status_code == 200
        self.keys.add_uses({row.id: 1})
        return self.account.stand_in.spent(row.api_key_hash)


@pytest.fixture
def account(stand_in: Running) -> Iterator[Account]:
    yield Account(stand_in)
    stand_in.control("DELETE", "faults")


@pytest.fixture
def world(db: Database, envelopes: Envelopes, account: Account) -> World:
    return World(db, envelopes, account)


@pytest.fixture
def new_world(tmp_path: Path, envelopes: Envelopes, account: Account) -> Iterator[Callable[..., World]]:
    """On SQLite; all share one database."""
    db = Database(database_url(Config(database_url=f"sqlite:///{tmp_path}/world.db")))
    db.upgrade()
    yield lambda **settings: World(db, envelopes, account, **settings)
    db.close()


# ── who gets one


def test_each_active_user_gets_a_key_with_the_limit_asked_for_and_nothing_of_them_at_openrouter(world, account):
    owner, other, silenced = (world.user(name) for name in (OWNER, OTHER, "silenced"))
    world.users.set_state(silenced, UserState.SILENCED)
    assert world.run()
    assert {row.owner_id for row in world.keys.rows()} == {None, owner, other}
    assert len(world.keys.rows("shared")) == 3
    assert world.get(owner).id != world.get(other).id
    remote = world.remote(owner)
    assert (remote["limit"], remote["limit_reset"]) == (5, "monthly")
    assert len(remote["name"]) == len(PREFIX) + 32
    assert (remote["external_user"], OWNER in json.dumps(account.listed())) == (None, False)
    left = datetime.fromisoformat(remote["expires_at"]) - datetime.now(UTC)
    assert timedelta(days=89.9) < left < timedelta(days=90.1)
    assert world.steps() == []
    latecomer = world.user("latecomer")
    world.run()
    assert world.own(latecomer)
    assert len(account.listed()) == 6


def test_nobody_gets_one_unless_it_is_switched_on(new_world, account):
    world = new_world(dedicated_keys="off")
    world.user(OWNER)
    assert world.run()
    assert len(account.listed()) == 3


def test_shared_keys_count_alone_for_whether_the_pool_is_full(new_world):
    world = new_world(pool_size=2)
    for name in (OWNER, OTHER, STRANGER):
        world.user(name)
    world.run()
    for row in world.keys.rows("shared"):
        world.keys.set_enabled(row.name, False)
    assert not world.rotation().is_full()
    assert world.run()
    assert len(world.names(PoolKeyState.ACTIVE)) == 7


def test_of_very_many_users_a_pass_serves_some_after_the_shared_pool(new_world, account):
    world = new_world(pool_size=1)
    for number in range(MAX_DEDICATED + 3):
        world.user(f"user {number}")
    assert world.run()
    assert world.keys.rows()[0].owner_id is None
    assert len(account.listed()) == MAX_DEDICATED + 1
    world.run()
    assert len(account.listed()) == MAX_DEDICATED + 4


def test_gateways_pick_a_users_key_for_that_user_only(world):
    owner, other = world.user(OWNER), world.user(OTHER)
    world.run()
    stranger = world.user(STRANGER)
    pool = ApiKeyManager(world.keys, world.clock)
    pool.reload()
    own = {user_id: pool.pick(owner=user_id, choice=UpstreamChoice.DEDICATED_ONLY) for user_id in (owner, other)}
    for user_id, key in own.items():
        assert (key.id, key.owner_id) == (world.get(user_id).id, user_id)
        assert world.account.stand_in.chat(key.authorization.decode().split()[2]).status_code == 200
    shared = {row.id for row in world.keys.rows("shared")}
    assert {pool.pick(owner=stranger, choice=UpstreamChoice.DEDICATED_FIRST).id for _ in range(60)} == shared


# ── who loses it


@pytest.mark.parametrize("state", [UserState.DISABLED, UserState.SILENCED])
def test_who_may_not_call_any_more_loses_their_key_at_openrouter_too(world, account, state):
    owner, other = world.user(OWNER), world.user(OTHER)
    world.run()
    name, others = world.get(owner).name, world.remote(other)
    world.users.set_state(owner, state)
    world.run()
    assert world.own(owner) is None
    assert not account.listed()[name]["disabled"]  # its calls end first
    world.settle(seconds=61)
    assert account.listed()[name]["disabled"]
    world.settle(minutes=61)
    assert name not in account.listed()
    assert world.row(name).state is PoolKeyState.DELETED
    assert world.remote(other) == others
    world.users.set_state(owner, UserState.ACTIVE)
    world.run()
    assert world.get(owner).name != name


def test_a_call_on_a_withdrawn_key_ends_before_the_key_does(world, account):
    owner = world.user(OWNER)
    world.run()
    row = world.get(owner)
    process = GatewayProcess(world.db, world.clock)
    world.users.set_state(owner, UserState.DISABLED)
    world.run()
    for _ in range(3):
        process.beat(10**6, {str(row.id): {"in_flight": 1}})
        world.clock.advance(minutes=10)
        world.run()
        assert not account.listed()[row.name]["disabled"]
    process.beat(10**6, {})
    world.run()
    assert account.listed()[row.name]["disabled"]


def test_switched_off_all_of_them_go_and_the_shared_pool_stays(new_world, account):
    world = new_world()
    for name in (OWNER, OTHER):
        world.user(name)
    world.run()
    world.fewest = 99
    off = new_world(dedicated_keys="off")
    off.clock.time = world.clock.time
    off.run()
    assert off.keys.owners(only_inactive=False) == set()
    for minutes in (2, 62):
        off.settle(minutes=minutes)
    assert set(account.listed()) == {row.name for row in off.keys.rows("shared") if row.state is PoolKeyState.ACTIVE}
    assert off.usable() == 3


# ── renewal, and what it must not give away


def test_a_key_is_renewed_after_two_thirds_of_its_life_and_its_user_is_never_without(world, account):
    owner = world.user(OWNER)
    world.run()
    first = world.get(owner)
    world.settle(days=59)
    assert world.get(owner).id == first.id
    world.settle(days=1, hours=1)
    assert world.get(owner).replaces_id == first.id
    assert world.row(first.name).state is PoolKeyState.DRAINING
    world.settle(minutes=2)
    world.settle(minutes=62)
    assert [row.owner_id for row in world.keys.rows() if row.state is PoolKeyState.ACTIVE].count(owner) == 1
    assert first.name not in account.listed()


@pytest.mark.parametrize("how", ["asked for", "dead", "left and back"])
def test_a_new_key_in_the_same_period_may_spend_what_the_old_one_left(world, account, how):
    owner = world.user(OWNER)
    world.run()
    old = world.get(owner)
    spent = world.spend(owner)
    world.run()  # which notes what is left
    assert world.get(owner).remaining_nano == 5 * NANO - spent
    if how == "asked for":
        world.rotation().renew(old.name)
    elif how == "dead":
        account.manage("DELETE", f"/keys/{old.api_key_hash}")
        world.run()
    else:
        for state in (UserState.DISABLED, UserState.ACTIVE):
            world.users.set_state(owner, state)
            world.run()
    new = world.get(owner)
    assert new.id != old.id
    assert round(world.remote(owner)["limit"] * NANO) == new.limit_nano == 5 * NANO - spent


def test_a_spent_key_leaves_a_cent_and_the_next_period_begins_with_the_whole_limit(world, account):
    owner = world.user(OWNER)
    world.run()
    old = world.get(owner)
    spent = world.spend(owner)
    account.manage("PATCH", f"/keys/{old.api_key_hash}", json={"limit": spent / NANO})
    world.run()
    world.rotation().renew(old.name)
    assert round(world.remote(owner)["limit"] * NANO) == MIN_LIMIT_NANO
    world.settle(minutes=1)
    assert round(world.remote(owner)["limit"] * NANO) == MIN_LIMIT_NANO
    world.settle(days=31)
    remote = world.remote(owner)
    assert (remote["limit"], remote["limit_reset"]) == (5, "monthly")
    world.run()  # which notes it
    assert world.get(owner).limit_nano == 5 * NANO


def test_a_changed_limit_comes_into_force_with_a_keys_next_period(new_world):
    world = new_world()
    owner = world.user(OWNER)
    world.run()
    spent = world.spend(owner)
    changed = new_world(dedicated_key_limit_usd=2.5, dedicated_key_limit_reset="weekly")
    changed.clock.time = world.clock.time
    changed.settle(minutes=1)
    assert changed.remote(owner)["limit"] == 5
    changed.settle(days=8)
    remote = changed.remote(owner)
    assert (remote["limit"], remote["limit_reset"]) == (2.5, "weekly")
    changed.run()  # which notes it
    assert changed.get(owner).limit_nano == 5 * NANO // 2
    assert round(remote["usage"] * NANO) == spent


def test_a_limit_that_cannot_be_set_now_is_set_in_the_next_pass(new_world, account):
    world = new_world(dedicated_key_limit_reset="daily", pool_size=1)
    owner = world.user(OWNER)
    world.run()
    account.manage("PATCH", f"/keys/{world.get(owner).api_key_hash}", json={"limit": 1})
    account.fail("500", method="PATCH")
    world.clock.advance(hours=24)
    with pytest.raises(ManagementError, match="status 500"):
        world.run()
    assert world.remote(owner)["limit"] == 1
    world.run()
    assert world.remote(owner)["limit"] == 5


# ── when it goes wrong


@pytest.mark.parametrize("scenario", ["500", "429c", "drop"])
def test_a_users_key_whose_create_answer_was_lost_is_deleted_and_another_one_made(world, account, scenario):
    world.run()
    owner = world.user(OWNER)
    account.fail(scenario, after=True)
    with pytest.raises(ManagementError):
        world.run()
    assert world.run()  # the pool is full, and nothing more is begun for this user
    assert [row.state for row in world.keys.rows(owner)] == [PoolKeyState.INTENT]
    world.settle(minutes=6)
    assert [row.state for row in world.keys.rows(owner)] == [PoolKeyState.ABANDONED, PoolKeyState.ACTIVE]
    assert set(account.listed()) == world.names(PoolKeyState.ACTIVE)


def test_a_users_key_that_was_stored_but_not_used_is_completed(world):
    owner = world.user(OWNER)
    expires_at = world.clock.now() + timedelta(days=90)
    row_id = world.keys.intend(PREFIX + "a" * 32, expires_at, 5 * NANO, None, owner)
    world.keys.store(row_id, world.api.create(PREFIX + "a" * 32, 5, "monthly", expires_at))
    world.run()
    assert world.get(owner).id == row_id
    assert len(world.keys.rows(owner)) == 1


def test_a_dead_key_is_replaced_in_the_pass_that_finds_it(world, account):
    owner, other = world.user(OWNER), world.user(OTHER)
    world.run()
    dead, others = world.get(owner), world.get(other)
    account.manage("DELETE", f"/keys/{dead.api_key_hash}")
    world.run()
    assert world.row(dead.name).state is PoolKeyState.DEAD
    assert world.get(owner).id != dead.id
    assert world.get(other).id == others.id


def test_a_claimed_copy_gives_its_users_keys_of_their_own(new_world, account):
    world = new_world()
    owner = world.user(OWNER)
    world.run()
    before, name = account.listed(), world.get(owner).name
    copy = new_world(deployment_id="copy")
    assert name in copy.rotation().claim()
    assert copy.own(owner) is None
    copy.run()
    assert copy.get(owner).name.startswith("gw/copy/")
    assert {key: account.listed()[key] for key in before} == before


def test_keys_of_people_are_shared_ones(new_world, account):
    world = new_world(pool_size=1)
    world.keys.add(account.make("mine")["key"], "mine", PoolKeySource.OPERATOR)
    owner = world.user(OWNER)
    world.run()
    assert [row.owner_id for row in world.keys.rows()] == [None, owner]


# ── the program


def test_the_program_counts_them_apart_and_tells_whose_they_are(account, tmp_path):
    program = settings_of(f"sqlite:///{tmp_path}/x.db", account, tmp_path)
    program |= {"DEDICATED_KEYS": "on", "DEDICATED_KEY_LIMIT_USD": "0.5"}
    run("key_rotation.py", "--once", **program)
    db = opened(program)
    owner = Users(db, b"k" * 32, MovableClock()).create(OWNER, "hash")
    db.close()
    shown = run("key_rotation.py", "--dry-run", **program)
    assert json.loads(shown.stdout) == {"step": "mint", "key": None, "owner": owner}
    assert run("key_rotation.py", "--once", **program).returncode == 0
    assert [row["owner_id"] for row in all_rows(program)] == [None, None, owner]
    status = run("key_rotation.py", "--status", **program)
    [active] = [line for line in map(json.loads, status.stdout.splitlines()) if line["keys"]]
    assert (active["keys"], active["dedicated"]) == (3, 1)
    assert run("key_rotation.py", "--status", **program | {"POOL_SIZE": 3}).returncode == 1
