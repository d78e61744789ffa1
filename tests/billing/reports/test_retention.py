"""Retention: exactly what is old goes, once a night, in one process, a little at a time."""

from __future__ import annotations

import logging
import threading
import time
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from billing import rollups
from billing.reports import retention as log_retention
from billing.reports.retention import LogRetention, last_run_time
from config.settings import Config
from db import Database, database_url
from tables import caller_rollups, latency_rollups, usage_ledger, usage_rollups
from tables import log_retention as table
from tests.support.gateway import run as run_program
from tests.support.usage_rows import NOON, random_rows, row, store

pytestmark = pytest.mark.mysql

HOUR, DAY = timedelta(hours=1), timedelta(days=1)


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    monkeypatch.setattr(log_retention, "BATCH_ROWS", 7)


def left(db) -> list[tuple[str, int]]:
    query = sa.select(usage_ledger.c.request_id, usage_ledger.c.attempt)
    with db.reading() as tx:
        return [tuple(one) for one in tx.execute(query.order_by(*usage_ledger.primary_key))]


def keys_of(rows) -> list[tuple[str, int]]:
    return sorted((one["request_id"], one["attempt"]) for one in rows)


def is_open(one) -> bool:
    return one["state"] in {"dispatched", "streaming", "pending"}


def delete_all(retention, cutoff, **more) -> int:
    return sum(retention.delete_before(cutoff, lambda _: None, **more))


@pytest.mark.parametrize("seed", range(3))
def test_exactly_what_is_old_and_not_open_is_deleted_and_roll_ups_stay(db, clock, seed):
    rows = random_rows(seed, 150, 30)
    store(db, rows)
    with db.reading() as tx:
        sums = tx.execute(sa.select(usage_rollups)).all()
    retention = LogRetention(db, clock, 10)
    cutoff = retention.cutoff(10)
    assert cutoff == NOON - 10 * DAY
    old = [one for one in rows if one["created_at"] < cutoff and not is_open(one)]
    assert len(old) > 20
    assert delete_all(retention, cutoff) == len(old)
    assert left(db) == keys_of(one for one in rows if one not in old)
    assert delete_all(retention, cutoff) == 0
    with db.reading() as tx:
        assert tx.execute(sa.select(usage_rollups)).all() == sums


def sums(db) -> set[tuple[str, int, datetime]]:
    query = sa.select(usage_rollups.c.period, usage_rollups.c.user_id, usage_rollups.c.start)
    with db.reading() as tx:
        return {tuple(one) for one in tx.execute(query)}


@pytest.mark.parametrize(("days", "hourly", "daily"), [(30, 40, 60), (50, 40, 60), (0, 40, 60), (30, 40, 0)])
def test_sums_by_hour_and_by_day_go_when_they_are_old_and_never_before_their_rows(
    db, clock, monkeypatch, days, hourly, daily
):
    monkeypatch.setattr(rollups, "BATCH_ROWS", 7)
    store(db, [row(number, NOON - number * DAY, user_id=1 + number % 5) for number in range(70)])
    before = sums(db)
    assert run(LogRetention(db, clock, days, hourly, daily))
    kept = {"h": max(days, hourly) if days else 10_000, "d": daily or 10_000}
    midnight = NOON.replace(hour=0)
    assert sums(db) == {one for one in before if one[2] >= midnight - kept[one[0]] * DAY}
    with db.reading() as tx:
        by_caller = {tuple(one) for one in tx.execute(sa.select(*list(caller_rollups.c)[:4]))}
        times = {tuple(one) for one in tx.execute(sa.select(*list(latency_rollups.c)[:3]))}
    assert {(period, start) for period, kind, start in times if kind == "model"} == {
        (one[0], one[2]) for one in sums(db)
    }
    users = {(period, start, user_id) for period, user_id, start in sums(db) if user_id}
    assert {(period, start, subject) for period, kind, start, subject in by_caller if kind == "u"} == users
    assert {one[:1] + one[2:3] for one in by_caller if one[1] == "k"} == {one[:2] for one in users}
    assert len(left(db)) == (min(70, days + 1) if days else 70)


