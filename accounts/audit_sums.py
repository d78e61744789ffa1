"""What happens too often for an entry each time: counted in memory, and written to the audit log as sums.

The first of a kind is written some seconds later, more of it when their number has doubled and at the end of the hour.
So a million of a kind within an hour are some twenty entries, whose counts add up. A crash may lose what was not yet
written. Of more kinds than MAX_KINDS in an hour the rest counts without an address, and then as nobody's.
"""

from __future__ import annotations

import threading
from collections import Counter
from datetime import datetime
from typing import NamedTuple

from accounts.audit_log import AuditLog

MAX_KINDS = 1000  # in an hour, of a few hundred bytes each


class SumKind(NamedTuple):
    """What is counted together. user_id: whom it concerns. detail: its name and value in the entry."""

    actor: str
    action: str
    detail: tuple[str, str]
    user_id: int | None = None
    address: str | None = None


class AuditSums:
    """Counts of this process."""

    def __init__(self, audit: AuditLog) -> None:
        self._audit = audit
        self._waiting: Counter[SumKind] = Counter()
        self._written: Counter[SumKind] = Counter()
        self._hour: datetime | None = None
        self._lock = threading.Lock()

    def count(self, kind: SumKind) -> None:
        """Count one."""
        with self._lock:
            if not self._has_room_for(kind, MAX_KINDS):
                kind = kind._replace(address=None)
            if not self._has_room_for(kind, 2 * MAX_KINDS):
                kind = kind._replace(user_id=None)
            self._waiting[kind] += 1

    def _has_room_for(self, kind: SumKind, most: int) -> bool:
        return kind in self._written or kind in self._waiting or len(self._written.keys() | self._waiting.keys()) < most

    def write(self, all_of_it: bool = False) -> None:
        """Put into the audit log what is due, an entry for each kind. After a DatabaseError all is still here.

        all_of_it: what else would wait for more of its kind, too.
        """
        hour = self._audit.clock.now().replace(minute=0, second=0, microsecond=0)
        with self._lock:
            is_over, self._hour = self._hour is not None and self._hour != hour, hour
            due = {
                kind: count
                for kind, count in self._waiting.items()
                if all_of_it or is_over or count >= self._written[kind]
            }
            for kind in due:
                del self._waiting[kind]
        try:
            self._audit.record_all(_entry(kind, count) for kind, count in due.items())
        except BaseException:
            with self._lock:
                self._waiting += Counter(due)
            raise
        with self._lock:
            if is_over:
                self._written.clear()
            else:
                self._written += Counter(due)


def _entry(kind: SumKind, count: int) -> dict[str, object]:
    name, value = kind.detail
    return {
        "actor": kind.actor,
        "action": kind.action,
        "subject": f"user/{kind.user_id}" if kind.user_id else "user/unknown",
        "user_id": kind.user_id,
        "address": kind.address,
        "details": {name: value, "count": count},
    }
