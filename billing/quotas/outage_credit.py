"""What users may spend while nothing is known of their quotas: in a process that has started without its database."""

from __future__ import annotations

import threading

from foundation.errors import Busy
from foundation.money import usd


class OutageCredit:
    """The same amount for each user, in nano-dollars; once for all, because such an outage has no periods."""

    def __init__(self, nano: int) -> None:
        self._nano = nano
        self._left: dict[int, int] = {}
        self._lock = threading.Lock()

    def reserve(self, user_id: int, nano: int) -> None:
        """Admit a call that may cost so much. Raises Busy."""
        with self._lock:
            left = self._left.get(user_id, self._nano)
            if nano > left:
                raise Busy(
                    f"Quotas can't be looked up at present, and this call may cost more than the ${usd(left)} that "
                    "you may spend meanwhile; try again shortly",
                    retry_after_seconds=5,
                )
            self._left[user_id] = left - nano

    def give_back(self, user_id: int, nano: int) -> None:
        """Put back what a call did not use."""
        with self._lock:
            self._left[user_id] += nano
