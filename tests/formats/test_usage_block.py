"""The usage block of an answer is found whatever else the answer says, and its amounts keep every digit."""

from __future__ import annotations

import json
import time
from decimal import Decimal
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from formats import usage_block
from foundation.money import nano
from tests.support.rows import each_row

COSTS = ["0", "0.0", "1", "0.1", "1e-9", "0.00000015", "0.1234567890123456789", "123456.7890123456789012345", "1.5E-7"]


def answer(usage: str, content: object = "hi") -> bytes:
    return f'{{"id":"gen-1","choices":[{{"message":{{"content":{json.dumps(content)}}}}}],"usage":{usage}}}'.encode()


def exact(text: bytes) -> dict[str, Any]:
    return usage_block.exact(text, orjson.loads(text)["usage"])


@each_row("cost", COSTS)
def test_a_cost_keeps_every_digit(cost):
    text = answer(f'{{"prompt_tokens":3,"cost":{cost},"details":{{"cached":1}}}}')
    for usage in (exact(text), usage_block.in_tail(text)):
        assert usage["cost"] == Decimal(cost)
        assert (usage["prompt_tokens"], usage["details"]) == (3, {"cached": 1})


@given(st.decimals(0, 10**6, allow_nan=False, allow_infinity=False))
def test_any_cost_does(cost):
    text = answer(f'{{"cost":{cost:f}}}')
    assert exact(text)["cost"] == usage_block.in_tail(text)["cost"] == cost


# Beside, on, and a hair's breadth from half a nano-dollar; and what a float can't hold.
HALVES = ["1.5e-9", "2.5e-9", "0.0000000014999999999999999999", "0.0000000025000000000000000001", "0.00001320049999999"]
HALVES += ["999.9999999995", "999.99999999949999999", "1000000.0000000005", "-1.5e-9", "0.1234567894999999999999"]


@each_row("cost", [*COSTS, *HALVES])
def test_a_cost_becomes_the_nano_dollars_that_its_digits_say(cost):
    assert_right_to_the_nano(Decimal(cost), f'{{"cost":{cost}}}')


@given(
    st.decimals(-(10**7), 10**7, allow_nan=False, allow_infinity=False)
    | st.builds(
        lambda nano, beside, digits: (nano + Decimal("0.5") + beside * Decimal(10) ** -digits) / 10**9,
        st.integers(0, 10**15),
        st.sampled_from([-1, 0, 1]),
        st.integers(1, 22),
    )
)
def test_any_cost_becomes_them_however_close_to_half_of_one_it_is(cost):
    assert_right_to_the_nano(cost, f'{{"cost":{cost:f}}}')


def assert_right_to_the_nano(cost: Decimal, usage: str) -> None:
    text = answer(usage)
    told = usage_block.to_the_nano(text, orjson.loads(text)["usage"])
    assert nano(told["cost"]) == nano(cost)


def test_the_other_amounts_of_a_byok_call_keep_their_digits_too():
    text = answer(
        '{"cost":0.1,"is_byok":true,"cost_details":{"upstream_inference_cost":0.0000000014999999999999999999}}'
    )
    told = usage_block.to_the_nano(text, orjson.loads(text)["usage"])
    assert nano(told["cost_details"]["upstream_inference_cost"]) == 1


def test_an_ordinary_answer_is_not_read_twice():
    told = usage_block.to_the_nano(b"no text", {"cost": 0.0000132, "prompt_tokens": 3})
    assert told == {"cost": Decimal("0.0000132"), "prompt_tokens": 3}


@each_row(
    "content",
    [
        '"usage":{"cost":9}', '{"usage": {"cost": 9}}', '"usage"', "usage", '\\"usage\\":{"cost":9}', '"usage":{', '"usage":{"a":',
        '"usage":{"cost":0.1,"prompt_tokens":3}', '"usage":null,"usage":[]', '"usage":{"cost":9}' * 20, "ü" * 100 + '"usage":{',
    ],
)  # fmt: skip
def test_an_answer_may_talk_about_usage(content):
    text = answer('{"cost":0.1,"prompt_tokens":3}', content)
    assert exact(text) == usage_block.in_tail(text) == {"cost": Decimal("0.1"), "prompt_tokens": 3}


