"""The operator's page of alerts: what rings, what rang, where it is told, and which kinds are silenced."""

from __future__ import annotations

from typing import Any

from flask import Response, request

from alerts.kinds import KINDS
from web.api.admin_alerts import alerts_shown, switch_kind, test_alerts
from web.operation import Paging
from web.pages.forms import here, query_of
from web.pages.operator import for_auditors, for_operators
from web.pages.views import page_blueprint, show

routes = page_blueprint("operator_alert_pages", "/operator/alerts")


@routes.get("")
@for_auditors
def alerts() -> Response:
    """All of it, as of now."""
    return show("operator_alerts.html", **_values())


@routes.post("/test")
@for_operators
def test(operator: str) -> Response:
    """Send a test message to each channel, and show what became of it."""
    return show("operator_alerts_part.html", tested=test_alerts(operator), **_values())


@routes.post("/kinds/<kind>")
@for_operators
def switch(operator: str, kind: str) -> Response:
    """Silence a kind, or end its silence."""
    switch_kind(operator, kind, request.form.get("silenced") == "true")
    return show("operator_alerts_part.html", **_values())


def _values() -> dict[str, Any]:
    return {"here": here, "sentence": _sentence, **alerts_shown(query_of(Paging))}


def _sentence(alert: dict[str, Any]) -> str:
    """What is said of it, for translation: its parts are still to be filled in."""
    return KINDS[alert["kind"]].words(alert["subject"])
