"""What the stand-in says: words, their deltas, and the JSON around them."""

import json

import pytest

from sandbox import openrouter_answers as answers


def text_of(words):
    return "".join(json.loads(delta)["content"] for delta in words.deltas())


@pytest.mark.parametrize(
    "words",
    [
        answers.echo([{"role": "user", "content": 'say "hi" \\ 🌍'}]),
        answers.filler(30, multi_byte=False),
        answers.filler(12, multi_byte=True),
        answers.json_object([{"role": "user", "content": "json please"}]),
        answers.shortened(answers.filler(30, multi_byte=False), 4),
    ],
)
def test_deltas_add_up_to_the_message(words):
    assert text_of(words) == json.loads(words.message)["content"]
    assert len(words.deltas()) == words.tokens


def test_the_echo_repeats_the_last_user_message_cut_short():
    messages = [{"role": "user", "content": [{"type": "text", "text": "x" * 500}]}, {"role": "assistant"}]
    assert "x" * 200 + "…" in text_of(answers.echo(messages))
    assert "x" * 201 not in text_of(answers.echo(messages))


def test_a_json_object_is_one():
    assert json.loads(text_of(answers.json_object([{"role": "user", "content": "hi"}]))) == {
        "stand_in": True,
        "you_said": "hi",
    }


def test_a_tool_call_has_arguments_that_are_json():
    words = answers.tool_call("look_up")
    pieces = [json.loads(delta)["tool_calls"][0]["function"] for delta in words.deltas()]
    call = json.loads(words.message)["tool_calls"][0]["function"]
    assert "".join(piece["arguments"] for piece in pieces) == call["arguments"]
    assert json.loads(call["arguments"]) == {"query": "stand-in"}
    assert pieces[0]["name"] == call["name"] == "look_up"


def test_usage_names_the_cost_exactly():
    usage = answers.usage_json(3, 7, 3, 70)
    assert b'"cost":0.000000073,' in usage
    assert json.loads(usage)["total_tokens"] == 10


@pytest.mark.parametrize(("code", "shown"), [("429", 429), ("server_error", "server_error")])
def test_error_codes_are_numbers_if_they_look_like_it(code, shown):
    assert json.loads(answers.error_json(code))["code"] == shown
