"""What the stand-in says: words in pieces, and JSON that fits what was asked for."""

import json

import pytest

from sandbox import openrouter_answers as answers
from tests.support.rows import each_row

STEPS = {
    "type": "object",
    "properties": {
        "steps": {"type": "array", "items": {"$ref": "#/$defs/Step"}},
        "unit": {"enum": ["C", "F"]},
        "answer": {"anyOf": [{"type": "number", "minimum": 3}, {"type": "null"}]},
        "sure": {"type": ["boolean", "null"]},
        "kind": {"const": "weather"},
        "at": {"type": "string", "format": "date"},
        "optional": {"type": "string"},
    },
    "required": ["steps", "unit", "answer", "sure", "kind", "at"],
    "$defs": {"Step": {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}},
}


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (answers.echo('say "hi" \\ 🌍'), 'This is the stand-in for OpenRouter speaking. You said: "say "hi" \\ 🌍"'),
        (answers.filler(4, multi_byte=False), "This is the stand-in"),
        (answers.filler(3, multi_byte=True), "Grüße 🌍 こんにちは"),
        (answers.shortened(answers.filler(30, multi_byte=False), 4), "This is the stand-in"),
    ],
)
def test_pieces_add_up_to_the_text(words, text):
    assert words.text == text
    assert words.tokens == len(text.split(" "))


def test_the_echo_is_cut_short():
    assert "x" * 200 + "…" in answers.echo("x" * 500).text
    assert "x" * 201 not in answers.echo("x" * 500).text


def test_the_text_of_a_content_is_that_of_its_parts():
    assert answers.text_of([{"type": "text", "text": "a"}, {"image": 1}, 5, {"text": "b"}]) == "a b"
    assert answers.text_of(None) == answers.text_of(5) == ""


def test_a_json_object_is_one():
    assert json.loads(answers.json_object("hi").text) == {"stand_in": True, "you_said": "hi"}


def test_structured_output_has_what_the_schema_requires():
    assert json.loads(answers.structured(STEPS).text) == {
        "steps": [{"text": "stand-in"}],
        "unit": "C",
        "answer": 3,
        "sure": True,
        "kind": "weather",
        "at": "2026-01-02",
    }


@each_row(
    "schema",
    [
        None,
        5,
        {"$ref": "#"},
        {"$ref": 5},
        {"enum": []},
        {"type": []},
        {"type": "object", "required": ["a"], "properties": 5},
        {"type": "object", "required": ["a"], "properties": {"a": {"$ref": "#"}}},
        {"type": "array", "minItems": 10**9, "items": {"type": "string", "minLength": 1e300}},
    ],
)
def test_no_schema_makes_a_sample_fail_or_grow(schema):
    assert len(answers.structured(schema).text) < 10_000


def test_a_tool_call_has_the_arguments_that_its_schema_requires():
    words = answers.tool_call(answers.Tool("look_up", STEPS))
    assert (words.tool, words.finish_reason, words.pieces[0]) == ("look_up", "tool_calls", "")
    assert json.loads(words.text)["kind"] == "weather"
    assert answers.tool_call(answers.Tool("no_arguments", None)).text == "{}"


@pytest.mark.parametrize(("code", "shown"), [("429", 429), ("server_error", "server_error")])
def test_error_codes_are_numbers_if_they_look_like_it(code, shown):
    assert answers.error_of(code)["code"] == shown
