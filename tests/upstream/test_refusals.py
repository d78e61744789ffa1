"""Each kind of refusal, with a body as OpenRouter sends it: which row it is, and what it says."""

import dataclasses
import json
import math
import re
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from formats.registry import MESSAGES, RESPONSES
from sandbox.openrouter_faults import ROWS as FAULTS
from tests.support.gateway import ROOT
from tests.support.rows import each_row
from upstream.refusal import Refusal, refusal_in
from upstream.refusals import ROWS, Hits, Lasts, Other, classify, rest_seconds

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)  # a Saturday
MIDNIGHT, MONDAY, DECEMBER = 12 * 3600, 36 * 3600, 9 * 86400 + 12 * 3600
KEY, ACCOUNT, FREE, NOTHING = Hits.KEY, Hits.ACCOUNT, Hits.FREE_MODELS, Hits.NOTHING
SAME, ANY_KEY, ANY_ACCOUNT = Other.NONE, Other.KEY, Other.ACCOUNT


def refusal(status, message="", metadata=None, retry_after=None, reset=None):
    error = {"code": status, "message": message} | ({"metadata": metadata} if metadata is not None else {})
    payload = {"error": error, "user_id": "user_2abcdefghij"}
    return Refusal(status, payload, retry_after, rate_limit_reset=reset)


def late(status, message):
    return dataclasses.replace(refusal(status, message), is_late=True)


def edge(status):
    return Refusal(status, None)


def limited(status, source, **more):
    return refusal(status, "...", {"limit_source": source}, **more)