def test_an_open_row_goes_once_it_is_settled(db, clock):
    store(db, [row(1, NOON - 100 * DAY, state="pending", cost_nano=None)])
    retention = LogRetention(db, clock, 90)
    assert delete_all(retention, retention.cutoff(90)) == 0
    db.transact(lambda tx: tx.execute(usage_ledger.update().values(state="settled", cost_nano=1)))
    assert delete_all(retention, retention.cutoff(90)) == 1


def test_the_cutoff_is_a_full_hour(clock, db):
    clock.advance(minutes=59, seconds=59)
    assert LogRetention(db, clock, 1).cutoff(1) == NOON - DAY
    store(db, [row(1, NOON - DAY), row(2, NOON - DAY - timedelta(milliseconds=1))])
    delete_all(LogRetention(db, clock, 1), NOON - DAY)
    assert [request_id[-1] for request_id, _ in left(db)] == ["1"]


def test_it_pauses_four_times_as_long_as_it_worked(db, clock):
    store(db, [row(number, NOON - 100 * DAY) for number in range(30)])
    pauses: list[float] = []
    begun = time.monotonic()
    counts = list(LogRetention(db, clock, 90).delete_before(NOON, pauses.append))
    took = time.monotonic() - begun
    assert counts == [7, 7, 7, 7, 2]
    assert len(pauses) == 4
    assert 0 < sum(pauses) <= 4 * took


def test_tries_of_a_request_that_a_batch_ends_with_are_not_forgotten(db, clock):
    rows = [row(number, NOON - 100 * DAY, attempt=n, is_last=n == 3) for number in range(10) for n in (1, 2, 3)]
    store(db, rows)
    assert delete_all(LogRetention(db, clock, 90), NOON) == 30
    assert left(db) == []


def test_what_is_to_be_kept_is_kept(db, clock):
    rows = [row(number, NOON - 100 * DAY) for number in range(20)]
    store(db, rows)
    keep = {rows[3]["request_id"], rows[13]["request_id"]}
    assert delete_all(LogRetention(db, clock, 90), NOON, keep=keep) == 18
    assert {request_id for request_id, _ in left(db)} == keep


# ── when, and by whom


def run(retention) -> bool:
    return retention.run_once(threading.Event())


def test_it_runs_once_a_day_after_two_oclock_local_time(db, clock, monkeypatch):
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    try:
        store(db, [row(1, NOON - 100 * DAY)])
        retention, other = LogRetention(db, clock, 90), LogRetention(db, clock, 90)
        assert run(retention)
        assert left(db) == []
        clock.time = datetime(2026, 11, 22, 6, 59, tzinfo=UTC)  # 1:59 in New York
        assert not run(retention)
        assert not run(other)
        clock.advance(minutes=1)
        assert run(other)
        assert not run(retention)
        assert not run(other)
        assert last_run_time(clock.now()) == clock.now()
    finally:
        monkeypatch.undo()
        time.tzset()


def test_nothing_is_ever_old_with_zero_days(db, clock):
    store(db, [row(1, NOON - 10_000 * DAY)])
    before = sums(db)
    assert run(LogRetention(db, clock, 0))
    assert len(left(db)) == 1
    assert sums(db) == before


def test_what_an_older_version_left_out_of_the_sums_by_caller_is_put_back_at_night(db, clock, caplog):
    store(db, [row(number, NOON - number * DAY) for number in (0, 1, 29, 31)])
    db.transact(lambda tx: tx.execute(caller_rollups.delete()))
    with caplog.at_level(logging.INFO, "retention"):
        assert run(LogRetention(db, clock, 90))
    mended = [one.fields for one in caplog.records if one.getMessage() == "caller_sums_mended"]
    assert mended == [{"day": day, "sums": 4} for day in ("2026-10-23", "2026-11-20", "2026-11-21")]
    with db.reading() as tx:
        assert len(tx.execute(sa.select(caller_rollups)).all()) == 3 * 4
    caplog.clear()
    clock.advance(hours=24)
    with caplog.at_level(logging.INFO, "retention"):
        assert run(LogRetention(db, clock, 90))
    assert "caller_sums_mended" not in caplog.messages


