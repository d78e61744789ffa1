"""What OpenRouter's clients read of themselves: a call's record, the key's limits, the credits."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from math import isfinite
from typing import Any

from flask import Blueprint, Response, request
from pydantic import Field

from accounts.caller import Caller
from accounts.client_keys import ClientKeyRow
from billing.quotas.rows import Quota
from foundation.money import NANO, usd
from upstream.openrouter.generation_records import unknown_generation
from web.http import answer, services
from web.operation import Query, Shown, Who, operation

routes = Blueprint("openrouter_api", __name__)

LIMIT_RESETS = {"day": "daily", "week": "weekly", "month": "monthly", "none": None}
SCOPES = {"user": "member", "key": "api_key", "team": "workspace"}  # OpenRouter's words
JSON = "application/json"
UNLIMITED_NANO = 1_000_000 * NANO  # what is left without a quota, where a number has to stand


class Credit(Shown):
    """Dollars: what you have spent, and together with what you may still spend."""

    total_credits: float
    total_usage: float


class Credits(Shown):
    """Credits in OpenRouter's form."""

    data: Credit


class WhichGeneration(Query):
    """id: what `X-Generation-Id` of the call said."""

    id: str = Field(max_length=200, pattern=r"^[!-~]+$")


class Generation(Shown):
    """OpenRouter's record of a call."""

    data: dict[str, Any]


class CurrentKey(Shown):
    """Limits and usage in the form of OpenRouter's, in dollars."""

    data: dict[str, Any]


@routes.get("/v1/generation")
@routes.get("/api/v1/generation")
@operation(
    "Show a call's record",
    Who.CALLER,
    query=WhichGeneration,
    answers={200: Generation},
    refusals=(404, 502, 503, 504),
)
def generation(caller: Caller, query: WhichGeneration) -> Response:
    """OpenRouter's record of one of your calls, which it has some seconds after it; 404 until then.

    Counts as a request, like a call: it makes OpenRouter work, and with the pool's key.
    """
    admission = services().rate_limits.admit(caller, services().addresses.of(request.environ))
    try:
        pool_key_id = services().ledger.find_pool_key(query.id, caller.user_id, caller.client_key_id)
        if pool_key_id is None:
            raise unknown_generation()
        return Response(services().records.shown(query.id, pool_key_id), mimetype=JSON)
    finally:
        admission.release(0)


@routes.get("/v1/key")
@routes.get("/api/v1/key")
@routes.get("/api/v1/auth/key")
@operation("Show your limits", Who.CALLER, answers={200: CurrentKey})
def key(caller: Caller) -> Response:
    """What you may spend and have spent, in the form of OpenRouter's key: the limits are those of this service."""
    subject = f"user/{caller.user_id}" if caller.client_key_id is None else f"key/{caller.client_key_id}"
    budgets = _budgets(caller)
    own = next((quota for quota in budgets if quota.subject == subject), None) or next(iter(budgets), None)
    spent = services().usage.spent_nano(caller.user_id, caller.client_key_id)
    expires_at = datetime.fromtimestamp(caller.expires_at, UTC).isoformat() if isfinite(caller.expires_at) else None
    document = {
        "label": subject,
        **_limit_and_usage(own, spent),
        "is_free_tier": False,
        "is_management_key": False,
        "is_provisioning_key": False,
        "creator_user_id": None,
        "organization_id": None,
        "workspace_id": None,
        "allowed_data_regions": ["global"],
        "budgets": [_budget(quota) for quota in budgets],
        "effective_budget": _budget(min(budgets, key=lambda quota: quota.left_nano)) if budgets else None,
        # How many free calls OpenRouter's account still has is nobody's here; the fields are required.
        "free_model_daily_requests": {"limit": 0, "remaining": 0, "used": 0},
        "rate_limit": {"requests": -1, "interval": "10s", "note": "This field is deprecated and safe to ignore."},
        "expires_at": expires_at,
    }
    return answer({"data": document})


@routes.get("/v1/credits")
@routes.get("/api/v1/credits")
@operation("Show your credits", Who.CALLER, answers={200: Credits})
def credits_left(caller: Caller) -> Response:
    """What you have spent, and together with what you may still spend, in the form of OpenRouter's account.

    What is left is that of your tightest quota; without one it is a million dollars.
    """
    left_nano = min((quota.left_nano for quota in _budgets(caller)), default=UNLIMITED_NANO)
    spent_nano = services().usage.spent_nano(caller.user_id, caller.client_key_id)["usage"]
    total_nano = spent_nano + max(left_nano, 0)
    return answer({"data": {"total_credits": usd(total_nano), "total_usage": usd(spent_nano)}})


def as_openrouters_keys(
    rows: Collection[ClientKeyRow], spent: Mapping[int, Mapping[str, int]], now: datetime
) -> list[dict[str, Any]]:
    """Client keys in the form of OpenRouter's keys. spent: each one's nano-dollars, by its id (UsageStats)."""
    quotas = services().quotas.find_all([row.quota_subject for row in rows])
    return [
        {
            "hash": f"{row.id}",  # OpenRouter's name for what its paths call a key by
            "name": row.name,
            "label": row.key_hint,
            "disabled": row.state(now) != "active",
            **_limit_and_usage(_limited(quotas.get(row.quota_subject)), spent[row.id]),
            "created_at": row.created_at,
            "updated_at": row.updated_at,
            "last_used_at": row.last_used,
            "expires_at": row.expires_at,
            "external_user": None,
            "creator_user_id": f"{row.user_id}",
            "workspace_id": "default",
        }
        for row in rows
    ]


def _limit_and_usage(quota: Quota | None, spent: Mapping[str, int]) -> dict[str, Any]:
    return {
        "limit": usd(quota.terms.limit_nano) if quota else None,
        "limit_remaining": usd(quota.remaining_nano) if quota else None,
        "limit_reset": LIMIT_RESETS[quota.terms.period] if quota else None,
        **{name: usd(nano) for name, nano in spent.items()},
        **dict.fromkeys((f"byok_{name}" for name in spent), 0),
        "include_byok_in_limit": False,
    }


def _limited(quota: Quota | None) -> Quota | None:
    return quota if quota and quota.terms.limit_nano is not None else None


def _budgets(caller: Caller) -> list[Quota]:
    """The quotas with a limit that hold for the caller."""
    subjects = [f"user/{caller.user_id}"]
    if caller.client_key_id is not None:
        subjects.append(f"key/{caller.client_key_id}")
    if caller.team_id:
        subjects.append(f"team/{caller.team_id}")
    found = [_limited(services().quotas.find(subject)) for subject in subjects]
    return [quota for quota in found if quota]


def _budget(quota: Quota) -> dict[str, Any]:
    """A quota as one of OpenRouter's budgets. What is held for running calls is neither spent nor remaining."""
    return {
        "scope": SCOPES[quota.subject.partition("/")[0]],
        "limit_usd": usd(quota.terms.limit_nano),
        "spend_usd": usd(quota.spent_nano),
        "remaining_usd": usd(quota.remaining_nano),
        "reset_interval": LIMIT_RESETS[quota.terms.period],
        "resets_at": quota.resets_at.isoformat() if quota.resets_at else None,
        "include_byok": False,
        "guardrail_id": None,
        "budget_id": None,
    }
