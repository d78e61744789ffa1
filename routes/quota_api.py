"""What users see of their own quota."""

from __future__ import annotations

from flask import Blueprint, Response, request

from routes.http import answer, services

routes = Blueprint("quota_api", __name__)
FIELDS = ("limit_usd", "soft_limit_usd", "spent_usd", "reserved_usd", "remaining_usd", "period", "recovery")
NO_QUOTA = dict.fromkeys((*FIELDS, "resets_at", "soft_limit_passed"))


@routes.get("/api/quota")
def quota() -> Response:
    """The caller's quota as of now, in dollars; nulls without one. reserved_usd: held for running calls."""
    caller = services().auth.authenticate(request.headers.get("Authorization"), may_call=False)
    found = services().quotas.find(f"user/{caller.user_id}")
    return answer(found.to_dict() if found else NO_QUOTA)
