"""What of a refusal a client may see: nothing of our account or keys, nor of a prompt, whatever the body is."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upstream.disclosure import clean, clean_error, hide_account, told
from upstream.refusal import Refusal
from upstream.refusals import classify


def test_cleaning_keeps_what_helps_and_drops_the_rest():
    body = {
        "error": {
            "code": 403,
            "message": "Your key sk-or-v1-abc...123 of user_2abcdefghij: see https://openrouter.ai/settings/keys.",
            "metadata": {
                "reasons": ["x"],
                "provider_name": "P",
                "flagged_input": "the prompt",
                "raw": "r",
                "remedy_hint": "h",
            },
            "stack": "secret",
        },
        "user_id": "user_2abcdefghij",
    }
    assert clean(body) == {
        "error": {
            "code": 403,
            "message": "Your key *** of ***: see ***",
            "metadata": {"reasons": ["x"], "provider_name": "P"},
        }
    }


def test_errors_about_our_account_are_told_in_our_words_wherever_they_stand():
    for message, code, told_code in (
        ("User not found.", 401, 502),
        ("Insufficient credits", 402, 502),
        ("bad", 400, 400),
    ):
        assert told({"id": "gen-1", "error": {"code": code, "message": message}})["error"]["code"] == told_code


def test_metadata_beside_the_error_is_cleaned_as_that_within_it_is():
    body = {"error": {"message": "m"}, "metadata": {"raw": "PROMPT", "reason": "of user_2abcdefghij"}}
    assert clean(body) == {"error": {"message": "m"}, "metadata": {"reason": "of ***"}}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20) | st.just("sk-or-v1-0123456789abcdef"),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["error", "metadata", "choices", "message", "raw"]), inner)
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(["error", "choices", "user_id", "id"]), json_values))
def test_any_body_can_be_classified_and_cleaned(body):
    for status in (200, 400, 401, 402, 403, 404, 429, 500, 503):
        found = classify(Refusal(status, body))
        if found.answer:
            assert found.answer(Refusal(status, body)).status >= 400
    cleaned = clean(body)
    assert "user_id" not in cleaned
    assert "sk-or" not in json.dumps(cleaned.get("error"))


def test_the_metadata_of_an_answer_is_the_clients_own_and_stays():
    answer = {"object": "response", "error": {"code": "x", "message": "m"}, "metadata": {"provider_name": "P", "a": 1}}
    assert clean(answer) == answer


def test_an_error_of_any_type_is_cleaned_by_itself():
    assert clean_error("key sk-or-v1-abc is bad") == "key *** is bad"
    assert clean_error(["sk-or-v1-abc"]) == ["***"]
    assert clean_error({"code": 1, "stack": "x", "metadata": {"raw": "x"}}) == {"code": 1}


@pytest.mark.parametrize("text", ["sk-or-v1-abc...123", "user_2abcdefghij", "https://openrouter.ai/settings/keys?x=1"])
def test_what_names_our_account_is_hidden_wherever_it_stands(text):
    assert hide_account(f"({text} )") == "(*** )"
