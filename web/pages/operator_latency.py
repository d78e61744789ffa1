"""The operator's page of how fast calls are answered, and how they fail."""

from __future__ import annotations

from typing import Any

from flask import Response, request

from billing.reports.latency import Last, LatencyBy
from web.api.latency import LatencyQuery, latency_shown
from web.pages.forms import found, here, query_of
from web.pages.operator import for_auditors
from web.pages.sparkline import sparkline
from web.pages.views import page_blueprint, show

routes = page_blueprint("operator_latency_pages", "/operator/latency")

LASTS = {"Last hour": Last.HOUR, "Last day": Last.DAY, "7 days": Last.WEEK, "30 days": Last.MONTH}


@routes.get("")
@for_auditors
def latency() -> Response:
    """By model, provider, pool key or upstream."""
    shown = found(lambda: latency_shown(query_of(LatencyQuery)))
    for item in shown["items"]:
        item["sparkline"] = sparkline(item["points"])
    form: dict[str, Any] = {"kinds": list(LatencyBy), "lasts": LASTS, "given": request.args}
    return show("operator_latency.html", here=here, **form, **shown)
