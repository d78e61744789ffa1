"""The operator's page of aliases, other names for models."""

from __future__ import annotations

from typing import Any

from flask import Response, request

from web.api.admin_aliases import NewAlias, aliases_shown, remove_alias, set_alias
from web.operation import Paging
from web.pages.forms import form_of, here, query_of
from web.pages.operator import for_auditors, for_operators
from web.pages.views import page_blueprint, show

routes = page_blueprint("operator_alias_pages", "/operator/aliases")


@routes.get("")
@for_auditors
def aliases() -> Response:
    """All of them, by name."""
    return show("operator_aliases.html", **_values())


@routes.post("")
@for_operators
def save(operator: str) -> Response:
    """Set one, new or not."""
    name = request.form.get("name", "").strip()
    set_alias(operator, name, form_of(NewAlias, name=None, models=_models()))
    return show("operator_aliases_part.html", **_values())


@routes.delete("/<name>")
@for_operators
def remove(operator: str, name: str) -> Response:
    """Remove one."""
    remove_alias(operator, name)
    return show("operator_aliases_part.html", **_values())


def _values() -> dict[str, Any]:
    return {"here": here, **aliases_shown(query_of(Paging))}


def _models() -> list[dict[str, str]]:
    """`openai/gpt-4o-mini` or `openai/gpt-4o-mini 9` on each line; another weight than a number is refused later."""
    lines = [line.split(maxsplit=1) for line in request.form.get("models", "").splitlines() if line.strip()]
    return [{"model": line[0], "weight": line[1] if len(line) == 2 else "1"} for line in lines]
