"""What each user may spend while nothing is known of quotas: in a process whose database was away at its start."""

from __future__ import annotations

import threading

from foundation.errors import Busy
from foundation.money import usd


class OutageCredit:
    """One amount for each user, once for all."""

    def __init__(self, nano: int) -> None:
        self._nano = nano
        self._left: dict[int, int] = {}
        self._lock = threading.Lock()

    def change(self, user_id: int, nano: int) -> None:
        """Take from a user's credit, below 0, or give back. Raises Busy if that takes more than is left."""
        with self._lock:
            left = self._left.get(user_id, self._nano)
            if -nano > left:
                raise Busy(
                    f"Quotas can't be looked up at present, and this call may cost more than the ${usd(left)} that "
                    "you may spend meanwhile; try again shortly",
                    retry_after_seconds=5,
                )
            self._left[user_id] = left + nano
