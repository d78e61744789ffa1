"""Sums of how long calls took and how they failed, by hour and by day: written and deleted as billing/rollups.py's are.

A row has its counts as one JSON text, which is read, added to and written anew: a column for each bucket would be 150
columns, and a row for each bucket more rows than calls.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from datetime import UTC, datetime
from enum import StrEnum
from itertools import groupby
from typing import Any, NamedTuple

import orjson
import sqlalchemy as sa

from billing.latency import FAILURE, NOTHING, CallTimes, times_of_call, times_of_try
from billing.rollups import DAY, HOUR
from db import Transaction
from storage.many_rows import upsert_rows
from tables import latency_rollups as table

MOST_KINDS = 40  # of errors in one row: upstreams make up words
OTHER = f"{FAILURE}other"
ADDED = ("calls", "errors", "output_tokens", "output_ms")


class LatencyKind(StrEnum):
    """What a row's subject is. Of callers there are sums by day alone: by the hour they would make a row a call."""

    ALL = "all"
    MODEL = "model"
    POOL_KEY = "pool_key"
    UPSTREAM = "upstream"
    USER = "user"
    KEY = "key"
    OWN_MODEL = "own"


CALLERS = frozenset({LatencyKind.USER, LatencyKind.KEY, LatencyKind.OWN_MODEL})
POOL = "0"  # the subject of what pool keys carried, among upstreams


class LatencyPlace(NamedTuple):
    """Which calls: whose, and in which hour or day they began."""

    period: str
    kind: str
    start: datetime
    subject: str


Changes = dict[LatencyPlace, CallTimes]


def own_model(user_id: int, model: str) -> str:
    """The subject of what one user calls."""
    return f"{user_id}/{model}"


def note(changes: Changes, before: Mapping[str, Any] | None, after: Mapping[str, Any]) -> None:
    """Add what one row's change means."""
    call, was_call = times_of_call(after), times_of_call(before)
    tried, was_tried = times_of_try(after), times_of_try(before)
    if tried == was_tried:  # what changes for the request changes for its last try
        return
    hour = after["created_at"].astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    starts = {HOUR: hour, DAY: hour.replace(hour=0)}
    for subjects, now, was in ((_callers(after), call, was_call), (_carriers(after), tried, was_tried)):
        if now == was:
            continue
        for kind, subject in subjects:
            for period in (DAY,) if kind in CALLERS else (HOUR, DAY):
                place = LatencyPlace(period, kind, starts[period], subject)
                sums = changes.get(place) or changes.setdefault(place, CallTimes())
                sums.add(now)
                if was is not NOTHING:
                    sums.add(was, -1)


def _callers(row: Mapping[str, Any]) -> Iterator[tuple[LatencyKind, str]]:
    yield LatencyKind.ALL, ""
    yield LatencyKind.MODEL, row["model"]
    yield LatencyKind.USER, str(row["user_id"])
    yield LatencyKind.OWN_MODEL, own_model(row["user_id"], row["model"])
    if row["client_key_id"] is not None:
        yield LatencyKind.KEY, str(row["client_key_id"])


def _carriers(row: Mapping[str, Any]) -> Iterator[tuple[LatencyKind, str]]:
    if row["upstream_id"] is not None:
        yield LatencyKind.UPSTREAM, str(row["upstream_id"])
    elif row["pool_key_id"] is not None:
        yield LatencyKind.POOL_KEY, str(row["pool_key_id"])
        yield LatencyKind.UPSTREAM, POOL


def add(tx: Transaction, changes: Changes) -> None:
    """Add these changes to the sums.

    A day's row of all calls is the lock of its other rows: whoever has it may read what they hold, and write it anew.
    """
    if not changes:
        return
    days = sorted({place.start.replace(hour=0) for place in changes})  # everybody's order, against deadlocks
    upsert_rows(
        tx, table, [_row(LatencyPlace(DAY, LatencyKind.ALL, day, ""), CallTimes()) for day in days], adding=["calls"]
    )
    rows: list[dict[str, Any]] = []
    for (period, kind, start), same in groupby(sorted(changes), key=lambda place: place[:3]):
        places = {place.subject: place for place in same}
        sums = {subject: one for _, subject, one in read(tx, period, kind, [start], list(places))}
        for subject, place in places.items():
            rows.append(_row(place, sums.get(subject, CallTimes()), changes[place]))
    upsert_rows(tx, table, rows, setting=(*ADDED, "counts"))


def _row(place: LatencyPlace, sums: CallTimes, more: CallTimes = NOTHING) -> dict[str, Any]:
    """The row of these sums and more."""
    counts = sums.counts
    for name, count in more.counts.items():
        known = name if name in counts or not _is_full(name, counts) else OTHER
        counts[known] += count
    added = {name: getattr(sums, name) + getattr(more, name) for name in ADDED}
    text = orjson.dumps({name: count for name, count in counts.items() if count}).decode()
    return place._asdict() | added | {"counts": text}


def _is_full(name: str, counts: Mapping[str, int]) -> bool:
    return name.startswith(FAILURE) and sum(known.startswith(FAILURE) for known in counts) >= MOST_KINDS


def read(
    tx: Transaction, period: str, kind: str, starts: Collection[datetime], subjects: Collection[str]
) -> Iterator[tuple[datetime, str, CallTimes]]:
    """The sums of these subjects in these hours or days, of those that have any."""
    columns = table.c.start, table.c.subject, *(table.c[name] for name in ADDED), table.c.counts
    of_these = table.c.period == period, table.c.kind == kind
    query = sa.select(*columns).where(*of_these, table.c.start.in_(starts), table.c.subject.in_(subjects))
    for row in tx.execute(query):
        yield row.start, row.subject, sums_in(row)


def sums_in(row: sa.Row[Any]) -> CallTimes:
    """The sums of one row."""
    sums = CallTimes(row.calls, row.errors, row.output_tokens, row.output_ms)
    sums.counts.update(orjson.loads(row.counts))
    return sums


def delete_old(tx: Transaction, period: str, before: datetime) -> bool:
    """Delete the oldest hour or day of each kind that began before; True if there may be more."""
    was_there = False
    for kind in LatencyKind:  # each a range of the primary key, of which the first row is read
        of_kind = table.c.period == period, table.c.kind == kind, table.c.start < before
        oldest = tx.scalar(sa.select(sa.func.min(table.c.start)).where(*of_kind))
        if oldest is not None:
            tx.execute(table.delete().where(*of_kind, table.c.start == oldest))
            was_there = True
    return was_there
