"""Sums by caller that an older version did not write are put back exactly, whatever is counted meanwhile."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from billing import caller_sums, rollups
from billing.rollups import Bucket, UsageSums
from db import Database
from tables import caller_rollups, latency_rollups, usage_ledger, usage_rollups
from tests.support.usage_rows import NOON, random_rows, row, store

pytestmark = pytest.mark.mysql

DAY = timedelta(days=1)
TODAY = NOON.replace(hour=0)
LONG_AGO = NOON - 1000 * DAY


def stored(db: Database) -> list[Any]:
    """All that are not zero."""
    with db.reading() as tx:
        return sorted(tuple(one) for one in tx.execute(sa.select(caller_rollups)) if any(one[4:]))


def store_by_old_version(db: Database, rows: list[dict[str, Any]]) -> None:
    """Count these rows as a version does that has no sums by caller."""
    with db.reading() as tx:
        kept = [dict(one) for one in tx.execute(sa.select(caller_rollups)).mappings()]
    store(db, rows)
    db.transact(lambda tx: tx.execute(caller_rollups.delete()))
    if kept:
        db.transact(lambda tx: tx.execute(caller_rollups.insert(), kept))


def mend_all(db: Database) -> int:
    with db.reading() as tx:
        days = caller_sums.differing_days(tx, LONG_AGO)
    return sum(db.transact(lambda tx, day=day: caller_sums.mend(tx, day)) for day in days)


@pytest.mark.parametrize("seed", range(3))
def test_what_an_old_version_left_out_is_put_back(db: Database, seed: int) -> None:
    rows = random_rows(seed, 120, 5)
    store(db, rows)
    whole = stored(db)
    for table in (caller_rollups, latency_rollups, usage_ledger, usage_rollups):
        db.transact(lambda tx, table=table: tx.execute(table.delete()))
    requests = sorted({one["request_id"] for one in rows})
    by_old = set(requests[1::2])
    store(db, [one for one in rows if one["request_id"] not in by_old])
    store_by_old_version(db, [one for one in rows if one["request_id"] in by_old])
    assert stored(db) != whole
    assert mend_all(db) > 0
    assert stored(db) == whole
    assert mend_all(db) == 0


def test_only_days_that_differ_are_found_and_none_from_before(db: Database) -> None:
    store(db, [row(number, NOON - number * DAY) for number in range(4)])
    store_by_old_version(db, [row(10 + number, NOON - number * DAY, user_id=2) for number in (1, 3)])
    with db.reading() as tx:
        assert caller_sums.differing_days(tx, LONG_AGO) == [TODAY - 3 * DAY, TODAY - DAY]
        assert caller_sums.differing_days(tx, TODAY - 2 * DAY) == [TODAY - DAY]


def test_sums_that_one_kind_lacks_alone_are_found(db: Database) -> None:
    store(db, [row(1, NOON, client_key_id=7)])
    for kind in (rollups.USERS, rollups.KEYS):
        whole = stored(db)
        of_kind = caller_rollups.c.kind == kind
        db.transact(lambda tx, of_kind=of_kind: tx.execute(caller_rollups.delete().where(of_kind)))
        assert mend_all(db) == 2  # its day and its hour
        assert stored(db) == whole


def test_sums_that_say_too_much_are_put_right_too(db: Database) -> None:
    store(db, [row(1, NOON)])
    whole = stored(db)
    extra = dict(zip(caller_rollups.c.keys(), ("d", "u", TODAY, 9, 1, 0, 0, 0, 5, 0), strict=True))
    db.transact(lambda tx: tx.execute(caller_rollups.insert(), [extra]))
    assert mend_all(db) == 1
    assert stored(db) == whole


def test_calls_that_are_counted_while_it_mends_are_counted_once(db: Database) -> None:
    store_by_old_version(db, [row(number, NOON, user_id=number) for number in range(1, 30)])
    counted, stopping = 0, threading.Event()
    call = {Bucket(1, None, 1, "a/b", NOON): UsageSums(requests=1, cost_nano=3)}

    def count() -> None:
        nonlocal counted
        while not stopping.is_set() or not counted:
            db.transact(lambda tx: rollups.add(tx, call))
            counted += 1

    thread = threading.Thread(target=count)
    thread.start()
    for _ in range(5):
        db.transact(lambda tx: caller_sums.mend(tx, TODAY))
    stopping.set()
    thread.join()
    found = {one[:4]: one[4] for one in stored(db)}
    assert found["d", "u", TODAY, 1] == 1 + counted
    assert found["d", "u", TODAY, 2] == 1
    assert mend_all(db) == 0
