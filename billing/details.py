"""What a call's tokens and cost consist of, as OpenRouter tells it: in the answer's usage block, or in its record."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from billing.prices import MAX_CALL_NANO
from foundation import json_text
from foundation.money import nano

MAX_COUNT = 10**12  # of one answer; more is no count of anything

# Where each count stands: in the blocks of chat, Responses and Messages, and in the record of GET /generation. Of two
# places that both tell one, the first counts.
COUNTS = {
    "cache_read_input_tokens": "cached_tokens",
    "native_tokens_cached": "cached_tokens",
    "native_tokens_reasoning": "reasoning_tokens",
    "native_tokens_completion_images": "image_tokens",
}
COUNTS_WITHIN = {
    "prompt_tokens_details": {"cached_tokens": "cached_tokens"},
    "input_tokens_details": {"cached_tokens": "cached_tokens"},
    "completion_tokens_details": {"reasoning_tokens": "reasoning_tokens", "image_tokens": "image_tokens"},
    "output_tokens_details": {"reasoning_tokens": "reasoning_tokens"},
    "server_tool_use_details": {"web_search_requests": "web_searches"},
    "server_tool_use": {"web_search_requests": "web_searches"},
}
PLACES: dict[str, str | dict[str, str]] = {**COUNTS, **COUNTS_WITHIN}
NAMES = ("cached_tokens", "reasoning_tokens", "image_tokens", "web_searches", "byok_nano")


def details_of(told: Mapping[str, Any]) -> dict[str, int]:
    """The counts that are above 0, and `byok_nano`: what the provider bills for its own key, beside the cost."""
    found: dict[str, int] = {}
    for name in filter(PLACES.__contains__, told):
        value, place = told[name], PLACES[name]
        if isinstance(place, str):
            _add(found, place, value)
        elif isinstance(value, dict):
            for inner, count_name in place.items():
                if count := value.get(inner):  # most are 0
                    _add(found, count_name, count)
    if told.get("is_byok") is True:
        costs = told.get("cost_details")
        within = cost_of(costs.get("upstream_inference_cost")) if isinstance(costs, dict) else None
        byok_nano = within or cost_of(told.get("upstream_inference_cost"))
        if byok_nano and is_plausible(byok_nano):
            found["byok_nano"] = byok_nano
    return found


def _add(found: dict[str, int], name: str, value: object) -> None:
    if (count := count_of(value)) and name not in found:
        found[name] = count


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