def test_days_are_mended_by_who_has_the_lease_alone(db, clock):
    store(db, [row(1, NOON)])
    db.transact(lambda tx: tx.execute(caller_rollups.delete()))
    slow = LogRetention(db, clock, 90)
    assert slow._take()
    days = slow._mended_days()
    db.transact(lambda tx: tx.execute(table.update().values(owner="somebody else")))
    with pytest.raises(log_retention.RunTakenOver):
        next(days)
    with db.reading() as tx:
        assert tx.execute(sa.select(caller_rollups)).all() == []


def test_it_says_how_many_it_deleted(db, clock, caplog):
    store(db, [row(number, NOON - 100 * DAY) for number in range(9)])
    with caplog.at_level(logging.INFO, "retention"):
        run(LogRetention(db, clock, 90))
    [record] = [one for one in caplog.records if one.getMessage() == "logs_cleaned_up"]
    assert record.fields == {"message": "Cleaned up 9 old request logs", "deleted": 9}


def test_a_run_that_is_told_to_stop_stops_and_another_process_goes_on(db, clock):
    store(db, [row(number, NOON - 100 * DAY) for number in range(30)])
    stopping = threading.Event()
    stopping.set()
    assert not LogRetention(db, clock, 90).run_once(stopping)
    assert len(left(db)) == 23
    assert run(LogRetention(db, clock, 90))
    assert left(db) == []


def test_one_process_works_at_a_time_and_the_next_takes_over_when_it_has_died(db, clock):
    store(db, [row(number, NOON - 100 * DAY) for number in range(30)])
    dying, other = LogRetention(db, clock, 90), LogRetention(db, clock, 90)
    assert dying._take()
    work = dying.delete_before(dying.cutoff(90), lambda _: None, guard=dying._guard)
    assert next(work) == 7
    assert not run(other)
    clock.advance(minutes=4)
    assert next(work) == 7
    clock.advance(minutes=4)  # the second batch has renewed the lease
    assert not run(other)
    clock.advance(minutes=2)
    assert run(other)
    assert left(db) == []
    store(db, [row(99, NOON - 100 * DAY)])
    with pytest.raises(log_retention.RunTakenOver):  # it had only slept
        next(work)
    assert len(left(db)) == 1


KILLED = """
import os, sys
import db; from config import settings; from billing.reports import retention
from foundation.clock import Clock
retention.BATCH_ROWS = 7
retention = retention.LogRetention(db.Database(db.database_url(settings.Config(database_url=sys.argv[1]))), Clock(), 90)
assert retention._take()
batches = retention.delete_before(retention.cutoff(90), lambda _: None, guard=retention._guard)
assert (next(batches), next(batches)) == (7, 7)
os.kill(os.getpid(), 9)
"""


def test_a_killed_run_is_taken_up_where_it_was(empty_database_url, clock):
    db = Database(database_url(Config(database_url=empty_database_url)))
    db.upgrade()
    now = datetime.now(UTC)
    rows = [row(number, now - 200 * DAY) for number in range(40)]
    kept = [row(100, now - 200 * DAY, state="pending", cost_nano=None), row(101, now)]
    store(db, [*rows, *kept])
    assert run_program("-c", KILLED, empty_database_url).returncode == -9
    assert len(left(db)) == 42 - 14
    clock.time = now + HOUR  # when the lease of the dead one is over
    assert run(LogRetention(db, clock, 90))
    assert left(db) == keys_of(kept)
    with db.reading() as tx:
        assert tx.scalar(sa.select(table.c.lease_until)) is None
    db.close()


def test_the_thread_outlives_a_fault_and_ends_when_told(db, clock, monkeypatch):
    monkeypatch.setattr(log_retention, "CHECK_SECONDS", 0.01)
    stopping, seen = threading.Event(), []

    class Faulty(LogRetention):
        def run_once(self, stopping: threading.Event) -> bool:
            seen.append(1)
            if len(seen) == 2:
                stopping.set()
            raise ValueError

    thread = threading.Thread(target=Faulty(db, clock, 90).run, args=(stopping,))
    thread.start()
    thread.join(60)
    assert (len(seen), thread.is_alive()) == (2, False)
