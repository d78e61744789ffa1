"""Sums of the ledger by hour and by day: what statistics and page numbers are computed from instead of its rows.

Written in the transaction that changes the ledger, so that the sums are always those of its rows; they stay longer than
those (billing/reports/retention.py). Which pool key carried a call is in everybody's sums alone: in each user's, keys
that are renewed daily would make more rows than calls.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any, NamedTuple

import sqlalchemy as sa

from db import Transaction
from foundation.money import usd
from storage.many_rows import upsert_rows
from tables import caller_rollups, team_rollups
from tables import usage_rollups as table

HOUR, DAY = "h", "d"
EVERYBODY = 0  # the user_id of the rows that add up all users
USERS, KEYS = "u", "k"  # the kinds of caller_rollups
NOBODY = -1  # the subject_id of what no user is charged for
NO_TEAM = 0
NONE = 0  # a client_key_id or pool_key_id of no key: a primary key holds no NULL
BATCH_ROWS = 1000  # that are deleted at once
ANY_POOL_KEY = 2**62  # the pool_key_id of what pool keys carried, in the sums of one user


class Bucket(NamedTuple):
    """What changes of ledger rows are counted under. hour: the one in which they began, aware, in UTC.

    user_id: EVERYBODY for what no user is charged for, which is in everybody's sums alone.

    pool_key_id: who carried the call: a pool key; another upstream as its number below zero; None for nobody. So one
    column tells them apart, and sums of pool keys need no second one to leave out the rest. user_pays: the key is one
    of the user's own account, which their quota does not count. team_id: who is charged for it beside the user.
    """

    user_id: int
    client_key_id: int | None
    pool_key_id: int | None
    model: str
    hour: datetime
    user_pays: bool = False
    team_id: int = NO_TEAM

    @property
    def carrier(self) -> int:
        """The pool_key_id of the user's own sums: pool keys are renewed daily, and must not make rows of their own."""
        if self.pool_key_id is None:
            return NONE
        return ANY_POOL_KEY if self.pool_key_id > 0 and not self.user_pays else self.pool_key_id


def bucket_of(row: Mapping[str, Any], user_pays: bool = False) -> Bucket:
    """What a row of the ledger is counted under."""
    upstream_id = row["upstream_id"]
    carrier = row["pool_key_id"] if upstream_id is None else -upstream_id
    team_id = NO_TEAM if user_pays else row["team_id"]
    hour = row["created_at"].astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    return Bucket(row["user_id"], row["client_key_id"], carrier, row["model"], hour, user_pays, team_id)


@dataclass(slots=True)
class UsageSums:
    """What is added up; negative amounts take back."""

    requests: int = 0
    errors: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost_nano: int = 0
    unknown: int = 0

    def __add__(self, other: UsageSums) -> UsageSums:
        return UsageSums(
            self.requests + other.requests,
            self.errors + other.errors,
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.cost_nano + other.cost_nano,
            self.unknown + other.unknown,
        )

    def amounts(self) -> tuple[int, ...]:
        """The amounts in the order of the fields. (dataclasses.astuple copies deeply, at 20 times the cost.)"""
        return (
            self.requests,
            self.errors,
            self.prompt_tokens,
            self.completion_tokens,
            self.cost_nano,
            self.unknown,
        )


SUMS = [field.name for field in fields(UsageSums)]


def summed(of: sa.FromClause) -> list[sa.ColumnElement[Any]]:
    """The sums of these roll-ups' rows, for a query that `sums_in` reads."""
    return [sa.func.sum(of.c[name]).label(name) for name in SUMS]


def sums_in(row: sa.Row[Any]) -> UsageSums:
    """The sums of one of its rows."""
    return UsageSums(**{name: int(getattr(row, name)) for name in SUMS})  # MySQL adds up to decimals


def added(sums: Iterable[UsageSums]) -> UsageSums:
    """All of these together."""
    return sum(sums, UsageSums())


def shown(sums: UsageSums) -> dict[str, Any]:
    """As JSON. unknown: calls that OpenRouter may have billed and nobody can tell."""
    return {name: getattr(sums, name) for name in SUMS} | {"cost_usd": usd(sums.cost_nano)}


