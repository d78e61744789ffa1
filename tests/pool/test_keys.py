"""The pool's rows: keys encrypted and never shown, moves only along their life, damage left as evidence."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from cryptography.fernet import Fernet

from config.settings import Config
from db import Database, database_url
from foundation.crypto import Envelopes, SealBroken, sha256_hex
from foundation.errors import NotFound
from pool.keys import KeyAlreadyKnown, MoveRefused, PoolKeys
from pool.life import BEFORE, WITHOUT_TEXT, PoolKeyRow, PoolKeySource, PoolKeyState
from tables import pool_keys, revisions
from tests.conftest import ENCRYPTION_KEY
from tests.support.movable_clock import MovableClock

pytestmark = pytest.mark.mysql

STATES = list(PoolKeyState)


@pytest.fixture
def pool(db: Database, envelopes: Envelopes, clock: MovableClock) -> PoolKeys:
    return PoolKeys(db, envelopes, clock)


def key_text(number: int) -> str:
    return f"sk-or-v1-{number:064x}"


def filled(pool: PoolKeys, count: int) -> list[int]:
    """Put keys into the pool. Returns their ids."""
    return [pool.add(key_text(number), f"key {number}", PoolKeySource.OPERATOR) for number in range(count)]


def rows(db: Database) -> dict[int, dict[str, object]]:
    with db.reading() as tx:
        return {row.id: row._asdict() for row in tx.execute(sa.select(pool_keys))}


def change(db: Database, row_id: int, **values: object) -> None:
    db.transact(lambda tx: tx.execute(pool_keys.update().where(pool_keys.c.id == row_id).values(values)))


def revision(db: Database) -> int:
    with db.reading() as tx:
        return tx.scalar(sa.select(revisions.c.value).where(revisions.c.name == "api_keys"))


def minted(pool: PoolKeys, clock: MovableClock, number: int = 7, replaces: int | None = None) -> int:
    row_id = pool.intend(f"minted {number}", clock.now() + timedelta(hours=72), 10**10, replaces)
    pool.store(row_id, key_text(number))
    return row_id


# ── new rows


def test_an_added_key_is_active_at_once_and_told_to_every_process(pool, db, clock):
    before = revision(db)
    row_id = pool.add(key_text(1), "mine", PoolKeySource.OPERATOR)
    [row] = pool.rows()
    assert (row.id, row.name, row.state, row.source) == (row_id, "mine", PoolKeyState.ACTIVE, PoolKeySource.OPERATOR)
    assert (row.enabled, row.use_count, row.last_used, row.expires_at) == (True, 0, None, None)
    assert (row.account_id, row.limit_nano, row.remaining_nano) == (None, None, None)
    assert row.api_key_hash == sha256_hex(key_text(1))
    assert row.created_at == row.updated_at == clock.now()
    assert revision(db) == before + 1
    assert pool.in_use() == [row]


@pytest.mark.parametrize(("text", "name"), [(key_text(1), "other"), (key_text(2), "mine"), (key_text(1), "mine")])
def test_a_known_key_or_name_is_refused_and_nothing_is_written(pool, db, text, name):
    pool.add(key_text(1), "mine", PoolKeySource.OPERATOR)
    before = rows(db), revision(db)
    with pytest.raises(KeyAlreadyKnown):
        pool.add(text, name, PoolKeySource.OPERATOR)
    assert (rows(db), revision(db)) == before


def test_a_key_that_is_over_stays_known(pool):
    row_id = pool.add(key_text(1), "mine", PoolKeySource.OPERATOR)
    pool.move(row_id, PoolKeyState.DEAD)
    with pytest.raises(KeyAlreadyKnown):
        pool.add(key_text(1), "other", PoolKeySource.OPERATOR)


def test_an_intent_names_a_key_that_does_not_exist_yet(pool, db, clock):
    old = pool.add(key_text(1), "old", PoolKeySource.OPERATOR)
    row_id = pool.intend("new", clock.now() + timedelta(hours=72), 10**10, old)
    row = pool.rows()[1]
    assert (row.id, row.state, row.source, row.replaces_id) == (row_id, PoolKeyState.INTENT, PoolKeySource.MINTED, old)
    assert (row.api_key_hash, row.limit_nano, row.expires_at) == (None, 10**10, clock.now() + timedelta(hours=72))
    assert [row.name for row in pool.in_use()] == ["old"]


def test_a_key_that_no_row_knew_is_taken_in_under_quarantine_once(pool, db):
    row_id = pool.take_in_unknown("stray", "a" * 64)
    [row] = pool.rows()
    assert (row.id, row.state, row.source, row.api_key_hash) == (
        row_id,
        PoolKeyState.QUARANTINED,
        PoolKeySource.UNKNOWN,
        "a" * 64,
    )
    assert rows(db)[row_id]["api_key"] is None
    for name, key_hash in (("stray", "b" * 64), ("other", "a" * 64)):
        with pytest.raises(KeyAlreadyKnown):
            pool.take_in_unknown(name, key_hash)
    assert len(pool.rows()) == 1


def test_what_keys_have_spent_is_noted_without_any_other_change(pool, db, clock):
    first, second = minted(pool, clock), pool.take_in_unknown("stray", "a" * 64, 7)
    before, seen = pool.rows(), revision(db)
    clock.advance(hours=1)
    pool.set_usage({first: 2**53 + 1})
    pool.set_usage({})
    assert [row.usage_nano for row in pool.rows()] == [2**53 + 1, 7]
    assert [dataclasses.replace(row, usage_nano=None) for row in pool.rows()] == [
        dataclasses.replace(row, usage_nano=None) for row in before
    ]
    assert revision(db) == seen
    assert second == before[1].id


# ── moves


def test_a_minted_key_goes_from_intent_to_deleted(pool, db, clock):
    row_id = minted(pool, clock)
    assert pool.rows()[0].state is PoolKeyState.STORED
    assert pool.text(row_id) == key_text(7)
    assert pool.in_use() == []
    pool.switch(row_id, clock.now(), "account")
    assert [(row.id, row.state, row.account_id) for row in pool.in_use()] == [(row_id, PoolKeyState.ACTIVE, "account")]
    for state in (PoolKeyState.DRAINING, PoolKeyState.DISABLED):
        before = revision(db)
        clock.advance(hours=1)
        if state is PoolKeyState.DRAINING:
            pool.drain(row_id, clock.now())
            assert (pool.rows()[0].drain_until, pool.rows()[0].drain_revision) == (clock.now(), revision(db))
        else:
            pool.move(row_id, state)
        assert (pool.rows()[0].state, pool.rows()[0].updated_at) == (state, clock.now())
        assert revision(db) == before + 1
        assert pool.in_use() == []
        assert pool.text(row_id) == key_text(7)
    pool.move(row_id, PoolKeyState.DELETED)
    assert rows(db)[row_id]["api_key"] is None
    assert pool.rows()[0].api_key_hash == sha256_hex(key_text(7))


@pytest.mark.parametrize("state", BEFORE)
@pytest.mark.parametrize("start", STATES)
def test_a_move_is_made_from_the_states_before_it_and_refused_from_all_others(pool, db, start, state):
    [row_id] = filled(pool, 1)
    change(db, row_id, state=start)
    before = rows(db), revision(db)
    if start in BEFORE[state]:
        pool.move(row_id, state)
        assert rows(db)[row_id]["state"] == state
        assert (rows(db)[row_id]["api_key"] is None) == (state in WITHOUT_TEXT)
        assert revision(db) == before[1] + 1
    else:
        with pytest.raises(MoveRefused):
            pool.move(row_id, state)
        assert (rows(db), revision(db)) == before


@pytest.mark.parametrize("state", [state for state in STATES if state is not PoolKeyState.INTENT])
def test_only_an_intent_is_given_a_text(pool, db, state):
    [row_id] = filled(pool, 1)
    change(db, row_id, state=state)
    before = rows(db)
    with pytest.raises(MoveRefused):
        pool.store(row_id, key_text(2))
    assert rows(db) == before


@pytest.mark.parametrize("state", [state for state in STATES if state is not PoolKeyState.STORED])
def test_only_a_stored_key_is_switched_to_and_the_old_one_stays_if_not(pool, db, clock, state):
    old = pool.add(key_text(1), "old", PoolKeySource.OPERATOR)
    row_id = minted(pool, clock, replaces=old)
    change(db, row_id, state=state)
    before = rows(db), revision(db)
    with pytest.raises(MoveRefused):
        pool.switch(row_id, clock.now(), "account")
    assert (rows(db), revision(db)) == before


@pytest.mark.parametrize("old_state", STATES)
def test_a_switch_drains_the_replaced_key_if_that_is_in_use(pool, db, clock, old_state):
    old = pool.add(key_text(1), "old", PoolKeySource.OPERATOR)
    change(db, old, state=old_state)
    row_id = minted(pool, clock, replaces=old)
    until, before = clock.now() + timedelta(hours=2), revision(db)
    pool.switch(row_id, until, None)
    after = {row.id: row for row in pool.rows()}
    assert after[row_id].state is PoolKeyState.ACTIVE
    was_active = old_state is PoolKeyState.ACTIVE
    assert after[old].state is (PoolKeyState.DRAINING if was_active else old_state)
    assert after[old].drain_until == (until if was_active else None)
    assert revision(db) == before + 1


def test_an_unknown_row_is_neither_moved_nor_filled(pool, clock):
    for attempt in (
        lambda: pool.move(99, PoolKeyState.DEAD),
        lambda: pool.store(99, key_text(1)),
        lambda: pool.switch(99, clock.now(), None),
    ):
        with pytest.raises(MoveRefused):
            attempt()


# ── what does not change the state


def test_a_disabled_key_is_not_in_use_until_it_is_enabled(pool, db):
    [first, second] = filled(pool, 2)
    pool.set_enabled("key 0", False)
    assert [row.id for row in pool.in_use()] == [second]
    before = revision(db)
    pool.set_enabled("key 0", True)
    pool.set_enabled("key 0", True)  # no fault
    assert [row.id for row in pool.in_use()] == [first, second]
    assert revision(db) == before + 2


def test_enabling_an_unknown_key_is_refused_by_name(pool, db):
    filled(pool, 1)
    before = rows(db)
    with pytest.raises(NotFound, match="There is no key named 'nobody'"):
        pool.set_enabled("nobody", False)
    assert rows(db) == before


def test_a_renewal_is_asked_for_minted_keys_in_use_only(pool, db, clock):
    filled(pool, 1)
    row_id = minted(pool, clock)
    for name in ("key 0", "minted 7", "nobody"):
        with pytest.raises(NotFound, match="no minted key in use named"):
            pool.ask_renewal(name)
    assert not any(row.renew_at for row in pool.rows())
    pool.switch(row_id, clock.now(), None)
    pool.ask_renewal("minted 7")
    assert [row.renew_at for row in pool.rows()] == [None, clock.now()]


def test_limits_and_accounts_are_noted_and_told_to_every_process(pool, db):
    [first, second, third] = filled(pool, 3)
    before = revision(db)
    pool.set_limits({second: (10**10, 5), first: (None, None)})
    pool.set_limits({})
    pool.set_account(third, "account")
    assert [(r.limit_nano, r.remaining_nano, r.account_id) for r in pool.rows()] == [
        (None, None, None),
        (10**10, 5, None),
        (None, None, "account"),
    ]
    assert revision(db) == before + 2


def test_uses_add_up_and_make_no_process_reload(pool, db, clock):
    [first, second] = filled(pool, 2)
    before, untouched = revision(db), rows(db)[second]
    pool.add_uses({first: 2})
    clock.advance(minutes=1)
    pool.add_uses({first: 3, 99: 1})
    assert (rows(db)[first]["use_count"], rows(db)[first]["last_used"]) == (5, clock.now())
    assert rows(db)[second] == untouched
    assert revision(db) == before


def test_a_write_that_the_guard_forbids_changes_nothing(pool, db, envelopes, clock):
    class NotAllowed(Exception):
        pass

    def forbid(_tx: object) -> None:
        raise NotAllowed

    [row_id] = filled(pool, 1)
    stored = minted(pool, clock)
    guarded = PoolKeys(db, envelopes, clock, forbid)
    before = rows(db), revision(db)
    attempts: list[Callable[[], object]] = [
        lambda: guarded.add(key_text(5), "new", PoolKeySource.OPERATOR),
        lambda: guarded.intend("new", clock.now(), None, None),
        lambda: guarded.take_in_unknown("new", "a" * 64),
        lambda: guarded.store(row_id, key_text(5)),
        lambda: guarded.switch(stored, clock.now(), None),
        lambda: guarded.drain(row_id, clock.now()),
        lambda: guarded.move(row_id, PoolKeyState.DEAD),
        lambda: guarded.drop_foreign("gw/"),
        lambda: guarded.set_enabled("key 0", False),
        lambda: guarded.ask_renewal("key 0"),
        lambda: guarded.set_limits({row_id: (1, 1)}),
        lambda: guarded.set_account(row_id, "account"),
        lambda: guarded.add_uses({row_id: 1}),
    ]
    for attempt in attempts:
        with pytest.raises(NotAllowed):
            attempt()
    assert (rows(db), revision(db)) == before
    assert len(guarded.rows()) == 2  # reading is nobody's fence


# ── texts


def broken(pool: PoolKeys, ids: list[int]) -> list[int]:
    """Which of these keys can't be read; their texts are nowhere in the reasons."""
    texts = pool.texts(ids)
    assert set(texts) == set(ids)
    faults = {row_id: text for row_id, text in texts.items() if isinstance(text, SealBroken)}
    assert not any(key_text(number)[9:] in str(fault) for fault in faults.values() for number in range(9))
    return sorted(faults)


