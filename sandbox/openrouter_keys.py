"""The stand-in's endpoints for keys: managing them, and what a key is told about itself."""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from sandbox.http_server import Reply
from sandbox.openrouter_accounts import (
    NANO,
    SECONDS_A_DAY,
    Key,
    dollars,
    first_day_of,
)
from sandbox.openrouter_endpoint import Call, as_json, iso, whole_number
from sandbox.openrouter_faults import Refused, bad_request

LARGEST_LIMIT = 1_000_000_000
PERIODS = ("daily", "weekly", "monthly")
UTC_WITH_SECONDS = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)")


def spending(key: Key, today: int) -> dict[str, Any]:
    """Return the usage fields that all descriptions of a key share."""
    spent = {
        "usage": key.usage_nano,
        "usage_daily": key.usage_since(today),
        "usage_weekly": key.usage_since(first_day_of("weekly", today)),
        "usage_monthly": key.usage_since(first_day_of("monthly", today)),
    }
    return {name: dollars(nano) for name, nano in spent.items()} | {f"byok_{name}": 0 for name in spent}


def limits(key: Key, today: int) -> dict[str, Any]:
    """Return the limit fields that all descriptions of a key share."""
    remaining = key.limit_remaining(today)
    return {
        "limit": dollars(key.limit_nano),
        "limit_remaining": None if remaining is None else dollars(max(0, remaining)),
        "limit_reset": key.limit_reset,
        "include_byok_in_limit": key.include_byok_in_limit,
        "expires_at": iso(key.expires_at),
    }


def managed_key(call: Call, key: Key) -> dict[str, Any]:
    """Return a key as the management endpoints describe it."""
    return {
        "hash": key.hash,
        "label": key.label,
        "name": key.name,
        "disabled": key.disabled,
        "created_at": iso(key.created_at),
        "updated_at": iso(key.updated_at),
        "last_used_at": iso(key.last_used_at),
        "creator_user_id": key.account_id,
        "external_user": key.external_user,
        "workspace_id": call.account.workspace_id,
        **spending(key, call.books.today()),
        **limits(key, call.books.today()),
    }


def list_keys(call: Call) -> Reply:
    """Return a page of the account's keys, newest first."""
    query = call.query()
    offset = whole_number("offset", query.get("offset") or "0")
    disabled_too, expired_too = query.get("include_disabled") == "true", query.get("include_expired") == "true"
    keys = [
        key
        for key in call.books.keys_of(call.account.id)
        if (disabled_too or not key.disabled) and (expired_too or not call.books.has_expired(key))
    ]
    if query.get("workspace_id", call.account.workspace_id) != call.account.workspace_id:
        keys = []
    return as_json({"data": [managed_key(call, key) for key in keys[offset : offset + call.settings.keys_on_a_page]]})


def create_key(call: Call) -> Reply:
    """Make a key; its secret is shown in this answer only."""
    wishes = call.json_object()
    if not isinstance(wishes.get("name"), str) or not wishes["name"]:
        raise bad_request("name: Invalid input: expected non-empty string")
    changes = checked_changes(wishes)
    expires_at = checked_expiry(wishes.get("expires_at"))
    external = wishes.get("external")
    key, secret = call.books.add_key(call.account, wishes["name"])
    apply_changes(key, changes)
    key.expires_at = expires_at
    key.external_user = str(external.get("user")) if isinstance(external, dict) else None
    call.books.save()
    return as_json({"data": managed_key(call, key), "key": secret}, 201)


def get_key(call: Call) -> Reply:
    return as_json({"data": managed_key(call, owned_key(call))})


def update_key(call: Call) -> Reply:
    """Change the fields of a key that the request names."""
    key = owned_key(call)
    changes = checked_changes(call.json_object())
    apply_changes(key, changes)
    key.updated_at = call.books.now()
    call.books.save()
    return as_json({"data": managed_key(call, key)})


def delete_key(call: Call) -> Reply:
    """Delete a key. What it spent stays on the bill."""
    owned_key(call).deleted = True
    call.books.save()
    return as_json({"deleted": True})


