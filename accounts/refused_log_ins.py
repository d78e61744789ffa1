"""Log-ins that were refused: counted in memory, and written to the audit log some seconds later.

Not at once, because a write more or less would tell which names have accounts: a request with a name that nobody has
does what one with a wrong key does, it counts. A crash may lose some seconds of this.
"""

from __future__ import annotations

import threading
from collections import Counter
from typing import NamedTuple

from accounts.audit_log import AuditLog
from accounts.sessions import Origin

MAX_KINDS = 1000  # between two writes, of a few kB each; what comes beside counts as nobody's


class RefusedKind(NamedTuple):
    """What is counted together. user_id: whose account it was; None for nobody's, whose addresses are not kept."""

    action: str
    method: str
    user_id: int | None = None
    address: str | None = None


class RefusedLogIns:
    """Counts of this process."""

    def __init__(self, audit: AuditLog) -> None:
        self._audit = audit
        self._counts: Counter[RefusedKind] = Counter()
        self._lock = threading.Lock()

    def note(self, action: str, user_id: int | None, origin: Origin) -> None:
        """Count one. action: as the audit log names it."""
        kind = RefusedKind(action, origin.method, user_id, origin.address if user_id else None)
        with self._lock:
            if kind not in self._counts and len(self._counts) >= MAX_KINDS:
                kind = RefusedKind(action, origin.method)
            self._counts[kind] += 1

    def write(self) -> None:
        """Put what was counted into the audit log, an entry for each kind. After a DatabaseError all is still here."""
        with self._lock:
            counts, self._counts = self._counts, Counter()
        try:
            self._audit.record_all(
                {
                    "actor": "nobody",
                    "action": kind.action,
                    "subject": f"user/{kind.user_id}" if kind.user_id else "user/unknown",
                    "user_id": kind.user_id,
                    "address": kind.address,
                    "details": {"method": kind.method, "count": count},
                }
                for kind, count in counts.items()
            )
        except BaseException:
            with self._lock:
                self._counts += counts
            raise