# refusal, row, what is hit, seconds that it rests, which other key is tried, status that the client gets
CASES = [
    (refusal(400, "x is not a valid model ID"), "400", NOTHING, 0, SAME, 400),
    (refusal(400, "User not found. is not a valid model ID"), "400", NOTHING, 0, SAME, 400),
    (refusal(401, "Missing Authentication header"), "401a", NOTHING, 0, SAME, 502),
    (refusal(401, "No cookie auth credentials found"), "401a", NOTHING, 0, SAME, 502),
    (refusal(401, "No auth credentials found"), "401a", NOTHING, 0, SAME, 502),
    (refusal(401, "User not found."), "401b", KEY, math.inf, ANY_KEY, 502),
    (refusal(401, "Something new"), "401b", KEY, math.inf, ANY_KEY, 502),
    (refusal(401, "This API key is disabled"), "401c", KEY, math.inf, ANY_KEY, 502),
    (
        refusal(401, "invalid x-api-key", {"provider_name": "Anthropic", "raw": "..."}),
        "401-provider",
        NOTHING,
        0,
        SAME,
        502,
    ),
    (limited(402, "openrouter_in_flight_budget"), "402a", ACCOUNT, 0, ANY_ACCOUNT, 429),
    (limited(402, "openrouter_in_flight_budget", retry_after="7"), "402a", ACCOUNT, 0, ANY_ACCOUNT, 429),
    (limited(402, "openrouter_in_flight_budget", retry_after="999999"), "402a", ACCOUNT, 0, ANY_ACCOUNT, 429),
    (limited(402, "openrouter_key_limit"), "402b", KEY, 0, ANY_KEY, 402),
    (refusal(402, "... create a key with a higher daily limit"), "402b", KEY, 0, ANY_KEY, 402),
    (limited(402, "openrouter_credits"), "402c", ACCOUNT, 0, ANY_ACCOUNT, 402),
    (
        refusal(402, "requires more credits, or fewer max_tokens.", {"provider_name": None}),
        "402c",
        ACCOUNT,
        0,
        ANY_ACCOUNT,
        402,
    ),
    (refusal(402, "Prompt tokens limit exceeded: 9 > 1."), "402c", ACCOUNT, 0, ANY_ACCOUNT, 402),
    (refusal(402, "", {"reason": "weight_exceeds_budget"}), "402c", ACCOUNT, 0, ANY_ACCOUNT, 402),
    (
        refusal(402, "Insufficient credits. Add more using https://openrouter.ai/credits"),
        "402d",
        ACCOUNT,
        0,
        ANY_ACCOUNT,
        402,
    ),
    (refusal(402, "This account never purchased credits"), "402d", ACCOUNT, 0, ANY_ACCOUNT, 402),
    (
        refusal(403, "m requires moderation on P.", {"reasons": ["x"], "provider_name": "P"}),
        "403a",
        NOTHING,
        0,
        SAME,
        403,
    ),
    (refusal(403, "Request blocked: a pattern"), "403b", NOTHING, 0, SAME, 403),
    (refusal(403, "...", {"patterns": ["x"]}), "403b", NOTHING, 0, SAME, 403),
    (refusal(403, "Key limit exceeded (daily limit). Manage it"), "403c", KEY, MIDNIGHT, ANY_KEY, 402),
    (refusal(403, "Key limit exceeded (weekly limit). Manage it"), "403c", KEY, MONDAY, ANY_KEY, 402),
    (refusal(403, "Key limit exceeded (monthly limit). Manage it"), "403c", KEY, DECEMBER, ANY_KEY, 402),
    (refusal(403, "Key limit exceeded (total limit). Manage it"), "403c", KEY, math.inf, ANY_KEY, 402),
    (refusal(403, "Workspace monthly budget of $5.00 exceeded. Contact"), "403d", KEY, DECEMBER, ANY_KEY, 402),
    (refusal(403, "Workspace lifetime budget of $5.00 exceeded. Contact"), "403d", KEY, math.inf, ANY_KEY, 402),
    (refusal(403, "This request arrived on the global data region, but the key's ..."), "403e", KEY, 0, ANY_KEY, 502),
    (
        refusal(403, "The prompt was declined", {"error_type": "content_policy_violation"}),
        "403f",
        NOTHING,
        0,
        SAME,
        403,
    ),
    (refusal(403, "The prompt was declined", {"error_type": "refusal"}), "403f", NOTHING, 0, SAME, 403),
    (refusal(403, "Only management keys can perform this operation"), "403g", NOTHING, 0, SAME, 502),
    (refusal(403, "unsupported", {"raw": "unsupported_country_region_territory"}), "provider", NOTHING, 0, SAME, 403),
    (refusal(403, "The prompt said: a budget of $5"), "400", NOTHING, 0, SAME, 403),
    (refusal(404, "No endpoints found for x."), "404a", NOTHING, 0, SAME, 404),
    (refusal(404, "No endpoints found matching your data policy"), "404b", NOTHING, 0, ANY_ACCOUNT, 404),
    (refusal(404, "No allowed providers are available for the selected model"), "404b", NOTHING, 0, ANY_ACCOUNT, 404),
    (refusal(408, "Operation timed out."), "408", NOTHING, 0, ANY_KEY, 408),
    (refusal(412, "Precondition failed"), "400", NOTHING, 0, SAME, 412),
    (refusal(413, "Request payload too large"), "400", NOTHING, 0, SAME, 413),
    (
        refusal(422, "Downloaded image content cannot exceed 30MB", {"provider_name": None}),
        "400",
        NOTHING,
        0,
        SAME,
        422,
    ),
    (limited(429, "openrouter_free_tier_per_minute"), "429a", FREE, 60, ANY_ACCOUNT, 429),
    (limited(429, "openrouter_free_tier_per_minute", reset="1795262430000"), "429a", FREE, 30, ANY_ACCOUNT, 429),
    (limited(429, "openrouter_free_tier_per_minute", reset="1781481600000"), "429a", FREE, 60, ANY_ACCOUNT, 429),
    (limited(429, "openrouter_free_tier_per_minute", reset="99999999999999"), "429a", FREE, 60, ANY_ACCOUNT, 429),
    (refusal(429, "Rate limit exceeded: free-models-per-day. Add"), "429b", FREE, MIDNIGHT, ANY_ACCOUNT, 429),
    (refusal(429, "Rate limit exceeded: free-models-per-day-high-balance. "), "429b", FREE, MIDNIGHT, ANY_ACCOUNT, 429),
    (
        refusal(
            429, "", {"limit_source": "openrouter_free_tier_daily", "headers": {"X-RateLimit-Reset": "1795262405000"}}
        ),
        "429b",
        FREE,
        5,
        ANY_ACCOUNT,
        429,
    ),
    (limited(429, "openrouter_free_tier_daily"), "429b", FREE, 3600, ANY_ACCOUNT, 429),
    (
        refusal(429, "Provider returned error", {"limit_source": "upstream_provider_shared_pool"}),
        "429c",
        NOTHING,
        0,
        SAME,
        429,
    ),
    (
        Refusal(429, {"error": {"message": "You exceeded your current quota", "code": "insufficient_quota"}}),
        "429",
        NOTHING,
        0,
        ANY_KEY,
        429,
    ),
    (refusal(429, "Rate limit exceeded"), "429", NOTHING, 0, ANY_KEY, 429),
    (refusal(429, "Rate limit exceeded", retry_after="40"), "429", NOTHING, 0, ANY_KEY, 429),
    (limited(429, "openrouter_something"), "429d", KEY, 5, ANY_KEY, 429),
    (limited(429, "openrouter_something", retry_after="40"), "429d", KEY, 40, ANY_KEY, 429),
    (
        refusal(429, "Rate limit exceeded: free-models-per-day", {"provider_name": "Google"}),
        "429b",
        FREE,
        MIDNIGHT,
        ANY_ACCOUNT,
        429,
    ),
    (
        refusal(429, "...", {"provider_name": "Google", "limit_source": "openrouter_free_tier_per_minute"}),
        "429a",
        FREE,
        60,
        ANY_ACCOUNT,
        429,
    ),
    (refusal(402, "Payment required"), "402", NOTHING, 0, ANY_ACCOUNT, 402),
    (refusal(402, "Insufficient Balance"), "402", NOTHING, 0, ANY_ACCOUNT, 402),
    (limited(402, "openrouter_something"), "402d", ACCOUNT, 0, ANY_ACCOUNT, 402),
    (late(402, "Insufficient credits"), "200-40x", NOTHING, 0, SAME, 502),
    (late(401, "User not found."), "200-40x", NOTHING, 0, SAME, 502),
    (late(429, "Rate limit exceeded"), "200-429", NOTHING, 0, SAME, 429),
    (late(403, "Key limit exceeded (daily limit)."), "400", NOTHING, 0, SAME, 403),
    (late(500, "Internal Server Error"), "5xx", NOTHING, 0, ANY_KEY, 500),
    (edge(429), "429d-edge", NOTHING, 0, SAME, 429),
    (refusal(499, "Client closed request"), "499", NOTHING, 0, SAME, 499),
    (refusal(500, "Internal Server Error"), "5xx", NOTHING, 0, ANY_KEY, 500),
    (refusal(502, "Provider returned error", {"provider_name": "P"}), "5xx-provider", NOTHING, 0, ANY_KEY, 502),
    (refusal(502, "Upstream error from Nvidia: overloaded"), "5xx-provider", NOTHING, 0, ANY_KEY, 502),
    (refusal(503, "No provider meets your routing requirements"), "503-routing", NOTHING, 0, SAME, 503),
    (refusal(503, "Service temporarily unavailable", retry_after="9"), "5xx", NOTHING, 0, ANY_KEY, 503),
    (edge(502), "5xx-edge", NOTHING, 0, ANY_KEY, 502),
    (edge(524), "5xx-edge", NOTHING, 0, ANY_KEY, 504),
    (edge(520), "5xx-edge", NOTHING, 0, ANY_KEY, 502),
    (edge(401), "edge", NOTHING, 0, SAME, 502),
    (edge(403), "edge", NOTHING, 0, SAME, 403),
    (edge(413), "edge", NOTHING, 0, SAME, 413),
    (edge(404), "edge", NOTHING, 0, SAME, 404),
    (edge(302), "3xx", NOTHING, 0, SAME, 502),
    (Refusal(307, {"go": "elsewhere"}), "3xx", NOTHING, 0, SAME, 502),
]


