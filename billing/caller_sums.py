"""Puts back what the sums by caller lack: calls that an older version wrote, which knows no such sums.

It runs beside this one while an upgrade goes on, and alone after a way back. Roll-ups have all that it carried.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from billing.rollups import DAY, EVERYBODY, KEYS, NOBODY, SUMS, USERS, UsageSums, summed, sums_in
from db import Transaction
from storage.many_rows import upsert_rows
from tables import caller_rollups, usage_rollups

NAMES = [column.name for column in caller_rollups.primary_key]


def differing_days(tx: Transaction, since: datetime) -> list[datetime]:
    """The days on which all callers together do not come to everybody's sums; read from few rows."""
    everybody, callers = usage_rollups.c, caller_rollups.c
    of_everybody = sa.and_(everybody.period == DAY, everybody.user_id == EVERYBODY, everybody.start >= since)
    expected = _by_day(tx, sa.select(everybody.start, *summed(usage_rollups)).where(of_everybody))
    differing: set[datetime] = set()
    for kind in (USERS, KEYS):
        of_kind = sa.and_(callers.period == DAY, callers.kind == kind, callers.start >= since)
        found = _by_day(tx, sa.select(callers.start, *summed(caller_rollups)).where(of_kind))
        differing |= {day for day in {*expected, *found} if _at(expected, day) != _at(found, day)}
    return sorted(differing)


def mend(tx: Transaction, day: datetime) -> int:
    """Add what this day and its hours lack; returns to how many sums. Only one process may do so at a time.

    What lacks is found in one statement, which sees one moment, and is added: calls that are counted meanwhile stay.
    """
    lacking = sa.union_all(*_expected(day), _found(day)).subquery()
    key = [lacking.c[name] for name in NAMES]
    differs = sa.or_(*(sa.func.sum(lacking.c[name]) != 0 for name in SUMS))
    found: sa.Select[Any] = sa.select(*key, *summed(lacking)).group_by(*key).having(differs).order_by(*key)
    changes = [{name: getattr(row, name) for name in NAMES} | asdict(sums_in(row)) for row in tx.execute(found)]
    upsert_rows(tx, caller_rollups, changes, adding=SUMS)
    return len(changes)


def _by_day(tx: Transaction, query: sa.Select[Any]) -> dict[datetime, UsageSums]:
    return {row.start: sums_in(row) for row in tx.execute(query.group_by(sa.text("start")))}


def _at(sums: Mapping[datetime, UsageSums], day: datetime) -> UsageSums:
    return sums.get(day, UsageSums())


def _expected(day: datetime) -> list[sa.Select[Any]]:
    """What the roll-ups say of each caller; of nobody: everybody's sums less those of all users."""
    of, is_users = usage_rollups.c, usage_rollups.c.user_id != EVERYBODY
    sign_of_nobody = sa.case((is_users, -1), else_=1)
    parts = []
    for kind, subject in ((USERS, of.user_id), (KEYS, of.client_key_id)):
        parts.append(_signed(usage_rollups, day, sa.literal(kind), subject, sa.literal(1)).where(is_users))
        parts.append(_signed(usage_rollups, day, sa.literal(kind), sa.literal(NOBODY), sign_of_nobody))
    return parts


def _found(day: datetime) -> sa.Select[Any]:
    return _signed(caller_rollups, day, caller_rollups.c.kind, caller_rollups.c.subject_id, sa.literal(-1))


def _signed(
    of: sa.Table,
    day: datetime,
    kind: sa.ColumnElement[Any],
    subject: sa.ColumnElement[Any],
    sign: sa.ColumnElement[int],
) -> sa.Select[Any]:
    sums = ((of.c[name] * sign).label(name) for name in SUMS)
    columns = of.c.period, kind.label("kind"), of.c.start, subject.label("subject_id"), *sums
    return sa.select(*columns).where(of.c.start >= day, of.c.start < day + timedelta(days=1))
