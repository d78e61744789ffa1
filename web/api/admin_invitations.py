"""For operators: invitations, the one-time links by which people sign up."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Literal

from flask import Blueprint, Response
from pydantic import Field

from accounts.invitations import MAX_NOTE_CHARACTERS, Invitation, InvitationTerms
from accounts.labels import with_labels
from accounts.step_up import Act
from accounts.users import UserRole
from billing.quotas.terms import check_amount
from web.http import answer, audit, check_appoints, check_fresh, services
from web.operation import Body, Page, Paging, Shown, Who, operation

routes = Blueprint("admin_invitation_api", __name__, url_prefix="/admin/invitations")

MAX_DAYS = 365


class NewInvitation(Body):
    """What the account begins with that is made by it."""

    note: str = Field("", max_length=MAX_NOTE_CHARACTERS, description="Whom it is for", examples=["Ann, design"])
    role: Literal["user", "auditor", "admin"] = Field(
        "user", description="auditor: may read all below /admin; admin: may change it too"
    )
    limit_usd: float | None = Field(
        None, description="A quota of its own; null for the default (QUOTA_USD)", examples=[20.0]
    )
    period: Literal["day", "week", "month", "none"] | None = Field(
        None, description="The time for which limit_usd is; null for QUOTA_PERIOD"
    )
    days: int = Field(7, ge=1, le=MAX_DAYS, description="For so long it can be used", examples=[7])


class InvitationShown(Shown):
    """An invitation. Its text is stored as a hash only."""

    id: int = Field(examples=[1])
    token_hint: str = Field(examples=["inv_ab****"])
    note: str
    role: UserRole
    limit_usd: float | None
    period: str | None
    is_first: bool = Field(description="Made by a start that found no operator")
    created_by: str = Field(examples=["user/1"])
    created_by_label: str | None = Field(examples=[None])
    created_at: datetime
    expires_at: datetime
    used_at: datetime | None
    used_by: int | None = Field(description="The account that was made by it", examples=[17])
    used_by_label: str | None = Field(description="What operators call it", examples=["marketing, laptop 3"])
    state: Literal["open", "used", "expired", "revoked"]


class InvitationMade(InvitationShown):
    """A new one, with its text for this once."""

    invitation: str = Field(examples=["inv_abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG"])
    path: str = Field(
        description="Behind this gateway's address it is the link to send",
        examples=["/register#invitation=inv_abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG"],
    )


@routes.get("")
@operation("List invitations", Who.AUDITOR, query=Paging, answers={200: Page[InvitationShown]})
def page(query: Paging) -> Response:
    """Newest first, with those that are used or over."""
    return answer(invitations_shown(query))


@routes.post("")
@operation("Invite somebody", Who.OPERATOR, body=NewInvitation, answers={201: InvitationMade})
def create(operator: str, body: NewInvitation) -> Response:
    """The link is good for one account. Its text is shown in this answer and never again."""
    return answer(invite(operator, body), 201)


@routes.delete("/<int:invitation_id>")
@operation("Revoke an invitation", Who.OPERATOR, answers={200: InvitationShown}, refusals=(404, 409))
def delete(operator: str, invitation_id: int) -> Response:
    """Nobody can use it any more; 409 if somebody has."""
    return answer(revoke_invitation(operator, invitation_id))


# ── for the pages too


def invitations_shown(query: Paging) -> dict[str, Any]:
    """A page of invitations, as it is answered."""
    found, total = services().invitations.page(query.page, query.page_size)
    items = [_shown(one) for one in found]
    return {"items": items, "total": total, "page": query.page, "page_size": query.page_size}


def invite(operator: str, body: NewInvitation) -> dict[str, Any]:
    """Make an invitation; returns it with its text. Raises BadRequest."""
    if body.role != "user":
        check_appoints()
        check_fresh(Act.CHANGE_ROLE)
    terms = InvitationTerms(UserRole(body.role), check_amount("limit_usd", body.limit_usd), body.period, body.note)
    made, text = services().invitations.create(terms, timedelta(days=body.days), operator)
    fields = body.model_dump(mode="json", exclude_unset=True)
    audit(operator, "invitation_made", f"invitation/{made.id}", fields=fields)
    return _shown(made) | {"invitation": text, "path": path_of(text)}


def revoke_invitation(operator: str, invitation_id: int) -> dict[str, Any]:
    """Revoke an invitation; returns it. Raises NotFound, Conflict."""
    found = services().invitations.revoke(invitation_id)
    audit(operator, "invitation_revoked", f"invitation/{invitation_id}")
    return _shown(found)


def _shown(found: Invitation) -> dict[str, Any]:
    row = found.to_dict(services().clock.now())
    return with_labels(services().db, [row], used_by_label="used_by", created_by_label="created_by")[0]


def path_of(text: str) -> str:
    """Where somebody signs up by an invitation: behind the #, so that its text gets into no log."""
    return f"/register#invitation={text}"
