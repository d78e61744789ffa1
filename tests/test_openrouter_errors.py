"""Each kind of refusal, with a body as OpenRouter sends it: which row it is, and what of it a client may see."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openrouter_errors import ROWS, Refusal, classify, clean, refusal_in, told


def refusal(status, message="", metadata=None, retry_after=None):
    error = {"code": status, "message": message} | ({"metadata": metadata} if metadata is not None else {})
    return Refusal(status, {"error": error, "user_id": "user_2abcdefghij"}, retry_after)


def edge(status):
    return Refusal(status, None)


# refusal, row, seconds that the key rests, tried with another key, status that the client gets
CASES = [
    (refusal(400, "x is not a valid model ID"), "request", 0, False, 400),
    (refusal(401, "Missing Authentication header"), "no-credentials", 0, False, 502),
    (refusal(401, "No cookie auth credentials found"), "no-credentials", 0, False, 502),
    (refusal(401, "User not found."), "key-refused", 15, True, 502),
    (
        refusal(401, "invalid x-api-key", {"provider_name": "Anthropic", "raw": "..."}),
        "provider-credentials",
        0,
        False,
        502,
    ),
    (refusal(402, "...", {"limit_source": "openrouter_in_flight_budget"}, "7"), "in-flight-budget", 2, True, 429),
    (refusal(402, "...", {"limit_source": "openrouter_key_limit"}), "key-cap-too-small", 0, True, 402),
    (refusal(402, "... create a key with a higher daily limit"), "key-cap-too-small", 0, True, 402),
    (
        refusal(402, "requires more credits, or fewer max_tokens.", {"provider_name": None}),
        "balance-too-small",
        0,
        True,
        402,
    ),
    (refusal(402, "Prompt tokens limit exceeded: 9 > 1."), "balance-too-small", 0, True, 402),
    (refusal(402, "", {"reason": "weight_exceeds_budget"}), "balance-too-small", 0, True, 402),
    (refusal(402, "Insufficient credits. Add more using https://openrouter.ai/credits"), "no-credit", 60, True, 402),
    (
        refusal(403, "m requires moderation on P.", {"reasons": ["x"], "provider_name": "P"}),
        "moderation",
        0,
        False,
        403,
    ),
    (refusal(403, "Request blocked: a pattern"), "guardrail", 0, False, 403),
    (refusal(403, "Key limit exceeded (daily limit). Manage it"), "key-limit", 60, True, 402),
    (refusal(403, "Workspace monthly budget of $5.00 exceeded. Contact"), "budget", 60, True, 402),
    (refusal(403, "Only management keys can perform this operation"), "wrong-kind-of-key", 0, False, 502),
    (refusal(403, "The prompt was declined"), "request", 0, False, 403),
    (refusal(404, "No endpoints found for x."), "request", 0, False, 404),
    (refusal(404, "No endpoints found matching your data policy"), "account-policy", 0, True, 404),
    (refusal(408, "Operation timed out."), "timed-out", 0, True, 408),
    (refusal(413, "Request payload too large"), "request", 0, False, 413),
    (refusal(422, "Invalid argument"), "request", 0, False, 422),
    (
        refusal(429, "free-models-per-min", {"limit_source": "openrouter_free_tier_per_minute"}),
        "free-tier",
        0,
        False,
        429,
    ),
    (refusal(429, "Rate limit exceeded: free-models-per-day. Add"), "free-tier", 0, False, 429),
    (
        refusal(429, "Provider returned error", {"limit_source": "upstream_provider_shared_pool"}),
        "provider",
        0,
        False,
        429,
    ),
    (refusal(429, "Rate limit exceeded"), "limited", 5, True, 429),
    (edge(429), "edge-limited", 5, True, 429),
    (refusal(500, "Internal Server Error"), "failing", 0, True, 500),
    (refusal(502, "Provider returned error", {"provider_name": "P"}), "provider-failed", 0, True, 502),
    (refusal(503, "No provider meets your routing requirements"), "routing", 0, False, 503),
    (edge(502), "edge", 0, True, 502),
    (edge(524), "edge", 0, True, 504),
    (edge(520), "edge", 0, True, 502),
    (edge(413), "edge-odd", 0, False, 413),
    (edge(404), "edge-odd", 0, False, 502),
    (edge(302), "redirect", 0, False, 502),
    (Refusal(307, {"go": "elsewhere"}), "redirect", 0, False, 502),
]


@pytest.mark.parametrize(("given_refusal", "row", "rest", "other_key", "status"), CASES)
def test_a_refusal_is_its_row(given_refusal, row, rest, other_key, status):
    found = classify(given_refusal)
    answer = found.answer(given_refusal) if found.answer else None
    assert (found.name, found.rest_seconds, found.other_key) == (row, rest, other_key)
    assert (answer.status if answer else given_refusal.status) == status


def test_every_row_has_a_case():
    assert {row.name for row in ROWS} == {case[1] for case in CASES}


def test_a_wait_that_openrouter_names_is_passed_on_within_a_minute():
    for given_wait, passed_on in (("7", "7"), ("9999", "60"), ("0", "1"), ("soon", "5"), (None, "5")):
        answer = classify(
            budget := refusal(402, "", {"limit_source": "openrouter_in_flight_budget"}, given_wait)
        ).answer(budget)
        assert answer.headers["Retry-After"] == passed_on


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


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"error": {"code": 429, "message": "x"}}, 429),
        ({"error": {"code": "server_error", "message": "x"}}, 500),
        ({"error": {"code": 200}}, 500),
        ({"error": "a text"}, 500),
        ({"choices": [{"error": {"code": 502, "message": "x"}}]}, 502),
    ],
)
def test_a_refusal_under_status_200_is_found(body, status):
    assert refusal_in(body).status == status


@pytest.mark.parametrize(
    "body", [{}, {"error": None}, {"choices": [{"finish_reason": "error"}]}, {"choices": "?"}, {"error": {}}]
)
def test_a_body_without_an_error_holds_no_refusal(body):
    assert refusal_in(body) is None


def test_errors_about_our_account_are_told_in_our_words_wherever_they_stand():
    for message, code, told_code in (
        ("User not found.", 401, 502),
        ("Key limit exceeded (total limit).", 403, 402),
        ("bad", 400, 400),
    ):
        assert told({"id": "gen-1", "error": {"code": code, "message": message}})["error"]["code"] == told_code
