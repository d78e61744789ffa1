"""For operators: operator tokens, what programs administer with, each with a name, a scope and an end."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Literal

from flask import Blueprint, Response
from pydantic import Field

from accounts.labels import with_labels
from accounts.operator_tokens import MAX_DAYS, OperatorTokenRow
from accounts.roles import TokenScope
from accounts.step_up import Act
from web.http import answer, audit, check_fresh, services
from web.operation import Body, Page, Paging, Shown, Who, operation

routes = Blueprint("admin_token_api", __name__, url_prefix="/admin/tokens")


class NewOperatorToken(Body):
    """A token that ends by itself."""

    name: str = Field(
        pattern="^[a-z0-9][a-z0-9._-]{0,47}$",
        description="By which the audit log knows it",
        examples=["nightly-report"],
    )
    scope: Literal["read", "everything"] = Field(
        "read", description="read: as an auditor; everything: as an admin, but for roles and tokens"
    )
    days: int = Field(90, ge=1, le=MAX_DAYS, description="For so long it is good", examples=[90])


class OperatorTokenShown(Shown):
    """A token without its text. token_hint: its first characters."""

    id: int = Field(examples=[1])
    token_hint: str = Field(examples=["or_op_ab****"])
    name: str
    scope: TokenScope
    created_by: str = Field(examples=["user/1"])
    created_by_label: str | None = Field(description="What operators call a user", examples=[None])
    created_at: datetime
    expires_at: datetime
    last_used: datetime | None
    revoked_at: datetime | None
    state: Literal["active", "expired", "revoked"]


class OperatorTokenMade(OperatorTokenShown):
    """A new token. token: its text, shown this once."""

    token: str = Field(examples=["or_op_abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG"])


@routes.get("")
@operation("List operator tokens", Who.AUDITOR, query=Paging, answers={200: Page[OperatorTokenShown]})
def page(query: Paging) -> Response:
    """Newest first, with those that are revoked or over."""
    return answer(operator_tokens_shown(query))


@routes.post("")
@operation(
    "Make an operator token", Who.APPOINTER, body=NewOperatorToken, answers={201: OperatorTokenMade}, refusals=(409,)
)
def create(operator: str, body: NewOperatorToken) -> Response:
    """Its text is shown in this answer and never again. No token makes another one. 409 for a name that was given."""
    return answer(make_operator_token(operator, body), 201)


@routes.delete("/<int:token_id>")
@operation("Revoke an operator token", Who.OPERATOR, answers={200: OperatorTokenShown}, refusals=(404,))
def delete(operator: str, token_id: int) -> Response:
    """The token is refused everywhere within two seconds, for good."""
    return answer(revoke_operator_token(operator, token_id))


# ── for the pages too


def operator_tokens_shown(query: Paging) -> dict[str, Any]:
    """A page of tokens, as it is answered."""
    found, total = services().operator_tokens.page(query.page, query.page_size)
    items = [_shown(one) for one in found]
    return {"items": items, "total": total, "page": query.page, "page_size": query.page_size}


def make_operator_token(operator: str, body: NewOperatorToken) -> dict[str, Any]:
    """Make a token; returns it with its text. Raises Conflict."""
    check_fresh(Act.MAKE_OPERATOR_TOKEN)
    scope = TokenScope(body.scope)
    made, text = services().operator_tokens.create(body.name, scope, timedelta(days=body.days), operator)
    audit(operator, "operator_token_made", f"token/{made.name}", scope=scope.value, days=body.days)
    return _shown(made) | {"token": text}


def revoke_operator_token(operator: str, token_id: int) -> dict[str, Any]:
    """Revoke a token; returns it. Raises NotFound."""
    found = services().operator_tokens.revoke(token_id)
    audit(operator, "operator_token_revoked", f"token/{found.name}")
    return _shown(found)


def _shown(found: OperatorTokenRow) -> dict[str, Any]:
    row = found.to_dict(services().clock.now())
    return with_labels(services().db, [row], created_by_label="created_by")[0]
