"""What Prometheus reads."""

from __future__ import annotations

from flask import Blueprint, Response, request

from web.http import services
from web.operation import Who, operation

routes = Blueprint("metrics_api", __name__)


@routes.get("/metrics")
@operation("Metrics", Who.SCRAPER, answers={200: ("text/plain", "application/openmetrics-text")}, refusals=(404,))
def metrics() -> Response:
    """All gateway processes on this host together, in Prometheus' or OpenMetrics' text format.

    404 unless METRICS_TOKEN is set. Nothing here names a user or a key.
    """
    text, content_type = services().metrics.scrape(request.headers.get("Accept", ""))
    return Response(text, content_type=content_type)
