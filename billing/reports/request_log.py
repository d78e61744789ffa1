"""The request log: the ledger's rows by request, newest first, in pages that stay fast at ten million rows.

A page has a number outside and a place inside. Which hour it begins in comes from the roll-ups, which count the
requests of every day and hour; its rows are then a short range of one index. Counting and skipping rows instead takes
the longer the older the page is. What no sum counts is searched for in the newest rows, SEARCH_ROWS at most.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from billing.records import NO_ERROR
from billing.reports.log_items import LogItem, items_of
from billing.reports.row_filter import RowFilter
from billing.reports.statistics import POOL, UsageFilter
from billing.rollups import DAY, HOUR
from db import Database, Transaction
from foundation.clock import Clock
from tables import log_retention
from tables import usage_ledger as ledger
from tables import usage_rollups as rollups

HOUR_LONG, DAY_LONG = timedelta(hours=1), timedelta(days=1)
# A page that begins this deep in a day looks up the hours of the day; below, to skip the rows is as fast.
SKIP_AT_MOST = 500
SEARCH_ROWS = 100_000
WALK_ROWS = 500  # MariaDB makes a join of a list of 1,000 ids

Range = tuple[datetime, datetime]


@dataclass(frozen=True)
class LogPage:
    """items: newest first, unless asked otherwise. total: of all pages.

    searched_since: of a search that has left older rows alone, from when on it has looked; None for all that there is.
    """

    items: list[LogItem]
    total: int
    searched_since: datetime | None = None


@dataclass(frozen=True)
class _Count:
    """How many requests began in [start, end): a day or an hour, never none."""

    start: datetime
    end: datetime
    requests: int


class UsageLog:
    """Reads the log. Only requests that are over are in it."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock

    def page(self, asked: UsageFilter, page: int, page_size: int) -> LogPage:
        """One page, counted from 1; beyond the last there are none. What was deleted counts no more."""
        with self._db.reading() as tx:
            begin, end = self._counted_bounds(tx, asked)
            if asked.rows:
                return self._found(tx, asked, (begin, end), (page - 1) * page_size, page_size)
            counts = self._counts(tx, asked, begin, end)
            total, skip = sum(count.requests for count in counts), (page - 1) * page_size
            if skip >= total:
                return LogPage([], total)
            ranges, skip = _place(tx, asked, counts, skip, page_size, begin)
            if not ranges:  # the rows of the last hours were deleted since they were counted
                return LogPage([], total)
            # One query for each range, put together: of ranges joined by OR, SQLite makes a walk through the table.
            queries = [_select_ids(asked, one) for one in ranges]
            found = queries[0] if len(queries) == 1 else sa.union_all(*queries)
            newest_first = found.order_by(sa.desc("request_id")).limit(page_size).offset(skip)
            return LogPage(items_of(tx, list(tx.scalars(newest_first))), total)

    def _found(self, tx: Transaction, asked: UsageFilter, within: Range, skip: int, page_size: int) -> LogPage:
        rows = asked.rows or RowFilter()
        since = None if rows.request_id else self._search_since(tx, asked, *within)
        found = _select_ids(asked, (since or within[0], within[1]))
        total = tx.scalar(sa.select(sa.func.count()).select_from(found.subquery())) or 0
        ids = tx.scalars(found.order_by(*rows.sorting()).limit(page_size).offset(skip))
        return LogPage(items_of(tx, list(ids)), total, since)

    def _search_since(self, tx: Transaction, asked: UsageFilter, begin: datetime, end: datetime) -> datetime | None:
        """The full hour from which on a search reads SEARCH_ROWS rows, and that hour's; None if there are no more."""
        read = _indexed_part(asked)
        touched, older = _newest(self._counts(tx, read, begin, end), SEARCH_ROWS)
        last = touched[-1] if touched else None
        if last and last.end - last.start == DAY_LONG and sum(one.requests for one in touched) > SEARCH_ROWS:
            left = SEARCH_ROWS - sum(one.requests for one in touched[:-1])
            touched, older_today = _newest(_counted(tx, read, HOUR, [(last.start, last.end)]), left)
            older = older or older_today
        return touched[-1].start if older else None

    def count(self, asked: UsageFilter) -> int:
        """How many requests there are."""
        with self._db.reading() as tx:
            return sum(count.requests for count in self._counts(tx, asked, *self._counted_bounds(tx, asked)))

    def walk(self, asked: UsageFilter) -> Iterator[list[LogItem]]:
        """All requests, oldest first, in lists of at most WALK_ROWS; each is a short transaction of its own."""
        with self._db.reading() as tx:
            start, end = self._bounds(tx, asked)
        return self._walk(asked, start, end)

    def _walk(self, asked: UsageFilter, start: datetime, end: datetime) -> Iterator[list[LogItem]]:
        # One day at a time, so that no query looks for long for the few rows that a filter leaves.
        while start < end:
            until = min(end, _midnight(start) + DAY_LONG)
            after = ""
            while True:
                found = _select_ids(asked, (start, until)).where(ledger.c.request_id > after)
                with self._db.reading() as tx:
                    ids = list(tx.scalars(found.order_by(ledger.c.request_id).limit(WALK_ROWS)))
                    items = items_of(tx, ids)
                if items:
                    yield items
                if len(ids) < WALK_ROWS:
                    break
                after = ids[-1]
            start = until

    def _bounds(self, tx: Transaction, asked: UsageFilter) -> Range:
        """From when to when there is anything, in full hours."""
        end = _midnight(self._clock.now()) + 2 * DAY_LONG  # clocks of other hosts may be ahead
        oldest: str | None = tx.scalar(sa.select(sa.func.min(ledger.c.request_id)))
        begin = _time(oldest).replace(minute=0, second=0, microsecond=0) if oldest else end
        return max(begin, asked.start or begin), min(end, asked.end or end)

    def _counted_bounds(self, tx: Transaction, asked: UsageFilter) -> Range:
        """Where the roll-ups count what is there: not where old rows were deleted, though a few open ones are left."""
        begin, end = self._bounds(tx, asked)
        deleted_before: datetime | None = tx.scalar(sa.select(log_retention.c.deleted_before))
        return max(begin, deleted_before or begin), end

    def _counts(self, tx: Transaction, asked: UsageFilter, begin: datetime, end: datetime) -> list[_Count]:
        """The requests between two full hours, newest first: by hour in days that begin or end within, else by day."""
        first, last = -(-begin.timestamp() // 86400), end.timestamp() // 86400
        if first >= last:
            return _counted(tx, asked, HOUR, [(begin, end)])
        first_day, last_day = (datetime.fromtimestamp(day * 86400, UTC) for day in (first, last))
        return [
            *_counted(tx, asked, HOUR, [(last_day, end)]),
            *_counted(tx, asked, DAY, [(first_day, last_day)]),
            *_counted(tx, asked, HOUR, [(begin, first_day)]),
        ]


def request_id_at(time: datetime) -> str:
    """What the ids of requests from this time on are not below."""
    return f"{int(time.timestamp() * 1000):012x}"


def _time(request_id: str) -> datetime:
    return datetime.fromtimestamp(int(request_id[:12], 16) / 1000, UTC)


def _midnight(time: datetime) -> datetime:
    return time.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


# ── where a page is


def _counted(tx: Transaction, asked: UsageFilter, period: str, ranges: list[Range]) -> list[_Count]:
    ranges = [(start, end) for start, end in ranges if start < end]
    if not ranges:
        return []
    if asked.user_id is not None and asked.pool_key_id is not None:
        return _counted_rows(tx, asked, period, ranges)
    requests, errors = sa.func.sum(rollups.c.requests), sa.func.sum(rollups.c.errors)
    number = {None: requests, True: errors, False: requests - errors}[asked.is_error].label("number")
    times = sa.or_(*(sa.and_(rollups.c.start >= start, rollups.c.start < end) for start, end in ranges))
    query = sa.select(rollups.c.start, number).where(asked.sums_of(period), times)
    rows = tx.execute(query.group_by(rollups.c.start).order_by(rollups.c.start.desc()))
    length = HOUR_LONG if period == HOUR else DAY_LONG
    return [_Count(row.start, row.start + length, int(row.number)) for row in rows if row.number > 0]


def _counted_rows(tx: Transaction, asked: UsageFilter, period: str, ranges: list[Range]) -> list[_Count]:
    """As _counted, from the rows: the roll-ups of one user don't tell pool keys apart. For operators alone."""
    length = HOUR_LONG if period == HOUR else DAY_LONG
    seconds = int(length.total_seconds())
    numbers = Counter[int]()
    for one in ranges:
        ids = tx.scalars(_select_ids(asked, one))
        numbers.update(int(request_id[:12], 16) // 1000 // seconds for request_id in ids)
    starts = {datetime.fromtimestamp(number * seconds, UTC): count for number, count in numbers.items()}
    return [_Count(start, start + length, starts[start]) for start in sorted(starts, reverse=True)]


def _place(
    tx: Transaction, asked: UsageFilter, counts: list[_Count], skip: int, page_size: int, begin: datetime
) -> tuple[list[Range], int]:
    """Where to look for a page's rows, and how many matching rows to skip there.

    If an index holds just what is asked for, the page's rows are the next ones from the hour in which it begins, maybe
    long before it. Otherwise the rows between may be very many, and only the hours with matching ones are looked at.
    """
    is_indexed = _is_indexed(asked)
    touched, skip = _touched(counts, skip, 1 if is_indexed else page_size)
    days = [(count.start, count.end) for count in touched if count.end - count.start == DAY_LONG]
    if days and (skip > SKIP_AT_MOST or not is_indexed):
        hours = _counted(tx, asked, HOUR, _joined(days))
        hours += [count for count in touched if count.end - count.start == HOUR_LONG]
        hours.sort(key=lambda count: count.start, reverse=True)
        touched, skip = _touched(hours, skip, 1 if is_indexed else page_size)
    if not touched:
        return [], 0
    if is_indexed:
        return [(begin, touched[0].end)], skip
    return _joined((count.start, count.end) for count in touched), skip


def _touched(counts: list[_Count], skip: int, wanted: int) -> tuple[list[_Count], int]:
    """The counts that hold the `wanted` requests after the first `skip`, and how many to skip of them."""
    touched: list[_Count] = []
    held = 0
    for count in counts:
        if skip >= count.requests and not touched:
            skip -= count.requests
            continue
        touched.append(count)
        held += count.requests
        if held >= skip + wanted:
            break
    return touched, skip


def _newest(counts: list[_Count], wanted: int) -> tuple[list[_Count], bool]:
    """The counts that hold the newest `wanted` requests, and whether there are older ones."""
    touched, _ = _touched(counts, 0, wanted)
    return touched, len(touched) < len(counts)


def _joined(ranges: Iterable[Range]) -> list[Range]:
    """Ranges, newest first, with neighbours made one."""
    joined: list[Range] = []
    for start, end in ranges:
        if joined and joined[-1][0] == end:
            joined[-1] = start, joined[-1][1]
        else:
            joined.append((start, end))
    return joined


# ── its rows


def _index(asked: UsageFilter) -> str:
    if asked.user_id is not None:
        return "usage_ledger_user"
    if asked.model is not None:
        return "usage_ledger_model"
    return "usage_ledger_pool_key" if asked.pool_key_id is not None else "PRIMARY"


def _indexed_part(asked: UsageFilter) -> UsageFilter:
    """What is asked for, as far as one index tells it: the rows that a walk along that index reads."""
    has_user = asked.user_id is not None
    return UsageFilter(
        asked.user_id,
        model=None if has_user else asked.model,
        pool_key_id=None if has_user or asked.model is not None else asked.pool_key_id,
    )


def _is_indexed(asked: UsageFilter) -> bool:
    """True if all that is asked for stands in one index."""
    others = asked.user_id, asked.model, asked.pool_key_id
    unindexed = asked.client_key_id, asked.is_error, asked.upstream_id, asked.model_part
    return all(one is None for one in unindexed) and sum(one is not None for one in others) <= 1


def _select_ids(asked: UsageFilter, within: Range) -> sa.Select[Any]:
    """The ids of the requests that are over and began within a range."""
    low, high = map(request_id_at, within)
    between = ledger.c.request_id >= low, ledger.c.request_id < high
    query = sa.select(ledger.c.request_id).where(*between, ledger.c.is_last == sa.true())
    if asked.user_id is not None:
        query = query.where(ledger.c.user_id == asked.user_id)
    if asked.client_key_id is not None:
        query = query.where(ledger.c.client_key_id == asked.client_key_id)
    if asked.model is not None:
        query = query.where(ledger.c.model == asked.model)
    if asked.pool_key_id is not None:
        query = query.where(ledger.c.pool_key_id == asked.pool_key_id)
    if asked.upstream_id is not None:
        is_pools = ledger.c.pool_key_id.is_not(None)
        query = query.where(is_pools if asked.upstream_id == POOL else ledger.c.upstream_id == asked.upstream_id)
    if asked.model_part is not None:
        query = query.where(sa.func.lower(ledger.c.model).contains(asked.model_part, autoescape=True))
    if asked.rows is not None:
        query = query.where(*asked.rows.conditions())
    if asked.is_error is not None:
        outcome = sa.func.coalesce(ledger.c.outcome, "")
        query = query.where(outcome.not_in(NO_ERROR) if asked.is_error else outcome.in_(NO_ERROR))
    # Left to itself, MySQL may read along another index if it hopes to meet enough rows before the limit. SQLite takes
    # an index with an equal column; there is a choice only within the hours that are looked at for several columns.
    return query.with_hint(ledger, f"FORCE INDEX ({_index(asked)})", "mysql")