@each_row(("given_refusal", "row", "hits", "seconds", "other", "status"), CASES)
def test_a_refusal_is_its_row(given_refusal, row, hits, seconds, other, status):
    found = classify(given_refusal)
    answer = found.answer(given_refusal) if found.answer else None
    assert (found.id, found.hits, found.other) == (row, hits, other)
    assert rest_seconds(found, given_refusal, NOW) == seconds
    assert (answer.status if answer else given_refusal.status) == status


def test_every_row_has_a_case():
    assert {row.id for row in ROWS} == {case[1] for case in CASES}
    assert len({row.id for row in ROWS}) == len({row.name for row in ROWS}) == len(ROWS)


# The stand-in's rows whose names are not those of our table.
SAME_AS = {
    **dict.fromkeys(["302", "307"], "3xx"),
    **dict.fromkeys(["400-model", "400-context", "405", "412", "413", "422"], "400"),
    **dict.fromkeys(["404", "404-generation", "404-key"], "404a"),
    **dict.fromkeys(["520", "521", "522", "523", "502-html", "524-html"], "5xx-edge"),
    **dict.fromkeys(["500", "502", "504", "529"], "5xx-provider"),  # 500: a provider that echoes its request
    "400-responses": "provider",
    "503": "5xx",
    "524": "5xx",
    "413-html": "edge",
    "429d": "429d-edge",
}


