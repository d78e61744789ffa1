"""What users see of their own quota."""

from __future__ import annotations

from datetime import datetime

from flask import Blueprint, Response

from accounts.caller import Caller
from web.http import answer, services
from web.operation import Shown, Who, operation

routes = Blueprint("quota_api", __name__)


class QuotaShown(Shown):
    """A quota as of now, in dollars; nulls without one."""

    limit_usd: float | None
    soft_limit_usd: float | None
    spent_usd: float | None
    reserved_usd: float | None
    remaining_usd: float | None
    period: str | None
    recovery: str | None
    resets_at: datetime | None
    soft_limit_passed: bool | None


NO_QUOTA = dict.fromkeys(QuotaShown.model_fields)


@routes.get("/api/quota")
@routes.get("/api/plugin-api/quotas/user")
@operation("Your quota", Who.CALLER, answers={200: QuotaShown})
def quota(caller: Caller) -> Response:
    """What you may spend, and have spent. reserved_usd: held for calls that are running.

    Who asks with a client key sees the key's budget, and nothing of its owner's.
    """
    key_id = caller.client_key_id
    found = services().quotas.find(f"user/{caller.user_id}" if key_id is None else f"key/{key_id}")
    return answer(found.to_dict() if found else NO_QUOTA)
