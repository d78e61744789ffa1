"""What OpenRouter's refusals mean, row by row.

One table, read from the top: the first row that matches an answer says what it hits and for how long, which other key
may do better, and what the client is told. docs/upstream-errors.md shows it in words.

A row hits a key or an account only by evidence that OpenRouter itself speaks, and of them. What a client did wrong,
what a provider refused, what never reached OpenRouter, and whatever comes after a 200 hits nothing: OpenRouter says 200
once it has checked our key and account.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum

from foundation.errors import (
    AppError,
    PayloadTooLarge,
    PaymentRequired,
    TooManyRequests,
    UpstreamFailed,
    UpstreamRefused,
    UpstreamTimeout,
)
from upstream.refusal import Refusal, asked_seconds, retry_after

# What the client would take for its own credentials or connection, though they are ours.
NOT_THE_CLIENTS = frozenset({401, 402, 407})

MAX_PERIOD = timedelta(days=32)


class Hits(Enum):
    """What a refusal says something about."""

    NOTHING = "nothing"
    KEY = "the key"
    ACCOUNT = "its account"
    FREE_MODELS = "its account, for free models"


class Lasts(Enum):
    """How long what was hit rests."""

    SECONDS = "seconds"
    """The row's seconds, or Retry-After if that is longer; twice as long with each failure in a row."""
    RESET = "until its reset"
    """Until the time that the refusal names."""
    REFUSED = "if `GET /key` refuses it too, until it is accepted"
    """GET /key is asked at once; meanwhile the key is picked less."""
    SPENT = "if `GET /key` says so, until its reset"
    """Likewise. Until the time that the refusal names, and asked about meanwhile: its limit may have been raised."""
    RELOAD = "picked less until the next reload"
    """It does not rest: other requests still pass."""


class Other(Enum):
    """Which other key may do better after a refusal."""

    NONE = "none"
    KEY = "key"
    ACCOUNT = "account"


@dataclass(frozen=True)
class Row:
    """One kind of refusal. answer: what the client is told; None passes OpenRouter's own on, cleaned."""

    id: str
    name: str
    statuses: range
    matches: Callable[[Refusal], bool]
    hits: Hits = Hits.NOTHING
    lasts: Lasts = Lasts.SECONDS
    rest_seconds: float = 0
    other: Other = Other.NONE
    answer: Callable[[Refusal], AppError] | None = None


def _says(pattern: str) -> Callable[[Refusal], bool]:
    compiled = re.compile(pattern, re.IGNORECASE)
    return lambda refusal: bool(compiled.search(refusal.message))


def _limited_by(source: str, pattern: str = r"(?!)") -> Callable[[Refusal], bool]:
    says = _says(pattern)
    return lambda refusal: (
        refusal.limit_source.startswith(source) or (says(refusal) and not refusal.limit_source.startswith("upstream_"))
    )


def _always(_refusal: Refusal) -> bool:
    return True


def _only(status: int) -> range:
    return range(status, status + 1)


def _not_your_key(_refusal: Refusal) -> AppError:
    # Never a 401: the client would take its own key for bad.
    return UpstreamFailed(
        "The upstream refused the service's credentials; try again, and tell the operator if it lasts"
    )


def _provider_refused(_refusal: Refusal) -> AppError:
    return UpstreamFailed("The model's provider refused to serve this request; try again, or choose another model")


def _no_credit(_refusal: Refusal) -> AppError:
    return PaymentRequired("The service has run out of credit for this request")


def _in_flight(refusal: Refusal) -> AppError:
    return TooManyRequests("Too much is in flight upstream; try again shortly", _seconds(refusal, 5))


def _edge(refusal: Refusal) -> AppError:
    if refusal.status == 429:
        told = refusal.reason or "The upstream is limiting requests; try again shortly"
        return TooManyRequests(told, _seconds(refusal, 5))
    if refusal.status == 413:
        return PayloadTooLarge(refusal.reason or "The body is larger than the upstream takes")
    if refusal.status in {504, 522, 524}:
        return UpstreamTimeout("The upstream did not answer in time")
    if 400 <= refusal.status < 500 and refusal.status not in NOT_THE_CLIENTS:
        return UpstreamRefused(refusal.status, refusal.reason)
    wait = retry_after(refusal)
    headers = {"Retry-After": wait} if wait else None
    return UpstreamFailed(f"The upstream could not be reached: its edge answered {refusal.status}", headers)