@each_row("label", FAULTS)
def test_what_the_stand_in_answers_is_the_row_of_that_name(label):
    reply = FAULTS[label].reply({})
    payload = json.loads(reply.body) if reply.body.startswith(b"{") else None
    assert classify(Refusal(reply.status, payload)).id == SAME_AS.get(label, label)


@given(
    st.sampled_from([400, 404, 408, 412, 413, 422, 499]) | st.integers(500, 599),
    st.text(max_size=40) | st.sampled_from([case[0].message for case in CASES]),
    st.dictionaries(
        st.sampled_from(["limit_source", "provider_name", "raw", "reason", "headers"]), st.text(max_size=9)
    ),
)
def test_what_a_client_does_wrong_and_what_fails_behind_openrouter_never_counts_against_a_key(
    status, message, metadata
):
    assert classify(refusal(status, message, metadata)).hits is NOTHING


@given(
    st.sampled_from([401, 402, 403, 429]),
    st.sampled_from([case[0].message for case in CASES]),
    st.sampled_from([{"provider_name": "P"}, {"raw": "..."}, {"limit_source": "upstream_byok"}]),
)
def test_what_a_provider_refuses_never_counts_against_a_key(status, message, metadata):
    row = classify(refusal(status, message, metadata))
    if "free-models-per" in message and "limit_source" not in metadata and status == 429:
        assert row.hits is FREE  # OpenRouter's own limit, which names a provider, too
        return
    assert row.hits is NOTHING
    assert row.other is SAME


@given(
    st.integers(400, 599),
    st.text(max_size=40) | st.sampled_from([case[0].message for case in CASES]),
    st.dictionaries(
        st.sampled_from(["limit_source", "provider_name", "reason", "error_type"]),
        st.sampled_from(["openrouter_credits", "openrouter_free_tier_daily", "upstream_x", "payment_required", "P"]),
    ),
)
def test_what_comes_after_a_200_never_counts_against_anything_and_says_nothing_of_our_account(
    status, message, metadata
):
    found = dataclasses.replace(refusal(status, message, metadata), is_late=True)
    row = classify(found)
    assert row.hits is NOTHING
    assert row.answer is None or row.answer(found).status == 502


@each_row("read", [refusal_in, MESSAGES.refusal_in, RESPONSES.refusal_in], ids=["chat", "messages", "responses"])
@each_row("error", [{"code": 429}, {"type": "rate_limit_error"}, {"code": "rate_limit_exceeded"}])
def test_each_format_reads_what_an_answer_holds_as_late(read, error):
    assert read({"error": {"message": "x", **error}}).is_late


@each_row("status", range(200, 600))
def test_what_is_no_json_never_counts_against_a_key(status):
    assert classify(edge(status)).hits is NOTHING


@pytest.mark.parametrize(
    ("now", "period", "reset"),
    [
        (datetime(2026, 11, 30, 23, 59, 59, tzinfo=UTC), "daily", datetime(2026, 12, 1, tzinfo=UTC)),
        (datetime(2026, 11, 23, 0, 0, tzinfo=UTC), "weekly", datetime(2026, 11, 30, tzinfo=UTC)),
        (datetime(2026, 11, 22, 23, 0, tzinfo=UTC), "weekly", datetime(2026, 11, 23, tzinfo=UTC)),
        (datetime(2026, 12, 31, 1, 0, tzinfo=UTC), "monthly", datetime(2027, 1, 1, tzinfo=UTC)),
        (datetime(2027, 2, 1, 0, 0, tzinfo=UTC), "monthly", datetime(2027, 3, 1, tzinfo=UTC)),
    ],
)
def test_limits_begin_anew_at_midnight_on_mondays_and_on_the_first(now, period, reset):
    spent = refusal(403, f"Key limit exceeded ({period} limit).")
    assert rest_seconds(classify(spent), spent, now) == (reset - now).total_seconds()


