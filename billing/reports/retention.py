"""Deletes old rows of the request log, and of its sums: a little at a time, every night at two, in one process of all.

Then it adds to the sums by caller what an older version has left out of them.

Rows whose cost is still open stay. It may be killed at any moment: the next run begins at the oldest row that is left.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterator
from datetime import datetime, timedelta
from functools import partial

import sqlalchemy as sa

from billing import caller_sums, latency_rollups, refused_calls, rollups, video_jobs
from billing.records import OPEN
from billing.reports.request_log import request_id_at
from db import Database, Transaction
from foundation.clock import Clock
from foundation.crypto import new_id
from foundation.logs import event
from replicas.repeating import repeat
from tables import log_retention as table
from tables import usage_ledger as ledger

log = logging.getLogger("retention")

RUN_HOUR = 2  # of the local time
CHECK_SECONDS = 60.0
LEASE = timedelta(minutes=5)  # longer than any batch with its pause
BATCH_ROWS = 1000
# A pause is this many times as long as the batch before it: at most a fifth of the time is spent writing, and a
# database that is slow because it is busy gets longer pauses.
PAUSE_FACTOR = 4
MENDED_DAYS = 30  # of an older version that ran beside this one, or in its place


class RunTakenOver(Exception):
    """Another process deletes now; this one must stop."""


class LogRetention:
    """Runs in a thread of its own, in every process; a lease decides which of them works."""

    def __init__(
        self,
        db: Database,
        clock: Clock,
        days: int,
        hourly_days: int = 0,
        daily_days: int = 0,
        delete_more: Callable[[], bool] | None = None,
    ) -> None:
        """clock: one for all processes. days: how long rows are kept, and sums by hour and by day; 0 for ever.

        delete_more: deletes some of what else is old, and says whether there may be more.

        Sums by hour are never kept for less time than rows: pages of the log are counted by them.
        """
        self._db = db
        self._clock = clock
        self._days = days
        self._sums = [(rollups.HOUR, max(hourly_days, days) if days else 0), (rollups.DAY, daily_days)]
        self._delete_more = delete_more
        self._owner = new_id()

    def run(self, stopping: threading.Event) -> None:
        """Look whether a run is due until told to stop."""
        repeat(lambda: self.run_once(stopping), CHECK_SECONDS, stopping)

    def run_once(self, stopping: threading.Event) -> bool:
        """Delete what is old and mend sums, if that is due and nobody else is at it. True if it came to its end."""
        if not self._take():
            return False
        deleted = 0
        try:
            for count in self._delete_old(stopping):
                deleted += count
                if stopping.is_set():
                    break
        except RunTakenOver:
            return False
        done = not stopping.is_set()
        self._release(done)
        log_end(deleted)
        return done

    def cutoff(self, days: int) -> datetime:
        """Rows from before this time are older than so many days. A full hour, because the log is counted by hours."""
        return (self._clock.now() - timedelta(days=days)).replace(minute=0, second=0, microsecond=0)

    def _delete_old(self, stopping: threading.Event) -> Iterator[int]:
        """Says after each batch how many rows of the log it deleted."""
        if self._days:
            yield from self.delete_before(self.cutoff(self._days), stopping.wait, guard=self._guard)
            refused_calls.delete_old(self._db, self.cutoff(self._days))
        for period, days in self._sums:
            if days:
                before = self.cutoff(days).replace(hour=0)
                yield from _paced(self._sums_before(period, before), stopping)
                for delete in (rollups.delete_old_callers, rollups.delete_old_teams, latency_rollups.delete_old):
                    yield from _paced(iter(partial(self._delete_start, delete, period, before), False), stopping)
        if self._delete_more:
            yield from _paced(iter(self._delete_what_is_more, False), stopping)
        yield from _paced(self._mended_days(), stopping)

    def _mended_days(self) -> Iterator[datetime]:
        """Mend the sums by caller of the days that need it, one by one."""
        with self._db.reading() as tx:
            days = caller_sums.differing_days(tx, self.cutoff(MENDED_DAYS).replace(hour=0))
        for day in days:
            mended = self._db.transact(partial(self._mend_day, day))
            event(log, "caller_sums_mended", day=f"{day:%Y-%m-%d}", sums=mended)
            yield day

    def _mend_day(self, day: datetime, tx: Transaction) -> int:
        self._guard(tx)
        return caller_sums.mend(tx, day)

    def _sums_before(self, period: str, before: datetime) -> Iterator[object]:
        """Delete them, from user to user."""
        user_id: int | None = 0
        while user_id is not None:
            user_id = self._db.transact(partial(self._delete_sums, period, before, user_id))
            yield user_id

    def _delete_what_is_more(self) -> bool:
        self._db.transact(self._guard)
        return self._delete_more is not None and self._delete_more()

    def _delete_sums(self, period: str, before: datetime, from_user: int, tx: Transaction) -> int | None:
        self._guard(tx)
        return rollups.delete_old(tx, period, before, from_user)

    def _delete_start(
        self, delete: Callable[[Transaction, str, datetime], bool], period: str, before: datetime
    ) -> bool:
        """Delete the sums of one hour or day; True if there may be more."""

        def work(tx: Transaction) -> bool:
            self._guard(tx)
            return delete(tx, period, before)

        return self._db.transact(work)

    def delete_before(
        self,
        cutoff: datetime,
        pause: Callable[[float], object],
        keep: Collection[str] = (),
        guard: Callable[[Transaction], None] | None = None,
    ) -> Iterator[int]:
        """Delete the rows of requests from before a full hour; says after each batch how many, and pauses then.

        keep: ids of requests to leave. guard: called in each batch's transaction, may raise to end it.
        """
        after, end = "", request_id_at(cutoff)
        is_more = True
        while is_more:
            begun = time.monotonic()
            low = after

            def work(tx: Transaction, low: str = low) -> tuple[int, str | None]:
                if guard:
                    guard(tx)
                return _delete_batch(tx, low, end, keep)

            deleted, high = self._db.transact(work)
            is_more, after = high is not None, high or end
            took = time.monotonic() - begun
            yield deleted
            if is_more:
                pause(took * PAUSE_FACTOR)
        earlier = sa.or_(table.c.deleted_before.is_(None), table.c.deleted_before < cutoff)
        self._db.transact(lambda tx: tx.execute(table.update().where(earlier).values(deleted_before=cutoff)))

    # ── the lease

    def _take(self) -> bool:
        """True if a run is due and this process may do it."""
        now = self._clock.now()
        due = sa.or_(table.c.finished_at.is_(None), table.c.finished_at < last_run_time(now))
        free = sa.or_(table.c.lease_until.is_(None), table.c.lease_until <= now, table.c.owner == self._owner)
        with self._db.reading() as tx:  # nearly always there is nothing to do, and nothing to lock
            if tx.scalar(sa.select(table.c.name).where(due, free)) is None:
                return False
        values = {"owner": self._owner, "lease_until": now + LEASE}
        return self._db.transact(lambda tx: tx.execute(table.update().where(due, free).values(values)).rowcount) == 1

    def _guard(self, tx: Transaction) -> None:
        mine = table.c.owner == self._owner
        if not tx.execute(table.update().where(mine).values(lease_until=self._clock.now() + LEASE)).rowcount:
            raise RunTakenOver

    def _release(self, done: bool) -> None:
        """done: the next run is tomorrow's; otherwise another process may go on at once."""
        values = {"lease_until": None} | ({"finished_at": self._clock.now()} if done else {})
        mine = table.c.owner == self._owner
        self._db.transact(lambda tx: tx.execute(table.update().where(mine).values(values)))


