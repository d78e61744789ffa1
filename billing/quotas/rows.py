"""Quotas in the database: what each subject may spend, and what it has; set by operators, read by all.

Every subject with a cost has a row, even one without a quota. A new quota begins with what the roll-ups say was spent,
and whoever sets one writes the row that the ledger writes with each cost (billing/quotas/moves.py): of two that write
one row, every server lets one wait or begin again, also those that keep locks to themselves, such as Galera's nodes. So
no cost falls between the two.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from billing.quotas.subjects import check_subject
from billing.quotas.terms import QuotaTerms, check_terms
from config.settings import Config
from db import Database, Transaction, utc_now
from foundation.clock import Clock
from foundation.money import MAX_NANO, nano, usd
from pool.keys import connected_key_of
from replicas.revisions import bump
from storage.many_rows import upsert_rows
from tables import client_keys, pool_keys, team_rollups, usage_rollups
from tables import quotas as table

NO_TERMS = QuotaTerms(None, None, "none", "reset")


@dataclass(frozen=True, slots=True)
class Quota:
    """One subject's quota. id: None as long as there is no row. is_default: it has the terms of the settings.

    team_id: of the team whose manager has set it; None for anybody else's.
    """

    id: int | None
    subject: str
    terms: QuotaTerms
    is_default: bool
    window_start: datetime
    spent_nano: int
    reserved_nano: int
    team_id: int | None = None

    def rolled(self, at: datetime) -> Quota:
        """The same quota as of a later moment."""
        window_start, spent_nano = self.terms.rolled(self.window_start, self.spent_nano, at)
        return replace(self, window_start=window_start, spent_nano=spent_nano)

    @property
    def left_nano(self) -> int:
        """What may still be reserved; negative after the limit was lowered or a call cost more than was reserved."""
        limit_nano = MAX_NANO if self.terms.limit_nano is None else self.terms.limit_nano
        return limit_nano - self.spent_nano - self.reserved_nano

    @property
    def remaining_nano(self) -> int | None:
        """What is neither spent nor reserved; None without a limit."""
        return None if self.terms.limit_nano is None else max(0, self.left_nano)

    @property
    def resets_at(self) -> datetime | None:
        """When all is free again; None if it never is, or recovers steadily."""
        return self.terms.resets_at(self.window_start)

    @property
    def soft_limit_passed(self) -> bool:
        """True once more than the soft limit is spent."""
        return self.terms.soft_limit_nano is not None and self.spent_nano > self.terms.soft_limit_nano

    def to_dict(self) -> dict[str, object]:
        """What people get to see of it, in dollars."""
        return {
            "limit_usd": usd(self.terms.limit_nano),
            "soft_limit_usd": usd(self.terms.soft_limit_nano),
            "spent_usd": usd(self.spent_nano),
            "reserved_usd": usd(self.reserved_nano),
            "remaining_usd": usd(self.remaining_nano),
            "period": self.terms.period,
            "recovery": self.terms.recovery,
            "resets_at": self.resets_at.isoformat() if self.resets_at else None,
            "soft_limit_passed": self.soft_limit_passed,
        }


def quota_of(row: Any) -> Quota:
    """The quota that a row of the table holds, as of its window."""
    terms = QuotaTerms(row.limit_nano, row.soft_limit_nano, row.period, row.recovery)
    amounts = row.window_start, row.spent_nano, row.reserved_nano
    return Quota(row.id, row.subject, terms, row.is_default, *amounts, row.team_id)


def ensure_rows(tx: Transaction, subjects: Collection[str], at: datetime) -> dict[str, int]:
    """Give these subjects rows, if they have none yet, and return the rows' ids.

    Whoever makes the same ones at the same time is waited for.
    """
    ids = _ids(tx, subjects)
    if missing := sorted(set(subjects) - ids.keys()):
        values = _values(NO_TERMS, True, NO_TERMS.window_of(at), 0, at) | {"id": None, "reserved_nano": 0}
        upsert_rows(tx, table, [values | {"subject": subject} for subject in missing], setting=["subject"])
        ids |= _ids(tx, missing)
    return ids


def _ids(tx: Transaction, subjects: Collection[str]) -> dict[str, int]:
    found = tx.execute(sa.select(table.c.subject, table.c.id).where(table.c.subject.in_(subjects)))
    return {row.subject: row.id for row in found}


def put(tx: Transaction, subject: str, terms: QuotaTerms | None, team_id: int | None = None) -> None:
    """Give a subject a quota of its own, or none, in a transaction that does more. team_id: as of Quota."""
    bump(tx, table.name)
    if terms or tx.scalar(sa.select(table.c.id).where(table.c.subject == subject, sa.not_(table.c.is_default))):
        _set(tx, subject, terms or NO_TERMS, utc_now(tx), is_default=terms is None, team_id=team_id)


def set_by_manager(tx: Transaction, subject: str) -> int | None:
    """The team whose manager has set this quota of a user's; None if there is none, or operators have set it."""
    wanted = sa.select(table.c.team_id).where(table.c.subject == subject, sa.not_(table.c.is_default))
    return tx.scalar(wanted)


