"""What one refusal says: under any status, in any format, and for how long it asks to wait."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from foundation.errors import ERROR_TYPES
from tests.support.rows import each_row
from upstream.refusal import STATUS_OF_WORD, Refusal, refusal_in, retry_after, seconds_to_wait, status_of_word

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)  # a Saturday


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"error": {"code": 429, "message": "x"}}, 429),
        ({"error": {"code": "server_error", "message": "x"}}, 500),
        ({"error": {"code": 200}}, 500),
        ({"error": "a text"}, 500),
        ({"choices": [{"error": {"code": 502, "message": "x"}}]}, 502),
        ({"choices": [{"finish_reason": "stop"}, {"finish_reason": "error"}]}, 502),
    ],
)
def test_a_refusal_under_status_200_is_found(body, status):
    assert refusal_in(body).status == status


@pytest.mark.parametrize(
    "body", [{}, {"error": None}, {"choices": [{"finish_reason": "stop"}]}, {"choices": "?"}, {"error": {}}]
)
def test_a_body_without_an_error_holds_no_refusal(body):
    assert refusal_in(body) is None


@pytest.mark.parametrize(
    ("header", "in_body", "expected"),
    [("7", 30, "7"), (None, 30, "30"), (None, 2.5, "2"), (None, None, ""), ("soon", None, ""), (None, "x", "")],
)
def test_how_long_a_client_is_asked_to_wait(header, in_body, expected):
    payload = {"error": {"code": 429, "message": "x", "metadata": {"retry_after_seconds": in_body}}}
    assert retry_after(Refusal(429, payload, header)) == expected


@each_row(
    ("header", "seconds"),
    [
        ("90", "90"),
        (" 1.5 ", "1.5"),
        ("Sat, 21 Nov 2026 12:01:30 GMT", "90"),
        ("Saturday, 21-Nov-26 12:01:30 GMT", "90"),
        ("Sat Nov 21 12:01:30 2026", "90"),
        ("Sat, 21 Nov 2026 13:01:30 +0100", "90"),
        ("Sat, 21 Nov 2026 11:00:00 GMT", "0"),
        ("soon", None),
        ("Sat, 99 Nov 2026 11:00:00 GMT", None),
        ("Sat, 21 Nov 99999 11:00:00 GMT", None),
        ("", None),
        (None, None),
    ],
)
def test_a_wait_comes_in_seconds_or_as_a_date(header, seconds):
    assert seconds_to_wait(header, NOW) == seconds


def test_the_metadata_of_an_answer_is_the_clients_own_and_says_nothing_of_a_refusal():
    made_up = {"limit_source": "openrouter_in_flight_budget", "provider_name": "P"}
    answer = {"object": "response", "status": "failed", "error": {"code": "x", "message": "m"}, "metadata": made_up}
    assert Refusal(402, answer).metadata == {}


@each_row("word", [None, 7, [], {}, "", "server_error", "api_error", "something_new"])
def test_words_that_say_nothing_have_no_status(word):
    assert status_of_word(word) is None


def test_each_of_openrouters_words_for_errors_has_its_status():
    words = {word for status, word in ERROR_TYPES.items() if status < 500 and status not in {405, 408, 415}}
    assert {word: STATUS_OF_WORD[word] for word in words} == {
        word: status for status, word in ERROR_TYPES.items() if word in words and status not in {405, 408, 415}
    }
