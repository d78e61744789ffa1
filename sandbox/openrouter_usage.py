"""The stand-in's endpoints for what was used: credits, activity by days, and the record of each answer."""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Sequence
from typing import Any

from sandbox.http_server import Reply
from sandbox.openrouter_accounts import ORDINAL_OF_DAY_ZERO, Activity, Generation, dollars
from sandbox.openrouter_endpoint import Call, as_json, iso
from sandbox.openrouter_faults import Refused, bad_request
from sandbox.openrouter_models import MODELS, Model

DAYS_OF_ACTIVITY = 30
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