# ── the document


def lasting(row):
    """How long a row's rest lasts, in the document's words."""
    if row.hits is Hits.NOTHING:
        return "-"
    if row.lasts is Lasts.SECONDS:
        return f"{row.rest_seconds} s or `Retry-After`"
    return row.lasts.value + (f", else {row.rest_seconds} s" if row.rest_seconds else "")


def told_to_clients(row):
    if not row.answer:
        return "OpenRouter's, cleaned"
    told = {status: row.answer(Refusal(status, None)).status for status in row.statuses if 300 <= status < 600}
    if len(told) < 200:
        return "ours: " + ", ".join(map(str, sorted(set(told.values()))))
    others = {status for sent, status in told.items() if status != sent or status >= 500}
    return "ours: the same 4xx, or " + ", ".join(map(str, sorted(others)))


def table():
    """What docs/upstream-errors.md must hold, but for its last column."""
    others = {Other.NONE: "no", Other.KEY: "any", Other.ACCOUNT: "of another account"}
    for row in ROWS:
        named = {1000: "any", 100: f"{row.statuses.start // 100}xx"}
        status = named.get(len(row.statuses), ", ".join(map(str, row.statuses)))
        cells = [row.id, row.name, status, row.hits.value, lasting(row), others[row.other], told_to_clients(row)]
        yield "| " + " | ".join(map(str, cells)) + " | "


def test_the_document_shows_the_table_row_by_row():
    lines = [
        line for line in (ROOT / "docs/upstream-errors.md").read_text().splitlines() if re.match(r"\| [0-9a-z]", line)
    ]
    rows = [line for line in lines if not line.startswith("| row ")]
    wanted = list(table())
    wrong = [
        want
        for want, line in zip(wanted, rows, strict=False)
        if not (line.startswith(want) and len(line) > len(want) + 9)
    ]
    if wrong or len(rows) != len(wanted):
        pytest.fail("docs/upstream-errors.md differs from upstream/refusals.py; it must have:\n\n" + "\n".join(wanted))


# ── what a client is told


def test_a_wait_that_openrouter_names_is_passed_on_within_a_minute():
    for given_wait, passed_on in (("7", "7"), ("9999", "60"), ("0", "5"), ("soon", "5"), (None, "5")):
        answer = classify(
            budget := refusal(402, "", {"limit_source": "openrouter_in_flight_budget"}, given_wait)
        ).answer(budget)
        assert answer.headers["Retry-After"] == passed_on


# ── refusals in other formats' envelopes


def anthropic(status, message="", error_type="api_error", **beside):
    error = {"type": error_type, "message": message}
    return Refusal(status, {"type": "error", "error": error, "request_id": None, **beside})


@each_row(
    ("found", "row"),
    [
        (anthropic(401, "User not found.", "authentication_error"), "401b"),
        (anthropic(401, "invalid x-api-key", metadata={"provider_name": "Anthropic", "raw": "..."}), "401-provider"),
        (anthropic(402, "Insufficient credits. Add more", "billing_error"), "402d"),
        (anthropic(402, "...", "billing_error", metadata={"limit_source": "openrouter_in_flight_budget"}), "402a"),
        (anthropic(403, "Key limit exceeded (total limit).", "permission_error"), "403c"),
        (anthropic(403, "flagged", "permission_error", metadata={"reasons": ["x"]}), "403a"),
        (anthropic(429, "...", "rate_limit_error", metadata={"limit_source": "upstream_provider_shared_pool"}), "429c"),
        (anthropic(429, "Rate limit exceeded: free-models-per-min", "rate_limit_error"), "429a"),
        (anthropic(529, "Overloaded", "overloaded_error"), "5xx"),
        (Refusal(403, {"type": "error", "error": {"message": "no", "error_type": "refusal"}}), "403f"),
    ],
)
def test_a_refusal_in_anthropics_envelope_is_the_same_as_any_other(found, row):
    assert classify(found).id == row
