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

    def set_by(self, told: datetime, asked_at: float, answered_at: float) -> None:
        """No database moves it."""

    @property
    def skew_seconds(self) -> float:
        return 0.0

    def advance(self, **delta: float) -> None:
        self.time += timedelta(**delta)
