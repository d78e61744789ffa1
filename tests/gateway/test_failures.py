"""Which failures another model may do better after, and which are the client's own or what it asked for."""

from __future__ import annotations

from foundation.errors import Busy, PaymentRequired, TooManyRequests
from gateway.failures import Failure, of_no_key, of_refusal, of_silence
from tests.support.rows import each_row
from upstream.refusal import Refusal


def refusal(status: int, message: str = "", **metadata: object) -> Refusal:
    return Refusal(status, {"error": {"message": message, "code": status, "metadata": metadata}})


@each_row(
    "told, kind",
    [
        (refusal(500), Failure.AWAY),
        (refusal(502, provider_name="x"), Failure.AWAY),
        (refusal(408), Failure.AWAY),
        (Refusal(524, None), Failure.AWAY),
        (refusal(401, "User not found."), Failure.AWAY),  # our key
        (refusal(402, "Insufficient credits"), Failure.AWAY),
        (refusal(403, "Key limit exceeded"), Failure.AWAY),
        (refusal(429), Failure.RATE_LIMITED),
        (refusal(429, provider_name="x"), Failure.RATE_LIMITED),
        (Refusal(429, None), Failure.RATE_LIMITED),
        (refusal(402, limit_source="openrouter_in_flight"), Failure.RATE_LIMITED),
        (refusal(400, "This endpoint's maximum context length is 8192 tokens"), Failure.TOO_LONG),
        (refusal(400, error_type="context_length_exceeded"), Failure.TOO_LONG),
        (
            refusal(400, "Provider returned error", raw="prompt is too long: 9 tokens", provider_name="x"),
            Failure.TOO_LONG,
        ),
        (Refusal(400, {"error": {"message": "no", "code": "context_length_exceeded"}}), Failure.TOO_LONG),
        (Refusal(413, None), Failure.TOO_LONG),
        (refusal(403, "flagged", reasons=["violence"]), Failure.MODERATED),
        (refusal(403, error_type="content_policy_violation"), Failure.MODERATED),
        (refusal(400, "bad temperature"), None),
        (refusal(404, "No endpoints found for m"), None),
        (refusal(404, "No endpoints found matching your data policy"), None),
        (refusal(503, "No provider meets your routing requirements"), None),
        (refusal(403, "Request blocked", patterns=["x"]), None),
        (refusal(500, "context length"), Failure.AWAY),
    ],
)
def test_what_kind_a_refusal_is(told, kind):
    assert of_refusal(told) is kind


def test_what_kind_a_silence_or_the_lack_of_a_key_is():
    assert [of_silence(kind) for kind in ("unreachable", "lost", "empty", "cut", "page")] == [Failure.AWAY] * 5
    assert of_silence("no-files") is None
    assert [of_no_key(one) for one in (Busy("x"), PaymentRequired("x"))] == [Failure.AWAY] * 2
    assert of_no_key(TooManyRequests("x", 1)) is Failure.RATE_LIMITED
