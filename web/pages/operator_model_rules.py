"""The operator's page of rules for calls of one model: fallbacks, time-outs, choices of upstreams."""

from __future__ import annotations

from typing import Any

from flask import Response, request

from gateway.failures import Failure
from gateway.model_rules import fallback_of
from web.api.admin_model_rules import NewModelRule, remove_rule, rules_shown, set_rule
from web.operation import Paging
from web.pages.forms import form_of, here, query_of
from web.pages.operator import for_auditors, for_operators
from web.pages.views import page_blueprint, show

routes = page_blueprint("operator_model_rule_pages", "/operator/model-rules")


@routes.get("")
@for_auditors
def rules() -> Response:
    """All of them, by model."""
    return show("operator_model_rules.html", **_values())


@routes.post("")
@for_operators
def save(operator: str) -> Response:
    """Set one, new or not."""
    name = request.form.get("name", "").strip()
    body = form_of(NewModelRule, name=None, fallbacks=_fallbacks(), upstreams=_upstreams())
    set_rule(operator, name, body)
    return show("operator_model_rules_part.html", **_values())


@routes.delete("/<path:name>")
@for_operators
def remove(operator: str, name: str) -> Response:
    """Remove one."""
    remove_rule(operator, name)
    return show("operator_model_rules_part.html", **_values())


def _values() -> dict[str, Any]:
    return {"here": here, "failures": list(Failure), **rules_shown(query_of(Paging))}


def _fallbacks() -> list[dict[str, Any]]:
    return [fallback_of(line).to_dict() for line in _lines("fallbacks")]


def _upstreams() -> list[dict[str, str]]:
    """`local` or `local 9` on each line; another weight than a number is refused later."""
    lines = [line.split(maxsplit=1) for line in _lines("upstreams")]
    return [{"upstream": line[0], "weight": line[1] if len(line) == 2 else "1"} for line in lines]


def _lines(field: str) -> list[str]:
    return [line for line in request.form.get(field, "").splitlines() if line.strip()]
