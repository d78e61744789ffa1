"""What calls and processes do to quotas' rows: what is spent, reserved and leased moves, and none of it is lost.

At every moment, for every quota:

    reserved_nano = sum of its slices + sum of reserved_nano of the open rows of the ledger that name it
    spent_nano    = sum of the costs of the subject's settled and estimated calls of the current window,
                    of a user's without those that the user's own OpenRouter account has paid for

Every change of the two locks the quota's row first, then its slices; several quotas in the order of their ids. What
was read under a lock is written too: servers that keep locks to themselves find a conflict in what two have written.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from billing.quotas.rows import Quota, ensure_rows, quota_of
from db import Transaction
from replicas.processes import is_silent
from storage.many_rows import upsert_rows
from tables import quota_slices
from tables import quotas as table

AMOUNTS = "window_start", "spent_nano", "reserved_nano"


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


class _Books:
    """Some quotas, locked, with some processes' slices of them: read once, changed in memory, stored at the end."""

    def __init__(self, tx: Transaction, quota_ids: Collection[int], process_ids: Collection[str]) -> None:
        self._tx = tx
        self._rows: dict[int, Any] = {}
        self._slices: dict[tuple[str, int], int] = {}
        self._changed: set[tuple[str, int]] = set()
        if quota_ids:
            locked = sa.select(table).where(table.c.id.in_(quota_ids)).order_by(table.c.id).with_for_update()
            self._rows = {row.id: row for row in tx.execute(locked)}
        if quota_ids and process_ids:
            theirs = sa.and_(quota_slices.c.process_id.in_(process_ids), quota_slices.c.quota_id.in_(quota_ids))
            rows = tx.execute(sa.select(quota_slices).where(theirs))
            self._slices = {(row.process_id, row.quota_id): row.nano for row in rows if row.quota_id in self._rows}
        self.quotas = {quota_id: quota_of(row) for quota_id, row in self._rows.items()}

    def count(self, quota_id: int, created_at: datetime, cost_nano: int) -> None:
        """Add what a call of that time cost."""
        quota = self.quotas[quota_id]
        window_start, spent_nano = quota.terms.counted(quota.window_start, quota.spent_nano, created_at, cost_nano)
        self.quotas[quota_id] = replace(quota, window_start=window_start, spent_nano=spent_nano)

    def reserve(self, quota_id: int, nano: int) -> None:
        """Change what is reserved of a quota."""
        quota = self.quotas[quota_id]
        self.quotas[quota_id] = replace(quota, reserved_nano=quota.reserved_nano + nano)

    def slices_of(self, process_id: str) -> dict[int, int]:
        """What a process has of these quotas, by id."""
        return {quota_id: nano for (owner, quota_id), nano in self._slices.items() if owner == process_id}

    def change_slice(self, process_id: str, quota_id: int, wanted: int, is_new: bool = False) -> int:
        """Change a slice, and what is reserved, by as much as can be: never below 0, and nothing if there is none.

        is_new: it is made if there is none. Returns by how much.
        """
        place = process_id, quota_id
        if place not in self._slices and not is_new:
            return 0
        amount = self._slices.get(place, 0)
        actual = max(wanted, -amount)
        if actual:
            self._slices[place] = amount + actual
            self._changed.add(place)
            self.reserve(quota_id, actual)
        return actual

    def store(self) -> None:
        """Write what has changed."""
        slices = [
            {"process_id": process, "quota_id": quota, "nano": self._slices[process, quota]}
            for process, quota in sorted(self._changed)
        ]
        upsert_rows(self._tx, quota_slices, slices, setting=["nano"])
        changed = []
        for quota_id, row in self._rows.items():
            quota = self.quotas[quota_id]
            if quota != quota_of(row):
                amounts = {name: getattr(quota, name) for name in AMOUNTS}
                changed.append({**row._mapping, **amounts})
        upsert_rows(self._tx, table, changed, setting=AMOUNTS)


# ── for the ledger


def apply(tx: Transaction, moves: Mapping[tuple[str, int], Move], spent: Sequence[tuple[str, datetime, int]]) -> None:
    """Bring what the ledger has just settled to the quotas, in the ledger's own transaction.

    moves: by (process id, quota id). spent: (subject, created_at, nano) of each row that became settled or estimated.
    """
    ids = {quota_id for _, quota_id in moves}
    by_subject: dict[str, int] = {}
    if spent:
        latest = max(created_at for _, created_at, _ in spent)
        by_subject = ensure_rows(tx, {subject for subject, _, _ in spent}, latest)
        ids |= set(by_subject.values())
    books = _Books(tx, ids, {process_id for process_id, _ in moves})
    for subject, created_at, cost_nano in sorted(spent, key=lambda row: row[1]):
        books.count(by_subject[subject], created_at, cost_nano)
    for (process_id, quota_id), move in moves.items():
        if quota_id in books.quotas:
            books.change_slice(process_id, quota_id, move.back - move.opened - move.through)
            books.reserve(quota_id, move.opened - move.closed)
    books.store()


# ── for the processes' slices


def take(
    tx: Transaction, process_id: str, quota_id: int, at: datetime, grant: Callable[[int], int]
) -> tuple[int, Quota]:
    """Lease a process more of a quota; returns how much, and the quota afterwards.

    grant: says how much of what is left (possibly negative) is taken; 0 changes nothing.
    """
    books = _Books(tx, [quota_id], [process_id])
    books.quotas[quota_id] = quota = books.quotas[quota_id].rolled(at)
    granted = grant(quota.left_nano)
    if granted:
        books.change_slice(process_id, quota_id, granted, is_new=True)
        books.store()
    return granted, books.quotas[quota_id]


def put_back(tx: Transaction, process_id: str, amounts: Mapping[int, int]) -> dict[int, int]:
    """Return parts of a process's slices; amounts and result by quota id.

    The slices' rows stay, for what is still to come back. The result is less than asked for where the slice has less,
    and lacks slices that are no more.
    """
    books = _Books(tx, amounts, [process_id])
    returned = {
        quota_id: -books.change_slice(process_id, quota_id, -amounts[quota_id])
        for quota_id in books.slices_of(process_id)
    }
    books.store()
    return returned


def remove_slices(tx: Transaction, process_id: str, quota_ids: Collection[int] | None = None) -> None:
    """Return all of a process's slices, or those of these quotas, with their rows."""
    if quota_ids is None:
        quota_ids = held_by(tx, process_id)
    books = _Books(tx, quota_ids, [process_id])
    for quota_id, amount in books.slices_of(process_id).items():
        books.change_slice(process_id, quota_id, -amount)
    books.store()
    of_process = sa.and_(quota_slices.c.process_id == process_id, quota_slices.c.quota_id.in_(quota_ids))
    tx.execute(quota_slices.delete().where(of_process))


def remove_slices_if_silent(tx: Transaction, process_id: str, since: datetime) -> bool:
    """Return all slices of a process that has not reported since then; False if it has.

    A process that comes back sees its slices gone as soon as its report is written.
    """
    if not is_silent(tx, process_id, since):
        return False
    remove_slices(tx, process_id)
    return True


def holders(tx: Transaction) -> set[str]:
    """The processes that have slices."""
    return set(tx.scalars(sa.select(quota_slices.c.process_id).distinct()))


def held_by(tx: Transaction, process_id: str) -> set[int]:
    """The quotas of which a process has a slice, even an empty one."""
    return set(tx.scalars(sa.select(quota_slices.c.quota_id).where(quota_slices.c.process_id == process_id)))
