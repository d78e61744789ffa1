"""For the operator alone, with ADMIN_TOKEN: the quotas of users and client keys, and changes to them."""

from __future__ import annotations

import logging

from flask import Blueprint, Response

from errors import BadRequest, NotFound
from logs import event
from quotas import Quota, check_amount, check_subject
from routes.http import DEFAULT_PAGE_SIZE, MAX_PAGE, MAX_PAGE_SIZE, answer, check_operator, json_body, number, services
from routes.quota_api import NO_QUOTA

log = logging.getLogger("admin")
routes = Blueprint("admin_quota_api", __name__, url_prefix="/admin/quotas")

FIELDS = {"limit_usd", "soft_limit_usd", "period", "recovery"}


@routes.before_request
def let_in() -> None:
    """Let only the operator in. Raises Forbidden, Unauthorized."""
    check_operator()


@routes.get("")
def page() -> Response:
    """?page=1&page_size=20 → the quotas that hold, newest first; users with the default from their first call on."""
    page, page_size = number("page", 1, MAX_PAGE), number("page_size", DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE)
    found, total = services().quotas.page(page, page_size)
    items = [_shown(quota.subject, quota) for quota in found]
    return answer({"items": items, "total": total, "page": page, "page_size": page_size})


@routes.get("/<any(user, key):kind>/<number>")
def show(kind: str, number: str) -> Response:
    """One quota; 404 without one."""
    subject = _subject(kind, number)
    found = services().quotas.find(subject)
    if not found:
        raise NotFound(f"{subject} has no quota")
    return answer(_shown(subject, found))


@routes.put("/<any(user, key):kind>/<number>")
def put(kind: str, number: str) -> Response:
    """{limit_usd, soft_limit_usd, period, recovery} → the quota, in force everywhere within two seconds.

    Amounts may be null or missing: no limit, no warning. period and recovery: missing ones are those of the settings.
    """
    subject, body = _subject(kind, number), json_body()
    if unknown := sorted(set(body) - FIELDS):
        raise BadRequest(f"There is no field {unknown[0]!r}; a quota has {', '.join(sorted(FIELDS))}")
    config = services().config
    limit_nano, soft_limit_nano = (_amount(name, body.get(name)) for name in ("limit_usd", "soft_limit_usd"))
    terms = body.get("period", config.quota_period), body.get("recovery", config.quota_recovery)
    found = services().quotas.set(subject, limit_nano, soft_limit_nano, *terms)
    event(log, "quota_set", subject=subject)
    return answer(_shown(subject, found))


@routes.delete("/<any(user, key):kind>/<number>")
def delete(kind: str, number: str) -> Response:
    """Back to the default → what holds from now on; its fields are null if that is nothing."""
    subject = _subject(kind, number)
    found = services().quotas.reset(subject)
    event(log, "quota_reset", subject=subject)
    return answer(_shown(subject, found))


def _shown(subject: str, found: Quota | None) -> dict[str, object]:
    fields = found.to_dict() if found else NO_QUOTA
    return {"subject": subject, "is_default": not found or found.is_default, **fields}


def _subject(kind: str, number: str) -> str:
    subject = check_subject(f"{kind}/{number}")
    if kind == "user" and services().users.find_by_id(int(number)) is None:
        raise NotFound(f"There is no user {number}")
    return subject


def _amount(name: str, value: object) -> int | None:
    if isinstance(value, str):  # as numbers they come, and as numbers they go
        raise BadRequest(f"{name} must be a number of dollars, or null")
    return check_amount(name, value)
