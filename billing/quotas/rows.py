"""Quotas in the database: what each subject may spend, has spent, and has reserved; slices that processes lease of it.

At every moment, for every quota:

    reserved_nano = sum of its slices + sum of reserved_nano of the open rows of the ledger that name it
    spent_nano    = sum of the costs of the subject's settled and estimated calls of the current window,
                    of a user's without those that the user's own OpenRouter account has paid for

Every change of the two locks the quota's row first, then its slices; several quotas in the order of their ids. A new
quota begins with what the roll-ups say was spent: whoever makes one holds the revision `quotas` against the ledger,
which holds it shared while it adds costs, so that no cost falls between the two.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from billing.quotas.terms import PERIODS, RECOVERIES, QuotaTerms
from config.settings import Config
from db import Database, Transaction, inserted_id, utc_now
from foundation.clock import Clock
from foundation.errors import BadRequest
from foundation.money import MAX_NANO, NANO, nano, usd
from pool.keys import connected_key_of
from replicas.processes import beaten_at
from replicas.revisions import bump
from tables import api_keys, quota_slices, revisions, usage_rollups
from tables import quotas as table

SUBJECT = re.compile(r"(user|key)/[1-9][0-9]{0,17}")
MAX_LIMIT_NANO = 10**9 * NANO
NO_TERMS = QuotaTerms(None, None, "none", "reset")


@dataclass(frozen=True, slots=True)
class Quota:
    """One subject's quota. id: None as long as there is no row. is_default: it has the terms of the settings."""

    id: int | None
    subject: str
    terms: QuotaTerms
    is_default: bool
    window_start: datetime
    spent_nano: int
    reserved_nano: int

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


@dataclass(frozen=True, slots=True)
class Move:
    """What one transaction of the ledger does to one process's slice of one quota, in nano-dollars.

    opened: reservations of rows that became open. closed: of rows that were open before and are no more. through:
    min(cost, reserved) of rows that became open and closed within this transaction. back: what rows closed from the
    journal did not use; 0 for rows closed otherwise, as their process never counted with it.
    """

    opened: int = 0
    closed: int = 0
    through: int = 0
    back: int = 0

    def __add__(self, other: Move) -> Move:
        return Move(
            self.opened + other.opened,
            self.closed + other.closed,
            self.through + other.through,
            self.back + other.back,
        )


# ── for the ledger


def apply(tx: Transaction, moves: Mapping[tuple[str, int], Move], spent: Sequence[tuple[str, datetime, int]]) -> None:
    """Bring what the ledger has just settled to the quotas, in the ledger's own transaction.

    moves: by (process id, quota id). spent: (subject, created_at, nano) of each row that became settled or estimated.
    """
    ids = {quota_id for _, quota_id in moves}
    if spent:
        tx.execute(sa.select(revisions.c.value).where(revisions.c.name == table.name).with_for_update(read=True))
        subjects = {subject for subject, _, _ in spent}
        ids |= set(tx.scalars(sa.select(table.c.id).where(table.c.subject.in_(subjects))))
    changed = _lock(tx, ids)
    by_subject = {quota.subject: quota.id for quota in changed.values()}
    for subject, created_at, cost_nano in sorted(spent, key=lambda row: row[1]):
        if (quota_id := by_subject.get(subject)) is not None:
            quota = changed[quota_id]
            window_start, spent_nano = quota.terms.counted(quota.window_start, quota.spent_nano, created_at, cost_nano)
            changed[quota_id] = replace(quota, window_start=window_start, spent_nano=spent_nano)
    slices = _slices(tx, {process_id for process_id, _ in moves}, ids)
    for (process_id, quota_id), move in moves.items():
        if quota_id in changed:
            wanted = move.back - move.opened - move.through
            actual = _change_slice(tx, slices, process_id, quota_id, wanted)
            quota = changed[quota_id]
            reserved_nano = quota.reserved_nano + actual + move.opened - move.closed
            changed[quota_id] = replace(quota, reserved_nano=reserved_nano)
    _store(tx, changed.values())