def _seconds(refusal: Refusal, default: int) -> int:
    return min(max(int(asked_seconds(refusal) or default), 1), 60)


def rest_seconds(row: Row, refusal: Refusal, now: datetime) -> float:
    """For how long a refusal asks what it hits to rest; math.inf until GET /key says otherwise. now: aware, UTC."""
    if row.lasts is Lasts.REFUSED:
        return math.inf
    if row.lasts in {Lasts.RESET, Lasts.SPENT}:
        at = _named_reset(refusal, now) or _end_of_period(refusal.message, now)
        return (at - now).total_seconds() if at else row.rest_seconds or math.inf
    return max(row.rest_seconds, asked_seconds(refusal)) if row.rest_seconds else 0.0


def _named_reset(refusal: Refusal, now: datetime) -> datetime | None:
    headers = refusal.metadata.get("headers")
    named = {str(name).lower(): value for name, value in headers.items()} if isinstance(headers, dict) else {}
    text = str(refusal.rate_limit_reset or named.get("x-ratelimit-reset") or "")
    if not re.fullmatch(r"[0-9]{12,14}", text):
        return None
    try:
        at = datetime.fromtimestamp(int(text) / 1000, UTC)
    except (OverflowError, ValueError, OSError):
        return None
    return at if now < at <= now + MAX_PERIOD else None  # a time that has passed says nothing


def _end_of_period(message: str, now: datetime) -> datetime | None:
    """OpenRouter's limits begin anew at 00:00 UTC: every day, on Mondays, on the first of the month."""
    found = re.search(r"\b(daily|per-day|weekly|monthly)\b", message)
    if not found:
        return None
    today = now.replace(hour=0, minute=0, second=0, microsecond=0)
    if found[1] == "weekly":
        return today + timedelta(days=7 - today.weekday())
    if found[1] == "monthly":
        return (today.replace(day=1) + timedelta(days=32)).replace(day=1)
    return today + timedelta(days=1)


def _of_type(*error_types: str) -> Callable[[Refusal], bool]:
    return lambda refusal: refusal.error_type in error_types


def _is_moderation(refusal: Refusal) -> bool:
    return "reasons" in refusal.metadata or bool(re.search("requires moderation|was flagged", refusal.message))


def _is_blocked(refusal: Refusal) -> bool:
    return "patterns" in refusal.metadata or refusal.message.startswith("Request blocked")


def _is_edge(refusal: Refusal) -> bool:
    return refusal.payload is None


def _is_late(refusal: Refusal) -> bool:
    return refusal.is_late


def _is_providers(refusal: Refusal) -> bool:
    return refusal.is_providers


def _weighs_too_much(refusal: Refusal) -> bool:
    says = _limited_by("openrouter_credits", "fewer max_tokens|limit exceeded:")
    return says(refusal) or "weight" in str(refusal.metadata.get("reason"))


