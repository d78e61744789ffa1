"""The stand-in's endpoints beside chat: managing keys, the key in use, credits, activity, models, generations."""

import datetime
import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from urllib.parse import parse_qsl

import orjson

from sandbox.http_server import Exchange, Reply
from sandbox.openrouter_accounts import (
    NANO,
    ORDINAL_OF_DAY_ZERO,
    SECONDS_A_DAY,
    Account,
    Activity,
    Books,
    Generation,
    Key,
    dollars,
    first_day_of,
)
from sandbox.openrouter_faults import Refused, bad_request
from sandbox.openrouter_models import MODELS, Model, listed_models
from sandbox.openrouter_scenarios import Plan

KEYS_ON_A_PAGE = 100
DAYS_OF_ACTIVITY = 30
LARGEST_LIMIT = 1_000_000_000
PERIODS = ("daily", "weekly", "monthly")
UNUSED_IN_GENERATION = (
    "app_id",
    "cache_discount",
    "external_user",
    "http_referer",
    "moderation_latency",
    "num_fetches",
    "num_input_audio_prompt",
    "num_media_completion",
    "num_media_prompt",
    "num_search_results",
    "preset_id",
    "provider_responses",
    "response_cache_source_id",
    "router",
    "service_tier",
    "session_id",
    "user_agent",
    "web_search_engine",
)
UTC_WITH_SECONDS = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)")


@dataclass(slots=True)
class Settings:
    """What holds for every request that no fault and no scenario is set for."""

    defaults: Plan
    generation_404s: int = 0
    generation_same_key_only: bool = False
    duplicate_generation_ids: bool = False
    keys_on_a_page: int = KEYS_ON_A_PAGE


@dataclass(slots=True)
class Call:
    """A request to one of the endpoints, after authentication. `rest` is what follows the endpoint's path."""

    exchange: Exchange
    books: Books
    account: Account
    key: Key
    rest: str
    settings: Settings

    def query(self) -> dict[str, str]:
        return dict(parse_qsl(self.exchange.query, keep_blank_values=True, errors="replace"))

    def json_object(self) -> dict[str, Any]:
        """Return the body, which must be a JSON object."""
        try:
            document = orjson.loads(self.exchange.body)
        except orjson.JSONDecodeError:
            raise bad_request("Invalid JSON in request body") from None
        if not isinstance(document, dict):
            raise bad_request("Invalid input: expected object")
        return document


Endpoint = Callable[[Call], Reply]


def as_json(document: object, status: int = 200) -> Reply:
    return Reply(status, orjson.dumps(document))


def iso(seconds: float | None) -> str | None:
    """Return a time as ISO 8601 in UTC."""
    if seconds is None:
        return None
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat().replace("+00:00", "Z")


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


def whole_number(name: str, text: str) -> int:
    """Return a number from a query, which must be whole and not negative."""
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise bad_request(f"{name}: Invalid input: expected number >=0")
    return int(text)


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


def credits_of_account(call: Call) -> Reply:
    account = call.account
    return as_json(
        {"data": {"total_credits": dollars(account.credits_nano), "total_usage": dollars(account.usage_nano)}}
    )


def list_activity(call: Call) -> Reply:
    """Return what the account did on the last 30 UTC days that are over, a row for each day and model, newest first."""
    query, today = call.query(), call.books.today()
    days: Sequence[int] = range(today - 1, today - 1 - DAYS_OF_ACTIVITY, -1)
    if "date" in query:
        days = [checked_day(query["date"], days)]
    only_key = query.get("api_key_hash")
    rows = []
    for day in days:
        totals: dict[str, Activity] = {}
        for (key_hash, model_id), activity in call.books.activity.get(str(day), {}).items():
            if call.books.keys[key_hash].account_id == call.account.id and only_key in (None, key_hash):
                totals.setdefault(model_id, Activity()).add(activity)
        rows += [activity_row(day, MODELS[model_id], total) for model_id, total in totals.items()]
    return as_json({"data": rows})


