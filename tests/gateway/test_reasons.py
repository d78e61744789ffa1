"""Why a call failed, as the log keeps it: what the client was told, short, and with nothing of our account in it."""

from __future__ import annotations

import json

import pytest

from foundation.errors import BadRequest, QuotaExceeded
from gateway.reasons import MOST_SENTENCE, MOST_WORD, reason_of
from upstream.refusal import Refusal


def refusal(status: int, message: str, **error: object) -> Refusal:
    return Refusal(status, {"error": {"code": status, "message": message, **error}})


@pytest.mark.parametrize(
    ("error", "word", "sentence"),
    [
        (QuotaExceeded("Your quota is spent"), "quota_exceeded", "Your quota is spent"),
        (BadRequest("model must\nbe text"), "invalid_request", "model must be text"),
        (refusal(400, "No such model", metadata={"error_type": "not_found"}), "not_found", "No such model"),
        (refusal(429, "Slow down", metadata={"provider_name": "X"}), "rate_limit_exceeded", "Slow down"),
        (refusal(400, f"Key sk-or-v1-{'f7' * 32} of user_2abcdefghijk"), "invalid_request", "Key *** of ***"),
        (Refusal(400, None, reason="a page"), "upstream_refused", "a page"),
        (refusal(400, "é\ud800"), "invalid_request", "é?"),
    ],
)
def test_a_word_and_a_sentence(error, word, sentence):
    assert reason_of(error, b"{}") == {"error_type": word, "error_message": sentence}


def test_what_is_about_our_account_is_told_in_our_words():
    assert "secret" not in reason_of(refusal(402, "Insufficient credits of secret account"), b"{}")["error_message"]


def test_both_fit_their_columns():
    reason = reason_of(refusal(400, "m" * 1000, metadata={"error_type": "é" * 100}), b"{}")
    assert len(reason["error_type"]) == MOST_WORD
    assert reason["error_type"].isascii()
    assert len(reason["error_message"]) == MOST_SENTENCE


PRIVATE = "What is my sister's phone number?"


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        (f"{PRIVATE} is not a valid model ID", "… is not a valid model ID"),
        (f"messages.0.content: '{PRIVATE}' was flagged", "messages.0.content: … was flagged"),
        ("my sister's phone is private; temperature must be numeric", "… is private; temperature must be numeric"),
        ("No endpoints found for openai/gpt-4o-mini", "No endpoints found for openai/gpt-4o-mini"),
        ("你好，世界，请告诉我 is no model", "… is no model"),
    ],
)
def test_what_the_caller_has_sent_is_not_repeated_but_for_a_models_name(message, shown):
    body = {"model": "openai/gpt-4o-mini", "temperature": "hot", "messages": [{"role": "user", "content": PRIVATE}]}
    sent = json.dumps(body | {"more": ["你好，世界，请告诉我"]}).encode()
    assert reason_of(refusal(400, message), sent)["error_message"] == shown
    assert reason_of(BadRequest(message), sent)["error_message"] == shown


def test_of_what_can_not_be_compared_the_word_alone_is_kept():
    large = json.dumps({"x": "y" * 70_000}).encode()
    for sent in (large, b""):
        assert reason_of(refusal(400, "No such model"), sent) == {
            "error_type": "invalid_request",
            "error_message": None,
        }
    assert reason_of(refusal(400, PRIVATE), b"{" + PRIVATE.encode())["error_message"] == "…"  # no JSON
    assert reason_of(QuotaExceeded("Your quota is spent"), b"")["error_message"] == "Your quota is spent"


def test_nothing_is_said_of_what_went_well():
    assert reason_of(None) == {}