@pytest.mark.parametrize("columns", [["api_key"], ["api_key", "api_key_hash"]])
def test_swapped_ciphertexts_are_not_used_and_left_as_evidence(pool, db, columns):
    [first, second, third] = filled(pool, 3)
    before = rows(db)
    change(db, second, api_key_hash="in between")
    change(db, first, **{name: before[second][name] for name in columns})
    change(db, second, **{"api_key_hash": before[second]["api_key_hash"]} | {c: before[first][c] for c in columns})
    swapped = rows(db)
    assert broken(pool, [first, second, third]) == [first, second]
    assert pool.texts([third]) == {third: key_text(2)}
    assert rows(db) == swapped


def test_a_key_under_anothers_hash_is_not_used(pool, db):
    [first, second] = filled(pool, 2)
    change(db, first, api_key_hash=sha256_hex(key_text(3)))
    assert broken(pool, [first, second]) == [first]
    with pytest.raises(SealBroken, match="is not the one that its hash names"):
        pool.text(first)


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
def test_a_damaged_row_costs_one_key_and_is_left_as_evidence(pool, db, damage):
    [first, second] = filled(pool, 2)
    change(db, first, **damage(rows(db)[first]))
    damaged = rows(db)
    assert broken(pool, [first, second]) == [first]
    assert rows(db) == damaged
    with pytest.raises(SealBroken):
        pool.text(first)
    assert pool.text(second) == key_text(1)


