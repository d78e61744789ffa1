"""For operators: who changed what, and when."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from flask import Blueprint, Response
from pydantic import Field

from accounts.labels import with_labels
from web.http import answer, note_read, services
from web.operation import Page, Paging, RowId, Shown, Who, operation

routes = Blueprint("admin_audit_api", __name__, url_prefix="/admin")


class AuditFilter(Paging):
    """Which changes."""

    action: str | None = Field(None, pattern="^[a-z_]{1,64}$", description="Of this kind alone", examples=["quota_set"])
    user_id: RowId | None = Field(None, description="That concern this user alone")


class AuditEntryShown(Shown):
    """A change. subject: what was changed. user_id: whom it concerns. details: of it; never a secret."""

    id: int = Field(examples=[1])
    at: datetime
    actor: str = Field(description="`admin-token`, `token/<name>`, `cli` or `user/<id>`", examples=["admin-token"])
    action: str = Field(examples=["quota_set"])
    subject: str = Field(examples=["user/17"])
    user_id: int | None = Field(examples=[17])
    address: str | None = Field(description="Where it came from; null for commands", examples=["192.0.2.1"])
    request_id: str | None = Field(examples=["019ab5d1c2e3a1b2c3d4e5f60718293a"])
    details: dict[str, Any] = Field(examples=[{"limit_usd": 20}])


class OperatorsAuditEntry(AuditEntryShown):
    """A change, with what operators call those whom it names."""

    actor_label: str | None = Field(examples=[None])
    user_label: str | None = Field(examples=["marketing, laptop 3"])


@routes.get("/audit")
@operation("List changes", Who.AUDITOR, query=AuditFilter, answers={200: Page[OperatorsAuditEntry]})
def page(query: AuditFilter) -> Response:
    """Every change that operators made, and users to their keys and tokens, newest first.

    What operators read of people is asked for by its name, `action=person_read`, and summed up by the hour.
    """
    return answer(changes_shown(query))


# ── for the pages too


def changes_shown(query: AuditFilter) -> dict[str, Any]:
    """A page of changes, as it is answered."""
    if query.user_id:
        note_read("changes", query.user_id)
    found, total = services().audit.page(query.page, query.page_size, query.action, query.user_id)
    rows = [entry.to_dict() for entry in found]
    items = with_labels(services().db, rows, actor_label="actor", user_label="user_id")
    return {"items": items, "total": total, "page": query.page, "page_size": query.page_size}
