"""A user's API tokens: what programs read usage with, and nothing else."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Any

from flask import Blueprint, Response
from pydantic import Field

from accounts.caller import Caller
from web.api.client_keys import Expiry, Name, check_life
from web.http import answer, audit, services
from web.operation import Body, Page, Paging, Shown, Who, operation

routes = Blueprint("token_api", __name__, url_prefix="/api/tokens")


class NewToken(Body):
    """A token without expires_at works until it is revoked."""

    name: Name = Field(examples=["dashboard"])
    expires_at: Expiry = None


class TokenShown(Shown):
    """A token without its text. token_hint: its first characters."""

    id: int
    token_hint: str = Field(examples=["or_api_ab****"])
    name: str
    expires_at: datetime | None
    created_at: datetime
    last_used: datetime | None


class TokenMade(TokenShown):
    """A new token. token: its text, shown this once."""

    token: str = Field(examples=["or_api_abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG"])


class Revoked(Shown):
    """What is revoked."""

    id: int
    message: str


@routes.get("")
@operation("List your API tokens", Who.USER, query=Paging, answers={200: Page[TokenShown]})
def page(caller: Caller, query: Paging) -> Response:
    """Newest first, without those that are revoked."""
    return answer(shown(caller.user_id, query))


@routes.post("")
@operation("Make an API token", Who.USER, body=NewToken, answers={201: TokenMade}, refusals=(409,))
def create(caller: Caller, body: NewToken) -> Response:
    """Its text is shown in this answer and never again. 409 for more tokens than a user may have."""
    return answer(make_token(caller, body), 201)


@routes.delete("/<int:token_id>")
@operation("Revoke an API token", Who.USER, answers={200: Revoked}, refusals=(404,))
def delete(caller: Caller, token_id: int) -> Response:
    """The token is refused everywhere within two seconds, for good."""
    revoke_token(caller.user_id, token_id)
    return answer({"id": token_id, "message": "Revoked"})


# ── for the pages too


def shown(user_id: int, query: Paging) -> dict[str, Any]:
    """A page of a user's tokens."""
    found, total = services().api_tokens.page(user_id, query.page, query.page_size)
    items = [asdict(row) for row in found]
    return {"items": items, "total": total, "page": query.page, "page_size": query.page_size}


def make_token(caller: Caller, body: NewToken) -> dict[str, Any]:
    """Make a token; returns it with its text. Raises BadRequest, Conflict, Unauthorized, SessionNotFresh."""
    check_life(body.expires_at)
    user_id = caller.user_id
    row, text = services().api_tokens.create(user_id, body.name, body.expires_at, caller.hold)
    fields = body.model_dump(mode="json", exclude_unset=True)
    audit(f"user/{user_id}", "api_token_made", f"api-token/{row.id}", user_id, fields=fields)
    return {**asdict(row), "token": text}


def revoke_token(user_id: int, token_id: int) -> None:
    """Revoke a user's token. Raises NotFound."""
    services().api_tokens.revoke(token_id, user_id)
    audit(f"user/{user_id}", "api_token_revoked", f"api-token/{token_id}", user_id)
