"""The usage block of an answer: what OpenRouter says that it cost, digit by digit."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from typing import Any

from foundation.money import NANO

USAGE = re.compile(rb'"usage"\s*:\s*(?=\{)')
MAX_CANDIDATES = 8
SURE_NANO, HAIR = 10**12, 0.001  # up to a thousand dollars a float is off by less than half of that, of a nano-dollar
COUNTS = ("prompt_tokens", "completion_tokens", "input_tokens", "output_tokens", "total_tokens", "search_units")
_decoder = json.JSONDecoder(parse_float=Decimal)


def to_the_nano(text: bytes, seen: dict[str, Any]) -> dict[str, Any]:
    """The usage block `seen` in a JSON text, with a cost that becomes the nano-dollars which its digits say.

    Floats do, but for those that are a hair's breadth from half a nano-dollar: only then is the text read again.
    """
    cost = seen.get("cost")
    if type(cost) is float and not seen.get("is_byok"):  # of a BYOK call other amounts count too
        nano = cost * NANO
        if -SURE_NANO < nano < SURE_NANO and abs(nano % 1 - 0.5) > HAIR:
            return seen | {"cost": Decimal(repr(cost))}
    return exact(text, seen)


def exact(text: bytes, seen: dict[str, Any]) -> dict[str, Any]:
    """The usage block `seen` in a JSON text, with its amounts as Decimal instead of float.

    Only the block is read again: to read a whole answer with Decimals takes ten times as long.
    """
    for usage in _candidates(text):
        if usage.keys() == seen.keys() and _as_float(usage.get("cost")) == seen.get("cost"):
            return usage
    return seen  # its float has the shortest digits that mean it, which are those that were sent, up to fifteen


def in_tail(tail: bytes) -> dict[str, Any] | None:
    """The last usage block in the last bytes of a long JSON body, amounts as Decimal."""
    return next(iter(_candidates(tail)), None)


def is_billed(usage: dict[str, Any]) -> bool:
    """True if an answer cost something, or counts what it used and does not say what that cost."""
    cost = usage.get("cost")
    if isinstance(cost, int | float | Decimal):
        return cost > 0
    counts = [usage.get(name) for name in COUNTS]
    return any(isinstance(count, int) and count > 0 for count in counts)


def tokens_used(usage: dict[str, Any], events: int) -> int | None:
    """How many tokens a call used, in both directions; None if OpenRouter did not say, and nothing came.

    Of a stream that broke off only the prompt's may be known; it has an event for each token, more or less.
    """
    prompt, completion = usage.get("prompt_tokens"), usage.get("completion_tokens")
    used = 0
    for count in (prompt, events if completion is None else completion):
        if isinstance(count, int) and count > 0:
            used += count
    return used or None


def _candidates(text: bytes) -> list[dict[str, Any]]:
    """What looks like a usage block, the last first; not those within another."""
    found, end = [], 0
    for match in list(USAGE.finditer(text))[-MAX_CANDIDATES:]:
        if match.start() < end:
            continue
        rest = text[match.end() :].decode("utf-8", "replace")
        try:
            usage, length = _decoder.raw_decode(rest)
        except (ValueError, RecursionError):
            continue
        found.append(usage)
        end = match.end() + len(rest[:length].encode())
    return found[::-1]


def _as_float(amount: object) -> object:
    return float(amount) if isinstance(amount, Decimal) else amount
