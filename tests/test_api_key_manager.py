"""The pool: keys encrypted in the database, picked at random from memory, counted without loss, never shown."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from cryptography.fernet import Fernet
from hypothesis import given, settings
from hypothesis import strategies as st

import api_key_manager as module
from api_key_manager import ApiKeyManager, KeyAlreadyKnown, KeySource, KeyState, PoolKey
from config import Config
from crypto import Envelopes, SealBroken, sha256_hex
from db import Database, DatabaseError, api_keys, database_url, revisions
from errors import AppError, Busy, NotFound, PaymentRequired, TooManyRequests
from tests.conftest import ENCRYPTION_KEY, MovableClock


@pytest.fixture
def pool(db: Database, envelopes: Envelopes, clock: MovableClock) -> ApiKeyManager:
    return ApiKeyManager(db, envelopes, clock)


def key_text(number: int) -> str:
    return f"sk-or-v1-{number:064x}"


def filled(pool: ApiKeyManager, count: int) -> list[int]:
    """Put keys into the pool and load them. Returns their ids."""
    ids = [pool.add(key_text(number), f"key {number}", KeySource.OPERATOR) for number in range(count)]
    pool.reload()
    return ids


def rows(db: Database) -> dict[int, dict[str, object]]:
    with db.reading() as tx:
        return {row.id: row._asdict() for row in tx.execute(sa.select(api_keys))}


def change(db: Database, row_id: int, **values: object) -> None:
    db.transact(lambda tx: tx.execute(api_keys.update().where(api_keys.c.id == row_id).values(values)))


def picks(pool: ApiKeyManager, times: int = 200) -> set[int]:
    return {pool.pick().id for _ in range(times)}


class Memory(ApiKeyManager):
    """A pool of keys that no database has, for what happens in memory alone."""

    def __init__(self, clock: MovableClock, count: int) -> None:
        super().__init__(None, None, clock)
        self._keys = tuple(PoolKey(number, f"key {number}", key_text(number), float("inf")) for number in range(count))

    @property
    def keys(self) -> tuple[PoolKey, ...]:
        return self._keys


# ── picking


def test_a_picked_key_carries_its_header_and_shows_nothing(pool):
    filled(pool, 1)
    key = pool.pick()
    assert key.authorization == f"Authorization: Bearer {key_text(0)}\r\n".encode()
    assert key_text(0) not in f"{key!r} {key}"


@pytest.mark.parametrize("resting", [0, 5])
def test_every_usable_key_is_picked_about_equally_often(clock, resting):
    pool = Memory(clock, 10)
    for key in pool.keys[:resting]:
        pool.rest(key, 60, 429)
    counted = Counter(pool.pick().id for _ in range(10_000))
    expected = 10_000 / (10 - resting)
    assert set(counted) == set(range(resting, 10))
    assert all(0.8 * expected < times < 1.2 * expected for times in counted.values())


def test_a_key_that_was_tried_is_not_picked_again(clock):
    pool = Memory(clock, 3)
    tried: list[PoolKey] = []
    for _ in range(3):
        tried.append(pool.pick(tried))
    assert len(set(tried)) == 3
    with pytest.raises(Busy):
        pool.pick(tried)


def test_a_resting_key_is_picked_again_when_its_rest_is_over(clock):
    pool = Memory(clock, 2)
    pool.rest(pool.keys[0], 30, 429)
    assert picks(pool) == {1}
    assert (pool.usable_count(), pool.known_count()) == (1, 2)
    clock.advance(seconds=29.9)
    assert picks(pool) == {1}
    clock.advance(seconds=0.1)
    assert picks(pool) == {0, 1}
    assert (pool.usable_count(), pool.known_count()) == (2, 2)


def test_a_key_is_not_picked_in_its_last_minutes(pool, clock):
    row_id = pool.intend("expiring", clock.now() + timedelta(hours=1))
    pool.store(row_id, key_text(7))
    pool.move(row_id, KeyState.ACTIVE)
    pool.reload()
    clock.advance(minutes=49, seconds=59)
    assert picks(pool) == {row_id}
    clock.advance(seconds=1)
    assert (pool.usable_count(), pool.known_count()) == (0, 0)
    with pytest.raises(Busy):
        pool.pick()


class CountingTries(Collection):
    """Nothing was tried; but it counts how many keys were considered."""

    def __init__(self) -> None:
        self.looks = 0

    def __contains__(self, _: object) -> bool:
        self.looks += 1
        return False

    def __iter__(self):
        return iter(())

    def __len__(self) -> int:
        return 0


@pytest.mark.parametrize("count", [10, 10_000])
def test_a_pick_considers_one_key_however_many_there_are(clock, count):
    pool, tried = Memory(clock, count), CountingTries()
    for _ in range(100):
        pool.pick(tried)
    assert tried.looks == 100


@pytest.mark.parametrize("count", [10, 10_000])
def test_one_usable_key_is_found_among_many_resting_ones(clock, count):
    pool = Memory(clock, count)
    for key in pool.keys[1:]:
        pool.rest(key, 60, 429)
    assert picks(pool, 5) == {0}


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(["usable", "resting", "expired", "tried"]), max_size=12))
def test_whatever_the_state_of_the_keys_only_a_usable_one_is_picked(states):
    clock = MovableClock()
    pool = Memory(clock, len(states))
    for key, state in zip(pool.keys, states, strict=True):
        if state == "resting":
            pool.rest(key, 60, 429)
        if state == "expired":
            key.expires_at = clock.timestamp()
    tried = [key for key, state in zip(pool.keys, states, strict=True) if state == "tried"]
    assert pool.usable_count() == states.count("usable") + states.count("tried")
    try:
        assert states[pool.pick(tried).id] == "usable"
    except AppError as error:
        assert "usable" not in states
        assert isinstance(error, TooManyRequests if "resting" in states else Busy)


# ── nothing to pick


def test_an_empty_pool_is_busy_for_a_moment(clock):
    with pytest.raises(Busy) as raised:
        Memory(clock, 0).pick()
    assert raised.value.headers == {"Retry-After": "5"}


@pytest.mark.parametrize(("seconds", "told"), [((30, 12.2), "13"), ((0.01, 5), "1"), ((3600, 7200), "60"), ((2,), "2")])
def test_a_pool_that_rests_tells_when_the_first_key_is_back(clock, seconds, told):
    pool = Memory(clock, len(seconds))
    for key, rest in zip(pool.keys, seconds, strict=True):
        pool.rest(key, rest, 429)
    with pytest.raises(TooManyRequests) as raised:
        pool.pick()
    assert raised.value.headers == {"Retry-After": told}


def test_a_pool_out_of_credit_asks_for_its_operator_and_not_for_patience(clock):
    pool = Memory(clock, 2)
    for key in pool.keys:
        pool.rest(key, 60, 402)
    with pytest.raises(PaymentRequired):
        pool.pick()
    pool.rest(pool.keys[0], 61, 429)
    with pytest.raises(TooManyRequests):
        pool.pick()


def test_a_lesser_refusal_does_not_shorten_a_rest(clock):
    pool = Memory(clock, 1)
    pool.rest(pool.keys[0], 60, 402)
    pool.rest(pool.keys[0], 5, 429)
    clock.advance(seconds=59)
    assert pool.usable_count() == 0
    with pytest.raises(PaymentRequired):
        pool.pick()


def test_a_key_that_rests_for_credit_does_not_hide_a_usable_one(clock):
    pool = Memory(clock, 2)
    pool.rest(pool.keys[0], 60, 402)
    assert picks(pool) == {1}
    with pytest.raises(PaymentRequired):
        pool.pick([pool.keys[1]])


# ── what is loaded


@pytest.mark.parametrize("state", [state for state in KeyState if state is not KeyState.ACTIVE])
def test_only_active_keys_are_loaded(pool, db, state):
    [row_id, active] = filled(pool, 2)
    change(db, row_id, state=state)
    pool.reload()
    assert picks(pool) == {active}


def test_a_disabled_key_is_not_loaded_until_it_is_enabled(pool):
    [first, second] = filled(pool, 2)
    pool.set_enabled("key 0", False)
    pool.reload()
    assert picks(pool) == {second}
    pool.set_enabled("key 0", True)
    pool.reload()
    assert picks(pool) == {first, second}


def test_a_key_that_stays_keeps_its_rest_over_a_reload(pool):
    [first, _] = filled(pool, 2)
    pool.rest(next(key for key in iter(pool.pick, None) if key.id == first), 60, 429)
    pool.add(key_text(9), "key 9", KeySource.OPERATOR)
    pool.reload()
    assert pool.known_count() == 3
    assert first not in picks(pool)


def unreadable(pool: ApiKeyManager, caplog: pytest.LogCaptureFixture) -> list[str]:
    """The names of the keys that a fresh load could not read."""
    caplog.clear()
    with caplog.at_level(logging.ERROR, "pool"):
        pool.reload()
    assert all(record.levelno == logging.ERROR for record in caplog.records)
    assert not any(text in str(record.__dict__) for record in caplog.records for text in map(key_text, range(5)))
    return sorted(record.fields["key"] for record in caplog.records if record.getMessage() == "pool_key_unreadable")


@pytest.fixture
def fresh(db: Database, envelopes: Envelopes, clock: MovableClock) -> ApiKeyManager:
    """Another process: nothing in memory yet."""
    return ApiKeyManager(db, envelopes, clock)


@pytest.mark.parametrize("columns", [["api_key"], ["api_key", "api_key_hash"]])
def test_swapped_ciphertexts_are_not_used_and_left_as_evidence(pool, fresh, db, caplog, columns):
    [first, second, third] = filled(pool, 3)
    before = rows(db)
    change(db, second, api_key_hash="in between")
    change(db, first, **{name: before[second][name] for name in columns})
    change(
        db, second, **{"api_key_hash": before[second]["api_key_hash"]} | {name: before[first][name] for name in columns}
    )
    swapped = rows(db)
    assert unreadable(fresh, caplog) == ["key 0", "key 1"]
    assert picks(fresh) == {third}
    assert rows(db) == swapped


def test_a_key_under_anothers_hash_is_not_used(pool, fresh, db, caplog):
    [first, second] = filled(pool, 2)
    change(db, first, api_key_hash=sha256_hex(key_text(3)))
    assert unreadable(fresh, caplog) == ["key 0"]
    assert picks(fresh) == {second}


def flipped(text: str) -> str:
    middle = len(text) // 2
    return text[:middle] + ("A" if text[middle] != "A" else "B") + text[middle + 1 :]


@pytest.mark.parametrize(
    "damage",
    [
        lambda row: {"api_key": flipped(row["api_key"])},
        lambda row: {"api_key": None},
        lambda row: {"api_key": ""},
        lambda row: {"api_key": key_text(0)},
        lambda row: {"api_key": row["api_key"][:-5]},
        lambda row: {"api_key_hash": None},
        lambda row: {"api_key_hash": flipped(row["api_key_hash"])},
    ],
    ids=["flipped", "null", "empty", "in-clear", "cut", "no-hash", "other-hash"],
)
def test_a_damaged_row_costs_one_key_and_is_left_as_evidence(pool, fresh, db, caplog, damage):
    [first, second] = filled(pool, 2)
    change(db, first, **damage(rows(db)[first]))
    damaged = rows(db)
    assert unreadable(fresh, caplog) == ["key 0"]
    assert picks(fresh) == {second}
    assert rows(db) == damaged
    with pytest.raises(SealBroken):
        fresh.stored_text(first)


def test_a_wrong_encryption_key_reads_no_key_and_changes_none(pool, db, clock, caplog):
    filled(pool, 2)
    before = rows(db)
    other = ApiKeyManager(db, Envelopes([Fernet.generate_key().decode()]), clock)
    assert unreadable(other, caplog) == ["key 0", "key 1"]
    assert rows(db) == before


def test_a_new_encryption_key_before_the_old_one_reads_all_keys(pool, db, clock):
    ids = filled(pool, 3)
    newer = ApiKeyManager(db, Envelopes([Fernet.generate_key().decode(), ENCRYPTION_KEY]), clock)
    newer.reload()
    assert picks(newer) == set(ids)


def test_no_key_is_in_the_database_in_clear(envelopes, clock, tmp_path):
    url = f"sqlite:///{tmp_path}/pool.db"
    db = Database(database_url(Config(database_url=url)))
    db.upgrade()
    pool = ApiKeyManager(db, envelopes, clock)
    filled(pool, 3)
    row_id = pool.intend("minted", clock.now() + timedelta(hours=1))
    pool.store(row_id, key_text(3))
    for key in [pool.pick(), pool.pick()]:
        pool.rest(key, 1, 429)
    pool.write_counts()
    before = b"".join(path.read_bytes() for path in Path(tmp_path).iterdir())
    pool.move(row_id, KeyState.DELETED)
    db.close()
    after = b"".join(path.read_bytes() for path in Path(tmp_path).iterdir())
    for kept in (before, after):
        assert b"minted" in kept
        assert sha256_hex(key_text(3)).encode() in kept
        for number in range(4):
            assert key_text(number).encode() not in kept
            assert key_text(number).removeprefix("sk-or-v1-").encode() not in kept


def test_no_column_holds_a_key_in_clear(pool, db):
    filled(pool, 3)
    shown = str(rows(db)) + str(pool.rows())
    assert "sk-or-v1" not in shown
    assert sha256_hex(key_text(0)) in shown


# ── counting


def test_uses_are_added_up_with_the_time_of_the_last(pool, db, clock):
    [first, second] = filled(pool, 2)
    counted = Counter(pool.pick().id for _ in range(100))
    assert rows(db)[first]["use_count"] == 0
    clock.advance(minutes=1)
    pool.write_counts()
    assert {row_id: row["use_count"] for row_id, row in rows(db).items()} == dict(counted)
    assert rows(db)[first]["last_used"] == clock.now()
    clock.advance(minutes=1)
    pool.write_counts()
    assert rows(db)[second]["last_used"] == clock.now() - timedelta(minutes=1)


def test_a_key_that_was_not_used_is_not_touched(pool, db, clock):
    [first, second] = filled(pool, 2)
    before = rows(db)[second]
    for _ in range(20):
        pool.pick([key for key in pool._keys if key.id == second])
    pool.write_counts()
    assert rows(db)[first]["use_count"] == 20
    assert rows(db)[second] == before


def test_counts_of_several_processes_add_up(pool, fresh, db):
    [row_id] = filled(pool, 1)
    fresh.reload()
    for _ in range(3):
        pool.pick(), fresh.pick(), fresh.pick()
        pool.write_counts()
    fresh.write_counts()
    assert rows(db)[row_id]["use_count"] == 9


def test_no_use_is_lost_or_counted_twice_while_threads_pick_and_count(pool, db):
    filled(pool, 3)

    def use(_: int) -> None:
        for _ in range(50):
            pool.pick()
        pool.write_counts()

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(use, range(16)))
    assert sum(row["use_count"] for row in rows(db).values()) == 800


def test_counts_wait_for_a_database_that_is_away(mariadb, envelopes, clock):
    db = Database(database_url(Config(database_url=mariadb.new_database())))
    db.upgrade()
    pool = ApiKeyManager(db, envelopes, clock)
    [row_id] = filled(pool, 1)
    pool.pick()
    mariadb.stop()
    try:
        with pytest.raises(DatabaseError):
            pool.write_counts()
        pool.pick()
        with pytest.raises(DatabaseError):
            pool.write_counts()
    finally:
        mariadb.start()
    pool.write_counts()
    assert rows(db)[row_id]["use_count"] == 2
    pool.write_counts()
    assert rows(db)[row_id]["use_count"] == 2
    db.close()


def test_a_count_does_not_make_every_process_reload(pool, db):
    filled(pool, 1)
    before = revision(db)
    pool.pick()
    pool.write_counts()
    assert revision(db) == before


# ── what operators and the rotation do


def revision(db: Database) -> int:
    with db.reading() as tx:
        return tx.scalar(sa.select(revisions.c.value).where(revisions.c.name == "api_keys"))


def test_an_added_key_is_active_at_once_and_told_to_every_process(pool, db, clock):
    before = revision(db)
    row_id = pool.add(key_text(1), "mine", KeySource.OPERATOR)
    [row] = pool.rows()
    assert (row.id, row.name, row.state, row.source) == (row_id, "mine", KeyState.ACTIVE, KeySource.OPERATOR)
    assert (row.enabled, row.use_count, row.last_used, row.expires_at) == (True, 0, None, None)
    assert row.api_key_hash == sha256_hex(key_text(1))
    assert row.created_at == row.updated_at == clock.now()
    assert revision(db) == before + 1


@pytest.mark.parametrize(("text", "name"), [(key_text(1), "other"), (key_text(2), "mine"), (key_text(1), "mine")])
def test_a_known_key_or_name_is_refused_and_nothing_is_written(pool, db, text, name):
    pool.add(key_text(1), "mine", KeySource.OPERATOR)
    before = rows(db), revision(db)
    with pytest.raises(KeyAlreadyKnown):
        pool.add(text, name, KeySource.OPERATOR)
    assert (rows(db), revision(db)) == before


def test_a_key_that_was_deleted_stays_known(pool):
    row_id = pool.add(key_text(1), "mine", KeySource.OPERATOR)
    pool.move(row_id, KeyState.DELETED)
    with pytest.raises(KeyAlreadyKnown):
        pool.add(key_text(1), "other", KeySource.OPERATOR)


def test_a_minted_key_goes_from_intent_to_deleted(pool, db, clock):
    row_id = pool.intend("minted", clock.now() + timedelta(hours=72))
    assert (pool.rows()[0].state, pool.rows()[0].api_key_hash) == (KeyState.INTENT, None)
    pool.store(row_id, key_text(1))
    assert pool.rows()[0].state is KeyState.STORED
    assert pool.stored_text(row_id) == key_text(1)
    pool.reload()
    assert pool.known_count() == 0
    for state, known in ((KeyState.ACTIVE, 1), (KeyState.DRAINING, 0)):
        before = revision(db)
        clock.advance(hours=1)
        pool.move(row_id, state)
        assert (pool.rows()[0].state, pool.rows()[0].updated_at) == (state, clock.now())
        assert revision(db) == before + 1
        pool.reload()
        assert pool.known_count() == known
        assert pool.stored_text(row_id) == key_text(1)
    pool.move(row_id, KeyState.DELETED)
    assert rows(db)[row_id]["api_key"] is None
    assert rows(db)[row_id]["api_key_hash"] == sha256_hex(key_text(1))


def test_an_abandoned_key_loses_its_text(pool, db, clock):
    row_id = pool.intend("minted", clock.now() + timedelta(hours=72))
    pool.store(row_id, key_text(1))
    pool.move(row_id, KeyState.ABANDONED)
    assert rows(db)[row_id]["api_key"] is None


def test_enabling_an_unknown_key_is_refused_by_name(pool, db):
    filled(pool, 1)
    before = rows(db)
    with pytest.raises(NotFound, match="There is no key named 'nobody'"):
        pool.set_enabled("nobody", False)
    assert rows(db) == before


def test_enabling_what_is_enabled_is_no_fault(pool):
    filled(pool, 1)
    pool.set_enabled("key 0", True)
    assert pool.rows()[0].enabled


def test_rows_are_listed_oldest_first_with_all_but_the_text(pool):
    filled(pool, 3)
    assert [row.name for row in pool.rows()] == ["key 0", "key 1", "key 2"]
    assert "api_key" not in module.KeyRow.__dataclass_fields__
