"""Kinds of failure after which another model or upstream may do better, as operators name them.

What the client did wrong has no kind, nor has what it asks for itself, such as providers that keep no data: no other
model is to answer in spite of that.
"""

from __future__ import annotations

import re
from enum import StrEnum

from foundation.errors import AppError, TooManyRequests
from upstream.refusal import Refusal
from upstream.refusals import NOT_THE_CLIENTS, Hits, classify


class Failure(StrEnum):
    """away: it can't be reached, fails, or refuses our key or account. too-long: for this model's context."""

    AWAY = "away"
    RATE_LIMITED = "rate-limited"
    TOO_LONG = "too-long"
    MODERATED = "moderated"


MODERATED = {"moderation", "declined"}  # rows of upstream/refusals.py, and so are the next
ASKED_FOR = {"routing", "guardrail", "account-policy"}
TOO_LONG_WORDS = {"context_length_exceeded", "token_limit_exceeded", "string_too_long", "payload_too_large"}
TOO_LONG = re.compile(
    r"context[ _](length|window)|(prompt|input|request) is too l(ong|arge)|too many tokens", re.IGNORECASE
)
TOO_LONG_STATUSES = {400, 413, 422}
MAX_LOOKED_AT = 4000  # characters of an error, which may repeat a whole prompt
OURS = "no-files"  # of the kinds of NoAnswer: no other destination has files either


def of_refusal(refusal: Refusal) -> Failure | None:
    """What kind an upstream's refusal is; None if no other model is to be asked."""
    row = classify(refusal)
    if row.name in ASKED_FOR:
        return None
    if row.name in MODERATED:
        return Failure.MODERATED
    if refusal.status in TOO_LONG_STATUSES and _is_too_long(refusal):
        return Failure.TOO_LONG
    if refusal.status == TooManyRequests.status or row.name == "in-flight-budget":
        return Failure.RATE_LIMITED
    is_our_matter = row.hits is not Hits.NOTHING or refusal.status in NOT_THE_CLIENTS
    return Failure.AWAY if is_our_matter or refusal.status >= 500 or refusal.status == 408 else None


def of_silence(kind: str) -> Failure | None:
    """The same of a try without an answer, by its NoAnswer's kind."""
    return None if kind == OURS else Failure.AWAY


def of_no_key(error: AppError) -> Failure:
    """The same of a call that found no key to go out with."""
    return Failure.RATE_LIMITED if isinstance(error, TooManyRequests) else Failure.AWAY


def _is_too_long(refusal: Refusal) -> bool:
    if refusal.status == 413 or refusal.error_type in TOO_LONG_WORDS or refusal.error.get("code") in TOO_LONG_WORDS:
        return True
    return bool(TOO_LONG.search(f"{refusal.message} {refusal.metadata.get('raw', '')}"[:MAX_LOOKED_AT]))
