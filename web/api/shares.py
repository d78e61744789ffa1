"""Who spent what: one's own calls by key, model, provider and upstream; for operators everybody's, by user too."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Literal

from flask import Blueprint, Response
from pydantic import Field

from accounts.caller import Caller
from billing.reports.shares import MOST_ITEMS, read_shares
from billing.reports.shares_asked import By, Metric, SharesAsked
from billing.rollups import DAY
from foundation.errors import BadRequest
from web.api.usage import Sums
from web.http import answer, note_read, services
from web.operation import Query, RowId, Shown, Who, operation
from web.usage_query import MAX_DAYS, Begin, End

routes = Blueprint("shares_api", __name__)

DAYS = 30  # by default


class SharesQuery(Query):
    """Of which calls, and by what."""

    by: Literal["key", "model", "provider", "upstream"] = Field("model", description="By what calls are added up")
    metric: Metric = Field(Metric.COST, description="Whose is greatest comes first, and what `series` are of")
    start: Begin | None = Field(None, description="From this day or full hour (UTC) on", examples=["2026-11-01"])
    end: End | None = Field(
        None, description="Up to this hour, or to the end of this day (UTC)", examples=["2026-11-21"]
    )

    def asked(self, user_id: int | None) -> SharesAsked:
        """As billing/reports/shares.py takes it. Raises BadRequest."""
        today = services().clock.now().replace(hour=0, minute=0, second=0, microsecond=0)
        end = self.end or today + timedelta(days=1)
        start = self.start or end - timedelta(days=DAYS)
        if start >= end:
            raise BadRequest("start must be before end")
        if end - start > timedelta(days=MAX_DAYS):
            raise BadRequest(f"start and end may be at most {MAX_DAYS} days apart")
        asked = SharesAsked(By(self.by), self.metric, start, end, user_id)
        if asked.period == DAY and (start.hour or end.hour):
            raise BadRequest(
                "start and end must be days if they are more than two days apart, or for the p50 or p95 of callers"
            )
        if asked.metric.is_time and asked.by is By.UPSTREAM and user_id is not None:
            raise BadRequest("The p50 and p95 of one user are told by key, model or provider, not by upstream")
        return asked


class EverybodysSharesQuery(SharesQuery):
    """Of everybody's calls, or one user's."""

    by: Literal["user", "key", "model", "provider", "upstream"] = Field(  # type: ignore[assignment]
        "user", description="By what calls are added up"
    )
    user_id: RowId | None = Field(None, description="Of this user alone")


class TimedSums(Sums):
    """What was used, and how long the answered calls took in milliseconds, within 10 %."""

    p50_ms: int | None = Field(description="null unless metric is p50 or p95", examples=[2_100])
    p95_ms: int | None = Field(description="null unless metric is p50 or p95", examples=[9_800])


class ShareShown(TimedSums):
    """One of them. name: null for calls without one: without a key, with no model that is known, refused here, or paid
    by the operator because another try followed.
    """

    id: int | None = Field(description="The user's or the client key's", examples=[17])
    name: str | None = Field(examples=["17 marketing, laptop 3"])
    before: TimedSums = Field(description="In the time before, which is as long")


class SeriesShown(Shown):
    """The amounts of one of the first items, at `times`."""

    name: str | None = Field(examples=["17 marketing, laptop 3"])
    amounts: list[int] = Field(
        description="Of costs in billionths of a dollar, of times in milliseconds", examples=[[5_000_000]]
    )


class SharesShown(Shown):
    """Who spent what. All items add up to totals."""

    by: By
    metric: Metric
    period: Literal["hour", "day"] = Field(description="Of `times`; hours for up to two days")
    start: datetime
    end: datetime
    totals: TimedSums
    before: TimedSums = Field(description="In the time before, which is as long")
    items: list[ShareShown] = Field(description=f"With calls in this time; the greatest first, at most {MOST_ITEMS}")
    is_whole: bool = Field(description="False if there are more than are listed")
    times: list[datetime]
    series: list[SeriesShown] = Field(description="Of the first items, in their order")
    others: list[int] = Field(
        description="All others' amounts at `times`; of times, which don't add up, 0", examples=[[0]]
    )


@routes.get("/api/usage/shares")
@operation("Your usage, by what it went to", Who.READER, query=SharesQuery, answers={200: SharesShown})
def own(caller: Caller, query: SharesQuery) -> Response:
    """By client key, model, provider or upstream, hour by hour or day by day, and beside the time before."""
    return answer(shares_shown(query.asked(caller.user_id)))


@routes.get("/admin/usage/shares")
@operation("Who spent what", Who.AUDITOR, query=EverybodysSharesQuery, answers={200: SharesShown})
def everybodys(query: EverybodysSharesQuery) -> Response:
    """By user, client key, model, provider or upstream, hour by hour or day by day, and beside the time before."""
    return answer(everybodys_shares(query))


# ── for the pages too


def shares_shown(asked: SharesAsked) -> dict[str, Any]:
    """As it is answered."""
    return read_shares(services().db, asked).to_dict()


def everybodys_shares(query: EverybodysSharesQuery) -> dict[str, Any]:
    """Everybody's, as it is answered. Raises BadRequest."""
    asked = query.asked(query.user_id)
    note_read("usage", query.user_id)
    return shares_shown(asked)
