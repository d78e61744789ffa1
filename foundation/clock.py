"""The clock of everything that is stored or expires, so that tests can move it."""

from __future__ import annotations

import time
from datetime import UTC, datetime


class Clock:
    """Wall time for what is stored, monotonic time for what is measured."""

    def now(self) -> datetime:
        """The time now, aware, in UTC."""
        return datetime.now(UTC)

    def timestamp(self) -> float:
        """Seconds since 1970, in UTC."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds that never jump; only differences mean something."""
        return time.monotonic()
