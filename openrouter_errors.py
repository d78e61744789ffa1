"""What OpenRouter's refusals mean, row by row, and which parts of them a client may see.

One table, read from the top: the first row that matches an answer says whether another key may do better, how long
this key rests, and what the client is told. `None` as the client's answer means OpenRouter's own, cleaned.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

import json_text
from errors import AppError, PayloadTooLarge, PaymentRequired, TooManyRequests, UpstreamFailed, UpstreamTimeout

Json = dict[str, Any]

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
    r"sk-or-[A-Za-z0-9_.-]+|\b(?:user|org)_[A-Za-z0-9]{8,}|https?://(?:[a-z]+\.)?openrouter\.ai/(?:settings|keys|workspaces)\S*"
)


@dataclass(frozen=True)
class Refusal:
    """OpenRouter's answer other than success, read once."""

    status: int
    payload: Json | None
    """The body as JSON, or None if it was HTML, empty or damaged: then the edge answered, not OpenRouter."""
    retry_after: str | None = None
    body: bytes = b""

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
        return metadata if isinstance(metadata, dict) else {}

    @property
    def limit_source(self) -> str:
        return str(self.metadata.get("limit_source") or "")

    @property
    def is_providers(self) -> bool:
        """True if a provider behind OpenRouter refused: whatever the status, our key is not at fault."""
        return bool(
            (isinstance(self.metadata.get("provider_name"), str) and self.metadata["provider_name"])
            or "raw" in self.metadata
            or self.message.startswith(("Provider returned error", "Upstream error from"))
            or self.limit_source.startswith("upstream_")
        )


class Other(Enum):
    """Which other key may do better after a refusal."""

    NONE = "none"
    KEY = "key"
    ACCOUNT = "account"


@dataclass(frozen=True)
class Row:
    """One kind of refusal. rest_seconds: 0 leaves the key in use. answer: None passes OpenRouter's own on."""

    name: str
    statuses: range
    matches: Callable[[Refusal], bool]
    rest_seconds: float = 0
    other: Other = Other.NONE
    answer: Callable[[Refusal], AppError] | None = None


def _says(pattern: str) -> Callable[[Refusal], bool]:
    compiled = re.compile(pattern, re.IGNORECASE)
    return lambda refusal: bool(compiled.search(refusal.message))


def _limited_by(source: str, pattern: str = r"(?!)") -> Callable[[Refusal], bool]:
    says = _says(pattern)
    return lambda refusal: refusal.limit_source.startswith(source) or says(refusal)


def _always(_refusal: Refusal) -> bool:
    return True


def _only(status: int) -> range:
    return range(status, status + 1)


def _not_your_key(_refusal: Refusal) -> AppError:
    # Never a 401: the client would take its own key for bad.
    return UpstreamFailed("OpenRouter refused the service's credentials; try again, and tell the operator if it lasts")


def _no_credit(_refusal: Refusal) -> AppError:
    return PaymentRequired("The service has run out of OpenRouter credit for this request")


def _in_flight(refusal: Refusal) -> AppError:
    return TooManyRequests("Too much is in flight at OpenRouter; try again shortly", _seconds(refusal, 5))


def _edge(refusal: Refusal) -> AppError:
    if refusal.status == 429:
        return TooManyRequests("OpenRouter is limiting requests; try again shortly", _seconds(refusal, 5))
    if refusal.status == 413:
        return PayloadTooLarge("The body is larger than OpenRouter takes")
    if refusal.status in {408, 504, 522, 524}:
        return UpstreamTimeout("OpenRouter did not answer in time")
    return UpstreamFailed(f"OpenRouter could not be reached: its edge answered {refusal.status}")


def _seconds(refusal: Refusal, default: int) -> int:
    text = str(refusal.retry_after or refusal.metadata.get("retry_after_seconds") or default)
    return min(max(int(float(text)), 1), 60) if re.fullmatch(r"\d{1,9}(\.\d*)?", text) else default


