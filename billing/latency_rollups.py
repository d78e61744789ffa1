"""Sums of how long calls took and how they failed, by hour and by day: written and deleted as billing/rollups.py's are.

A row has its counts as one JSON text, which is read, added to and written anew: a column for each bucket would be 150
columns, and a row for each bucket more rows than calls.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from datetime import datetime
from enum import StrEnum
from itertools import groupby
from typing import Any, NamedTuple

import orjson
import sqlalchemy as sa

from billing.latency import FAILURE, NOTHING, CallTimes, times_of
from billing.rollups import DAY, HOUR, Bucket
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


class Changes:
    """What changed rows add. Kept by whose they are, and told by place: a user's calls for a model are one sum."""

    def __init__(self) -> None:
        self._calls: dict[Bucket, CallTimes] = {}
        self._tries: dict[Bucket, CallTimes] = {}

    def note(self, whose: Bucket, before: Mapping[str, Any] | None, after: Mapping[str, Any]) -> None:
        """Add what one row's change means."""
        (call, tried), (was_call, was_tried) = times_of(after), times_of(before)
        if tried == was_tried:  # what changes for the request changes for its last try
            return
        _change(self._tries, whose, tried, was_tried)
        if call != was_call:
            _change(self._calls, whose, call, was_call)

    def by_place(self) -> dict[LatencyPlace, CallTimes]:
        """Each sum that they change, and by how much."""
        found: dict[LatencyPlace, CallTimes] = {}
        for changed, subjects_of in ((self._calls, _callers), (self._tries, _carriers)):
            for whose, times in changed.items():
                for kind, subject in subjects_of(whose):
                    for period in (DAY,) if kind in CALLERS else (HOUR, DAY):
                        start = whose.hour if period == HOUR else whose.hour.replace(hour=0)
                        found.setdefault(LatencyPlace(period, kind, start, subject), CallTimes()).add(times)
        return found


def _change(sums: dict[Bucket, CallTimes], whose: Bucket, now: CallTimes, was: CallTimes) -> None:
    changed = sums.get(whose) or sums.setdefault(whose, CallTimes())
    changed.add(now)
    if was is not NOTHING:
        changed.add(was, -1)


def own_model(user_id: int, model: str) -> str:
    """The subject of what one user calls."""
    return f"{user_id}/{model}"


def _callers(whose: Bucket) -> Iterator[tuple[LatencyKind, str]]:
    yield LatencyKind.ALL, ""
    yield LatencyKind.MODEL, whose.model
    yield LatencyKind.USER, str(whose.user_id)
    yield LatencyKind.OWN_MODEL, own_model(whose.user_id, whose.model)
    if whose.client_key_id is not None:
        yield LatencyKind.KEY, str(whose.client_key_id)


def _carriers(whose: Bucket) -> Iterator[tuple[LatencyKind, str]]:
    carrier = whose.pool_key_id
    if carrier is None:
        return
    if carrier > 0:
        yield LatencyKind.POOL_KEY, str(carrier)
    yield LatencyKind.UPSTREAM, POOL if carrier > 0 else str(-carrier)


def add(tx: Transaction, changes: Mapping[LatencyPlace, CallTimes]) -> None:
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
