"""The operator's page of quotas: what users and client keys may spend and have spent, and changes to it."""

from __future__ import annotations

from typing import Any

from flask import Response, request

from billing.quotas.subjects import check_subject
from web.api.admin_quotas import (
    NewQuota,
    default_shown,
    quotas_shown,
    reset_subjects_quota,
    set_subjects_quota,
    subject_of,
)
from web.http import MAX_PAGE_SIZE
from web.operation import Paging
from web.pages.forms import form_of, here, query_of
from web.pages.operator import for_auditors, for_operators
from web.pages.views import page_blueprint, show

routes = page_blueprint("operator_quota_pages", "/operator/quotas")


@routes.get("")
@for_auditors
def quotas() -> Response:
    """Those that hold, as many on a page as may be: they are there to be compared."""
    return show("operator_quotas.html", **_values())


@routes.put("")
@for_operators
def change(operator: str) -> Response:
    """Give a user or a client key a quota of its own."""
    subject = _subject()
    set_subjects_quota(operator, subject, form_of(NewQuota, kind=None, number=None))
    return show("operator_quotas_part.html", **_values())


@routes.post("/reset")
@for_operators
def reset(operator: str) -> Response:
    """Back to the default."""
    reset_subjects_quota(operator, _subject())
    return show("operator_quotas_part.html", **_values())


def _subject() -> str:
    """Whose quota a form means. Raises BadRequest, NotFound."""
    kind, number = (request.form.get(name, "").strip() for name in ("kind", "number"))
    check_subject(f"{kind}/{number}")
    return subject_of(kind, number)


def _values() -> dict[str, Any]:
    query = query_of(Paging, **({} if "page_size" in request.args else {"page_size": str(MAX_PAGE_SIZE)}))
    return {"here": here, "default": default_shown(), **quotas_shown(query)}