def test_half_an_emoji_and_other_bytes_before_it_do_no_harm():
    text = answer('{"cost":0.1}').replace(b"hi", b"\\ud83d \xff \xf0\x9f")
    assert usage_block.exact(text, {"cost": 0.1}) == usage_block.in_tail(text) == {"cost": Decimal("0.1")}


def test_a_usage_within_another_object_is_not_taken_for_the_answers():
    inner = '"metadata":{"usage":{"cost":9.0,"prompt_tokens":1}}'
    text = answer('{"cost":0.1,"prompt_tokens":3}')[:-1] + f",{inner}}}".encode()
    assert exact(text) == {"cost": Decimal("0.1"), "prompt_tokens": 3}


def test_a_usage_within_the_usage_is_not_taken_for_it():
    inner = '{"cost":9.0,"prompt_tokens":1}'
    text = answer(f'{{"cost":0.1000000000000000055,"prompt_tokens":3,"details":{{"usage":{inner}}}}}')
    for usage in (exact(text), usage_block.in_tail(text)):
        assert usage["cost"] == Decimal("0.1000000000000000055")


def test_two_blocks_that_differ_only_in_what_a_float_cannot_tell_cost_the_same():
    """Both are OpenRouter's; the last one of the answer is taken."""
    text = b'{"x":{"usage":{"cost":0.10000000000000000001}},"usage":{"cost":0.1}}'
    assert round(exact(text)["cost"] * 10**9) == 10**8


@pytest.mark.parametrize("usage", ['{"cost":null}', "{}", '{"cost":"0.1"}', '{"cost":true}', '{"cost":-0.1}'])
def test_a_block_without_an_amount_is_as_it_is(usage):
    text = answer(usage)
    assert exact(text) == orjson.loads(usage) or exact(text) == {"cost": Decimal("-0.1")}


def test_a_block_that_is_not_found_again_is_the_one_that_was_seen():
    seen = {"cost": 0.1}
    assert usage_block.exact(b'{"usage":{"cost":0.2}}', seen) is seen
    assert usage_block.exact(b'{"\\u0075sage":{"cost":0.1}}', seen) is seen


@pytest.mark.parametrize(
    "tail", [b"", b"{}", b'"usage":null', b'"usage":[1]', b'"usage":{"cost":', b'xx"usage" : ', b"\xff"]
)
def test_a_tail_without_a_whole_block_has_none(tail):
    assert usage_block.in_tail(tail) is None


def test_a_tail_that_begins_anywhere_still_has_the_block():
    text = answer('{"cost":0.1,"prompt_tokens":3}', "é" * 50)
    for cut in range(text.index(b'"usage"') + 1):
        assert usage_block.in_tail(text[cut:]) == {"cost": Decimal("0.1"), "prompt_tokens": 3}


@pytest.mark.parametrize(
    "filler", ["x", '"usage":{', '"usage":{"cost":1},', '"usage":{"a":[' + "[" * 100, "\\u0000", "{" * 50, "ü"]
)
def test_a_body_of_a_mebibyte_is_read_faster_than_it_is_parsed_in_python(filler):
    """A generous bound on a loaded machine: what is slow here is slow for every call."""
    text = answer('{"cost":0.1234567890123456789}', filler * (1024 * 1024 // len(filler)))
    seen = orjson.loads(text)["usage"]
    begun = time.process_time()
    assert usage_block.exact(text, seen)["cost"] == Decimal("0.1234567890123456789")
    assert time.process_time() - begun < 0.25


def test_a_body_of_nothing_but_open_blocks_is_given_up():
    assert usage_block.in_tail(b'"usage":{' * 100_000) is None
    assert usage_block.in_tail(b'"usage":' + b'{"a":' * 100_000) is None