# ── for the processes' slices


def take(
    tx: Transaction, process_id: str, quota_id: int, at: datetime, grant: Callable[[int], int]
) -> tuple[int, Quota]:
    """Lease a process more of a quota; returns how much, and the quota afterwards.

    grant: says how much of what is left (possibly negative) is taken; 0 changes nothing.
    """
    quota = _lock(tx, [quota_id])[quota_id].rolled(at)
    granted = grant(quota.left_nano)
    if granted:
        quota = replace(quota, reserved_nano=quota.reserved_nano + granted)
        slices = _slices(tx, [process_id], [quota_id])
        if (process_id, quota_id) in slices:
            _change_slice(tx, slices, process_id, quota_id, granted)
        else:
            tx.execute(quota_slices.insert().values(process_id=process_id, quota_id=quota_id, nano=granted))
        _store(tx, [quota])
    return granted, quota


def put_back(tx: Transaction, process_id: str, amounts: Mapping[int, int]) -> dict[int, int]:
    """Return parts of a process's slices; amounts and result by quota id.

    The slices' rows stay, for what is still to come back. The result is less than asked for where the slice has less,
    and lacks slices that are no more.
    """
    changed, slices = _lock(tx, amounts), _slices(tx, [process_id], amounts)
    returned: dict[int, int] = {}
    for _, quota_id in slices:
        amount = amounts[quota_id]
        returned[quota_id] = -_change_slice(tx, slices, process_id, quota_id, -amount)
        quota = changed[quota_id]
        changed[quota_id] = replace(quota, reserved_nano=quota.reserved_nano - returned[quota_id])
    _store(tx, changed.values())
    return returned


def remove_slices(tx: Transaction, process_id: str, quota_ids: Collection[int] | None = None) -> None:
    """Return all of a process's slices, or those of these quotas, with their rows."""
    if quota_ids is None:
        wanted = quota_slices.c.process_id == process_id
        quota_ids = list(tx.scalars(sa.select(quota_slices.c.quota_id).where(wanted)))
    changed, slices = _lock(tx, quota_ids), _slices(tx, [process_id], quota_ids)
    for (_, quota_id), amount in slices.items():
        quota = changed[quota_id]
        changed[quota_id] = replace(quota, reserved_nano=quota.reserved_nano - amount)
    of_process = sa.and_(quota_slices.c.process_id == process_id, quota_slices.c.quota_id.in_(quota_ids))
    tx.execute(quota_slices.delete().where(of_process))
    _store(tx, changed.values())


def remove_slices_if_silent(tx: Transaction, process_id: str, since: datetime) -> bool:
    """Return all slices of a process that has not reported since then; False if it has.

    Its row is locked meanwhile: a process that comes back sees its slices gone as soon as its report is written.
    """
    beat_at = beaten_at(tx, process_id, lock=True)
    if beat_at is not None and beat_at >= since:
        return False
    remove_slices(tx, process_id)
    return True


def holders(tx: Transaction) -> set[str]:
    """The processes that have slices."""
    return set(tx.scalars(sa.select(quota_slices.c.process_id).distinct()))


def held_by(tx: Transaction, process_id: str) -> set[int]:
    """The quotas of which a process has a slice, even an empty one."""
    return set(tx.scalars(sa.select(quota_slices.c.quota_id).where(quota_slices.c.process_id == process_id)))


def _lock(tx: Transaction, quota_ids: Collection[int]) -> dict[int, Quota]:
    if not quota_ids:
        return {}
    wanted = sa.select(table).where(table.c.id.in_(quota_ids)).order_by(table.c.id).with_for_update()
    return {row.id: _quota(row) for row in tx.execute(wanted)}


