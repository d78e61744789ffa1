"""The log of one's own requests, and what its page shares with the operator's: filters, ranges of days, a file."""

from __future__ import annotations

from datetime import UTC, timedelta
from typing import Any

from flask import Response, request

from billing.reports import export
from billing.reports.row_filter import Ending
from web.api.usage import log_shown
from web.http import services
from web.pages.forms import found, here, query_of
from web.pages.views import Visitor, for_users, page_blueprint, show
from web.usage_query import LogFile, LogPageQuery

routes = page_blueprint("requests_pages")


@routes.get("/requests")
@for_users
def log(visitor: Visitor) -> Response:
    """One's own requests, newest first."""

    def read() -> dict[str, Any]:
        query = query_of(LogPageQuery)
        return log_shown(query, query.usage_of(visitor.user.id))

    keys = {row.id: row.name for row in services().client_keys.page(1, 100, visitor.user.id)[0]}
    return show("requests.html", path="/requests", keys=keys, **log_form(), **found(read))


@routes.get("/requests.csv")
@for_users
def csv(visitor: Visitor) -> Response:
    """The requests that a filter finds, as a file."""
    query = query_of(LogFile, format="csv")
    content = export.lines(services().usage_log.walk(query.usage_of(visitor.user.id)), "csv")
    return Response(content, headers=export.headers("csv"))


def log_form() -> dict[str, Any]:
    """What the form above a log offers."""
    return {
        "upstreams": services().upstreams.names(),
        "outcomes": list(Ending),
        "presets": presets(),
        "given": request.args,
        "here": here,
    }


def presets() -> dict[str, tuple[str, str]]:
    """Ranges of days (UTC) that are often asked for: the first day and the last, by what they are called."""
    today = services().clock.now().astimezone(UTC).date()
    yesterday = today - timedelta(days=1)
    found = {
        "Today": (today, today),
        "Yesterday": (yesterday, yesterday),
        "7 days": (today - timedelta(days=6), today),
        "30 days": (today - timedelta(days=29), today),
        "This month": (today.replace(day=1), today),
    }
    return {name: (first.isoformat(), last.isoformat()) for name, (first, last) in found.items()}
