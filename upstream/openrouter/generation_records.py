"""OpenRouter's records of generations, asked for with the pool key that made them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import quote

from foundation import json_text
from foundation.errors import Busy, NotFound, UpstreamFailed
from upstream.disclosure import hide_account
from upstream.http import UpstreamHttp
from upstream.openrouter.small_answers import ANSWER_SECONDS, MAX_ANSWER_BYTES, told_to_users

# All that OpenRouter documents, so that what it adds one day about our account stays here.
SHOWN = [
    "id",
    "api_type",
    "cache_discount",
    "cancelled",
    "created_at",
    "data_region",
    "finish_reason",
    "generation_time",
    "http_referer",
    "is_byok",
    "latency",
    "model",
    "moderation_latency",
    "native_finish_reason",
    "native_tokens_cached",
    "native_tokens_completion",
    "native_tokens_completion_images",
    "native_tokens_prompt",
    "native_tokens_reasoning",
    "num_fetches",
    "num_input_audio_prompt",
    "num_media_completion",
    "num_media_prompt",
    "num_search_results",
    "origin",
    "provider_name",
    "provider_responses",
    "request_id",
    "response_cache_source_id",
    "router",
    "service_tier",
    "session_id",
    "streamed",
    "tokens_completion",
    "tokens_prompt",
    "total_cost",
    "upstream_id",
    "upstream_inference_cost",
    "usage",
    "user_agent",
    "web_search_engine",
]
# Our account's own; OpenRouter's SDKs want them to be there.
HIDDEN = ("app_id", "external_user", "preset_id", "workspace_id")


class GenerationRecords:
    """Asks for records. authorizations: what a record may be asked for with, by the id of the pool key that made it."""

    def __init__(self, authorizations: Callable[[int], Iterable[bytes]], upstream: UpstreamHttp) -> None:
        self._authorizations = authorizations
        self._upstream = upstream

    def ask(self, generation_id: str, pool_key_id: int) -> tuple[int, bytes]:
        """OpenRouter's answer: status and body; 401 without a usable key. Raises UpstreamError, TimeIsUp."""
        path = f"/generation?id={quote(generation_id, safe='')}"
        status, body = 401, b""
        for authorization in self._authorizations(pool_key_id):
            status, body = self._upstream.get(path, authorization, ANSWER_SECONDS, MAX_ANSWER_BYTES)
            if status not in {401, 403, 404}:
                break  # another key would not change that
        return status, body

    def shown(self, generation_id: str, pool_key_id: int) -> bytes:
        """The record as its caller may see it: JSON, without what identifies our account.

        Raises NotFound while OpenRouter has none, Busy, UpstreamFailed, UpstreamTimeout.
        """
        with told_to_users():
            status, body = self.ask(generation_id, pool_key_id)
        if status == 404:
            raise unknown_generation()
        if status in {401, 402, 403, 429}:  # it is our key that is refused, not the caller's
            raise Busy("OpenRouter can't be asked for records at present; try again shortly", 5)
        try:
            record = json_text.parse(body)["data"] if status == 200 else None
        except (json_text.BadJson, KeyError, TypeError):
            record = None
        if not isinstance(record, dict):
            raise UpstreamFailed("OpenRouter did not answer with a record; try again")
        return cleaned(record)


def unknown_generation() -> NotFound:
    """One answer for what OpenRouter does not have yet, what is somebody else's, and what never was."""
    return NotFound("There is no such generation of yours; a new one can take seconds to be found")


def cleaned(record: dict[str, Any]) -> bytes:
    """A record as JSON with the documented fields alone."""
    shown = {name: record[name] for name in SHOWN if name in record} | dict.fromkeys(HIDDEN)
    return hide_account(json_text.write({"data": shown}).decode()).encode()