def test_a_wrong_encryption_key_reads_no_key_and_changes_none(pool, db, clock):
    ids = filled(pool, 2)
    before = rows(db)
    assert broken(PoolKeys(db, Envelopes([Fernet.generate_key().decode()]), clock), ids) == ids
    assert rows(db) == before


def test_a_new_encryption_key_before_the_old_one_reads_all_keys(pool, db, clock):
    ids = filled(pool, 3)
    newer = PoolKeys(db, Envelopes([Fernet.generate_key().decode(), ENCRYPTION_KEY]), clock)
    assert newer.texts(ids) == dict(zip(ids, map(key_text, range(3)), strict=True))


def test_only_the_texts_asked_for_are_opened(pool):
    [first, _] = filled(pool, 2)
    assert pool.texts([first]) == {first: key_text(0)}
    assert pool.texts([]) == pool.texts([99]) == {}


def test_no_key_is_in_the_database_in_clear(envelopes, clock, tmp_path):
    db = Database(database_url(Config(database_url=f"sqlite:///{tmp_path}/pool.db")))
    db.upgrade()
    pool = PoolKeys(db, envelopes, clock)
    filled(pool, 3)
    row_id = minted(pool, clock, 3)
    before = b"".join(path.read_bytes() for path in Path(tmp_path).iterdir())
    pool.move(row_id, PoolKeyState.ABANDONED)
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


