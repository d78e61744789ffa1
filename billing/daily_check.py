"""The daily check of our sums against OpenRouter's: key by key, each day that is over, and each key's whole usage.

Part of key_rotation.py, which alone has the management key, and under its lease. What OpenRouter does not know yet, or
says otherwise, is asked again on the next days, for as long as it tells of them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from billing import daily_check_rows
from billing.daily_check_rows import ROUNDING_NANO, Check, CountedSums, Verdict
from db import Database, DatabaseError
from foundation.clock import Clock
from foundation.logs import event, redact
from foundation.money import usd
from foundation.terminal import show
from pool.keys import PoolKeys
from pool.life import WITHOUT_TEXT, PoolKeyRow, PoolKeySource
from replicas.lease import LeaseLost, RotationLease, WrongDeployment
from upstream.openrouter.key_facts import RemoteKey
from upstream.openrouter.management_api import ManagementApi, ManagementError

log = logging.getLogger("usage_check")

# At one o'clock (UTC) calls that ran over midnight have ended, and most costs that came late are here.
CHECK_AT = timedelta(hours=1)
ONE_DAY = timedelta(days=1)
DAYS = 30  # OpenRouter tells of so many
# A pass checks for so long and leaves the rest to the next one: the rotation must not wait.
PASS_SECONDS = 10.0
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 60.0, 3600.0  # after failures
MAX_UNKNOWN_PER_THOUSAND = 1


class UsageCheck:
    """Compares and writes down. A lease of its own: it takes turns with the rotation's passes."""

    def __init__(self, db: Database, keys: PoolKeys, api: ManagementApi, lease: RotationLease, clock: Clock) -> None:
        self._db = db
        self._keys = keys
        self._api = api
        self._lease = lease
        self._clock = clock
        self._failures = 0
        self._next_at: datetime | None = None
        self._paused_until = 0.0

    def run_if_due(self) -> None:
        """A part of today's check, if something is left of it. Never raises: the rotation goes on whatever happens."""
        if self._clock.monotonic() < self._paused_until:
            return
        try:
            now = self._clock.now()
            if self._next_at is None or now >= self._next_at:
                is_done = self._take_turn(now)
                self._failures = 0
                self._next_at = _last_due(now) + ONE_DAY if is_done else None
        except (ManagementError, DatabaseError, LeaseLost, WrongDeployment) as error:
            reason = redact(str(error).partition("\n")[0])
            event(log, "usage_check_failed", logging.WARNING, reason=reason)
            self._pause()
        except Exception:
            log.exception("background_fault")
            self._pause()

    def _take_turn(self, now: datetime) -> bool:
        if not self._lease.take():
            return False
        try:
            round_ = _Round(self._db, self._keys, self._api, self._lease, now)
            until = self._clock.monotonic() + PASS_SECONDS
            return all(self._clock.monotonic() < until for _ in round_.compare_due())
        finally:
            self._lease.release()

    def _pause(self) -> None:
        pause = min(FIRST_PAUSE_SECONDS * 2 ** min(self._failures, 10), LONGEST_PAUSE_SECONDS)
        self._paused_until = self._clock.monotonic() + pause
        self._failures += 1

    def run(self) -> list[Check]:
        """All of today's check, also of what was asked today already and is still open. Returns what it compared.

        Raises ManagementError, DatabaseError, WrongDeployment, and LeaseLost while another process rotates.
        """
        if not self._lease.take():
            raise LeaseLost("another process rotates now; try again in a minute")
        try:
            return list(
                _Round(self._db, self._keys, self._api, self._lease, self._clock.now(), again=True).compare_due()
            )
        finally:
            self._lease.release()

    def run_and_show(self) -> bool:
        """`run`, and print what was compared. True if nothing differs."""
        checks = self.run()
        show([check.to_dict() for check in checks], "Our sums and OpenRouter's", empty="nothing to compare")
        return all(check.verdict is not Verdict.DIFFERS for check in checks)


def _last_due(now: datetime) -> datetime:
    """When the newest check that is due by now was, or is, to begin."""
    return _midnight(now - CHECK_AT) + CHECK_AT


def _midnight(time: datetime) -> datetime:
    return time.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