class Quotas:
    """The quotas' terms. A subject is as in subjects.py.

    default: the terms of users without a quota of their own; None if they have none. Others have no default.
    """

    def __init__(self, db: Database, clock: Clock, config: Config) -> None:
        self._db = db
        self._clock = clock
        limit_nano, soft_limit_nano = nano(config.quota_usd), nano(config.quota_soft_usd)
        terms = QuotaTerms(limit_nano, soft_limit_nano, config.quota_period, config.quota_recovery)
        self.default = None if limit_nano is None and soft_limit_nano is None else terms

    def set(
        self, subject: str, limit_nano: int | None, soft_limit_nano: int | None, period: str, recovery: str
    ) -> Quota:
        """Give a subject a quota of its own, in force everywhere within two seconds. Raises BadRequest.

        Both limits None: no limit at all, whatever the default is. Whoever has spent already begins with that.
        """
        terms = check_terms(limit_nano, soft_limit_nano, period, recovery)
        return self._change(subject, terms, is_default=False)

    def reset(self, subject: str) -> Quota | None:
        """Back to the default, in force everywhere within two seconds; returns what find does. Raises BadRequest."""
        if self._read([table.c.subject == check_subject(subject)]):
            self._change(subject, self.default_of(subject) or NO_TERMS, is_default=True)
        return self.find(subject)

    def find(self, subject: str) -> Quota | None:
        """A subject's quota as of now; None if it has none. Raises BadRequest if it is no subject."""
        return self.find_all([check_subject(subject)]).get(subject)

    def find_all(self, subjects: Collection[str]) -> dict[str, Quota]:
        """These subjects' quotas as of now; who has none is left out."""
        rows = {quota.subject: quota for quota in self._read([table.c.subject.in_(subjects)])}
        at = self._clock.now()
        found = {subject: self._as_of(at, subject, rows.get(subject)) for subject in subjects}
        return {subject: quota for subject, quota in found.items() if quota}

    def _as_of(self, at: datetime, subject: str, row: Quota | None) -> Quota | None:
        default = self.default_of(subject)
        if row and (not row.is_default or row.terms == default):
            return row.rolled(at)
        if default is None:
            return None
        with self._db.reading() as tx:
            window_start, spent_nano = _spent_before(tx, subject, default, at)
        return Quota(None, subject, default, True, window_start, spent_nano, row.reserved_nano if row else 0)

    def page(self, page: int, page_size: int) -> tuple[list[Quota], int]:
        """One page of the quotas that hold, newest first, and how many there are. page: from 1.

        Users who have the default are among them from their first call on.
        """
        wanted = sa.not_(table.c.is_default)
        if self.default:
            wanted = sa.or_(wanted, table.c.subject.like("user/%"))
        at = self._clock.now()
        with self._db.reading() as tx:
            total = tx.scalar(sa.select(sa.func.count()).select_from(table).where(wanted)) or 0
            rows = sa.select(table).where(wanted).order_by(table.c.id.desc())
            found = [quota_of(row) for row in tx.execute(rows.limit(page_size).offset((page - 1) * page_size))]
        return [quota for row in found if (quota := self._as_of(at, row.subject, row))], total

    # ── for slices

    def own(self, subjects: Collection[str] | None = None) -> dict[str, Quota]:
        """The quotas that were set, by subject, as of now: all of them, or those of these subjects."""
        at = self._clock.now()
        wanted = [sa.not_(table.c.is_default)] + ([] if subjects is None else [table.c.subject.in_(subjects)])
        return {quota.subject: quota.rolled(at) for quota in self._read(wanted)}

    def read(self, quota_ids: Collection[int]) -> dict[int, Quota]:
        """These quotas by id, as of now."""
        at = self._clock.now()
        return {quota.id: quota.rolled(at) for quota in self._read([table.c.id.in_(quota_ids)]) if quota.id}

    def open(self, subject: str) -> Quota:
        """A subject's quota with its row, which is made for whoever has the default and none yet."""
        found = self._read([table.c.subject == subject])
        if found and (not found[0].is_default or found[0].terms == self.default):
            return found[0].rolled(self._clock.now())
        terms, at = self.default, self._clock.now()
        assert terms is not None  # noqa: S101 - nobody asks for a quota that does not apply

        return self._db.transact(lambda tx: _set(tx, subject, terms, at, is_default=True, keep_own=True))

    def default_of(self, subject: str) -> QuotaTerms | None:
        """The terms of a subject without a quota of its own; None if it has none then."""
        return self.default if subject.startswith("user/") else None

    def _read(self, wanted: Sequence[sa.ColumnElement[bool]]) -> list[Quota]:
        with self._db.reading() as tx:
            return [quota_of(row) for row in tx.execute(sa.select(table).where(*wanted))]

    def _change(self, subject: str, terms: QuotaTerms, is_default: bool) -> Quota:
        subject, at = check_subject(subject), self._clock.now()

        def write(tx: Transaction) -> Quota:
            bump(tx, table.name)
            return _set(tx, subject, terms, at, is_default)

        return self._db.transact(write)