def last_run_time(now: datetime) -> datetime:
    """The last time that it was RUN_HOUR o'clock in this host's time zone."""
    local = now.astimezone()
    due = local.replace(hour=RUN_HOUR, minute=0, second=0, microsecond=0)
    return due if due <= local else due - timedelta(days=1)


def _paced(batches: Iterator[object], stopping: threading.Event) -> Iterator[int]:
    """Let one batch follow the other, with pauses; says after each that it deleted no rows of the log."""
    begun = time.monotonic()
    for _ in batches:
        yield 0
        stopping.wait((time.monotonic() - begun) * PAUSE_FACTOR)
        begun = time.monotonic()


def log_end(deleted: int) -> None:
    """Log the end of a run."""
    event(log, "logs_cleaned_up", message=f"Cleaned up {deleted} old request logs", deleted=deleted)


def _delete_batch(tx: Transaction, low: str, end: str, keep: Collection[str]) -> tuple[int, str | None]:
    """Delete some rows between two ids, neither of them included; returns how many, and the id to go on after."""
    between = ledger.c.request_id > low, ledger.c.request_id < end
    ids = sa.select(ledger.c.request_id).where(*between).order_by(ledger.c.request_id)
    high: str | None = tx.scalar(ids.limit(1).offset(BATCH_ROWS - 1))
    kept = [request_id for request_id in keep if low < request_id <= (high or end)]
    delete = ledger.delete().where(*between, ledger.c.state.not_in(OPEN), ledger.c.request_id.not_in(kept))
    if high is not None:
        delete = delete.where(ledger.c.request_id <= high)
    deleted = tx.execute(delete).rowcount
    if deleted:
        video_jobs.delete_without_call(tx, low, high or end)
    return deleted, high
