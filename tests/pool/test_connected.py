"""Users' own accounts: one for each, encrypted, gone when it is disconnected, and nothing that the rotation touches."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import sqlalchemy as sa
from cryptography.fernet import Fernet

from accounts.users import UpstreamChoice, Users, UserState
from api_key_manager import ApiKeyManager
from config.settings import Config
from db import Database
from foundation.crypto import Envelopes, SealBroken, sha256_hex
from foundation.errors import Busy, Conflict, NotFound, UpstreamFailed
from pool.connected import ConnectedAccounts, Method
from pool.keys import PoolKeys
from pool.life import PoolKeySource, PoolKeyState
from pool.overview import pool_overview
from tables import openrouter_accounts, pool_keys, revisions
from tests.conftest import ENCRYPTION_KEY
from tests.support.movable_clock import MovableClock
from tests.support.rotor import Account, Rotor
from upstream.dial import dial_directly
from upstream.http import UpstreamHttp
from upstream.openrouter.account_api import AccountApi
from upstream.openrouter.key_facts import KeyAccount
from vault.reencrypt import reencrypt, survey

TOLD = KeyAccount("a" * 64, 20 * 10**9, 15 * 10**9, 5 * 10**9, label="sk-or-v1-abc...123")
DEDICATED_FIRST, SHARED_FIRST, DEDICATED_ONLY = UpstreamChoice
numbers = itertools.count(1)


def text() -> str:
    return f"sk-or-v1-{next(numbers):064x}"


class World:
    """A database with three users, their accounts, and the pool that a gateway has in memory."""

    def __init__(self, db: Database, envelopes: Envelopes, clock: MovableClock, all_have_own: bool = False) -> None:
        self.db, self.clock, self.envelopes = db, clock, envelopes
        self.users = Users(db, b"k" * 32, clock)
        self.owner, self.teammate, self.stranger = (
            self.users.create(f"{name} {next(numbers)}", "hash") for name in ("owner", "teammate", "stranger")
        )
        self.keys = PoolKeys(db, envelopes, clock)
        api = AccountApi(UpstreamHttp("http://127.0.0.1:1", 1, dial=dial_directly), Config())
        self.accounts = ConnectedAccounts(db, self.keys, clock, api)
        self.pool = ApiKeyManager(self.keys, clock, 0, self.users.upstream_choice, all_have_own)

    def connect(self, user_id: int, given: str | None = None, told: KeyAccount | None = TOLD) -> str:
        given = given or text()
        self.accounts.connect(user_id, given, Method.KEY, told)
        return given

    def rows(self, user_id: int) -> list[sa.Row[tuple[object, ...]]]:
        with self.db.reading() as tx:
            query = sa.select(pool_keys).where(pool_keys.c.owner_id == user_id).order_by(pool_keys.c.id)
            return list(tx.execute(query))

    def picked(self, user_id: int) -> int:
        """The id of the row that a call of this user gets."""
        key = self.pool.pick(owner=user_id, choice=self.pool.choice_of(user_id))
        self.pool.release(key)
        return key.id

    def minted(self, user_id: int | None) -> int:
        row_id = self.keys.intend(f"m {next(numbers)}", self.clock.now() + timedelta(days=9), None, None, user_id)
        self.keys.store(row_id, text())
        self.keys.switch(row_id, self.clock.now(), None)
        return row_id

    def revision(self) -> int:
        with self.db.reading() as tx:
            return tx.scalar(sa.select(revisions.c.value).where(revisions.c.name == "api_keys"))


@pytest.fixture
def world(db: Database, envelopes: Envelopes, clock: MovableClock) -> World:
    return World(db, envelopes, clock)


# ── connected, shown, disconnected


def test_a_connection_is_its_owners_alone_and_its_key_is_encrypted(world, clock):
    before = world.revision()
    given = world.connect(world.owner)
    found = world.accounts.get(world.owner)
    assert (found.user_id, found.method, found.label) == (world.owner, Method.KEY, TOLD.label)
    assert (found.limit_nano, found.remaining_nano, found.usage_nano) == (20 * 10**9, 15 * 10**9, 5 * 10**9)
    assert found.connected_at == found.checked_at == clock.now()
    [row] = world.rows(world.owner)
    assert (row.id, row.source, row.state) == (found.pool_key_id, PoolKeySource.CONNECTED, PoolKeyState.ACTIVE)
    assert (row.account_id, row.api_key_hash, row.expires_at) == (TOLD.account_id, sha256_hex(given), None)
    assert given not in str(row)
    assert world.accounts.key_text(found) == given
    assert world.revision() > before
    for other in (world.teammate, world.stranger):
        assert world.accounts.find(other) is None
        with pytest.raises(NotFound, match="No OpenRouter account"):
            world.accounts.get(other)


def test_a_ciphertext_opens_in_its_own_row_alone(world, db):
    world.connect(world.owner)
    world.connect(world.teammate)
    [stolen], [row] = world.rows(world.owner), world.rows(world.teammate)
    db.transact(
        lambda tx: tx.execute(pool_keys.update().where(pool_keys.c.id == row.id).values(api_key=stolen.api_key))
    )
    assert world.accounts.key_text(world.accounts.get(world.teammate)) is None


def test_connecting_again_replaces_the_key_also_by_itself(world):
    first, second = world.connect(world.owner), world.connect(world.owner)
    world.connect(world.owner, second)
    rows = world.rows(world.owner)
    assert [(row.state, row.api_key, row.api_key_hash) for row in rows[:2]] == [(PoolKeyState.DELETED, None, None)] * 2
    assert world.accounts.key_text(world.accounts.get(world.owner)) == second != first
    world.connect(world.teammate, first)  # nobody has it any more


def test_a_key_that_is_in_use_is_refused_and_the_connection_stays(world):
    theirs, pooled = world.connect(world.teammate), text()
    world.keys.add(pooled, "mine", PoolKeySource.OPERATOR)
    mine = world.connect(world.owner)
    for taken in (theirs, pooled):
        with pytest.raises(Conflict, match="in use here already") as raised:
            world.connect(world.owner, taken)
        assert taken not in raised.value.message
    assert world.accounts.key_text(world.accounts.get(world.owner)) == mine
    assert [row.state for row in world.rows(world.owner)] == [PoolKeyState.ACTIVE]


def test_disconnecting_overwrites_the_key(world):
    given = world.connect(world.owner)
    world.connect(world.teammate)
    account, before = world.accounts.get(world.owner), world.revision()
    assert world.accounts.disconnect(world.owner)
    assert world.accounts.find(world.owner) is None
    assert world.accounts.key_text(account) is None
    [row] = world.rows(world.owner)
    assert (row.state, row.api_key, row.api_key_hash) == (PoolKeyState.DELETED, None, None)
    assert world.revision() > before
    assert not world.accounts.disconnect(world.owner)
    assert world.accounts.find(world.teammate)
    world.connect(world.owner, given)


def test_what_is_told_later_is_noted_unless_the_connection_is_another_one(world, clock):
    world.connect(world.owner, told=None)
    old = world.accounts.get(world.owner)
    assert (old.label, old.checked_at, old.limit_nano) == (None, None, None)
    clock.advance(seconds=5)
    world.accounts.note(old, TOLD)
    noted = world.accounts.get(world.owner)
    assert (noted.label, noted.checked_at, noted.remaining_nano) == (TOLD.label, clock.now(), TOLD.remaining_nano)
    world.connect(world.owner, told=None)
    world.accounts.note(old, TOLD)
    assert world.accounts.get(world.owner).label is None


def test_of_parallel_connections_one_stays(world, db):
    texts = [text() for _ in range(8)]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda given: world.connect(world.owner, given), texts))
    with db.reading() as tx:
        [connection] = tx.execute(sa.select(openrouter_accounts)).all()
    alive = [row.id for row in world.rows(world.owner) if row.state == PoolKeyState.ACTIVE]
    assert alive == [connection.pool_key_id]
    assert sum(row.api_key is not None for row in world.rows(world.owner)) == 1


# ── what calls get


def test_calls_of_the_owner_alone_get_it_and_follow_its_end(world):
    shared = world.minted(None)
    world.connect(world.owner)
    world.pool.reload()
    own = world.accounts.get(world.owner).pool_key_id
    assert {world.picked(world.owner) for _ in range(9)} == {own}
    for other in (world.teammate, world.stranger):
        assert world.pool.choice_of(other) is None
        assert {world.picked(other) for _ in range(9)} == {shared}
    assert world.pool.usable_count() == 1
    world.accounts.disconnect(world.owner)
    world.pool.reload()
    assert world.pool.choice_of(world.owner) is None
    assert world.picked(world.owner) == shared


def test_who_has_none_costs_no_query(world, db):
    world.minted(None)
    world.connect(world.owner)
    world.pool.reload()
    world.picked(world.owner)
    queries = []
    sa.event.listen(db._engine, "before_cursor_execute", lambda *about: queries.append(about[2]))
    for user_id in (world.owner, world.teammate, world.stranger):
        world.picked(user_id)
        world.pool.is_connected(user_id)
    assert queries == []


def test_a_connected_key_wins_over_a_minted_one_whichever_is_newer(db, envelopes, clock):
    world = World(db, envelopes, clock, all_have_own=True)
    older = world.minted(world.owner)
    world.connect(world.owner)
    newer = world.minted(world.owner)
    world.pool.reload()
    own = world.accounts.get(world.owner).pool_key_id
    assert older < own < newer
    assert world.picked(world.owner) == own
    world.accounts.disconnect(world.owner)
    world.pool.reload()
    assert world.picked(world.owner) == newer


def test_a_key_that_does_not_open_says_to_connect_again_where_no_other_may_step_in(world, db):
    shared = world.minted(None)
    world.connect(world.owner)
    [row] = world.rows(world.owner)
    db.transact(lambda tx: tx.execute(pool_keys.update().where(pool_keys.c.id == row.id).values(api_key="x")))
    world.pool.reload()
    assert world.picked(world.owner) == shared
    with pytest.raises(UpstreamFailed, match="connect the account again"):
        world.pool.pick(owner=world.owner, choice=DEDICATED_ONLY)
    with pytest.raises(Busy, match="being made"):
        world.pool.pick(owner=world.teammate, choice=DEDICATED_ONLY)


# ── the rotation, the check, the encryption key


@pytest.fixture
def rotation(db: Database, envelopes: Envelopes, account: Account) -> Callable[..., tuple[Rotor, World]]:
    def make(**settings: object) -> tuple[Rotor, World]:
        rotor = Rotor(db, envelopes, account, pool_size=1, **settings)
        return rotor, World(db, envelopes, rotor.clock)

    return make


@pytest.mark.parametrize("dedicated", ["off", "on"])
def test_the_rotation_lets_connected_keys_be(rotation, account, dedicated):
    rotor, world = rotation(dedicated_keys=dedicated)
    foreign, same = account.stand_in.new_key()["key"], account.make("gw/not/ours")["key"]
    world.connect(world.owner, foreign)
    world.connect(world.teammate, same)  # of the operator's own account, even
    rotor.run()
    before = world.rows(world.owner), world.rows(world.teammate)
    minted = [row for row in rotor.keys.rows() if row.source is PoolKeySource.MINTED]
    everybody = {world.owner, world.teammate, world.stranger}
    assert {row.owner_id for row in minted} == {None, *(everybody if dedicated == "on" else ())}
    rotor.settle(days=100)
    world.users.set_state(world.owner, UserState.DISABLED)
    rotor.settle(days=100)
    assert rotor.keys.dedicated([world.owner])[world.owner].source is PoolKeySource.CONNECTED
    connected = [
        [row for row in world.rows(user_id) if row.source == PoolKeySource.CONNECTED]
        for user_id in (world.owner, world.teammate)
    ]
    assert connected == [[row for row in rows if row.source == PoolKeySource.CONNECTED] for rows in before]
    for given in (foreign, same):
        assert account.stand_in.chat(given).status_code == 200
    assert all(step.row is None or step.row.source is not PoolKeySource.CONNECTED for step in rotor.steps())


def test_a_claimed_copy_keeps_them(rotation, new_rotor):
    rotor, world = rotation()
    given = world.connect(world.owner)
    rotor.run()
    rotor.settings = rotor.settings.model_copy(update={"deployment_id": "copy"})
    rotor.rotation().claim()
    assert world.accounts.key_text(world.accounts.get(world.owner)) == given


def test_a_damaged_one_is_left_as_it_is(rotation, db):
    rotor, world = rotation()
    world.connect(world.owner)
    [row] = world.rows(world.owner)
    db.transact(lambda tx: tx.execute(pool_keys.update().where(pool_keys.c.id == row.id).values(api_key="x")))
    rotor.run()
    assert [(row.state, row.api_key) for row in world.rows(world.owner)] == [(PoolKeyState.ACTIVE, "x")]


def test_a_new_encryption_key_seals_them_anew(world, db, clock):
    given = world.connect(world.owner)
    new = Fernet.generate_key().decode()
    both = Envelopes([new, ENCRYPTION_KEY])
    assert sum(changed for _, changed in reencrypt(db, both)) == 1
    assert survey(db, both).is_done
    only_new = PoolKeys(db, Envelopes([new]), clock)
    [row] = world.rows(world.owner)
    assert only_new.text(row.id) == given
    assert isinstance(world.keys.texts([row.id])[row.id], SealBroken)


def test_operators_see_it_among_users_keys_without_its_text(world, db, clock):
    given = world.connect(world.owner)
    assert pool_overview(world.keys, db, clock.now()).keys == []
    [shown] = pool_overview(world.keys, db, clock.now(), whose=world.owner).keys
    told = shown.to_dict()
    assert (told["source"], told["owner_id"], told["state"]) == ("connected", world.owner, "active")
    assert given not in str(told)
    assert world.keys.in_use() == []
