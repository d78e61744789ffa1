"""The rows of the daily check: what we counted for a pool key on a day, beside what OpenRouter says it has spent.

Nothing is ever corrected by them; they are there so that no difference stays hidden.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

import sqlalchemy as sa

from db import Database, Transaction
from foundation.money import NANO, usd
from pool.life import PoolKeySource
from tables import pool_keys, usage_rollups
from tables import usage_checks as table

CENT_NANO = NANO // 100
# Below it a difference is the rounding of many small amounts, however many percent it is.
ROUNDING_NANO = 10_000
EVERYBODY, DAY = 0, "d"  # the roll-ups' rows that add up all users, by day


class Verdict(StrEnum):
    """What a check found, from good to bad."""

    EQUAL = "equal"
    SMALL = "small difference"
    NOT_KNOWN = "not known yet"
    ELSEWHERE = "used elsewhere too"
    DIFFERS = "differs"


@dataclass(frozen=True)
class Check:
    """One key on one day; money in nano-dollars.

    day: its midnight, UTC. activity_nano: OpenRouter's figure of the day; None while it has none. our_total_nano,
    usage_nano: all that the key has spent up to the end of the day; usage_nano is None where that can't be compared.
    """

    day: datetime
    pool_key_id: int
    name: str
    source: PoolKeySource
    our_nano: int
    activity_nano: int | None
    our_total_nano: int
    usage_nano: int | None
    checked_at: datetime

    @property
    def difference_nano(self) -> int | None:
        """OpenRouter's figure of the day less ours."""
        return None if self.activity_nano is None else self.activity_nano - self.our_nano

    @property
    def total_difference_nano(self) -> int | None:
        """The key's usage less our total."""
        return None if self.usage_nano is None else self.usage_nano - self.our_total_nano

    @property
    def day_verdict(self) -> Verdict:
        """Whether the figures of the day agree."""
        return self._judge(self.our_nano, self.activity_nano)

    @property
    def total_verdict(self) -> Verdict:
        """Whether the totals agree; equal where they can't be compared."""
        return Verdict.EQUAL if self.usage_nano is None else self._judge(self.our_total_nano, self.usage_nano)

    @property
    def verdict(self) -> Verdict:
        """The worse of both."""
        return max(self.day_verdict, self.total_verdict, key=list(Verdict).index)

    def _judge(self, ours: int, theirs: int | None) -> Verdict:
        if theirs is None:
            return Verdict.NOT_KNOWN
        difference = theirs - ours
        is_above_percent = abs(difference) * 100 > max(ours, theirs) and abs(difference) > ROUNDING_NANO
        if abs(difference) > CENT_NANO or is_above_percent:
            # Whoever brought the key may use it too; but nobody else can have spent less than we did.
            is_brought = self.source not in {PoolKeySource.MINTED, PoolKeySource.UNKNOWN}
            return Verdict.ELSEWHERE if is_brought and difference > 0 else Verdict.DIFFERS
        return Verdict.SMALL if difference else Verdict.EQUAL

    def to_dict(self) -> dict[str, Any]:
        """As JSON, money in dollars."""
        return {
            "day": f"{self.day:%Y-%m-%d}",
            "key": self.name,
            "source": self.source.value,
            "verdict": self.verdict.value,
            "our_usd": usd(self.our_nano),
            "activity_usd": usd(self.activity_nano),
            "difference_usd": usd(self.difference_nano),
            "our_total_usd": usd(self.our_total_nano),
            "usage_usd": usd(self.usage_nano),
            "total_difference_usd": usd(self.total_difference_nano),
            "checked_at": self.checked_at.isoformat(timespec="seconds"),
        }


@dataclass(frozen=True)
class CountedSums:
    """What the roll-ups hold of a key on a day, or before."""

    cost_nano: int = 0
    requests: int = 0
    unknown: int = 0


def page(db: Database, number: int, size: int) -> tuple[list[Check], int]:
    """One page of the checks, the newest day first, and how many there are."""
    with db.reading() as tx:
        total = tx.execute(sa.select(sa.func.count()).select_from(table)).scalar_one()
        query = _named().order_by(table.c.day.desc(), table.c.pool_key_id.desc())
        rows = tx.execute(query.limit(size).offset((number - 1) * size)).all()
    return [_check(row) for row in rows], total


def since(db: Database, day: datetime) -> dict[tuple[datetime, int], Check]:
    """The checks of this day and later ones, by day and key."""
    with db.reading() as tx:
        rows = tx.execute(_named().where(table.c.day >= day)).all()
    return {(row.day, row.pool_key_id): _check(row) for row in rows}


def note(db: Database, check: Check, guard: Callable[[Transaction], None]) -> None:
    """Write a check down in place of the one before. guard: raises if this process may no longer write."""
    columns = {column.name for column in table.columns}
    values = {name: value for name, value in vars(check).items() if name in columns}

    def write(tx: Transaction) -> None:
        guard(tx)
        same = sa.and_(table.c.day == check.day, table.c.pool_key_id == check.pool_key_id)
        tx.execute(table.delete().where(same))
        tx.execute(table.insert().values(values))

    db.transact(write)


def first_counted_day(db: Database) -> datetime | None:
    """The day of the first call that was counted: what keys spent before, nobody here knows."""
    rollups = usage_rollups.c
    with db.reading() as tx:
        found: datetime | None = tx.scalar(
            sa.select(sa.func.min(rollups.start)).where(rollups.period == DAY, rollups.user_id == EVERYBODY)
        )
    return found


def sums_by_day(db: Database, first: datetime) -> dict[tuple[datetime, int], CountedSums]:
    """What was counted from this day on, by day and key; key 0 is for requests that got none."""
    rollups = usage_rollups.c
    return _sums(db, (rollups.start, rollups.pool_key_id), rollups.start >= first)


def sums_before(db: Database, first: datetime) -> dict[int, CountedSums]:
    """What was counted before this day, by key."""
    rollups = usage_rollups.c
    return {key: sums for (key,), sums in _sums(db, (rollups.pool_key_id,), rollups.start < first).items()}


def _sums(db: Database, by: tuple[sa.ColumnElement[Any], ...], when: sa.ColumnElement[bool]) -> dict[Any, CountedSums]:
    rollups = usage_rollups.c
    sums = (sa.func.sum(column) for column in (rollups.cost_nano, rollups.requests, rollups.unknown))
    query = sa.select(*by, *sums).where(rollups.period == DAY, rollups.user_id == EVERYBODY, when).group_by(*by)
    with db.reading() as tx:
        rows = tx.execute(query).all()
    # MySQL's sums are Decimals.
    return {tuple(row[: len(by)]): CountedSums(*map(int, row[len(by) :])) for row in rows}


def _named() -> sa.Select[Any]:
    return sa.select(table, pool_keys.c.name, pool_keys.c.source).join(pool_keys, pool_keys.c.id == table.c.pool_key_id)


def _check(row: Any) -> Check:
    return Check(**{**row._asdict(), "source": PoolKeySource(row.source)})
