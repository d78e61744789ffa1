"""The operator's page of upstreams besides the pool. Keys go in and never come out."""

from __future__ import annotations

from typing import Any

from flask import Response, request

from web.api.admin_upstreams import (
    NewUpstream,
    add_upstream,
    change_upstream,
    remove_upstream,
    upstream_checked,
    upstreams_shown,
)
from web.operation import Paging
from web.pages.forms import form_of, here, query_of
from web.pages.operator import for_auditors, for_operators
from web.pages.views import page_blueprint, show

routes = page_blueprint("operator_upstream_pages", "/operator/upstreams")


@routes.get("")
@for_auditors
def upstreams() -> Response:
    """All of them, newest first."""
    return show("operator_upstreams.html", **_values())


@routes.post("")
@for_operators
def add(operator: str) -> Response:
    """Add one, and say whether it answers."""
    body = _given()
    add_upstream(operator, body)
    return show("operator_upstreams_part.html", checked=upstream_checked(operator, body.name), **_values())


@routes.put("/<int:upstream_id>")
@for_operators
def change(operator: str, upstream_id: int) -> Response:
    """Replace one; its key is kept if none is given."""
    body = _given()
    if request.form.get("without_key"):
        body = body.model_copy(update={"api_key": None})
    change_upstream(operator, str(upstream_id), body)
    return show("operator_upstreams_part.html", **_values())


@routes.delete("/<int:upstream_id>")
@for_operators
def remove(operator: str, upstream_id: int) -> Response:
    """Remove one."""
    remove_upstream(operator, str(upstream_id))
    return show("operator_upstreams_part.html", **_values())


@routes.post("/<int:upstream_id>/check")
@for_operators
def check(operator: str, upstream_id: int) -> Response:
    """Ask one for its models, and say what came of it."""
    return show("operator_upstreams_part.html", checked=upstream_checked(operator, str(upstream_id)), **_values())


def _values() -> dict[str, Any]:
    return {"here": here, **upstreams_shown(query_of(Paging))}


def _given() -> NewUpstream:
    """What a form says of an upstream. Raises BadRequest."""
    return form_of(
        NewUpstream,
        without_key=None,
        is_active="is_active" in request.form,  # of a box that is not ticked, browsers send nothing
        is_default="is_default" in request.form,
        model_prefixes=_prefixes(),
        prices=_prices(),
    )


def _lines(field: str) -> list[str]:
    return [line.strip() for line in request.form.get(field, "").splitlines() if line.strip()]


# Lines that can't be read are given as they are: the model refuses them, beside all else that is wrong.


def _prefixes() -> dict[str, str] | list[str]:
    """`local/ =` or `local/ = their/` on each line."""
    lines = _lines("model_prefixes")
    parts = [line.partition("=") for line in lines]
    return (
        {begin.strip(): instead.strip() for begin, _, instead in parts} if all(sign for _, sign, _ in parts) else lines
    )


def _prices() -> dict[str, dict[str, str]] | list[str]:
    """`openai/gpt-4o-mini 0.15 0.6` on each line."""
    lines = _lines("prices")
    parts = [line.split() for line in lines]
    if any(len(part) != 3 for part in parts):
        return lines
    return {model: {"prompt": prompt, "completion": completion} for model, prompt, completion in parts}
