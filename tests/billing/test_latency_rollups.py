"""Sums of how long calls took: of whom they are, added once whoever adds at the same time, and deleted when they are old."""

from __future__ import annotations

import json
import threading
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from billing import latency_rollups
from billing.latency import CallTimes
from billing.latency_rollups import MOST_KINDS, Changes, LatencyPlace
from billing.rollups import bucket_of
from db import DatabaseError
from tables import latency_rollups as table
from tests.support.usage_rows import latency_of, row

pytestmark = pytest.mark.mysql

NOON = datetime(2026, 11, 21, 12, 34, tzinfo=UTC)
HOUR, DAY = NOON.replace(minute=0), NOON.replace(hour=0, minute=0)


def stored(db) -> dict[tuple, tuple]:
    with db.reading() as tx:
        rows = [tuple(one) for one in tx.execute(sa.select(table))]
    return {one[:4]: (*one[4:8], json.loads(one[8])) for one in rows}


def add(db, changes) -> None:
    db.transact(lambda tx: latency_rollups.add(tx, changes))


def changed(before, after) -> dict[LatencyPlace, CallTimes]:
    changes = Changes()
    changes.note(bucket_of(after), before, after)
    return changes.by_place()


def test_a_call_counts_for_all_for_its_model_its_carrier_and_its_caller(db):
    add(db, latency_of([row(1, NOON, user_id=7, client_key_id=3, pool_key_id=5, model="a/b")]))
    found = stored(db)
    hours_and_days = [("all", ""), ("model", "a/b"), ("pool_key", "5"), ("upstream", "0")]
    days = [("user", "7"), ("key", "3"), ("own", "7/a/b")]
    assert set(found) == {("h", kind, HOUR, subject) for kind, subject in hours_and_days} | {
        ("d", kind, DAY, subject) for kind, subject in hours_and_days + days
    }
    assert {one[:4] for one in found.values()} == {(1, 0, 20, 600)}


def test_other_upstreams_have_a_row_and_calls_that_went_nowhere_none(db):
    add(db, latency_of([row(1, NOON, pool_key_id=None, upstream_id=2)]))
    add(db, latency_of([row(2, NOON, pool_key_id=None, outcome="refused", attempt=0)]))
    found = stored(db)
    assert {one[3] for one in found if one[1] == "upstream"} == {"2"}
    assert not [one for one in found if one[1] == "pool_key"]
    assert found["d", "all", DAY, ""][:2] == (2, 1)


def test_a_failed_try_is_of_its_key_alone_though_another_one_answered(db):
    tries = [row(1, NOON, attempt=1, is_last=False, error_type="timeout", pool_key_id=5), row(1, NOON, attempt=2)]
    add(db, latency_of(tries))
    found = stored(db)
    assert found["h", "pool_key", HOUR, "5"] == (1, 1, 0, 0, {"e/timeout": 1})
    assert found["h", "upstream", HOUR, "0"][:2] == (2, 1)
    assert found["h", "all", HOUR, ""][:2] == (1, 0)


def test_what_became_known_later_takes_back_what_was_counted_before(db):
    """A try that failed was the last one after all, and the client was told something else."""
    tried = row(1, NOON, is_last=False, error_type="timeout", outcome=None)
    add(db, changed(None, tried))
    add(db, changed(tried, tried | {"is_last": True, "error_type": "overloaded", "outcome": "failed"}))
    assert stored(db)["h", "pool_key", HOUR, "1"] == (1, 1, 0, 0, {"e/overloaded": 1})
    assert changed(tried, tried) == {}


def test_kinds_that_an_upstream_makes_up_do_not_fill_a_row(db):
    for number in range(MOST_KINDS + 9):
        add(db, latency_of([row(number, NOON, outcome="error", error_type=f'k"{number}')]))
    counts = stored(db)["d", "all", DAY, ""][4]
    assert len(counts) == MOST_KINDS + 1
    assert (counts["e/other"], sum(counts.values())) == (9, MOST_KINDS + 9)


def test_what_is_added_at_the_same_time_is_all_counted(db):
    """Each thread has the keys in another order, as processes have."""
    faults = []

    def work(number: int) -> None:
        try:
            for turn in range(8):
                rows = [
                    row(place, NOON + timedelta(hours=place % 2), user_id=(place * (number * 2 + 1) + turn) % 8 + 1)
                    for place in range(16)
                ]
                add(db, latency_of(rows))
        except DatabaseError as fault:
            faults.append(fault)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert faults == []
    found = stored(db)
    assert found["d", "all", DAY, ""][0] == 4 * 8 * 16 == sum(found["d", "all", DAY, ""][4].values()) // 2
    assert {found["d", "user", DAY, str(user)][0] for user in range(1, 9)} == {64}
    assert found["h", "model", HOUR, "openai/gpt-4o-mini"][0] == 256


def test_a_change_that_does_not_commit_counts_nothing(db):
    def work(tx) -> None:
        latency_rollups.add(tx, latency_of([row(1, NOON)]))
        raise KeyError

    with pytest.raises(KeyError):
        db.transact(work)
    assert stored(db) == {}
    add(db, {})
    assert stored(db) == {}


def test_what_is_old_goes_an_hour_or_a_day_at_a_time(db):
    add(db, latency_of([row(number, NOON - number * timedelta(days=1)) for number in range(4)]))
    before = DAY - timedelta(days=1)
    rounds = 0
    while db.transact(lambda tx: latency_rollups.delete_old(tx, "d", before)):
        rounds += 1
    left = stored(db)
    assert rounds == 2
    assert {one[2] for one in left if one[0] == "d"} == {DAY, before}
    assert len({one[2] for one in left if one[0] == "h"}) == 4


def test_a_row_that_adds_up_to_nothing_has_no_counts(db):
    place = LatencyPlace("d", "all", DAY, "")
    one = latency_of([row(1, NOON)])[place]
    back = CallTimes()
    back.add(one, -1)
    add(db, {place: one})
    add(db, {place: back})
    assert stored(db)[place] == (0, 0, 0, 0, {})
