"""What changed rows of the ledger mean for quotas and roll-ups."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any

from billing import latency_rollups, rollups
from billing.quotas.moves import Move
from billing.quotas.subjects import COLUMNS, subjects_of
from billing.records import COUNTED, NO_ERROR, OPEN, State
from billing.rollups import EVERYBODY, NO_TEAM, UsageSums

Row = dict[str, Any]


class Effects:
    """What changed rows mean for quotas and roll-ups."""

    def __init__(self, from_journal: bool, connected: Collection[int], counts_byok: bool) -> None:
        self.moves: dict[tuple[str, int], Move] = {}
        self.spent: list[tuple[str, datetime, int]] = []
        self.sums: dict[rollups.Bucket, UsageSums] = {}
        self.latency = latency_rollups.Changes()
        self._from_journal = from_journal
        self._connected = connected
        self._quota_costs = ("cost_nano", "byok_nano") if counts_byok else ("cost_nano",)

    def add(self, before: Row | None, after: Row) -> None:
        """Add one row's change."""
        user_pays = after["pool_key_id"] in self._connected
        if quota_ids := [after[column] for column in COLUMNS.values() if after[column] is not None]:
            move = self._move(before, after, user_pays)
            for quota_id in quota_ids:
                place = after["process_id"], quota_id
                self.moves[place] = self.moves.get(place, Move()) + move
        if spent := self._spent(after, user_pays) - self._spent(before, user_pays):
            for subject in subjects_of(after["user_id"], after["client_key_id"], after["team_id"], user_pays):
                self.spent.append((subject, after["created_at"], spent))
        cost = _counted(after, "cost_nano") - _counted(before, "cost_nano")
        of_nobody = _cost_of_nobody(after, user_pays) - _cost_of_nobody(before, user_pays)
        ended = after["is_last"] and not (before and before["is_last"])
        sums = UsageSums(
            requests=int(ended),
            errors=int(ended and after["outcome"] not in NO_ERROR),
            prompt_tokens=_counted(after, "prompt_tokens") - _counted(before, "prompt_tokens"),
            completion_tokens=_counted(after, "completion_tokens") - _counted(before, "completion_tokens"),
            cost_nano=cost - of_nobody,
            unknown=_is_unknown(after) - _is_unknown(before),
        )
        whose = rollups.bucket_of(after, user_pays)
        self._add_sums(whose, sums)
        if of_nobody:
            self._add_sums(whose._replace(user_id=EVERYBODY, team_id=NO_TEAM), UsageSums(cost_nano=of_nobody))
        self.latency.note(whose, before, after)

    def _add_sums(self, whose: rollups.Bucket, sums: UsageSums) -> None:
        self.sums[whose] = self.sums.get(whose, UsageSums()) + sums

    def _spent(self, row: Row | None, user_pays: bool) -> int:
        if row is None or is_lost(row["is_last"], user_pays):
            return 0
        return sum(_counted(row, name) for name in self._quota_costs)

    def _move(self, before: Row | None, after: Row, user_pays: bool) -> Move:
        reserved, cost = after["reserved_nano"], self._spent(after, user_pays)
        was_open, is_open = before is not None and before["state"] in OPEN, after["state"] in OPEN
        if before is None:
            return Move(opened=reserved) if is_open else Move(through=cost)
        if not was_open or is_open:
            return Move()
        return Move(closed=reserved, back=reserved - cost if self._from_journal else 0)


def _counted(row: Row | None, name: str) -> int:
    return (row[name] or 0) if row and row["state"] in COUNTED else 0


def is_lost(is_last: bool, user_pays: bool) -> bool:
    """Whether what a try cost is not its caller's, who got nothing for it, but the operator's.

    is_last: no other try followed. user_pays: an account of their own was billed, whatever came of it.
    """
    return not (is_last or user_pays)


def _cost_of_nobody(row: Row | None, user_pays: bool) -> int:
    return _counted(row, "cost_nano") if row and is_lost(row["is_last"], user_pays) else 0


def _is_unknown(row: Row | None) -> int:
    return int(row is not None and row["state"] == State.UNKNOWN)
