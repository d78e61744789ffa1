"""What calls and processes do to quotas' rows: what is spent, reserved and leased moves, and none of it is lost.

At every moment, for every quota:

    reserved_nano = sum of its slices + sum of reserved_nano of the open rows of the ledger that name it
    spent_nano    = sum of the costs of the subject's settled and estimated calls of the current window,
                    of a user's without those that the user's own OpenRouter account has paid for

Every change of the two locks the quota's row first, then its slices; several quotas in the order of their ids.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import sqlalchemy as sa

from billing.quotas.rows import Quota, quota_of
from db import Transaction
from replicas.processes import beaten_at
from tables import quota_slices, revisions
from tables import quotas as table


@dataclass(frozen=True, slots=True)
class Move:
    """What one transaction of the ledger does to one process's slice of one quota, in nano-dollars.

    opened: reservations of rows that became open. closed: of rows that were open before and are no more. through:
    costs of rows that became open and closed within this transaction. back: what rows closed from the journal did not
    use, negative if they cost more than was reserved; 0 for rows closed otherwise: their process never counts with it.
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
    return {row.id: quota_of(row) for row in tx.execute(wanted)}


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