def _slices(tx: Transaction, process_ids: Collection[str], quota_ids: Collection[int]) -> dict[tuple[str, int], int]:
    """The slices' amounts by (process id, quota id); to be read when the quotas are locked."""
    wanted = sa.and_(quota_slices.c.process_id.in_(process_ids), quota_slices.c.quota_id.in_(quota_ids))
    rows = tx.execute(sa.select(quota_slices).where(wanted)).all() if process_ids and quota_ids else []
    return {(row.process_id, row.quota_id): row.nano for row in rows}


def _change_slice(
    tx: Transaction, slices: Mapping[tuple[str, int], int], process_id: str, quota_id: int, wanted: int
) -> int:
    """Change a slice that is there by as much as can be, never below 0; returns how much that is."""
    amount = slices.get((process_id, quota_id))
    if amount is None:
        return 0
    actual = max(wanted, -amount)
    if actual:
        of_slice = sa.and_(quota_slices.c.process_id == process_id, quota_slices.c.quota_id == quota_id)
        tx.execute(quota_slices.update().where(of_slice).values(nano=amount + actual))
    return actual


def _store(tx: Transaction, changed: Collection[Quota]) -> None:
    for quota in changed:
        values = {"window_start": quota.window_start, "spent_nano": quota.spent_nano}
        values |= {"reserved_nano": quota.reserved_nano}
        tx.execute(table.update().where(table.c.id == quota.id).values(values))


def _quota(row: Any) -> Quota:
    terms = QuotaTerms(row.limit_nano, row.soft_limit_nano, row.period, row.recovery)
    return Quota(row.id, row.subject, terms, row.is_default, row.window_start, row.spent_nano, row.reserved_nano)


# ── for operators and users


def put(tx: Transaction, subject: str, terms: QuotaTerms | None) -> None:
    """Give a client key a quota of its own, or none, in the transaction that changes the key."""
    bump(tx, table.name)
    if terms or tx.scalar(sa.select(table.c.id).where(table.c.subject == subject)):
        _set(tx, subject, terms or NO_TERMS, utc_now(tx), is_default=terms is None)