ANY = range(1000)
SERVER_SIDE = range(500, 600)
ROWS = (
    Row("redirect", range(300, 400), _always, answer=_edge),
    # What the request itself is refused for: no other key would change it.
    Row("moderation", _only(403), lambda r: "reasons" in r.metadata or _says("requires moderation|was flagged")(r)),
    Row("guardrail", _only(403), lambda r: "patterns" in r.metadata or _says(r"^Request blocked")(r)),
    # The edge, or a network problem: never the key's fault.
    Row("edge", SERVER_SIDE, lambda r: r.payload is None, other=Other.KEY, answer=_edge),
    Row("edge-limited", _only(429), lambda r: r.payload is None, rest_seconds=5, other=Other.KEY, answer=_edge),
    Row("edge-odd", ANY, lambda r: r.payload is None, answer=_edge),
    # A provider refused.
    Row("provider-credentials", _only(401), lambda r: r.is_providers, answer=_not_your_key),
    Row("provider-failed", SERVER_SIDE, lambda r: r.is_providers, other=Other.KEY),
    Row("provider", ANY, lambda r: r.is_providers),
    # Our key or its account.
    Row("no-credentials", _only(401), _says("^(Missing Authentication|No (cookie )?auth)"), answer=_not_your_key),
    Row("key-refused", _only(401), _always, rest_seconds=15, other=Other.KEY, answer=_not_your_key),
    Row("in-flight-budget", _only(402), _limited_by("openrouter_in_flight"), 2, other=Other.KEY, answer=_in_flight),
    Row(
        "key-cap-too-small",
        _only(402),
        _limited_by("openrouter_key_limit", "create a key with a higher"),
        0,
        Other.KEY,
        _no_credit,
    ),
    Row(
        "balance-too-small",
        _only(402),
        lambda r: (
            _limited_by("openrouter_credits", "fewer max_tokens|limit exceeded:")(r)
            or "weight" in str(r.metadata.get("reason"))
        ),
        other=Other.KEY,
        answer=_no_credit,
    ),
    Row("no-credit", _only(402), _always, rest_seconds=60, other=Other.KEY, answer=_no_credit),
    Row("key-limit", _only(403), _says("^Key limit exceeded"), rest_seconds=60, other=Other.KEY, answer=_no_credit),
    Row("budget", _only(403), _says(r"budget of \$"), rest_seconds=60, other=Other.KEY, answer=_no_credit),
    Row("wrong-kind-of-key", _only(403), _says("^Only management keys"), answer=_not_your_key),
    Row("account-policy", _only(404), _says("data policy|guardrail|No allowed providers"), other=Other.KEY),
    Row("free-tier", _only(429), _limited_by("openrouter_free_tier", "free-models-per")),
    Row("limited", _only(429), _always, rest_seconds=5, other=Other.KEY),
    Row("timed-out", _only(408), _always, other=Other.KEY),
    Row("routing", _only(503), _says("routing requirements")),
    Row("failing", SERVER_SIDE, _always, other=Other.KEY),
    Row("request", ANY, _always),
)


def classify(refusal: Refusal) -> Row:
    """The first row of the table that the refusal matches."""
    return next(row for row in ROWS if refusal.status in row.statuses and row.matches(refusal))


def refusal_in(payload: Json) -> Refusal | None:
    """The refusal that a body or an event under status 200 holds, if it holds one."""
    error = payload.get("error") or _error_of_choice(payload.get("choices"))
    if not error:
        return None
    if not isinstance(error, dict):
        error = {"message": str(error)}
    code = error.get("code")
    return Refusal(code if isinstance(code, int) and 400 <= code < 600 else 500, payload | {"error": error})


def _error_of_choice(choices: Any) -> Any:
    if not isinstance(choices, list):
        return None
    return next((choice["error"] for choice in choices if isinstance(choice, dict) and choice.get("error")), None)


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
        cleaned["error"] = _clean_error(payload["error"])
    if isinstance(payload.get("choices"), list):
        cleaned["choices"] = [_clean_choice(choice) for choice in payload["choices"]]
    return cleaned


def _clean_choice(choice: Any) -> Any:
    if isinstance(choice, dict) and "error" in choice:
        return choice | {"error": _clean_error(choice["error"])}
    return choice


def _clean_error(error: Any) -> Any:
    if not isinstance(error, dict):
        return _clean_text(error)
    cleaned = {name: _clean_text(error[name]) for name in error if name in ERROR_ALLOWED}
    if isinstance(error.get("metadata"), dict):
        metadata = error["metadata"]
        cleaned["metadata"] = {name: _clean_text(metadata[name]) for name in metadata if name in METADATA_ALLOWED}
        # OpenRouter's Python SDK refuses a `metadata` without `error_type`.
        if not cleaned["metadata"]:
            del cleaned["metadata"]
    return cleaned


def _clean_text(value: Any) -> Any:
    if isinstance(value, str):
        return hide_account(value)
    if isinstance(value, list | dict):
        return json_text.parse(hide_account(json_text.write(value).decode()).encode())
    return value


def hide_account(text: str) -> str:
    """The text without keys, account ids and links to our account."""
    return ACCOUNT_TEXT.sub("***", text)
