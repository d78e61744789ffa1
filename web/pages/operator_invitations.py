"""The operator's page of invitations: who was invited, new links, and links that are revoked."""

from __future__ import annotations

from typing import Any

from flask import Response

from web.api.admin_invitations import NewInvitation, invitations_shown, invite, revoke_invitation
from web.http import services
from web.operation import Paging
from web.pages.forms import form_of, here, query_of
from web.pages.operator import for_auditors, for_operators
from web.pages.views import own_address, page_blueprint, show

routes = page_blueprint("operator_invitation_pages", "/operator/invitations")


@routes.get("")
@for_auditors
def invitations() -> Response:
    """All of them, newest first."""
    return show("operator_invitations.html", **_values())


@routes.post("")
@for_operators
def create(operator: str) -> Response:
    """Make a link; it is shown in this answer and never again."""
    made = invite(operator, form_of(NewInvitation))
    return show("operator_invitations_part.html", made=own_address() + made["path"], **_values())


@routes.delete("/<int:invitation_id>")
@for_operators
def revoke(operator: str, invitation_id: int) -> Response:
    """Let nobody use a link any more."""
    revoke_invitation(operator, invitation_id)
    return show("operator_invitations_part.html", **_values())


def _values() -> dict[str, Any]:
    mode = services().registration.mode.value
    return {"here": here, "mode": mode, **invitations_shown(query_of(Paging))}
