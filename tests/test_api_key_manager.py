"""The pool in memory: what refusals do to keys and accounts, how they recover, what is told, and exact counts."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from api_key_manager import ApiKeyManager
from config.settings import Config
from db import Database, DatabaseError, database_url
from foundation.crypto import Envelopes
from foundation.errors import AppError, Busy, TooManyRequests
from pool.choice import PoolKey, Trial
from pool.keys import PoolKeys
from pool.life import PoolKeySource
from tables import pool_keys, revisions
from tests.support.memory_pool import DEAD, FREE_DAY, LIMITED, POOR, Memory, key_text, picks
from tests.support.movable_clock import MovableClock
from upstream.refusal import Refusal
from upstream.refusals import ROWS, Hits, Lasts, classify

# ── what each row does, and how it ends


REFUSED = {
    "401b": (401, "User not found."),
    "401c": (401, "This key is disabled"),
    "403c": (403, "Key limit exceeded (daily limit)."),
    "403d": (403, "Workspace monthly budget of $5 exceeded."),
}
TOO_SMALL = {
    "402a": (402, "", "openrouter_in_flight_budget"),
    "402b": (402, "", "openrouter_key_limit"),
    "402c": (402, "", "openrouter_credits"),
    "402d": (402, "Insufficient credits."),
    "403e": (403, "This request arrived on the global data region, but"),
}
RESTING = {
    "429a": (429, "", "openrouter_free_tier_per_minute"),
    "429b": (429, "", "openrouter_free_tier_daily"),
    "429d": (429, "", "openrouter_something"),
}


def test_each_row_that_hits_anything_is_tried_here():
    hitting = [row for row in ROWS if row.hits is not Hits.NOTHING]
    assert {row.id for row in hitting if row.lasts in {Lasts.REFUSED, Lasts.SPENT}} == set(REFUSED)
    assert {row.id for row in hitting if row.lasts is Lasts.RELOAD} == set(TOO_SMALL)
    assert {row.id for row in hitting} == {*REFUSED, *TOO_SMALL, *RESTING}


@pytest.mark.parametrize("row", REFUSED)
def test_a_refusal_that_may_be_about_the_key_rests_nothing_until_get_key_says_so(clock, row):
    pool = Memory(clock, 4, "aabb")
    pool.refuse(0, *REFUSED[row])
    assert picks(pool) == {0, 1, 2, 3}
    assert [key.id for key in pool.verdicts.to_ask(9)] == [0]
    pool.convict(0)
    assert picks(pool) == picks(pool, free=True) == {1, 2, 3}
    assert pool.usable_count() == 3


@pytest.mark.parametrize("row", RESTING)
def test_a_limit_that_openrouter_names_as_its_own_rests_what_it_is_about_and_nothing_else(clock, row):
    pool = Memory(clock, 4, "aabb")
    pool.refuse(0, *RESTING[row])
    paid, free = ({1, 2, 3}, {1, 2, 3}) if row == "429d" else ({0, 1, 2, 3}, {2, 3})
    assert (picks(pool), picks(pool, free=True), pool.usable_count()) == (paid, free, len(paid))


@pytest.mark.parametrize("row", [row for row in ROWS if row.hits is Hits.NOTHING], ids=lambda row: row.id)
def test_a_refusal_that_hits_nothing_changes_nothing(clock, row):
    pool = Memory(clock, 3)
    for _ in range(50):
        key = pool.pick()
        pool.note_refusal(key, Refusal(row.statuses.start or 400, None), row)
        pool.release(key)
    assert (picks(pool), pool.report()) == ({0, 1, 2}, {})


@pytest.mark.parametrize("row", [*TOO_SMALL, *REFUSED])
def test_what_did_not_pass_for_one_request_is_picked_less_but_still(clock, row):
    pool = Memory(clock, 4, "aabb")
    low = {0, 1} if row in {"402a", "402c", "402d"} else {0}
    pool.usable_count()
    pool.refuse(0, *(TOO_SMALL | REFUSED)[row])
    counted = Counter(pool.pick().id for _ in range(8000))
    assert all(0 < counted[one] * 5 < counted[other] for one in low for other in {0, 1, 2, 3} - low)


@pytest.mark.parametrize("asked", [None, "30"])
def test_a_rest_ends_by_one_call_that_succeeds(clock, asked):
    pool = Memory(clock, 2)
    pool.refuse(0, *LIMITED, retry_after=asked)
    seconds = 30 if asked else 5
    clock.advance(seconds=seconds - 0.1)
    assert picks(pool) == {1}
    clock.advance(seconds=0.1)
    assert pool.usable_count() == 2
    trial = next(key for key in iter(pool.pick, None) if key.id == 0)
    assert picks(pool) == {1}  # one at a time
    pool.note_success(trial)
    assert picks(pool) == {0, 1}
    pool.release(trial)
    assert "0" not in pool.report()


def test_a_try_that_fails_doubles_the_rest(clock):
    pool = Memory(clock, 1)
    pool.refuse(0, *LIMITED)
    for rest in (5, 10, 20, 40):
        clock.advance(seconds=rest - 0.1)
        assert pool.usable_count() == 0
        clock.advance(seconds=0.1)
        pool.call(*LIMITED)
    clock.advance(seconds=80)
    pool.call()
    pool.refuse(0, *LIMITED)
    clock.advance(seconds=5)
    assert pool.usable_count() == 1  # a success starts anew


def test_a_try_that_says_nothing_leaves_it_to_the_next_one(clock):
    pool = Memory(clock, 1)
    pool.refuse(0, *LIMITED)
    clock.advance(seconds=5)
    pool.call(400, "bad request")
    trial = pool.pick()
    assert isinstance(trial, Trial)
    with pytest.raises(TooManyRequests):
        pool.pick()
    pool.release(trial)
    pool.call()
    assert not isinstance(pool.pick(), Trial)


def test_a_call_from_before_the_rest_neither_ends_it_nor_lengthens_the_back_off(clock):
    pool = Memory(clock, 1)
    early = [pool.pick() for _ in range(20)]
    for key in early[:10]:
        pool.refuse(key, *LIMITED)
    pool.note_success(early[10])
    assert pool.usable_count() == 0
    clock.advance(seconds=5)
    trial = pool.pick()
    for key in early:
        pool.note_success(key)
        pool.release(key)
    with pytest.raises(TooManyRequests):
        pool.pick()
    pool.refuse(trial, *LIMITED)
    pool.release(trial)
    clock.advance(seconds=10)
    assert pool.usable_count() == 1


def test_free_models_recover_by_a_free_call_and_paid_ones_never_stopped(clock):
    pool = Memory(clock, 1)
    pool.refuse(0, *FREE_DAY)
    assert picks(pool) == {0}
    with pytest.raises(TooManyRequests):
        pool.pick(free=True)
    clock.advance(hours=12)  # midnight
    pool.call()
    trial = pool.pick(free=True)
    assert picks(pool) == {0}
    with pytest.raises(TooManyRequests):
        pool.pick(free=True)
    pool.note_success(trial)
    assert picks(pool, free=True) == {0}


def test_a_spent_limit_is_back_at_its_reset(clock):
    pool = Memory(clock, 1)
    pool.refuse(0, 403, "Key limit exceeded (daily limit). Manage it")
    pool.convict(0)
    clock.advance(hours=11, minutes=59)
    assert pool.usable_count() == 0
    clock.advance(minutes=1)
    assert pool.usable_count() == 1


# ── what is told


def test_a_report_names_keys_that_carry_calls_or_are_not_well(clock):
    pool = Memory(clock, 6, "abcdef")
    held = [pool.pick([key for key in pool.keys if key.id != 0]) for _ in range(2)]
    pool.refuse(1, *LIMITED, retry_after="30")
    pool.refuse(2, *DEAD)
    pool.convict(2)
    pool.refuse(3, *LIMITED)
    assert pool.report() == {
        "0": {"in_flight": 2, "health": "ok", "reason": None, "until": None},
        "1": {"in_flight": 0, "health": "resting", "reason": "limited", "until": "2026-11-21T12:00:30+00:00"},
        "2": {"in_flight": 0, "health": "suspect", "reason": "key-refused", "until": None},
        "3": {"in_flight": 0, "health": "resting", "reason": "limited", "until": "2026-11-21T12:00:05+00:00"},
    }
    clock.advance(seconds=5)
    for key in held:
        pool.release(key)
    assert set(pool.report()) == {"1", "2", "3"}
    assert pool.report()["3"] == {"in_flight": 0, "health": "half-open", "reason": "limited", "until": None}


# ── counting what is in flight


ACTIONS = st.lists(
    st.tuples(st.sampled_from(["ok", "401", "429", "402", "400", "silent"]), st.integers(0, 3)), max_size=30
)
ANSWERS = {"401": DEAD, "429": LIMITED, "402": POOR, "400": (400, "bad")}


@given(st.lists(ACTIONS, min_size=1, max_size=4), st.integers(0, 3))
def test_whatever_calls_do_none_stays_in_flight_and_no_key_has_more_than_it_may(plans, cap):
    """Interleaved by hand: a step of each plan begins a call and ends one of those that run."""
    clock = MovableClock()
    pool = Memory(clock, 3, "aab", max_in_flight=cap)
    running: list[tuple[PoolKey, str]] = []

    def end(at: int) -> None:
        key, outcome = running.pop(at)
        if outcome == "ok":
            pool.note_success(key)
        elif outcome != "silent":
            pool.refuse(key, *ANSWERS[outcome])
        pool.release(key)

    for step in range(max(map(len, plans))):
        for outcome, pause in (plan[step] for plan in plans if step < len(plan)):
            clock.advance(seconds=pause)
            try:
                running.append((pool.pick(), outcome))
            except AppError:
                pass
            if len(running) > pause:
                end(pause)
            assert [key.in_flight for key in pool.keys] == [sum(one == key for one, _ in running) for key in pool.keys]
            assert not cap or all(key.in_flight <= cap for key in pool.keys)
            trials = [breaker for one, _ in running if isinstance(one, Trial) for breaker in one.breakers_held]
            assert len(trials) == len(set(trials))
    while running:
        end(0)
    assert all(key.in_flight == 0 for key in pool.keys)
    assert not any(breaker.is_trying for key in pool.keys for breaker in key.breakers(True))


def test_threads_that_pick_and_release_leave_nothing_in_flight(clock):
    pool = Memory(clock, 4, "aabb", max_in_flight=2)
    too_many = threading.Event()

    def work(seed: int) -> None:
        for turn in range(400):
            try:
                key = pool.pick(free=bool(turn % 2), sticky="x" if turn % 3 else None)
            except AppError:
                continue
            if any(one.in_flight > 2 for one in pool.keys):
                too_many.set()
            kind = (turn * 7 + seed) % 20
            if kind == 0:
                pool.refuse(key, *LIMITED)
                clock.advance(seconds=5)
            elif kind == 1:
                pool.refuse(key, *FREE_DAY)
            else:
                pool.note_success(key)
            pool.release(key)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(work, range(8)))
    assert not too_many.is_set()
    assert [key.in_flight for key in pool.keys] == [0] * 4
    assert not any(breaker.is_trying for key in pool.keys for breaker in key.breakers(True))


# ── what is loaded


@pytest.fixture
def store(db: Database, envelopes: Envelopes, clock: MovableClock) -> PoolKeys:
    return PoolKeys(db, envelopes, clock)


@pytest.fixture
def pool(store: PoolKeys, clock: MovableClock) -> ApiKeyManager:
    return ApiKeyManager(store, clock)


def filled(pool: ApiKeyManager, store: PoolKeys, count: int) -> list[int]:
    """Put keys into the pool and load them. Returns their ids."""
    ids = [store.add(key_text(number), f"key {number}", PoolKeySource.OPERATOR) for number in range(count)]
    pool.reload()
    return ids


def rows(db: Database) -> dict[int, dict[str, object]]:
    with db.reading() as tx:
        return {row.id: row._asdict() for row in tx.execute(sa.select(pool_keys))}


def take(pool: ApiKeyManager, row_id: int) -> PoolKey:
    """A call with this very key."""
    return pool.pick([key for key in pool._shared.keys if key.id != row_id])


def test_only_active_and_enabled_keys_are_loaded(pool, store):
    [first, second, third] = filled(pool, store, 3)
    store.drain(first, datetime.now(UTC))
    store.set_enabled("key 1", False)
    pool.reload()
    assert picks(pool) == {third}
    store.set_enabled("key 1", True)
    pool.reload()
    assert picks(pool) == {second, third}


def test_a_key_is_not_picked_in_its_last_minutes(pool, store, clock):
    row_id = store.intend("expiring", clock.now() + timedelta(hours=1), None, None)
    store.store(row_id, key_text(7))
    store.switch(row_id, clock.now(), None)
    pool.reload()
    clock.advance(minutes=49, seconds=59)
    assert picks(pool) == {row_id}
    clock.advance(seconds=1)
    assert (pool.usable_count(), pool.known_count()) == (0, 0)
    with pytest.raises(Busy):
        pool.pick()


def test_a_key_that_stays_keeps_its_health_and_its_calls_over_a_reload(pool, store):
    [first, _] = filled(pool, store, 2)
    key = take(pool, first)
    limited = Refusal(429, {"error": {"metadata": {"limit_source": LIMITED[2]}}})
    pool.note_refusal(key, limited, classify(limited))
    store.add(key_text(9), "key 9", PoolKeySource.OPERATOR)
    pool.reload()
    assert pool.known_count() == 3
    assert first not in picks(pool)
    assert pool.report()[str(first)]["in_flight"] == 1
    pool.release(key)
    assert pool.report()[str(first)]["in_flight"] == 0


def test_the_health_of_an_unknown_account_stays_over_a_reload(pool, store):
    [first, second] = filled(pool, store, 2)
    limited = Refusal(429, {"error": {"message": FREE_DAY[1]}})
    key = take(pool, first)
    pool.note_refusal(key, limited, classify(limited))
    pool.release(key)
    pool.reload()
    assert picks(pool, free=True) == {second}


def test_a_key_that_leaves_is_reported_until_its_last_call_ends(pool, store):
    [first, second] = filled(pool, store, 2)
    calls = [take(pool, first), take(pool, first)]
    store.drain(first, datetime.now(UTC))
    pool.reload()
    pool.reload()
    assert picks(pool) == {second}
    assert pool.report() == {str(first): {"in_flight": 2, "health": "ok", "reason": None, "until": None}}
    pool.release(calls[0])
    assert pool.report()[str(first)]["in_flight"] == 1
    pool.note_success(calls[1])
    pool.release(calls[1])
    assert pool.report() == {}


def test_a_key_that_comes_back_has_its_calls_still(pool, store):
    [first, _] = filled(pool, store, 2)
    call = take(pool, first)
    for enabled in (False, True):
        store.set_enabled("key 0", enabled)
        pool.reload()
        assert pool.report()[str(first)]["in_flight"] == 1
    again = take(pool, first)
    assert pool.report()[str(first)]["in_flight"] == 2
    for key in (call, again):
        pool.release(key)
    assert pool.report() == {}


def test_no_call_begins_with_a_key_that_has_left(pool, store):
    """Not even one whose key was drawn before the reload and is taken after it."""
    filled(pool, store, 2)
    store.set_enabled("key 1", False)
    pool.reload()
    [old] = pool._shared.keys
    choice = pool._shared.choice(False, pool._monotonic())
    store.set_enabled("key 1", True)
    store.set_enabled("key 0", False)
    pool.reload()
    pool._shared._choices = [choice, choice]
    with pytest.raises(AppError):
        pool.pick()
    assert old.in_flight == 0


def test_limits_and_accounts_are_loaded_and_what_was_low_is_not_any_more(pool, store):
    [first, second, third] = filled(pool, store, 3)
    one = {key.id: key for key in pool._shared.keys}
    assert one[first].account is not one[second].account
    for message in ("create a key with a higher limit", "fewer max_tokens"):
        refusal = Refusal(402, {"error": {"message": message}})
        pool.note_refusal(one[first], refusal, classify(refusal))
    assert (one[first].is_low, one[first].account.is_low) == (True, True)
    store.set_limits({first: (10, 7)})
    for row_id in (first, second):
        store.set_account(row_id, "account")
    pool.reload()
    assert one[first].remaining_nano == 7
    assert one[first].account is one[second].account is not one[third].account
    assert (one[first].is_low, one[first].account.is_low) == (False, False)
    account, keys = one[first].account, pool._shared.keys
    pool.reload()
    assert one[first].account is account
    assert pool._shared.keys is keys


def test_every_shared_key_is_asked_about_at_first(pool, store, clock):
    [first, second] = filled(pool, store, 2)
    store.set_account(first, "account")
    fresh = ApiKeyManager(store, clock)
    fresh.reload()
    assert {key.id for key in fresh.verdicts.to_ask(9)} == {first, second}
    for key in fresh.verdicts.to_ask(9):
        fresh.verdicts.note_confirmed(key, 5)
    assert fresh.verdicts.to_ask(9) == []


def test_an_unreadable_key_costs_one_key_and_is_named_in_the_log(pool, store, db, clock, caplog):
    [first, second] = filled(pool, store, 2)
    db.transact(lambda tx: tx.execute(pool_keys.update().where(pool_keys.c.id == first).values(api_key="damaged")))
    fresh = ApiKeyManager(store, clock)
    fresh.reload()
    assert picks(fresh) == {second}
    [record] = [record for record in caplog.records if record.getMessage() == "pool_key_unreadable"]
    assert (record.levelno, record.fields["key"]) == (logging.ERROR, "key 0")
    assert picks(pool) == {first, second}  # what is in memory already, stays


# ── counting uses


def test_uses_are_added_up_with_the_time_of_the_last(pool, store, db, clock):
    ids = filled(pool, store, 2)
    counted = Counter(pool.pick().id for _ in range(100))
    assert rows(db)[ids[0]]["use_count"] == 0
    clock.advance(minutes=1)
    pool.write_counts()
    assert {row_id: row["use_count"] for row_id, row in rows(db).items()} == dict(counted)
    assert rows(db)[ids[0]]["last_used"] == clock.now()
    clock.advance(minutes=1)
    pool.write_counts()
    assert rows(db)[ids[1]]["last_used"] == clock.now() - timedelta(minutes=1)


def test_no_use_is_lost_or_counted_twice_while_threads_pick_and_count(pool, store, db):
    filled(pool, store, 3)

    def use(_: int) -> None:
        for _ in range(50):
            pool.release(pool.pick())
        pool.write_counts()

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(use, range(16)))
    assert sum(row["use_count"] for row in rows(db).values()) == 800


def test_counts_wait_for_a_database_that_is_away(mariadb, envelopes, clock):
    db = Database(database_url(Config(database_url=mariadb.new_database())))
    db.upgrade()
    store = PoolKeys(db, envelopes, clock)
    pool = ApiKeyManager(store, clock)
    [row_id] = filled(pool, store, 1)
    pool.pick()
    mariadb.stop()
    try:
        for _ in range(2):
            with pytest.raises(DatabaseError):
                pool.write_counts()
            pool.pick()
    finally:
        mariadb.start()
    pool.write_counts()
    assert rows(db)[row_id]["use_count"] == 3
    pool.write_counts()
    assert rows(db)[row_id]["use_count"] == 3
    db.close()


def test_a_count_does_not_make_every_process_reload(pool, store, db):
    def revision() -> int:
        with db.reading() as tx:
            return tx.scalar(sa.select(revisions.c.value).where(revisions.c.name == "api_keys"))

    filled(pool, store, 1)
    before = revision()
    pool.pick()
    pool.write_counts()
    assert revision() == before
