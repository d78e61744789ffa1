"""What users see of their own quota."""

from __future__ import annotations

from datetime import datetime

from flask import Blueprint, Response
from pydantic import Field

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


class OwnQuota(QuotaShown):
    """Your quota beside that of your team."""

    team: QuotaShown | None = Field(description="What you and the others in your team may spend together")


NO_QUOTA = dict.fromkeys(QuotaShown.model_fields)


@routes.get("/api/quota")
@routes.get("/api/plugin-api/quotas/user")
@operation("Your quota", Who.CALLER, answers={200: OwnQuota})
def quota(caller: Caller) -> Response:
    """What you may spend, and have spent. reserved_usd: held for calls that are running.

    Who asks with a client key sees the key's budget, and nothing of its owner's.
    """
    key_id = caller.client_key_id
    subject = f"user/{caller.user_id}" if key_id is None else f"key/{key_id}"
    teams = f"team/{caller.team_id}" if caller.team_id and key_id is None else None
    found = services().quotas.find_all([one for one in (subject, teams) if one])
    shown = {name: quota.to_dict() for name, quota in found.items()}
    return answer({**shown.get(subject, NO_QUOTA), "team": shown.get(teams or "")})
