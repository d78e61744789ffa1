"""One call's time: when it is over, and when whoever waits has to look up before that.

Made once for a call and passed to everything that may block: dialling, sending, the head, each read. None of these has
a clock of its own, so nothing that trickles in can make the time begin anew.
"""

from __future__ import annotations

import math
import time


class NothingYet(Exception):
    """It is time to look up: is the client still there, is a sign of life due? What was waited for goes on."""


class TimeIsUp(Exception):
    """The time for this is over."""


class Deadline:
    """The end of a call's time, or of one step's. at: in monotonic seconds."""

    __slots__ = ("_look_up_at", "_whole", "at")

    def __init__(self, seconds: float) -> None:
        self.at = time.monotonic() + seconds
        self._look_up_at = math.inf
        self._whole = self

    def within(self, seconds: float) -> Deadline:
        """The deadline of a step: so many seconds from now, but not later than this one. Both look up together."""
        step = Deadline(seconds)
        step.at, step._whole = min(step.at, self.at), self._whole
        return step

    def renew(self, seconds: float) -> None:
        """There was progress: the time is over so many seconds from now."""
        self.at = time.monotonic() + seconds

    def look_up_in(self, seconds: float) -> None:
        """Have waiting interrupted after so many seconds."""
        self._whole._look_up_at = time.monotonic() + seconds

    @property
    def left(self) -> float:
        """Seconds, not below 0."""
        return max(self.at - time.monotonic(), 0.0)

    @property
    def is_over(self) -> bool:
        """True once the time is over."""
        return time.monotonic() >= self.at

    def wait(self) -> float:
        """How many seconds may be waited now: more than 0. Raises TimeIsUp, NothingYet."""
        now, look_up_at = time.monotonic(), self._whole._look_up_at
        if now >= self.at:
            raise TimeIsUp
        if now >= look_up_at:
            raise NothingYet
        return min(self.at, look_up_at) - now
