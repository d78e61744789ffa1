"""The operator's page of aliases, other names for models."""

from __future__ import annotations

from typing import Any

from flask import Response, request

from foundation.errors import BadRequest
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


def _models() -> list[dict[str, Any]]:
    """`openai/gpt-4o-mini` or `openai/gpt-4o-mini 9` on each line. Raises BadRequest."""
    found = []
    for line in request.form.get("models", "").splitlines():
        parts = line.split()
        if len(parts) > 2 or (len(parts) == 2 and not (parts[1].isascii() and parts[1].isdigit())):
            raise BadRequest("models must have a line such as `openai/gpt-4o-mini 9` for each")
        if parts:
            found.append({"model": parts[0], "weight": int(parts[1][:9]) if len(parts) == 2 else 1})
    return found