def checked_day(text: str, days: Sequence[int]) -> int:
    """Return the day that a query asks for, counted from 1970; it must be one of these."""
    for day in days:
        if date_of(day) == text:
            return day
    raise bad_request("date: Invalid date: expected YYYY-MM-DD within the last 30 (completed) UTC days")


def date_of(day: int) -> str:
    return datetime.date.fromordinal(day + ORDINAL_OF_DAY_ZERO).isoformat()


def activity_row(day: int, model: Model, total: Activity) -> dict[str, Any]:
    """Return one row of the activity: a day of one model, which has one endpoint here."""
    return {
        "date": date_of(day),
        "model": model.id,
        "model_permaslug": model.canonical_slug,
        "endpoint_id": str(uuid.uuid5(uuid.NAMESPACE_URL, model.id)),
        "provider_name": model.provider,
        "usage": dollars(total.usage_nano),
        "byok_usage_inference": 0,
        "requests": total.requests,
        "prompt_tokens": total.prompt_tokens,
        "completion_tokens": total.completion_tokens,
        "reasoning_tokens": 0,
        "cached_tokens": 0,
    }


def list_models(call: Call) -> Reply:
    query = call.query()
    limit = whole_number("limit", query["limit"]) if "limit" in query else None
    if limit is not None and not 1 <= limit <= 1000:
        raise bad_request("limit: Invalid input: expected number from 1 to 1000")
    output = query.get("output_modalities") or "text"
    return as_json(listed_models(output, whole_number("offset", query.get("offset") or "0"), limit))


def list_embedding_models(_: Call) -> Reply:
    return as_json(listed_models("embeddings", 0, None))


def get_model(call: Call) -> Reply:
    """Return one model; the path says `model`, not `models`."""
    model = MODELS.get(call.rest)
    if model is None:
        raise Refused("404")
    return as_json({"data": model.listed()})


def count_models(_: Call) -> Reply:
    return as_json({"data": {"count": len(MODELS)}})


def get_generation(call: Call) -> Reply:
    """Return the record of an answer; it may be hidden for the first few times, as OpenRouter's lags behind."""
    wanted = call.query().get("id", "")
    if not wanted:
        raise bad_request("id: Invalid input: expected string")
    generation = call.books.find_generation(wanted)
    if generation is None or generation.account_id != call.account.id:
        raise Refused("404-generation", MESSAGE=wanted)
    if call.settings.generation_same_key_only and generation.key_hash != call.key.hash:
        raise Refused("404-generation", MESSAGE=wanted)
    if generation.times_hidden < call.settings.generation_404s:
        generation.times_hidden += 1
        raise Refused("404-generation", MESSAGE=wanted)
    return as_json({"data": generation_record(call, generation)})


def generation_record(call: Call, generation: Generation) -> dict[str, Any]:
    """Return a generation with all fields that OpenRouter names."""
    cost = dollars(generation.cost_nano)
    return dict.fromkeys(UNUSED_IN_GENERATION) | {
        "id": generation.id,
        "api_type": generation.api_type,
        "cancelled": generation.cancelled,
        "created_at": iso(generation.created),
        "data_region": "global",
        "finish_reason": generation.finish_reason,
        "native_finish_reason": generation.finish_reason,
        "generation_time": round(generation.elapsed_ms),
        "latency": round(generation.elapsed_ms),
        "is_byok": False,
        "model": generation.model,
        "native_tokens_cached": 0,
        "native_tokens_completion": generation.completion_tokens,
        "native_tokens_completion_images": 0,
        "native_tokens_prompt": generation.prompt_tokens,
        "native_tokens_reasoning": 0,
        "origin": "",
        "provider_name": generation.provider,
        "request_id": generation.id.replace("gen-", "req-"),
        "streamed": generation.streamed,
        "tokens_completion": generation.completion_tokens,
        "tokens_prompt": generation.prompt_tokens,
        "total_cost": cost,
        "upstream_id": generation.id.replace("gen-", "chatcmpl-"),
        "upstream_inference_cost": cost,
        "usage": cost,
        "workspace_id": call.account.workspace_id,
    }
