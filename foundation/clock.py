"""The clock of everything that is stored or expires, so that tests can move it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime

from foundation.logs import event

log = logging.getLogger("clock")

MAX_SKEW_SECONDS = 5.0  # between hosts, until operators are told


class Clock:
    """Wall time for what is stored, monotonic time for what is measured.

    The wall time is the host's until `set_by` has told the database's; from then on it is that, and what somebody does
    to the host's clock moves nothing. host_time: the host's, in seconds since 1970.
    """

    def __init__(self, host_time: Callable[[], float] = time.time) -> None:
        self._host_time = host_time
        self._beyond_monotonic: float | None = None
        self._was_right = True

    def now(self) -> datetime:
        """The time now, aware, in UTC."""
        return datetime.fromtimestamp(self.timestamp(), UTC)

    def timestamp(self) -> float:
        """Seconds since 1970, in UTC."""
        offset = self._beyond_monotonic
        return self._host_time() if offset is None else self.monotonic() + offset

    def monotonic(self) -> float:
        """Seconds that never jump; only differences mean something."""
        return time.monotonic()

    def set_by(self, told: datetime, asked_at: float, answered_at: float) -> None:
        """Go by another clock, which told its time at some moment between these two of `monotonic`.

        What is known of its offset is an interval as wide as the question took (Cristian's algorithm). The offset in
        use is moved into it by as little as possible, so that slow answers move nothing.
        """
        earliest, latest = told.timestamp() - answered_at, told.timestamp() - asked_at
        offset = (earliest + latest) / 2 if self._beyond_monotonic is None else self._beyond_monotonic
        self._beyond_monotonic = min(max(offset, earliest), latest)

    @property
    def skew_seconds(self) -> float:
        """How far the host's clock is ahead of this one; negative if it is behind."""
        return self._host_time() - self.timestamp()

    @property
    def is_right(self) -> bool:
        """Whether the host's clock may be left alone."""
        return abs(self.skew_seconds) <= MAX_SKEW_SECONDS

    def tell(self) -> None:
        """Say once in the log that the host's clock has gone wrong, and once that it is right again."""
        was_right, self._was_right = self._was_right, self.is_right
        if was_right != self._was_right:
            name = "clock_right_again" if self._was_right else "clock_wrong"
            event(log, name, logging.WARNING, skew_seconds=round(self.skew_seconds, 1))
