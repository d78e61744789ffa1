"""One refusal as it came: its status, what it says, and for how long it asks to wait."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

Json = dict[str, Any]

# Where errors name themselves by words alone. Others, and `server_error`, count as 500.
WORDS = {
    400: "context_length_exceeded max_tokens_exceeded token_limit_exceeded string_too_long invalid_request"
    " invalid_prompt invalid_request_error invalid_image image_too_large image_too_small unsupported_image_format"
    " image_download_failed"
    " invalid_image_format invalid_base64_image invalid_image_url image_parse_error invalid_image_mode"
    " image_file_too_large unsupported_image_media_type empty_image_file failed_to_download_image"
    " image_content_policy_violation bio_policy data_residency_mismatch",
    401: "authentication authentication_error",
    402: "payment_required billing_error",
    403: "permission_denied content_policy_violation refusal permission_error",
    404: "not_found image_not_found image_file_not_found not_found_error",
    412: "precondition_failed",
    413: "payload_too_large request_too_large",
    422: "unprocessable",
    429: "rate_limit_exceeded rate_limit_error",
    502: "provider_unavailable",
    503: "provider_overloaded overloaded_error",
    504: "timeout timeout_error",
}
STATUS_OF_WORD = {word: status for status, words in WORDS.items() for word in words.split()}

MAX_ASKED_SECONDS = 3600.0
# A gateway gave up waiting for whoever was at work: OpenRouter or a provider (504), Cloudflare (520, 524).
GIVEN_UP = frozenset({504, 520, 524})


@dataclass(frozen=True)
class Refusal:
    """OpenRouter's answer other than success, read once."""

    status: int
    payload: Json | None
    """The body as JSON, or None if it was HTML, empty or damaged: then the edge answered, not OpenRouter."""
    retry_after: str | None = None
    """The header, in seconds: see `seconds_to_wait`."""
    body: bytes = b""
    rate_limit_reset: str | None = None
    """The header X-RateLimit-Reset: milliseconds since 1970. The body may have it instead."""
    is_late: bool = False
    """True if OpenRouter had said 200 before."""
    reason: str = ""
    """What a body that is no JSON object says, in one line; "" if it says nothing."""

    @property
    def error(self) -> Json:
        error = (self.payload or {}).get("error")
        return error if isinstance(error, dict) else {}

    @property
    def message(self) -> str:
        return str(self.error.get("message") or "")

    @property
    def metadata(self) -> Json:
        metadata = self.error.get("metadata")
        if metadata is None and self.payload and "object" not in self.payload:  # an answer's own would be the client's
            metadata = self.payload.get("metadata")  # the formats Messages and Responses have it beside `error`
        return metadata if isinstance(metadata, dict) else {}

    @property
    def may_be_billed(self) -> bool:
        """True if what was asked for may have been done all the same."""
        return self.status in GIVEN_UP

    @property
    def error_type(self) -> str:
        """The word of OpenRouter's list, if it is said."""
        return str(self.metadata.get("error_type") or self.error.get("error_type") or "")

    @property
    def limit_source(self) -> str:
        return str(self.metadata.get("limit_source") or "")

    @property
    def is_providers(self) -> bool:
        """True if a provider behind OpenRouter refused: whatever the status, our key is not at fault."""
        if self.limit_source.startswith("openrouter_"):  # a limit of OpenRouter's own may name the provider, too
            return False
        return bool(
            (isinstance(self.metadata.get("provider_name"), str) and self.metadata["provider_name"])
            or "raw" in self.metadata
            or self.message.startswith(("Provider returned error", "Upstream error from"))
            or self.limit_source.startswith("upstream_")
        )


def seconds_to_wait(header: str | None, now: datetime) -> str | None:
    """Retry-After in seconds from now: it is sent so, or as an HTTP date. None for neither. now: aware, UTC."""
    text = (header or "").strip()
    if not text or text[0].isdecimal():
        return text or None
    try:
        at = parsedate_to_datetime(text)
    except ValueError:
        return None
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return str(max(math.ceil((at - now).total_seconds()), 0))


def asked_seconds(refusal: Refusal) -> float:
    """For how long OpenRouter asks to wait, up to an hour; 0 if it does not say."""
    text = str(refusal.retry_after or refusal.metadata.get("retry_after_seconds") or "")
    return min(float(text), MAX_ASKED_SECONDS) if re.fullmatch(r"[0-9]{1,9}(\.[0-9]*)?", text) else 0.0


def retry_after(refusal: Refusal) -> str:
    """The seconds that OpenRouter asks a client to wait, by header or in the body; empty if it does not say."""
    text = str(refusal.retry_after or refusal.metadata.get("retry_after_seconds") or "").partition(".")[0]
    return text if re.fullmatch(r"[0-9]{1,6}", text) else ""


def refusal_in(payload: Json) -> Refusal | None:
    """The refusal that a body or an event under status 200 holds, if it holds one."""
    error = payload.get("error") or _error_of_choice(payload.get("choices"))
    if not error:
        return None
    if not isinstance(error, dict):
        error = {"message": str(error)}
    code = error.get("code")
    status = code if isinstance(code, int) and 400 <= code < 600 else 500
    return Refusal(status, payload | {"error": error}, is_late=True)


def status_of_word(word: object) -> int | None:
    """The HTTP status that a word for an error stands for: OpenRouter's types, Anthropic's, or OpenAI's codes."""
    return STATUS_OF_WORD.get(word) if isinstance(word, str) else None


def _error_of_choice(choices: Any) -> Any:
    ended_with_error = False
    for choice in choices if isinstance(choices, list) else ():
        if isinstance(choice, dict):
            if error := choice.get("error"):
                return error
            ended_with_error = ended_with_error or choice.get("finish_reason") == "error"
    return {"code": 502, "message": "The answer ended with an error"} if ended_with_error else None
