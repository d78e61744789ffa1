"""What may be asked of who spent what: by whom, which amount, of which time."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

import sqlalchemy as sa

from billing.rollups import DAY, HOUR, UsageSums

MOST_HOURS = timedelta(days=2)  # that are told hour by hour; what is longer, day by day

Subject = int | str


class By(StrEnum):
    """What is asked by."""

    USER = "user"
    KEY = "key"
    MODEL = "model"
    PROVIDER = "provider"
    UPSTREAM = "upstream"


class Metric(StrEnum):
    """What is looked at: in this order shares come, and this is drawn."""

    COST = "cost"
    CALLS = "calls"
    TOKENS = "tokens"
    ERRORS = "errors"
    P50 = "p50"
    P95 = "p95"

    @property
    def is_time(self) -> bool:
        """How long whole calls took: of those with most calls the slowest come first. Times don't add up."""
        return self in {Metric.P50, Metric.P95}

    def of(self, sums: UsageSums) -> int:
        """The amount. Of costs in nano-dollars."""
        return sum(getattr(sums, name) for name in AMOUNTS[self])

    def summed(self, table: sa.Table) -> sa.ColumnElement[Any]:
        """The amount, added up in SQL."""
        return sa.func.sum(sum((table.c[name] for name in AMOUNTS[self]), start=sa.literal(0)))


AMOUNTS = {
    Metric.COST: ("cost_nano",),
    Metric.CALLS: ("requests",),
    Metric.TOKENS: ("prompt_tokens", "completion_tokens"),
    Metric.ERRORS: ("errors",),
    Metric.P50: ("requests",),
    Metric.P95: ("requests",),
}


@dataclass(frozen=True)
class SharesAsked:
    """start, end: aware; full days, or hours if they are no more than MOST_HOURS apart. user_id: None for everybody."""

    by: By
    metric: Metric
    start: datetime
    end: datetime
    user_id: int | None = None

    @property
    def period(self) -> str:
        """How fine the times are: an hour or a day. How long callers' calls took is known by the day."""
        of_callers = self.user_id is not None or self.by in {By.USER, By.KEY}
        is_short = self.end - self.start <= MOST_HOURS
        return HOUR if is_short and not (self.metric.is_time and of_callers) else DAY

    @property
    def times(self) -> list[datetime]:
        """The begin of each hour or day."""
        return self._times(self.start)

    @property
    def times_before(self) -> list[datetime]:
        """The same of the time before, which is as long."""
        return self._times(self.before)

    @property
    def before(self) -> datetime:
        """When the time before begins."""
        return self.start - (self.end - self.start)

    def _times(self, start: datetime) -> list[datetime]:
        step = timedelta(hours=1) if self.period == HOUR else timedelta(days=1)
        return [start + number * step for number in range((self.end - self.start) // step)]