def add(tx: Transaction, changes: Mapping[Bucket, UsageSums]) -> None:
    """Add these changes to the sums of their hours and days: each person's own, everybody's, by caller, and by team."""
    summed: dict[tuple[Any, ...], UsageSums] = {}
    by_caller: dict[tuple[Any, ...], UsageSums] = {}
    by_member: dict[tuple[Any, ...], UsageSums] = {}
    for bucket, sums in changes.items():
        for period, start in ((HOUR, bucket.hour), (DAY, bucket.hour.replace(hour=0))):
            rows_of = [(period, EVERYBODY, start, NONE, bucket.pool_key_id or NONE, bucket.model)]
            if bucket.user_id != EVERYBODY:
                rows_of.append(
                    (period, bucket.user_id, start, bucket.client_key_id or NONE, bucket.carrier, bucket.model)
                )
            for row in rows_of:
                _count(summed, row, sums)
            is_nobodys = bucket.user_id == EVERYBODY
            _count(by_caller, (period, USERS, start, NOBODY if is_nobodys else bucket.user_id), sums)
            _count(by_caller, (period, KEYS, start, NOBODY if is_nobodys else bucket.client_key_id or NONE), sums)
            if bucket.team_id:
                _count(by_member, (period, bucket.team_id, start, bucket.user_id), sums)
    _upsert(tx, table, summed)
    _upsert(tx, caller_rollups, by_caller)
    _upsert(tx, team_rollups, by_member)


def _count(summed: dict[tuple[Any, ...], UsageSums], row: tuple[Any, ...], sums: UsageSums) -> None:
    before = summed.get(row)
    summed[row] = sums if before is None else before + sums


def _upsert(tx: Transaction, into: sa.Table, summed: Mapping[tuple[Any, ...], UsageSums]) -> None:
    # In one order everywhere: two transactions that touch the same rows wait for each other, and don't deadlock.
    names = into.c.keys()
    rows = [
        dict(zip(names, (*row, *sums.amounts()), strict=True))
        for row, sums in sorted(summed.items())
        if any(sums.amounts())
    ]
    upsert_rows(tx, into, rows, adding=SUMS)


def delete_old(tx: Transaction, period: str, before: datetime, from_user: int) -> int | None:
    """Delete some rows of a period that began before, in the order of users.

    Returns the user to go on with; None if nothing was left to delete.
    """
    is_old = sa.and_(table.c.period == period, table.c.start < before)
    of_batch = sa.and_(is_old, table.c.user_id >= from_user)
    order = table.c.user_id, table.c.start
    found = tx.execute(sa.select(*order).where(of_batch).order_by(*order).limit(BATCH_ROWS)).all()
    if not found:
        return None
    user_id, start = found[-1]
    # All of the last one's hour, so that a batch never ends within one.
    upto = sa.or_(table.c.user_id < user_id, sa.and_(table.c.user_id == user_id, table.c.start <= start))
    tx.execute(table.delete().where(of_batch, table.c.user_id <= user_id, upto))
    return int(user_id)


def delete_old_callers(tx: Transaction, period: str, before: datetime) -> bool:
    """Delete the oldest hour or day of the sums by caller that began before; True if there may be more."""
    is_old = sa.and_(caller_rollups.c.period == period, caller_rollups.c.start < before)
    was_there = False
    for kind in (USERS, KEYS):  # each a range of the primary key, of which the first row is read
        of_kind = sa.and_(is_old, caller_rollups.c.kind == kind)
        oldest = tx.scalar(sa.select(sa.func.min(caller_rollups.c.start)).where(of_kind))
        if oldest is not None:
            tx.execute(caller_rollups.delete().where(of_kind, caller_rollups.c.start == oldest))
            was_there = True
    return was_there


def delete_old_teams(tx: Transaction, period: str, before: datetime) -> bool:
    """Delete what one team has of these that began before; True if there may be more."""
    is_old = sa.and_(team_rollups.c.period == period, team_rollups.c.start < before)
    team_id = tx.scalar(sa.select(team_rollups.c.team_id).where(is_old).limit(1))
    if team_id is not None:
        tx.execute(team_rollups.delete().where(is_old, team_rollups.c.team_id == team_id))
    return team_id is not None
