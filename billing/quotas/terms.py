"""What a quota promises: its limits, the windows that it is for, and how what was spent recovers.

All in UTC and in integers: the same numbers whoever computes them, and however often.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from foundation.errors import BadRequest
from foundation.money import NANO, nano

PERIODS = ("day", "week", "month", "none")
RECOVERIES = ("reset", "steady")
MAX_LIMIT_NANO = 10**9 * NANO
BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)
# What recovers steadily takes this long to recover whole. A month counts 30 days, so that no day of it is worth more.
STEADY = {"day": timedelta(days=1), "week": timedelta(days=7), "month": timedelta(days=30)}
MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class QuotaTerms:
    """limit_nano: what may be spent, None for any amount; soft_limit_nano: from here on there are warnings.

    period: day, week (from Monday), month, or none for all time. recovery: reset, when the period ends; or steady, by
    limit_nano per period all the time, which needs a limit and a period.
    """

    limit_nano: int | None
    soft_limit_nano: int | None
    period: str
    recovery: str

    def window_of(self, at: datetime) -> datetime:
        """The start of the window that holds this moment. A steady quota has none, and starts at any moment."""
        if self.recovery == "steady":
            return at
        if self.period == "none":
            return BEGINNING
        day = at.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        if self.period == "week":
            return day - timedelta(days=day.weekday())
        return day.replace(day=1) if self.period == "month" else day

    def resets_at(self, window_start: datetime) -> datetime | None:
        """When the next window starts; None if there is none."""
        if self.recovery == "steady" or self.period == "none":
            return None
        if self.period == "month":
            return (window_start + timedelta(days=31)).replace(day=1)
        return window_start + STEADY[self.period]

    def rolled(self, window_start: datetime, spent_nano: int, at: datetime) -> tuple[datetime, int]:
        """(window_start, spent_nano) as of this moment; a moment before the window changes nothing."""
        if self.recovery == "reset":
            start = self.window_of(at)
            return (start, 0) if start > window_start else (window_start, spent_nano)
        elapsed, limit, period = at - window_start, self.limit_nano or 0, STEADY[self.period]
        if elapsed <= timedelta():
            return window_start, spent_nano
        recovered = elapsed // MICROSECOND * limit // (period // MICROSECOND)
        if recovered >= spent_nano:
            return at, 0
        if not recovered:
            return window_start, spent_nano
        # Only as far as whole nano-dollars recovered: many small steps come to the same as a large one.
        return window_start + -(-recovered * (period // MICROSECOND) // limit) * MICROSECOND, spent_nano - recovered

    def counted(
        self, window_start: datetime, spent_nano: int, created_at: datetime, cost_nano: int
    ) -> tuple[datetime, int]:
        """(window_start, spent_nano) with the cost of a call of that time.

        A call of an earlier window changes nothing. What recovers steadily counts in full from when its cost is known,
        unless all of it would have recovered.
        """
        window_start, spent_nano = self.rolled(window_start, spent_nano, created_at)
        oldest = window_start - STEADY[self.period] if self.recovery == "steady" else window_start
        return window_start, spent_nano + (cost_nano if created_at >= oldest else 0)

    def since(self, at: datetime) -> datetime:
        """From when on costs still matter at this moment."""
        return at - STEADY[self.period] if self.recovery == "steady" else self.window_of(at)

    def replayed(self, costs: Iterable[tuple[datetime, int]], at: datetime) -> tuple[datetime, int]:
        """(window_start, spent_nano) at this moment, had these terms held for the costs since `since`, oldest first."""
        window_start, spent_nano = self.since(at), 0
        for created_at, cost_nano in costs:
            window_start, spent_nano = self.counted(window_start, spent_nano, created_at, cost_nano)
        return self.rolled(window_start, spent_nano, at)

    def __str__(self) -> str:
        """For people: $5 per month."""
        limit = "no limit" if self.limit_nano is None else f"${dollars(self.limit_nano)}"
        return limit if self.period == "none" else f"{limit} per {self.period}"


def dollars(amount_nano: int) -> str:
    """Nano-dollars as the digits of dollars, all that are needed and no more: 0.000007."""
    whole, rest = divmod(amount_nano, NANO)
    return f"{whole}.{rest:09d}".rstrip("0").rstrip(".")


def check_amount(name: str, dollars: object) -> int | None:
    """What an operator wrote for dollars, in nano-dollars; None for None. Raises BadRequest."""
    try:
        if dollars is None or (not isinstance(dollars, bool) and 0 <= float(str(dollars)) <= MAX_LIMIT_NANO // NANO):
            return nano(dollars)
    except (ValueError, ArithmeticError):
        pass
    raise BadRequest(f"{name} must be an amount of dollars from 0 to {MAX_LIMIT_NANO // NANO}, or none")


def check_terms(limit_nano: int | None, soft_limit_nano: int | None, period: str, recovery: str) -> QuotaTerms:
    """The terms, if they make sense. Raises BadRequest with what is accepted."""
    for name, amount in (("The limit", limit_nano), ("The soft limit", soft_limit_nano)):
        if amount is not None and not 0 <= amount <= MAX_LIMIT_NANO:
            raise BadRequest(f"{name} must be an amount of dollars from 0 to {MAX_LIMIT_NANO // NANO}, or none")
    if limit_nano is not None and soft_limit_nano is not None and soft_limit_nano > limit_nano:
        raise BadRequest("The soft limit must not be above the limit: no call would ever get that far")
    if period not in PERIODS:
        raise BadRequest(f"The period must be one of {', '.join(PERIODS)}")
    if recovery not in RECOVERIES:
        raise BadRequest(f"The recovery must be one of {', '.join(RECOVERIES)}")
    if recovery == "steady" and (limit_nano is None or period == "none"):
        raise BadRequest("A quota recovers steadily only with a limit and a period of day, week or month")
    return QuotaTerms(limit_nano, soft_limit_nano, period, recovery)