class _Round:
    """One look at what is due, with the sums as they are now."""

    def __init__(
        self,
        db: Database,
        keys: PoolKeys,
        api: ManagementApi,
        lease: RotationLease,
        now: datetime,
        again: bool = False,
    ) -> None:
        self._db = db
        self._keys = keys
        self._api = api
        self._lease = lease
        self._now = now
        due = _last_due(now)
        self._today = due - CHECK_AT
        self._asked_before = now if again else due
        first = self._today - DAYS * ONE_DAY
        self._first_counted = daily_check_rows.first_counted_day(db)
        self._sums = daily_check_rows.sums_by_day(db, first)
        self._costs: dict[int, list[tuple[datetime, int]]] = {}
        for (day, row_id), sums in self._sums.items():
            self._costs.setdefault(row_id, []).append((day, sums.cost_nano))
        self._before = daily_check_rows.sums_before(db, first)
        self._stored = daily_check_rows.since(db, first)
        self._days = [first + number * ONE_DAY for number in range(DAYS)]
        self._told = {day for day, _ in self._stored}

    def compare_due(self) -> Iterator[Check]:
        """Compare what is due, newest day first; each is written down before it is returned."""
        due = list(self._due())
        if not due:
            return
        listed = {key.hash: key for key in self._api.list_keys()}
        for day, row in due:
            self._lease.renew()
            check = self._compare(day, row, listed.get(row.api_key_hash or ""))
            daily_check_rows.note(self._db, check, self._lease.guard)
            self._tell(check)
            yield check
        event(log, "usage_checked", compared=len(due))

    # ── what is due

    def _due(self) -> Iterator[tuple[datetime, PoolKeyRow]]:
        rows = [row for row in self._keys.operated() if row.api_key_hash]
        for day in reversed(self._days):
            for row in rows:
                if self._is_open(day, row) and self._was_there(day, row):
                    yield day, row

    def _is_open(self, day: datetime, row: PoolKeyRow) -> bool:
        stored = self._stored.get((day, row.id))
        if stored is None:
            return True
        if (stored.our_nano, stored.our_total_nano) != (self._cost(day, row), self._total(day, row)):
            return True  # costs that came late, or sums that somebody has changed
        return stored.difference_nano != 0 and stored.checked_at < self._asked_before

    def _was_there(self, day: datetime, row: PoolKeyRow) -> bool:
        """True if the key could be used on that day, and what it spent then was counted by us."""
        first = self._first_counted
        if first is None or day < first or (day == first and not self._is_counted(row)):
            return False
        was_gone = row.state in WITHOUT_TEXT and row.updated_at < day
        return (day, row.id) in self._sums or (row.created_at < day + ONE_DAY and not was_gone)

    def _cost(self, day: datetime, row: PoolKeyRow) -> int:
        return self._sums.get((day, row.id), CountedSums()).cost_nano

    def _is_counted(self, row: PoolKeyRow) -> bool:
        """True if all that the key has spent since we have it was counted."""
        return self._first_counted is not None and row.created_at >= self._first_counted

    # ── one key on one day

    def _compare(self, day: datetime, row: PoolKeyRow, listed: RemoteKey | None) -> Check:
        ours, total = self._cost(day, row), self._total(day, row)
        activity, usage = self._activity(day, row, listed, ours), self._usage(day, row, listed)
        return Check(day, row.id, row.name, row.source, ours, activity, total, usage, self._now)

    def _activity(self, day: datetime, row: PoolKeyRow, listed: RemoteKey | None, ours: int) -> int | None:
        if listed is None and row.source not in {PoolKeySource.MINTED, PoolKeySource.UNKNOWN}:
            return None  # a key of an account that our management key does not know
        try:
            activity = self._api.activity_nano(day.date(), row.api_key_hash or "")
        except ManagementError as error:
            if error.status not in {400, 404}:
                raise
            return None  # about this key; others can be asked all the same
        # No rows: nothing was spent, or they are not there yet.
        return 0 if activity is None and ours == 0 else activity

    def _usage(self, day: datetime, row: PoolKeyRow, listed: RemoteKey | None) -> int | None:
        """What the key has spent up to the end of the day, where that can be compared with our total."""
        if not self._is_counted(row):
            return None
        if row.state in WITHOUT_TEXT:
            return row.usage_nano
        if listed and listed.usage_today_nano is not None and day == _midnight(self._now) - ONE_DAY:
            return listed.usage_nano - listed.usage_today_nano
        stored = self._stored.get((day, row.id))
        return stored.usage_nano if stored else None

    def _total(self, day: datetime, row: PoolKeyRow) -> int:
        """What we counted for the key up to the end of the day; of a key that is gone, up to its own end."""
        costs = self._costs.get(row.id, ())
        is_gone = row.state in WITHOUT_TEXT
        before = self._before.get(row.id, CountedSums()).cost_nano
        return before + sum(cost for on, cost in costs if is_gone or on <= day)

    # ── what is said about it

    def _tell(self, check: Check) -> None:
        if check.day not in self._told:
            self._told.add(check.day)
            self._tell_unknown(check.day)
        if check.verdict is Verdict.DIFFERS and self._is_news(check):
            event(
                log,
                "usage_differs",
                logging.WARNING,
                key=check.name,
                day=f"{check.day:%Y-%m-%d}",
                difference_usd=usd(check.difference_nano),
                total_difference_usd=usd(check.total_difference_nano),
                unknown=self._sums.get((check.day, check.pool_key_id), CountedSums()).unknown,
            )

    def _is_news(self, check: Check) -> bool:
        """False if the log has said so already: an old difference stays in the totals of all later days."""
        stored = self._stored.get((check.day, check.pool_key_id))
        before = stored or self._stored.get((check.day - ONE_DAY, check.pool_key_id))
        if check.day_verdict is Verdict.DIFFERS and not (stored and stored.difference_nano == check.difference_nano):
            return True
        total, told = check.total_difference_nano, before.total_difference_nano if before else None
        is_told = total is not None and told is not None and abs(total - told) <= ROUNDING_NANO
        return check.total_verdict is Verdict.DIFFERS and not is_told

    def _tell_unknown(self, day: datetime) -> None:
        """Calls of which nobody can tell what they cost: once for each day, and loudly if there are many.

        Those of other upstreams, some of which never tell, are no news.
        """
        of_day = [sums for (of, carrier), sums in self._sums.items() if of == day and carrier >= 0]
        requests, unknown = sum(sums.requests for sums in of_day), sum(sums.unknown for sums in of_day)
        if unknown * 1000 > requests * MAX_UNKNOWN_PER_THOUSAND:
            fields = {"day": f"{day:%Y-%m-%d}", "unknown": unknown, "requests": requests}
            event(log, "too_many_costs_unknown", logging.ERROR, **fields)
