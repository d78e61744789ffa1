"""The dashboard: what one has used and may still use, over time, by model and by key, and the latest requests."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

from flask import Response, request

from billing.reports import export
from billing.reports.one_request import get_request
from web.http import services
from web.operation import asked
from web.pages.first_steps import users_guide
from web.pages.views import Visitor, for_users, page_blueprint, show
from web.usage_query import Days, midnight

routes = page_blueprint("dashboard_pages")

RECENT = 20


@routes.get("/dashboard")
@for_users
def dashboard(visitor: Visitor) -> Response:
    """All of it, for the chosen days."""
    days = asked(Days)
    (first, last), wanted = days.first_and_last(), days.usage_of(visitor.user.id)
    found = services().usage.summary(wanted)
    quota = services().quotas.find(f"user/{visitor.user.id}")
    names = {row.id: row.name for row in services().client_keys.page(1, 100, visitor.user.id)[0]}
    recent = services().usage_log.page(wanted, 1, RECENT).items
    return show(
        "dashboard.html",
        found=found,
        series=series(found["by_day"], first, last),
        quota=quota.to_dict() if quota else None,
        names=names,
        recent=[item.to_dict() for item in recent],
        first=first,
        last=last,
        **users_guide(visitor),
    )


@routes.get("/dashboard/request")
@for_users
def one_request(visitor: Visitor) -> Response:
    """One of the visitor's own requests. The address names it as `id`."""
    request_id = request.args.get("id", "").strip()
    return show("request.html", item=get_request(services().db, request_id, visitor.user.id))


@routes.get("/dashboard/requests.csv")
@for_users
def csv(visitor: Visitor) -> Response:
    """The requests of these days as a file."""
    content = export.lines(services().usage_log.walk(asked(Days).usage_of(visitor.user.id)), "csv")
    return Response(content, headers=export.headers("csv"))


def series(by_day: list[dict[str, Any]], first: date, last: date) -> dict[str, list[float]]:
    """Every day in order, those without calls too: for a chart."""
    known = {row["date"]: row for row in by_day}
    days = [first + timedelta(days=number) for number in range((last - first).days + 1)]
    rows = [known.get(day.isoformat(), {}) for day in days]
    return {
        "days": [midnight(day).timestamp() for day in days],
        "cost": [row.get("cost_usd", 0) for row in rows],
        "requests": [row.get("requests", 0) for row in rows],
    }
