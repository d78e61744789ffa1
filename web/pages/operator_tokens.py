"""The operator's page of operator tokens: which there are, new ones, and those that are revoked."""

from __future__ import annotations

from typing import Any

from flask import Response

from web.api.admin_tokens import NewOperatorToken, make_operator_token, operator_tokens_shown, revoke_operator_token
from web.operation import Paging
from web.pages.forms import form_of, here, query_of
from web.pages.operator import for_appointers, for_auditors, for_operators
from web.pages.views import page_blueprint, show

routes = page_blueprint("operator_token_pages", "/operator/tokens")


@routes.get("")
@for_auditors
def tokens() -> Response:
    """All of them, newest first."""
    return show("operator_tokens.html", **_values())


@routes.post("")
@for_appointers
def create(operator: str) -> Response:
    """Make a token; it is shown in this answer and never again."""
    made = make_operator_token(operator, form_of(NewOperatorToken))
    return show("operator_tokens_part.html", made=made["token"], **_values())


@routes.delete("/<int:token_id>")
@for_operators
def revoke(operator: str, token_id: int) -> Response:
    """Let nobody use a token any more."""
    revoke_operator_token(operator, token_id)
    return show("operator_tokens_part.html", **_values())


def _values() -> dict[str, Any]:
    return {"here": here, **operator_tokens_shown(query_of(Paging))}
