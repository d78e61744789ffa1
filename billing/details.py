"""What a call's tokens and cost consist of, as OpenRouter tells it: in the answer's usage block, or in its record."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from typing import Any

from billing.prices import MAX_CALL_NANO
from foundation import json_text
from foundation.money import nano

MAX_COUNT = 10**12  # of one answer; more is no count of anything

# Where each count stands in the blocks of chat, Responses and Messages, and in the record of GET /generation. The first
# that is there counts.
COUNTS: dict[str, tuple[tuple[str, ...], ...]] = {
    "cached_tokens": (
        ("prompt_tokens_details", "cached_tokens"),
        ("input_tokens_details", "cached_tokens"),
        ("cache_read_input_tokens",),
        ("native_tokens_cached",),
    ),
    "reasoning_tokens": (
        ("completion_tokens_details", "reasoning_tokens"),
        ("output_tokens_details", "reasoning_tokens"),
        ("native_tokens_reasoning",),
    ),
    "image_tokens": (("completion_tokens_details", "image_tokens"), ("native_tokens_completion_images",)),
    "web_searches": (
        ("server_tool_use_details", "web_search_requests"),
        ("server_tool_use", "web_search_requests"),
    ),
}
BYOK_COSTS = (("cost_details", "upstream_inference_cost"), ("upstream_inference_cost",))
NAMES = (*COUNTS, "byok_nano")


def details_of(told: Mapping[str, Any]) -> dict[str, int]:
    """The counts that are above 0, and `byok_nano`: what the provider bills for its own key, beside the cost."""
    found = {name: _first(count_of, told, paths) for name, paths in COUNTS.items()}
    if told.get("is_byok") is True and is_plausible(byok_nano := _first(cost_of, told, BYOK_COSTS)):
        found["byok_nano"] = byok_nano
    return {name: count for name, count in found.items() if count}


def _first(read: Callable[[object], int | None], told: Mapping[str, Any], paths: Iterable[tuple[str, ...]]) -> int:
    return next(filter(None, (read(_at(told, path)) for path in paths)), 0)


def cost_of(dollars: object) -> int | None:
    """A cost that OpenRouter reports, in nano-dollars; None if it is none. Zero is a cost too."""
    if isinstance(dollars, bool) or not isinstance(dollars, int | float | Decimal):
        return None
    try:
        amount = nano(dollars)
    except (ValueError, ArithmeticError):
        return None
    return amount if amount is not None and amount >= 0 else None


def is_plausible(cost_nano: int | None) -> bool:
    """True if a call may cost that. What is dearer is a mistake of who says so, and would spoil every sum."""
    return cost_nano is None or cost_nano <= MAX_CALL_NANO


def count_of(count: object) -> int | None:
    """A number of tokens, or of searches, that OpenRouter reports; None if it is none."""
    number = json_text.whole(count)
    return number if number is not None and 0 <= number <= MAX_COUNT else None


def _at(told: Mapping[str, Any], path: tuple[str, ...]) -> object:
    found: object = told
    for name in path:
        found = found.get(name) if isinstance(found, Mapping) else None
    return found