ANY = range(1000)
SERVER_SIDE = range(500, 600)
K, A, F = Hits.KEY, Hits.ACCOUNT, Hits.FREE_MODELS
SECONDS, RESET, REFUSED, SPENT, RELOAD = Lasts.SECONDS, Lasts.RESET, Lasts.REFUSED, Lasts.SPENT, Lasts.RELOAD
# fmt: off
ROWS = (
    Row("3xx", "redirect", range(300, 400), _always, answer=_edge),
    # What the request itself is refused for, even if a provider is named: no other key would change it.
    Row("403a", "moderation", _only(403), _is_moderation),
    Row("403b", "guardrail", _only(403), _is_blocked),
    # The edge, or a network problem: HTML, nothing, or half a JSON text.
    Row("5xx-edge", "edge", SERVER_SIDE, _is_edge, other=Other.KEY, answer=_edge),
    Row("429d-edge", "edge-limited", _only(429), _is_edge, answer=_edge),
    Row("edge", "edge-odd", ANY, _is_edge, answer=_edge),
    # OpenRouter's own limits of an account, which name a provider, too.
    Row("429a", "free-per-minute", _only(429),
        _limited_by("openrouter_free_tier_per_minute", "^Rate limit exceeded: free-models-per-min"),
        F, RESET, 60, Other.ACCOUNT),
    Row("429b", "free-per-day", _only(429),
        _limited_by("openrouter_free_tier", "^Rate limit exceeded: free-models-per-day"),
        F, RESET, 3600, Other.ACCOUNT),
    # A provider behind OpenRouter refused, or has to be the one who did.
    Row("200-40x", "late-credentials", range(401, 403), _is_late, answer=_provider_refused),
    Row("401-provider", "provider-credentials", _only(401), _is_providers, answer=_provider_refused),
    Row("5xx-provider", "provider-failed", SERVER_SIDE, _is_providers, other=Other.KEY),
    Row("429c", "provider-limited", _only(429), _is_providers),
    Row("200-429", "late-limited", _only(429), _is_late),
    Row("provider", "provider", ANY, _is_providers),
    # Our key, or its account.
    Row("401a", "no-credentials", _only(401), _says("^(Missing Auth|No (cookie )?auth)"), answer=_not_your_key),
    Row("401c", "key-disabled", _only(401), _says("disabled"), K, REFUSED, 0, Other.KEY, _not_your_key),
    Row("401b", "key-refused", _only(401), _always, K, REFUSED, 0, Other.KEY, _not_your_key),
    Row("402a", "in-flight-budget", _only(402), _limited_by("openrouter_in_flight"), A, RELOAD, 0, Other.ACCOUNT,
        _in_flight),
    Row("402b", "key-cap-too-small", _only(402), _limited_by("openrouter_key_limit", "create a key with a higher"),
        K, RELOAD, 0, Other.KEY, _no_credit),
    Row("402c", "balance-too-small", _only(402), _weighs_too_much, A, RELOAD, 0, Other.ACCOUNT, _no_credit),
    Row("402d", "no-credit", _only(402),
        _limited_by("openrouter_", "^(Insufficient credits|This account never purchased credits)"),
        A, RELOAD, 0, Other.ACCOUNT, _no_credit),
    Row("402", "payment", _only(402), _always, other=Other.ACCOUNT),
    Row("403c", "key-limit", _only(403), _says("^Key limit exceeded"), K, SPENT, 0, Other.KEY, _no_credit),
    Row("403d", "budget", _only(403), _says(r"^[\w ]*budget of \$"), K, SPENT, 0, Other.KEY, _no_credit),
    Row("403e", "data-region", _only(403), _says("^This request arrived on .* data region"), K, RELOAD, 0, Other.KEY,
        _not_your_key),
    Row("403f", "declined", _only(403), _of_type("content_policy_violation", "refusal")),
    Row("403g", "wrong-kind-of-key", _only(403), _says("^Only management keys"), answer=_not_your_key),
    Row("404b", "account-policy", _only(404), _says("data policy|guardrail|No allowed providers"), other=Other.ACCOUNT),
    Row("404a", "no-endpoint", _only(404), _always),
    Row("408", "timed-out", _only(408), _always, other=Other.KEY),
    Row("429d", "limited", _only(429), _limited_by("openrouter_"), K, SECONDS, 5, Other.KEY),
    Row("429", "limited-somewhere", _only(429), _always, other=Other.KEY),
    Row("499", "cancelled", _only(499), _always),
    Row("503-routing", "routing", _only(503), _says("routing requirements")),
    Row("5xx", "failing", SERVER_SIDE, _always, other=Other.KEY),
    Row("400", "request", ANY, _always),
)
# fmt: on


def classify(refusal: Refusal) -> Row:
    """The first row of the table that the refusal matches; after a 200, of those that hit nothing."""
    rows = (row for row in ROWS if row.hits is Hits.NOTHING or not refusal.is_late)
    return next(row for row in rows if refusal.status in row.statuses and row.matches(refusal))
