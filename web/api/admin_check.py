"""For operators: whether our sums are OpenRouter's."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any

from flask import Blueprint, Response
from pydantic import Field

from billing import daily_check_rows
from billing.daily_check_rows import Verdict
from pool.life import PoolKeySource
from web.http import answer, services
from web.operation import Page, Paging, Shown, Who, operation

routes = Blueprint("admin_check_api", __name__, url_prefix="/admin")


class CheckShown(Shown):
    """One key on one day; dollars, null while unknown. our_usd: our sum; activity_usd: OpenRouter's of the day;
    our_total_usd, usage_usd: all that the key has spent up to the end of the day.
    """

    day: date
    key: str = Field(examples=["env/0a1b2c3d4e5f"])
    source: PoolKeySource
    verdict: Verdict
    our_usd: float = Field(examples=[1.5])
    activity_usd: float | None = Field(examples=[1.5])
    difference_usd: float | None = Field(examples=[0.0])
    our_total_usd: float = Field(examples=[12.5])
    usage_usd: float | None = Field(examples=[12.5])
    total_difference_usd: float | None = Field(examples=[0.0])
    checked_at: datetime


@routes.get("/usage-checks")
@operation("List the daily checks of the sums", Who.AUDITOR, query=Paging, answers={200: Page[CheckShown]})
def checks(query: Paging) -> Response:
    """The daily checks of each pool key, newest first."""
    return answer(checks_shown(query))


# ── for the pages too


def checks_shown(query: Paging) -> dict[str, Any]:
    """A page of checks, as it is answered."""
    found, total = daily_check_rows.page(services().db, query.page, query.page_size)
    items = [check.to_dict() for check in found]
    return {"items": items, "total": total, "page": query.page, "page_size": query.page_size}
