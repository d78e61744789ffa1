"""Which parts of a refusal a client may see: nothing of our account and our keys, and no piece of a prompt."""

from __future__ import annotations

import re
from typing import Any

from foundation import json_text
from foundation.logs import redact
from upstream.known_keys import hide_keys
from upstream.refusal import Json, refusal_in
from upstream.refusals import classify

# Fields of error.metadata that say nothing about our account, our key or the text of a prompt.
METADATA_ALLOWED = (
    "error_type",
    "provider_code",
    "provider_error_code",
    "provider_name",
    "is_byok",
    "limit_source",
    "reason",
    "reasons",
    "model_slug",
    "retry_after_seconds",
    "failed_routing_step",
)
# Fields beside `error` that belong to the call, of those that OpenRouter documents. Their texts are cleaned.
OUTER_FIELDS = (
    "id object created model provider system_fingerprint service_tier openrouter_metadata type status code message"
    " param error_type sequence_number request_id created_at completed_at incomplete_details"
)
# The answer itself, as far as it came, and what it repeats of the request: these are the client's own.
ANSWER_FIELDS = (
    "choices data results usage output output_text content role stop_reason stop_sequence stop_details container"
    " background frequency_penalty instructions max_output_tokens max_tool_calls parallel_tool_calls presence_penalty"
    " previous_response_id prompt prompt_cache_key prompt_cache_options reasoning safety_identifier store temperature"
    " text tool_choice tools top_logprobs top_p truncation user"
)
OUTER_ALLOWED, ANSWER_ALLOWED = frozenset(OUTER_FIELDS.split()), frozenset(ANSWER_FIELDS.split())
ERROR_ALLOWED = ("code", "message", "type", "param", "error_type", "availability")
# Keys and their labels, account ids, and links to our account's pages, wherever a message has them.
ACCOUNT_TEXT = re.compile(
    r"sk-or-[A-Za-z0-9_.-]+|\bsk-[A-Za-z0-9_.*-]{8,}|\b(?:user_|org[_-]|proj_)[A-Za-z0-9]{8,}"
    r"|https?://(?:[a-z]+\.)?openrouter\.ai/(?:settings|keys|workspaces)[^\s\"\\]*"
)


def told(payload: Json) -> Json:
    """A body or event that holds an error, as the client may see it: cleaned, or with our words in OpenRouter's place.

    Our words stand where the error is about our key or account: the client would take it for its own.
    """
    cleaned = clean(payload)
    refusal = refusal_in(payload)
    row = classify(refusal) if refusal else None
    if refusal and row and row.answer:
        cleaned["error"] = row.answer(refusal).to_dict()["error"]
    return cleaned


def clean(payload: Json) -> Json:
    """An error body, or an error chunk of a stream, without what identifies our account or repeats a prompt.

    Outside `error` as inside it only what is on the lists above stays. Raises BadJson for what is nested too deeply.
    """
    cleaned: Json = {}
    for name, value in payload.items():
        if name == "error":
            cleaned[name] = clean_error(value)
        elif name == "choices" and isinstance(value, list):
            cleaned[name] = [_clean_choice(choice) for choice in value]
        elif name == "metadata" and isinstance(value, dict):
            # Beside an error it is the error's; a response's own is the client's.
            is_clients = payload.get("object") == "response"
            cleaned[name] = _without_keys(value) if is_clients else _clean_metadata(value)
        elif name == "response" and isinstance(value, dict):
            cleaned[name] = clean(value)
        elif name in OUTER_ALLOWED:
            cleaned[name] = _clean_text(value)
        elif name in ANSWER_ALLOWED:
            cleaned[name] = _without_keys(value)
    return cleaned


def _clean_choice(choice: Any) -> Any:
    choice = _without_keys(choice)
    if isinstance(choice, dict) and "error" in choice:
        return choice | {"error": clean_error(choice["error"])}
    return choice


def _without_keys(value: Any) -> Any:
    """A value of the client's own, without the keys that we know: written anew, they can't hide behind escapes."""
    if value is None or isinstance(value, bool | int | float):
        return value
    text = json_text.write(value)
    hidden = hide_keys(text)
    return value if hidden == text else json_text.parse(hidden)


def clean_error(error: Any) -> Any:
    """An error by itself, without what identifies our account or repeats a prompt."""
    if not isinstance(error, dict):
        return _clean_text(error)
    cleaned = {name: _clean_text(error[name]) for name in error if name in ERROR_ALLOWED}
    # OpenRouter's Python SDK refuses a `metadata` without `error_type`.
    if isinstance(error.get("metadata"), dict) and (metadata := _clean_metadata(error["metadata"])):
        cleaned["metadata"] = metadata
    return cleaned


def _clean_metadata(metadata: Json) -> Json:
    return {name: _clean_text(metadata[name]) for name in metadata if name in METADATA_ALLOWED}


def _clean_text(value: Any) -> Any:
    if isinstance(value, str):
        return hide_account(value)
    if isinstance(value, list | dict):
        return json_text.parse(hide_account(json_text.write(value).decode()).encode())
    return value


def hide_account(text: str) -> str:
    """The text without keys, account ids and links to our account, nor any other secret that this process knows."""
    known = hide_keys(text.encode("utf-8", "surrogatepass")).decode("utf-8", "surrogatepass")
    return redact(ACCOUNT_TEXT.sub("***", known))


def hide_account_in(text: bytes) -> bytes:
    """The same for what may be no text at all."""
    return hide_account(text.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")


def is_clean(text: bytes) -> bool:
    """True if a text names neither our account nor a key, however often a field stands in it."""
    return hide_account_in(text) == text