def _set(
    tx: Transaction,
    subject: str,
    terms: QuotaTerms,
    at: datetime,
    is_default: bool,
    keep_own: bool = False,
    team_id: int | None = None,
) -> Quota:
    """Give a subject these terms. keep_own: unless somebody has just set others. team_id: as of Quota."""
    locked = sa.select(table).where(table.c.id == ensure_rows(tx, [subject], at)[subject]).with_for_update()
    old = quota_of(tx.execute(locked).one()).rolled(at)
    if (keep_own and not old.is_default) or (old.is_default, old.terms, old.team_id) == (
        is_default,
        terms,
        team_id,
    ):
        return old
    window_start, spent_nano = old.window_start, old.spent_nano
    had_none = old.is_default and old.terms == NO_TERMS  # what was spent before there was a row, it does not know
    if had_none or (old.terms.period, old.terms.recovery) != (terms.period, terms.recovery):
        window_start, spent_nano = _spent_before(tx, subject, terms, at)
    values = _values(terms, is_default, window_start, spent_nano, at, team_id)
    tx.execute(table.update().where(table.c.id == old.id).values(values))
    return Quota(old.id, subject, terms, is_default, window_start, spent_nano, old.reserved_nano, team_id)


def _values(
    terms: QuotaTerms,
    is_default: bool,
    window_start: datetime,
    spent_nano: int,
    at: datetime,
    team_id: int | None = None,
) -> dict[str, object]:
    values: dict[str, object] = {"limit_nano": terms.limit_nano, "soft_limit_nano": terms.soft_limit_nano}
    values |= {"period": terms.period, "recovery": terms.recovery, "is_default": is_default}
    return values | {"window_start": window_start, "spent_nano": spent_nano, "updated_at": at, "team_id": team_id}


def _spent_before(tx: Transaction, subject: str, terms: QuotaTerms, at: datetime) -> tuple[datetime, int]:
    """(window_start, spent_nano) of a quota with these terms that begins now, after what the roll-ups have."""
    kind, _, number = subject.partition("/")
    since, sums = terms.since(at), (team_rollups if kind == "team" else usage_rollups).c
    if kind == "team":
        theirs = sums.team_id == int(number)
    elif kind == "user":
        own = sa.select(pool_keys.c.id).where(connected_key_of(int(number)))
        theirs = sa.and_(sums.user_id == int(number), sums.pool_key_id.not_in(own))
    else:  # of its user's rows, which an index finds, and only since it was made: the ledger waits for this
        key = tx.execute(sa.select(client_keys).where(client_keys.c.id == int(number))).one_or_none()
        if key is None:
            return terms.replayed([], at)
        theirs = sa.and_(sums.user_id == key.user_id, sums.client_key_id == key.id)
        since = max(since, key.created_at)
    # Hours matter to what recovers steadily alone; other windows begin with a day.
    is_steady = terms.recovery == "steady"
    start = since.replace(hour=since.hour if is_steady else 0, minute=0, second=0, microsecond=0)
    costs = (
        sa.select(sums.start, sa.func.sum(sums.cost_nano))
        .where(sums.period == ("h" if is_steady else "d"), sums.start >= start, theirs)
        .group_by(sums.start)
        .order_by(sums.start)
    )
    return terms.replayed([(start, int(cost_nano)) for start, cost_nano in tx.execute(costs)], at)
