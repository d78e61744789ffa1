"""Which parts of a refusal a client may see: nothing of our account and our keys, and no piece of a prompt."""

from __future__ import annotations

import re
from typing import Any

from foundation import json_text
from foundation.logs import redact
from upstream.refusals import Json, classify, refusal_in

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
ERROR_ALLOWED = ("code", "message", "type", "param", "error_type", "availability")
# Keys and their labels, account ids, and links to our account's pages, wherever a message has them.
ACCOUNT_TEXT = re.compile(
    r"sk-or-[A-Za-z0-9_.-]+|\bsk-[A-Za-z0-9_.*-]{8,}|\b(?:user_|org[_-]|proj_)[A-Za-z0-9]{8,}"
    r"|https?://(?:[a-z]+\.)?openrouter\.ai/(?:settings|keys|workspaces)\S*"
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

    Everything outside `error` stays but the account's id; inside `error` only what is on the lists above.
    """
    cleaned = {name: value for name, value in payload.items() if name != "user_id"}
    if "error" in payload:
        cleaned["error"] = clean_error(payload["error"])
        if "object" not in payload and isinstance(payload.get("metadata"), dict):
            cleaned["metadata"] = _clean_metadata(payload["metadata"])
    if isinstance(payload.get("choices"), list):
        cleaned["choices"] = [_clean_choice(choice) for choice in payload["choices"]]
    return cleaned


def _clean_choice(choice: Any) -> Any:
    if isinstance(choice, dict) and "error" in choice:
        return choice | {"error": clean_error(choice["error"])}
    return choice


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
    return redact(ACCOUNT_TEXT.sub("***", text))
