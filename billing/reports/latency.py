"""How fast models, providers, pool keys and upstreams answer, and how they fail: in the last hour, day, 7 or 30 days.

From the sums of latency_rollups.py alone; a pool key's last error is looked up in the hour that has it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

import sqlalchemy as sa

from billing import latency_rollups
from billing.latency import CallTimes, added
from billing.latency_rollups import POOL, LatencyKind
from billing.records import NO_ERROR
from billing.reports.request_log import request_id_at
from billing.reports.statistics import shown_upstream
from billing.rollups import DAY, HOUR
from db import Database, Transaction
from tables import latency_rollups as table
from tables import pool_keys, upstreams
from tables import usage_ledger as ledger
from upstream.registry import OPENROUTER

MOST_ITEMS = 100
SHARES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
ONE_HOUR, ONE_DAY = timedelta(hours=1), timedelta(days=1)


class LatencyBy(StrEnum):
    """What is asked by."""

    MODEL = "model"
    PROVIDER = "provider"
    POOL_KEY = "pool_key"
    UPSTREAM = "upstream"


class Last(StrEnum):
    """How far back: full hours or days of UTC and the one that has begun."""

    HOUR = "hour"
    DAY = "day"
    WEEK = "7d"
    MONTH = "30d"


KINDS = {
    LatencyBy.MODEL: LatencyKind.MODEL,
    LatencyBy.PROVIDER: LatencyKind.MODEL,
    LatencyBy.POOL_KEY: LatencyKind.POOL_KEY,
    LatencyBy.UPSTREAM: LatencyKind.UPSTREAM,
}
DAYS = {Last.WEEK: 7, Last.MONTH: 30}


@dataclass(frozen=True)
class Span:
    """The time that is asked about. times: of the points over time, for the last hour those of the last day."""

    period: str
    since: datetime
    times: list[datetime]

    @classmethod
    def of(cls, last: Last, now: datetime) -> Span:
        """The span up to now."""
        hour = now.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
        if days := DAYS.get(last):
            times = [hour.replace(hour=0) - ago * ONE_DAY for ago in reversed(range(days))]
            return cls(DAY, times[0], times)
        times = [hour - ago * ONE_HOUR for ago in reversed(range(25))]
        return cls(HOUR, hour - ONE_HOUR if last is Last.HOUR else times[0], times)


@dataclass(frozen=True)
class Latency:
    """Of one of them. points: at the times of the span."""

    name: str | None
    sums: CallTimes
    points: list[CallTimes]

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {"name": self.name} | shown(self.sums) | {"points": _points(self.points)}


@dataclass(frozen=True)
class Latencies:
    """items: those with most calls first. is_whole: False if there are more than these."""

    span: Span
    items: list[Latency]
    is_whole: bool
    totals: CallTimes

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "period": "hour" if self.span.period == HOUR else "day",
            "since": self.span.since.isoformat(),
            "times": [time.isoformat() for time in self.span.times],
            "totals": shown(self.totals),
            "items": [item.to_dict() for item in self.items],
            "is_whole": self.is_whole,
        }


@dataclass(frozen=True)
class LastError:
    """The newest try of a pool key that failed. message: as the client was told, or would have been."""

    at: datetime
    request_id: str
    http_status: int | None
    error_type: str | None
    message: str | None

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        told = {"request_id": self.request_id, "status": self.http_status, "error_type": self.error_type}
        return {"at": self.at.isoformat(timespec="seconds"), **told, "message": self.message}


@dataclass(frozen=True)
class KeyHealth:
    """How a pool key did. points: hour by hour, up to this one."""

    hour: CallTimes
    day: CallTimes
    points: list[CallTimes]
    last_error: LastError | None

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        last_error = self.last_error.to_dict() if self.last_error else None
        sums = {"last_hour": shown(self.hour), "last_day": shown(self.day)}
        return sums | {"points": _points(self.points), "last_error": last_error}


def shown(sums: CallTimes) -> dict[str, Any]:
    """As JSON; times in milliseconds, None without any."""
    return {
        "calls": sums.calls,
        "errors": sums.errors,
        "first_byte_ms": {name: sums.first_byte_ms(share) for name, share in SHARES.items()},
        "total_ms": {name: sums.whole_ms(share) for name, share in SHARES.items()},
        "tokens_per_second": sums.tokens_per_second,
        "errors_by_kind": [{"kind": kind, "count": count} for kind, count in sums.errors_by_kind.items()],
    }


def _points(points: Iterable[CallTimes]) -> list[dict[str, Any]]:
    return [{"calls": one.calls, "errors": one.errors, "first_byte_p95_ms": one.first_byte_ms(0.95)} for one in points]


def read_latency(db: Database, by: LatencyBy, span: Span) -> Latencies:
    """All of it."""
    kind = KINDS[by]
    with db.reading(one_moment=True) as tx:
        subjects = _greatest(tx, kind, span)
        listed = subjects[:MOST_ITEMS]
        read = _read(tx, kind, span, listed)
        [totals] = _read(tx, LatencyKind.ALL, span, [""]).values()
        names = _names(tx, by, listed)
    merged: dict[str | None, list[CallTimes]] = {}
    for subject, points in read.items():
        known = merged.setdefault(names[subject], [CallTimes() for _ in span.times])
        for one, more in zip(known, points, strict=True):
            one.add(more)
    items = [Latency(name, _since(span, points), points) for name, points in merged.items()]
    items.sort(key=lambda item: (-item.sums.calls, item.name or ""))
    return Latencies(span, items, len(listed) == len(subjects), _since(span, totals))


def read_keys_health(db: Database, ids: Collection[int], now: datetime) -> dict[int, KeyHealth]:
    """How these pool keys did in the last hour and day."""
    hour, day = Span.of(Last.HOUR, now), Span.of(Last.DAY, now)
    found = {}
    with db.reading() as tx:
        for subject, points in _read(tx, LatencyKind.POOL_KEY, day, [str(one) for one in ids]).items():
            failed = [time for time, one in zip(day.times, points, strict=True) if one.errors > 0]
            error = _last_error(tx, int(subject), failed[-1]) if failed else None
            found[int(subject)] = KeyHealth(_since(hour, points), _since(day, points), points, error)
    return found


def _greatest(tx: Transaction, kind: LatencyKind, span: Span) -> list[str]:
    """Those with most calls, one more than are listed."""
    column = table.c
    of_these = column.period == span.period, column.kind == kind, column.start.between(span.since, span.times[-1])
    query = sa.select(column.subject).where(*of_these).group_by(column.subject)
    ordered = query.order_by(sa.func.sum(column.calls).desc(), column.subject)
    return list(tx.scalars(ordered.limit(MOST_ITEMS + 1)))


def _read(tx: Transaction, kind: LatencyKind, span: Span, subjects: Sequence[str]) -> dict[str, list[CallTimes]]:
    """The sums of these subjects at each time: by each time and each of them, which is a row of the primary key."""
    found = {subject: [CallTimes() for _ in span.times] for subject in subjects}
    places = {time: place for place, time in enumerate(span.times)}
    for start, subject, sums in latency_rollups.read(tx, span.period, kind, span.times, subjects):
        found[subject][places[start]] = sums
    return found


def _since(span: Span, points: Iterable[CallTimes]) -> CallTimes:
    return added(one for time, one in zip(span.times, points, strict=True) if time >= span.since)


def _names(tx: Transaction, by: LatencyBy, subjects: Sequence[str]) -> Mapping[str, str | None]:
    if by is LatencyBy.POOL_KEY:
        ids = [int(subject) for subject in subjects]
        query = sa.select(pool_keys.c.id, pool_keys.c.name).where(pool_keys.c.id.in_(ids))
        names = {str(row.id): row.name for row in tx.execute(query)}
        return {subject: names.get(subject, f"#{subject}") for subject in subjects}
    if by is LatencyBy.UPSTREAM:
        others = {str(row.id): row.name for row in tx.execute(sa.select(upstreams.c.id, upstreams.c.name))}
        return {one: OPENROUTER if one == POOL else shown_upstream(int(one), others.get(one)) for one in subjects}
    if by is LatencyBy.PROVIDER:
        return {one: one.partition("/")[0] if "/" in one else None for one in subjects}
    return {one: one or None for one in subjects}


def _last_error(tx: Transaction, pool_key_id: int, hour: datetime) -> LastError | None:
    """The newest in this hour; None if its row is gone."""
    column = ledger.c
    within = column.request_id >= request_id_at(hour), column.request_id < request_id_at(hour + ONE_HOUR)
    has_failed = sa.or_(column.error_type.is_not(None), column.outcome.not_in(NO_ERROR))
    told = column.created_at, column.request_id, column.http_status, column.error_type, column.error_message
    query = sa.select(*told).where(column.pool_key_id == pool_key_id, *within, has_failed)
    row = tx.execute(query.order_by(column.request_id.desc(), column.attempt.desc()).limit(1)).one_or_none()
    return None if row is None else LastError(*row)
