"""A clock that only tests move."""

from datetime import UTC, datetime, timedelta

from foundation.clock import Clock


class MovableClock(Clock):
    """A clock that tests set forward; it never moves by itself."""

    def __init__(self) -> None:
        self.time = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)

    def now(self) -> datetime:
        return self.time

    def timestamp(self) -> float:
        return self.time.timestamp()

    def monotonic(self) -> float:
        return self.time.timestamp()

    def advance(self, **delta: float) -> None:
        self.time += timedelta(**delta)
