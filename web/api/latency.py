"""For operators: how fast models, providers, pool keys and upstreams answer, and how they fail."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from flask import Blueprint, Response
from pydantic import Field

from billing.reports.latency import MOST_ITEMS, Last, LatencyBy, Span, read_latency
from web.http import answer, services
from web.operation import Query, Shown, Who, operation

routes = Blueprint("latency_api", __name__)


class LatencyQuery(Query):
    """Of what, and how far back."""

    by: LatencyBy = Field(LatencyBy.MODEL, description="By what calls are told apart")
    last: Last = Field(Last.DAY, description="So far back: full hours or days (UTC), and the one that has begun")


class PercentilesShown(Shown):
    """Milliseconds that half, 95 % and 99 % of the answered calls have kept to; null without any. Within 10 %."""

    p50: int | None = Field(examples=[412])
    p95: int | None = Field(examples=[1_840])
    p99: int | None = Field(examples=[4_100])


class KindShown(Shown):
    """How often one kind of error came."""

    kind: str = Field(description="As the log's `error_type`, or its `outcome`", examples=["rate_limit_exceeded"])
    count: int = Field(examples=[3])


class TimesShown(Shown):
    """How calls went. Of pool keys and upstreams each try counts, also one that another one followed."""

    calls: int = Field(examples=[120])
    errors: int = Field(examples=[3])
    first_byte_ms: PercentilesShown = Field(description="To the first byte of the answer")
    total_ms: PercentilesShown = Field(description="To its end")
    tokens_per_second: float | None = Field(
        description="Of answers, once they had begun if they were streamed", examples=[61.5]
    )
    errors_by_kind: list[KindShown] = Field(description="The most frequent first")


class PointShown(Shown):
    """At one of `times`."""

    calls: int = Field(examples=[12])
    errors: int = Field(examples=[0])
    first_byte_p95_ms: int | None = Field(examples=[1_840])


class LatencyItem(TimesShown):
    """Of one of them. name: null for calls without one: of no model, or no provider, that is known."""

    name: str | None = Field(examples=["openai/gpt-4o-mini"])
    points: list[PointShown] = Field(description="At `times`, for the last hour those of the last day")


class LatencyShown(Shown):
    """How calls went."""

    by: LatencyBy
    last: Last
    period: Literal["hour", "day"] = Field(description="Of `times`")
    since: datetime = Field(description="What began at this time or later counts")
    times: list[datetime]
    totals: TimesShown = Field(description="Of all calls, whatever is asked by")
    items: list[LatencyItem] = Field(description=f"Those with most calls first, at most {MOST_ITEMS}")
    is_whole: bool = Field(description="False if there are more than are listed")


@routes.get("/admin/latency")
@operation("How fast calls are answered", Who.AUDITOR, query=LatencyQuery, answers={200: LatencyShown})
def latency(query: LatencyQuery) -> Response:
    """Percentiles, tokens a second and errors by kind, by model, provider, pool key or upstream."""
    return answer(latency_shown(query))


# ── for the pages too


def latency_shown(query: LatencyQuery) -> dict[str, Any]:
    """As it is answered."""
    found = read_latency(services().db, query.by, Span.of(query.last, services().clock.now()))
    return {"by": query.by.value, "last": query.last.value} | found.to_dict()