def owned_key(call: Call) -> Key:
    """Return the inference key of this account that the path names."""
    key = call.books.find_key(call.rest)
    if key is None or key.is_management or key.account_id != call.account.id:
        raise Refused("404-key")
    return key


def checked_changes(wishes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the changes of a key that a request asks for, as fields of a key."""
    changes: dict[str, Any] = {}
    if "name" in wishes:
        if not isinstance(wishes["name"], str) or not wishes["name"]:
            raise bad_request("name: Invalid input: expected non-empty string")
        changes["name"] = wishes["name"]
    for switch in ("disabled", "include_byok_in_limit"):
        if wishes.get(switch) is not None:
            if not isinstance(wishes[switch], bool):
                raise bad_request(f"{switch}: Invalid input: expected boolean")
            changes[switch] = wishes[switch]
    if "limit" in wishes:
        changes["limit_nano"] = None if wishes["limit"] is None else nano_dollars("limit", wishes["limit"])
    if "limit_reset" in wishes:
        if wishes["limit_reset"] not in (*PERIODS, None):
            raise bad_request('limit_reset: Invalid option: expected one of "daily"|"weekly"|"monthly"')
        changes["limit_reset"] = wishes["limit_reset"]
    return changes


def apply_changes(key: Key, changes: Mapping[str, Any]) -> None:
    for name, value in changes.items():
        setattr(key, name, value)


def nano_dollars(name: str, amount: object) -> int:
    """Return an amount of dollars from a request in nano-dollars."""
    if isinstance(amount, bool) or not isinstance(amount, int | float) or not 0 <= amount <= LARGEST_LIMIT:
        raise bad_request(f"{name}: Invalid input: expected number >=0")
    return round(Decimal(repr(amount)) * NANO)


def checked_expiry(text: object) -> float | None:
    """Return the time a key expires at; OpenRouter takes UTC only, and with seconds."""
    if text is None:
        return None
    try:
        if not isinstance(text, str) or not UTC_WITH_SECONDS.fullmatch(text):
            raise ValueError
        return datetime.datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError):
        raise bad_request("expires_at: Invalid ISO datetime: expected UTC time with seconds") from None


def current_key(call: Call) -> Reply:
    """Describe the key that the request was made with."""
    key, account, today = call.key, call.account, call.books.today()
    layer = budget_layer(key, today)
    used = account.free_used_in_day if account.free_day == today else 0
    free = {"limit": account.free_per_day, "used": used, "remaining": max(0, account.free_per_day - used)}
    document = {
        "label": key.label,
        "is_free_tier": account.credits_nano == 0,
        "is_management_key": key.is_management,
        "is_provisioning_key": key.is_management,
        "creator_user_id": account.id,
        "organization_id": None,
        "workspace_id": account.workspace_id,
        "allowed_data_regions": ["global"],
        "budgets": [layer] if layer else [],
        "effective_budget": layer,
        "free_model_daily_requests": free,
        "rate_limit": {"requests": -1, "interval": "10s", "note": "This field is deprecated and safe to ignore."},
        **spending(key, today),
        **limits(key, today),
    }
    return as_json({"data": document})


def budget_layer(key: Key, today: int) -> dict[str, Any] | None:
    """Describe the limit of a key as one layer of budget."""
    remaining = key.limit_remaining(today)
    if remaining is None or key.limit_nano is None:
        return None
    return {
        "scope": "key_limit",
        "limit_usd": dollars(key.limit_nano),
        "spend_usd": dollars(key.limit_nano - remaining),
        "remaining_usd": dollars(max(0, remaining)),
        "reset_interval": key.limit_reset,
        "resets_at": iso(next_reset(key.limit_reset, today)) if key.limit_reset else None,
        "include_byok": key.include_byok_in_limit,
        "guardrail_id": None,
        "budget_id": None,
    }


def next_reset(period: str, today: int) -> float:
    """Return when the current period ends, in seconds since 1970."""
    first = first_day_of(period, today)
    day = today + 1
    while first_day_of(period, day) == first:
        day += 1
    return day * SECONDS_A_DAY
