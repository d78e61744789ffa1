"""For the operator alone: the quotas of users, client keys and teams, and changes to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple
from typing import Annotated, Any, Literal

from flask import Blueprint, Response
from pydantic import Field

from accounts.labels import with_labels
from accounts.step_up import Act
from billing.quotas.rows import Quota
from billing.quotas.subjects import known_subject, user_of
from billing.quotas.terms import QuotaTerms, check_amount, check_terms
from foundation.errors import NotFound
from foundation.money import usd
from web.api.quotas import NO_QUOTA, QuotaShown
from web.http import answer, audit, check_fresh, services
from web.operation import Body, Page, Paging, Who, operation

routes = Blueprint("admin_quota_api", __name__, url_prefix="/admin/quotas")

ONE = "/<any(user, key, team):kind>/<number>"
Dollars = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]


class NewQuota(Body):
    """Amounts that are null or missing: no limit, no warning. So for period and recovery: those of the settings."""

    limit_usd: Dollars | None = Field(None, examples=[20])
    soft_limit_usd: Dollars | None = Field(None, examples=[15])
    period: Literal["day", "week", "month", "none"] | None = None
    recovery: Literal["reset", "steady"] | None = None

    def terms(self) -> QuotaTerms:
        """As a quota has it. Raises BadRequest."""
        config = services().config
        limit_nano = check_amount("limit_usd", self.limit_usd)
        soft_limit_nano = check_amount("soft_limit_usd", self.soft_limit_usd)
        period, recovery = self.period or config.quota_period, self.recovery or config.quota_recovery
        return check_terms(limit_nano, soft_limit_nano, period, recovery)


class SubjectsQuota(QuotaShown):
    """A quota with whose it is: `user/<id>`, `key/<id>` or `team/<id>`."""

    subject: str
    user_label: str | None = Field(description="What operators call the user", examples=["marketing, laptop 3"])
    is_default: bool


@routes.get("")
@operation("List quotas", Who.AUDITOR, query=Paging, answers={200: Page[SubjectsQuota]})
def page(query: Paging) -> Response:
    """The quotas that hold, newest first; users with the default are among them from their first call on."""
    return answer(quotas_shown(query))


@routes.get(ONE)
@operation("Show a quota", Who.AUDITOR, answers={200: SubjectsQuota}, refusals=(404,))
def show(kind: str, number: str) -> Response:
    """The quota of a user, a client key or a team; 404 without one."""
    subject = subject_of(kind, number)
    found = services().quotas.find(subject)
    if not found:
        raise NotFound(f"{subject} has no quota")
    return answer(_labelled([_shown(subject, found)])[0])


@routes.put(ONE)
@operation("Set a quota", Who.OPERATOR, body=NewQuota, answers={200: SubjectsQuota}, refusals=(404,))
def put(operator: str, kind: str, number: str, body: NewQuota) -> Response:
    """Give a user, a client key or a team a quota of its own, in force everywhere within two seconds."""
    return set_subjects_quota(operator, subject_of(kind, number), body)


@routes.delete(ONE)
@operation("Reset a quota", Who.OPERATOR, answers={200: SubjectsQuota}, refusals=(404,))
def delete(operator: str, kind: str, number: str) -> Response:
    """Back to the default: answers with what holds from now on; nulls if that is nothing."""
    return reset_subjects_quota(operator, subject_of(kind, number))


# ── for the pages too


def quotas_shown(query: Paging) -> dict[str, Any]:
    """A page of quotas, as it is answered."""
    found, total = services().quotas.page(query.page, query.page_size)
    items = _labelled([_shown(quota.subject, quota) for quota in found])
    return {"items": items, "total": total, "page": query.page, "page_size": query.page_size}


def default_shown() -> dict[str, object] | None:
    """The terms of users without a quota of their own; None without any."""
    terms = services().quotas.default
    return {"limit_usd": usd(terms.limit_nano), "period": terms.period} if terms else None


def set_subjects_quota(operator: str, subject: str, body: NewQuota) -> Response:
    """Give somebody a quota. subject: one that there is. Raises BadRequest."""
    if body.limit_usd is None:
        check_fresh(Act.LIFT_QUOTA)
    found = services().quotas.set(subject, *astuple(body.terms()))
    audit(operator, "quota_set", subject, user_of(subject), **body.model_dump())
    return answer(_labelled([_shown(subject, found)])[0])


def reset_subjects_quota(operator: str, subject: str) -> Response:
    """Back to the default. subject: one that there is."""
    if services().quotas.default_of(subject) is None:
        check_fresh(Act.LIFT_QUOTA)
    found = services().quotas.reset(subject)
    audit(operator, "quota_reset", subject, user_of(subject))
    return answer(_labelled([_shown(subject, found)])[0])


def _labelled(quotas: Sequence[dict[str, object]]) -> list[dict[str, Any]]:
    return with_labels(services().db, quotas, user_label="subject")


def _shown(subject: str, found: Quota | None) -> dict[str, object]:
    fields = found.to_dict() if found else NO_QUOTA
    return {"subject": subject, "is_default": not found or found.is_default, **fields}


def subject_of(kind: str, number: str) -> str:
    """A user, a client key or a team as quotas name them. Raises BadRequest, NotFound."""
    return known_subject(services().users, services().teams, f"{kind}/{number}")