class Quotas:
    """The quotas' terms. A subject is `user/<id>` or `key/<client key id>`.

    default: the terms of users without a quota of their own; None if they have none. Client keys have no default.
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
        wanted = sa.true() if self.default else sa.not_(table.c.is_default)
        at = self._clock.now()
        with self._db.reading() as tx:
            total = tx.scalar(sa.select(sa.func.count()).select_from(table).where(wanted)) or 0
            rows = sa.select(table).where(wanted).order_by(table.c.id.desc())
            found = [_quota(row) for row in tx.execute(rows.limit(page_size).offset((page - 1) * page_size))]
        return [quota.rolled(at) for quota in found], total

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

        def write(tx: Transaction) -> Quota:
            tx.execute(sa.select(revisions.c.value).where(revisions.c.name == table.name).with_for_update())
            return _set(tx, subject, terms, at, is_default=True, keep_own=True)

        return self._db.transact(write)

    def default_of(self, subject: str) -> QuotaTerms | None:
        """The terms of a subject without a quota of its own; None if it has none then."""
        return self.default if subject.startswith("user/") else None

    def _read(self, wanted: Sequence[sa.ColumnElement[bool]]) -> list[Quota]:
        with self._db.reading() as tx:
            return [_quota(row) for row in tx.execute(sa.select(table).where(*wanted))]

    def _change(self, subject: str, terms: QuotaTerms, is_default: bool) -> Quota:
        subject, at = check_subject(subject), self._clock.now()

        def write(tx: Transaction) -> Quota:
            bump(tx, table.name)
            return _set(tx, subject, terms, at, is_default)

        return self._db.transact(write)


def _set(
    tx: Transaction, subject: str, terms: QuotaTerms, at: datetime, is_default: bool, keep_own: bool = False
) -> Quota:
    """Give a subject these terms. keep_own: unless somebody has just set others. The revision must be locked."""
    row = tx.execute(sa.select(table).where(table.c.subject == subject).with_for_update()).first()
    old = _quota(row).rolled(at) if row else None
    if old and keep_own and not old.is_default:
        return old
    if old and (old.terms.period, old.terms.recovery) == (terms.period, terms.recovery):
        window_start, spent_nano = old.window_start, old.spent_nano
    else:
        window_start, spent_nano = _spent_before(tx, subject, terms, at)
    values: dict[str, object] = {"limit_nano": terms.limit_nano, "soft_limit_nano": terms.soft_limit_nano}
    values |= {"period": terms.period, "recovery": terms.recovery, "is_default": is_default}
    values |= {"window_start": window_start, "spent_nano": spent_nano, "updated_at": at}
    if old:
        tx.execute(table.update().where(table.c.id == old.id).values(values))
        return Quota(old.id, subject, terms, is_default, window_start, spent_nano, old.reserved_nano)
    inserted = tx.execute(table.insert().values(subject=subject, reserved_nano=0, **values))
    return Quota(inserted_id(inserted), subject, terms, is_default, window_start, spent_nano, 0)


def _spent_before(tx: Transaction, subject: str, terms: QuotaTerms, at: datetime) -> tuple[datetime, int]:
    """(window_start, spent_nano) of a quota with these terms that begins now, after what the roll-ups have."""
    kind, _, number = subject.partition("/")
    column = usage_rollups.c.user_id if kind == "user" else usage_rollups.c.client_key_id
    hour = terms.since(at).replace(minute=0, second=0, microsecond=0)
    own = sa.select(api_keys.c.id).where(connected_key_of(int(number)))
    counts = usage_rollups.c.pool_key_id.not_in(own) if kind == "user" else sa.true()
    costs = (
        sa.select(usage_rollups.c.start, sa.func.sum(usage_rollups.c.cost_nano))
        .where(usage_rollups.c.period == "h", column == int(number), usage_rollups.c.start >= hour, counts)
        .group_by(usage_rollups.c.start)
        .order_by(usage_rollups.c.start)
    )
    return terms.replayed([(start, int(cost_nano)) for start, cost_nano in tx.execute(costs)], at)


def check_subject(subject: str) -> str:
    """The subject, if it is one. Raises BadRequest."""
    if not SUBJECT.fullmatch(subject):
        raise BadRequest("A quota belongs to user/<id> or key/<id>, where id is a whole number from 1 on")
    return subject


def check_amount(name: str, dollars: object) -> int | None:
    """What an operator wrote for dollars, in nano-dollars; None for None. Raises BadRequest."""
    try:
        if dollars is None or (not isinstance(dollars, bool) and 0 <= float(str(dollars)) <= MAX_LIMIT_NANO // NANO):
            return nano(dollars)
    except (ValueError, ArithmeticError):
        pass
    raise BadRequest(f"{name} must be an amount of dollars from 0 to {MAX_LIMIT_NANO // NANO}, or none")


def check_terms(limit_nano: int | None, soft_limit_nano: int | None, period: str, recovery: str) -> QuotaTerms:
    """The terms, if they make sense. Raises BadRequest with what is accepted."""
    for name, amount in (("The limit", limit_nano), ("The soft limit", soft_limit_nano)):
        if amount is not None and not 0 <= amount <= MAX_LIMIT_NANO:
            raise BadRequest(f"{name} must be an amount of dollars from 0 to {MAX_LIMIT_NANO // NANO}, or none")
    if limit_nano is not None and soft_limit_nano is not None and soft_limit_nano > limit_nano:
        raise BadRequest("The soft limit must not be above the limit: no call would ever get that far")
    if period not in PERIODS:
        raise BadRequest(f"The period must be one of {', '.join(PERIODS)}")
    if recovery not in RECOVERIES:
        raise BadRequest(f"The recovery must be one of {', '.join(RECOVERIES)}")
    if recovery == "steady" and (limit_nano is None or period == "none"):
        raise BadRequest("A quota recovers steadily only with a limit and a period of day, week or month")
    return QuotaTerms(limit_nano, soft_limit_nano, period, recovery)
