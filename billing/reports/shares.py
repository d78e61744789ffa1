"""Who spent what: sums by user, client key, model, provider or upstream, over time and beside the time before.

From the roll-ups alone: by user and by client key from those of all callers side by side, else from everybody's, and of
one user from their own. Whatever is asked by, the shares add up to the same totals.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from accounts.labels import called, labels_of
from billing.latency import CallTimes
from billing.reports.latency_shares import ShareTimes, times_shown
from billing.reports.shares_asked import By, SharesAsked, Subject
from billing.reports.statistics import shown_upstream
from billing.rollups import EVERYBODY, HOUR, KEYS, NONE, USERS, UsageSums, added, shown, summed, sums_in
from db import Database, Transaction
from tables import caller_rollups, client_keys, upstreams, usage_rollups
from upstream.registry import OPENROUTER

MOST_ITEMS = 100
MOST_TIMED = 20  # that are listed with how long their calls took, which is a row to read of each at each time
MOST_SERIES = 7  # that are drawn by themselves
POOL = 1  # in the place of the numbers of pool keys


@dataclass(frozen=True)
class Amounts:
    """What was used, and how long that took if it was asked for."""

    sums: UsageSums
    times: CallTimes | None

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return shown(self.sums) | times_shown(self.times)


@dataclass(frozen=True)
class Share:
    """One user's, key's or model's. id: of a user or a key. name: None for calls without one. before: in that time."""

    id: int | None
    name: str | None
    now: Amounts
    before: Amounts

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {"id": self.id, "name": self.name} | self.now.to_dict() | {"before": self.before.to_dict()}


@dataclass(frozen=True)
class Shares:
    """items: of those with calls, the greatest first. is_whole: False if there are more than these.

    series: amounts at `asked.times` of the first items. others: of all the rest; of times, which don't add up, 0.
    """

    asked: SharesAsked
    items: list[Share]
    is_whole: bool
    totals: Amounts
    before: Amounts
    series: list[list[int]]
    others: list[int]

    def to_dict(self) -> dict[str, Any]:
        """As JSON. Amounts of costs are nano-dollars, of times milliseconds."""
        asked = self.asked
        drawn = zip(self.items, self.series, strict=False)
        return {
            "by": asked.by.value,
            "metric": asked.metric.value,
            "period": "hour" if asked.period == HOUR else "day",
            "start": asked.start.isoformat(),
            "end": asked.end.isoformat(),
            "totals": self.totals.to_dict(),
            "before": self.before.to_dict(),
            "items": [item.to_dict() for item in self.items],
            "is_whole": self.is_whole,
            "times": [time.isoformat() for time in asked.times],
            "series": [{"name": item.name, "amounts": amounts} for item, amounts in drawn],
            "others": self.others,
        }


def read_shares(db: Database, asked: SharesAsked) -> Shares:
    """All of it."""
    source = _Source(asked)
    with db.reading(one_moment=True) as tx:  # or parts and totals would differ
        found = source.sums(tx, asked.times)
        ordered = sorted(found, key=lambda one: (-asked.metric.of(found[one]), -found[one].requests, str(one)))
        listed = ordered[: MOST_TIMED if asked.metric.is_time else MOST_ITEMS]
        before = source.sums(tx, asked.times_before, listed)
        names = _names(tx, asked, listed)
        totals = _totals(tx, asked)
        took = ShareTimes(tx, asked, {one: source.raws[one] for one in listed}) if asked.metric.is_time else None
        if took:
            listed.sort(key=lambda one: -took.amount(one))
        drawn = [one for one in listed[:MOST_SERIES] if (took.amount(one) if took else asked.metric.of(found[one])) > 0]
        series = took.series(drawn) if took else source.series(tx, drawn)
    has_ids = asked.by in {By.USER, By.KEY}
    all_now = added(totals.get(time, UsageSums()) for time in asked.times)
    all_before = added(totals.get(time, UsageSums()) for time in asked.times_before)
    return Shares(
        asked,
        [
            Share(
                one if has_ids and isinstance(one, int) and one > NONE else None,
                names.get(one),
                Amounts(found[one], took.now[one] if took else None),
                Amounts(before.get(one, UsageSums()), took.before[one] if took else None),
            )
            for one in listed
        ],
        len(listed) == len(ordered),
        Amounts(all_now, took.all_now if took else None),
        Amounts(all_before, took.all_before if took else None),
        series,
        [
            0 if took else asked.metric.of(totals.get(time, UsageSums())) - sum(amounts[place] for amounts in series)
            for place, time in enumerate(asked.times)
        ],
    )