def test_rows_are_listed_oldest_first_with_all_but_the_text(pool):
    filled(pool, 3)
    assert [row.name for row in pool.rows()] == ["key 0", "key 1", "key 2"]
    assert "api_key" not in PoolKeyRow.__dataclass_fields__


def test_only_a_key_in_use_can_be_drained(pool, clock):
    row_id = minted(pool, clock)
    with pytest.raises(MoveRefused):
        pool.drain(row_id, clock.now())
    assert pool.rows()[0].state is PoolKeyState.STORED


def test_dropping_what_is_foreign_leaves_our_own_and_peoples_keys(pool, db, clock):
    names = {
        "gw/ours/1": PoolKeySource.MINTED,
        "gw/theirs/1": PoolKeySource.MINTED,
        "gw/theirs/2": PoolKeySource.OPERATOR,
    }
    for number, (name, source) in enumerate(names.items()):
        pool.add(key_text(number), name, source)
    assert pool.drop_foreign("gw/ours/") == ["gw/theirs/1"]
    assert [row.state for row in pool.rows()] == [PoolKeyState.ACTIVE, PoolKeyState.DEAD, PoolKeyState.ACTIVE]
    assert [row["api_key"] is None for row in rows(db).values()] == [False, True, False]
    assert pool.drop_foreign("gw/ours/") == []
