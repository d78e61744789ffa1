"""For the operator alone: the client keys of all users, and of programs that have no user."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from flask import Blueprint, Response
from pydantic import Field

from accounts.client_keys import ClientKeyRow
from accounts.labels import with_labels
from web.api.client_keys import (
    ClientKeyChanges,
    ClientKeyMade,
    ClientKeyShown,
    NewClientKey,
    State,
    change_key,
    make_key,
    revoke_key,
    shown,
)
from web.http import answer, note_read, services
from web.operation import MAX_ID, Page, Paging, RowId, Who, operation

routes = Blueprint("admin_key_api", __name__, url_prefix="/admin/keys")


class ClientKeyFilter(Paging):
    """Whose keys, and in which state; by default all."""

    user_id: RowId | None = None
    team_id: RowId | None = Field(None, description="Of which team they are keys")
    state: State | None = None


class NewKeyOfAnybody(NewClientKey):
    """Without user_id the key gets an account of its own, to which nobody can log in."""

    user_id: Annotated[int, Field(ge=1, le=MAX_ID)] | None = None


class EverybodysKey(ClientKeyShown):
    """A key, with what operators call its owner."""

    user_label: str | None = Field(examples=["marketing, laptop 3"])


@routes.get("")
@operation("List client keys", Who.AUDITOR, query=ClientKeyFilter, answers={200: Page[EverybodysKey]})
def page(query: ClientKeyFilter) -> Response:
    """Newest first, revoked ones too."""
    return answer(client_keys_shown(query))


@routes.post("")
@operation("Make a client key", Who.OPERATOR, body=NewKeyOfAnybody, answers={201: ClientKeyMade}, refusals=(409,))
def create(operator: str, body: NewKeyOfAnybody) -> Response:
    """Its text is shown in this answer and never again. 409 for more keys than a user may have."""
    return make_key(operator, body.user_id, body)


@routes.get("/<int:key_id>")
@operation("Show a client key", Who.AUDITOR, answers={200: EverybodysKey}, refusals=(404,))
def show(key_id: int) -> Response:
    """Anybody's key, one that is revoked too."""
    return answer(_labelled([services().client_keys.get(key_id, with_revoked=True)])[0])


@routes.patch("/<int:key_id>")
@operation("Change a client key", Who.OPERATOR, body=ClientKeyChanges, answers={200: ClientKeyShown}, refusals=(404,))
def change(operator: str, key_id: int, body: ClientKeyChanges) -> Response:
    """In force everywhere within two seconds; 404 for a key that is revoked."""
    return change_key(operator, key_id, body)


@routes.delete("/<int:key_id>")
@operation("Revoke a client key", Who.OPERATOR, answers={200: ClientKeyShown}, refusals=(404,))
def delete(operator: str, key_id: int) -> Response:
    """The key is refused everywhere within two seconds, for good; 404 for one that is revoked already."""
    return revoke_key(operator, key_id)


# ── for the pages too


def client_keys_shown(query: ClientKeyFilter) -> dict[str, Any]:
    """A page of keys, as it is answered."""
    if query.user_id:
        note_read("client keys", query.user_id)
    keys = services().client_keys
    whose = {"user_id": query.user_id, "team_id": query.team_id}
    found, total = keys.page(query.page, query.page_size, state=query.state, with_revoked=True, **whose)
    return {"items": _labelled(found), "total": total, "page": query.page, "page_size": query.page_size}


def _labelled(keys: Sequence[ClientKeyRow]) -> list[dict[str, Any]]:
    return with_labels(services().db, shown(keys), user_label="user_id")