class _Source:
    """The roll-ups that answer a question, and which of their columns says whose they are."""

    def __init__(self, asked: SharesAsked) -> None:
        self._asked = asked
        self.raws: dict[Subject, set[Subject]] = {}
        self._is_by_caller = asked.user_id is None and asked.by in {By.USER, By.KEY}
        self._table = caller_rollups if self._is_by_caller else usage_rollups
        column = self._table.c
        self._whose = [column.period == asked.period]
        if self._is_by_caller:
            self._whose.append(column.kind == (USERS if asked.by is By.USER else KEYS))
            self._raw: sa.ColumnElement[Any] = column.subject_id
        else:
            self._whose.append(column.user_id == (asked.user_id or EVERYBODY))
            carrier = sa.case((column.pool_key_id > 0, POOL), else_=column.pool_key_id)
            raw = {By.USER: column.user_id, By.KEY: column.client_key_id, By.UPSTREAM: carrier}
            self._raw = raw.get(asked.by, column.model)

    def sums(
        self, tx: Transaction, times: Sequence[datetime], among: Sequence[Subject] | None = None
    ) -> dict[Subject, UsageSums]:
        """By whom, at these times. among: of these alone; else of thousands of callers the greatest, one more than are
        listed.
        """
        query = sa.select(self._raw.label("raw"), *summed(self._table)).where(*self._whose).group_by(self._raw)
        if self._is_by_caller and among is not None:
            # By each time and each of them, which is a row of the primary key.
            query = query.where(self._table.c.start.in_(times), self._raw.in_(among))
        else:
            query = query.where(self._table.c.start.between(times[0], times[-1]))
        if self._is_by_caller and among is None:
            greatest = [self._asked.metric.summed(self._table).desc(), sa.func.sum(self._table.c.requests).desc()]
            query = query.order_by(*greatest, self._raw).limit(MOST_ITEMS + 1)
        found: dict[Subject, UsageSums] = {}
        for row in tx.execute(query):
            subject = self._subject(row.raw)
            self.raws.setdefault(subject, set()).add(row.raw)
            found[subject] = found.get(subject, UsageSums()) + sums_in(row)
        return found

    def series(self, tx: Transaction, drawn: Sequence[Subject]) -> list[list[int]]:
        """The amounts of those who are drawn at each time."""
        asked, start = self._asked, self._table.c.start
        times = {time: place for place, time in enumerate(asked.times)}
        places = {subject: place for place, subject in enumerate(drawn)}
        series = [[0] * len(times) for _ in drawn]
        amount = asked.metric.summed(self._table).label("amount")
        query = sa.select(self._raw.label("raw"), start, amount).where(*self._whose, start.in_(times))
        if self._is_by_caller:
            query = query.where(self._raw.in_(drawn))
        for row in tx.execute(query.group_by(start, self._raw)):
            place = places.get(self._subject(row.raw))
            if place is not None:
                series[place][times[row.start]] += int(row.amount)
        return series

    def _subject(self, raw: Subject) -> Subject:
        if self._asked.by is not By.PROVIDER:
            return raw
        provider, slash, _ = str(raw).partition("/")
        return provider if slash else ""


def _totals(tx: Transaction, asked: SharesAsked) -> dict[datetime, UsageSums]:
    """Of all together at each time, of the time before too."""
    column = usage_rollups.c
    whose = column.period == asked.period, column.user_id == (asked.user_id or EVERYBODY)
    within = column.start >= asked.before, column.start < asked.end
    query = sa.select(column.start, *summed(usage_rollups)).where(*whose, *within).group_by(column.start)
    return {row.start: sums_in(row) for row in tx.execute(query)}


def _names(tx: Transaction, asked: SharesAsked, subjects: Iterable[Subject]) -> Mapping[Subject, str | None]:
    """What they are called; keys of everybody with whose they are."""
    by = asked.by
    numbers = [one for one in subjects if isinstance(one, int)]
    if by is By.USER:
        labels = labels_of(tx, numbers)
        return {number: called(number, labels.get(number)) for number in numbers if number > NONE}
    if by is By.KEY:
        query = sa.select(client_keys.c.id, client_keys.c.name, client_keys.c.user_id)
        rows = tx.execute(query.where(client_keys.c.id.in_(sorted(numbers)))).all()
        names: dict[Subject, str | None] = {number: f"#{number}" for number in numbers if number > NONE}
        names |= {row.id: row.name for row in rows if row.name}  # without one if its owner is gone
        if asked.user_id is not None:
            return names
        labels = labels_of(tx, {row.user_id for row in rows})
        owners = {row.id: called(row.user_id, labels.get(row.user_id)) for row in rows}
        return names | {number: f"{names[number]} ({owner})" for number, owner in owners.items()}
    if by is By.UPSTREAM:
        others = {row.id: row.name for row in tx.execute(sa.select(upstreams.c.id, upstreams.c.name))}
        carriers: dict[Subject, str | None] = {POOL: OPENROUTER}
        return carriers | {one: shown_upstream(-one, others.get(-one)) for one in numbers if one < NONE}
    return {one: str(one) or None for one in subjects}
