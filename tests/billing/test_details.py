"""What tokens and cost consist of: read from every format's block and from OpenRouter's record, kept and shown."""

from __future__ import annotations

from decimal import Decimal

import pytest

from billing.details import details_of

FULL = {"cached_tokens": 10, "reasoning_tokens": 20, "image_tokens": 30, "web_searches": 2, "byok_nano": 1_500_000}
BYOK = {"is_byok": True, "cost_details": {"upstream_inference_cost": Decimal("0.0015")}}


@pytest.mark.parametrize(
    ("told", "found"),
    [
        (
            {
                "prompt_tokens_details": {"cached_tokens": 10, "audio_tokens": 0},
                "completion_tokens_details": {"reasoning_tokens": 20, "image_tokens": 30},
                "server_tool_use_details": {"web_search_requests": 2, "tool_calls_executed": 5},
                **BYOK,
            },
            FULL,
        ),
        (
            {
                "input_tokens_details": {"cached_tokens": 10},
                "output_tokens_details": {"reasoning_tokens": 20},
                "server_tool_use_details": {"web_search_requests": 2},
                **BYOK,
            },
            {name: count for name, count in FULL.items() if name != "image_tokens"},
        ),
        (
            {"cache_read_input_tokens": 10, "server_tool_use": {"web_search_requests": 2}},
            {"cached_tokens": 10, "web_searches": 2},
        ),
        (
            {
                "native_tokens_cached": 10,
                "native_tokens_reasoning": 20,
                "native_tokens_completion_images": 30,
                "is_byok": True,
                "upstream_inference_cost": 0.0015,
            },
            {name: count for name, count in FULL.items() if name != "web_searches"},
        ),
    ],
    ids=["chat", "responses", "messages", "record"],
)
def test_each_format_names_them_in_its_own_way(told, found):
    assert details_of(told) == found


@pytest.mark.parametrize(
    "told",
    [
        {},
        {"prompt_tokens_details": None, "completion_tokens_details": [], "cost_details": "x", "is_byok": True},
        {"prompt_tokens_details": {"cached_tokens": 0}, "completion_tokens_details": {"reasoning_tokens": None}},
        {"prompt_tokens_details": {"cached_tokens": "7"}, "completion_tokens_details": {"reasoning_tokens": -7}},
        {"cache_read_input_tokens": 10**30, "server_tool_use": {"web_search_requests": 1.5}},
        {"is_byok": True, "cost_details": {"upstream_inference_cost": -1}},
    ],
)
def test_what_is_zero_or_no_count_is_left_out(told):
    assert details_of(told) == {}


@pytest.mark.parametrize("is_byok", [False, None, 1, "true"])
def test_without_somebody_elses_key_the_providers_bill_is_a_part_of_the_cost(is_byok):
    assert details_of(BYOK | {"is_byok": is_byok}) == {}
