"""Log-ins that were refused: counted in memory, and written to the audit log some seconds later, as sums.

Not at once, because a write more or less would tell which names have accounts: a request with a name that nobody has
does what one with a wrong key does, it counts.
"""

from __future__ import annotations

from accounts.audit_log import AuditLog
from accounts.audit_sums import AuditSums, SumKind
from accounts.sessions import Origin
from foundation.counts import Counts

NOBODY = "nobody"  # who is not known to be anybody, in the audit log
ACTIONS = "login_failed", "login_refused", "recovery_refused", "second_factor_refused", "passkey_refused"
"""What the audit log calls refused log-ins."""


class RefusedLogIns:
    """Counts of this process. Whose account it was is told with the address; nobody's addresses are not kept."""

    def __init__(self, audit: AuditLog, counts: Counts) -> None:
        self.sums = AuditSums(audit)
        self._counts = counts

    def note(self, action: str, user_id: int | None, origin: Origin) -> None:
        """Count one. action: as the audit log names it."""
        self.count(origin, action)
        address = origin.address if user_id else None
        self.sums.count(SumKind(NOBODY, action, ("method", origin.method), user_id, address))

    def count(self, origin: Origin, result: str) -> None:
        """Count one among all that were tried, without telling whose it was: a refused one, or one that succeeded."""
        self._counts.add("log_ins", origin.method, result)
