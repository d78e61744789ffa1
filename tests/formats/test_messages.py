"""Anthropic's Messages: which events say something, usage from both ends of a stream, errors in their envelope."""

import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from formats.chat import Kind
from formats.event_stream import EventStream
from formats.registry import MESSAGES
from foundation.errors import AppError, Busy, Forbidden, PayloadTooLarge, QuotaExceeded, TooManyRequests, Unauthorized
from tests.support.rows import each_row
from upstream.refusal import Refusal


def event(said, **fields):
    return f"event: {said if isinstance(said, str) else 0}\ndata: {json.dumps({'type': said, **fields})}\n\n".encode()


BEGUN = {"input_tokens": 12, "cache_read_input_tokens": 5, "cache_creation_input_tokens": None, "output_tokens": 1}
START = event("message_start", message={"id": "gen-7", "content": [], "usage": BEGUN | {"cost": 0.5}})
PING = event("ping")
BLOCK = event("content_block_start", index=0, content_block={"type": "text", "text": "", "citations": None})
TEXT = event("content_block_delta", index=0, delta={"type": "text_delta", "text": 'say "message_stop" or "error"'})
BLOCK_END = event("content_block_stop", index=0)
USAGE = {"input_tokens": None, "output_tokens": 18, "cost": 0.0000123}
DELTA = event("message_delta", delta={"stop_reason": "end_turn"}, usage=USAGE)
STOP = event("message_stop")
STREAM = START + PING + BLOCK + TEXT + BLOCK_END + DELTA + STOP


def read(*pieces):
    events = EventStream(MESSAGES)
    out = b"".join(events.feed(piece) for piece in pieces)
    return out + events.finish(), events


@given(st.integers(1, 500))
def test_a_stream_passes_byte_for_byte_and_its_usage_is_put_together(size):
    out, events = read(*(STREAM[i : i + size] for i in range(0, len(STREAM), size)))
    assert out == STREAM
    assert events.done
    assert events.refusal is None
    found = {name: events.usage[name] for name in ("prompt_tokens", "completion_tokens", "cost")}
    assert found == {"prompt_tokens": 17, "completion_tokens": 18, "cost": Decimal("0.0000123")}


def test_what_a_stream_says_before_its_end_is_no_cost_and_no_count_of_what_was_written():
    _, events = read(START + TEXT)
    assert (events.usage["prompt_tokens"], events.usage["completion_tokens"]) == (17, None)
    assert "cost" not in events.usage
    assert not events.done


def test_a_whole_bodys_usage_has_chats_names():
    usage = MESSAGES.usage_in({"type": "message", "usage": {"input_tokens": 3, "output_tokens": 4, "cost": 1}})
    usage = MESSAGES.with_usage(None, usage)
    assert (usage["prompt_tokens"], usage["completion_tokens"], usage["cost"]) == (3, 4, 1)


@pytest.mark.parametrize("odd", ["x", -1.5, True, [1], {"a": 1}, None])
def test_odd_counts_are_survived(odd):
    usage = MESSAGES.with_usage(None, {"input_tokens": odd, "output_tokens": odd})
    assert usage["prompt_tokens"] is None


@each_row(
    ("one", "kind"),
    [
        (b": a comment\n\n", Kind.COMMENT),
        (START, Kind.EMPTY),
        (PING, Kind.EMPTY),
        (BLOCK, Kind.EMPTY),
        (BLOCK_END, Kind.EMPTY),
        (STOP, Kind.EMPTY),
        (b"data: [DONE]\n\n", Kind.EMPTY),
        (event("content_block_delta", delta={"type": "text_delta", "text": ""}), Kind.EMPTY),
        (event("content_block_start", content_block={"type": "thinking", "thinking": "", "signature": ""}), Kind.EMPTY),
        (TEXT, Kind.CONTENT),
        (event("content_block_delta", delta={"type": "thinking_delta", "thinking": "hm"}), Kind.CONTENT),
        (event("content_block_delta", delta={"type": "input_json_delta", "partial_json": "{"}), Kind.CONTENT),
        (event("content_block_start", content_block={"type": "tool_use", "name": "f", "input": {}}), Kind.CONTENT),
        (event("content_block_start", content_block={"type": "redacted_thinking", "data": "x"}), Kind.CONTENT),
        (event("content_block_start", content_block="odd"), Kind.CONTENT),
        (event("content_block_delta", delta="odd"), Kind.CONTENT),
        (DELTA, Kind.CONTENT),
        (event("something_new"), Kind.CONTENT),
        (b"event: message_start\ndata: {not json\n\n", Kind.CONTENT),
        (b"event: ping\n\n", Kind.CONTENT),
        (event("error", error={"type": "overloaded_error", "message": "Overloaded"}), Kind.ERROR),
        (event("error"), Kind.ERROR),
        (b'data: {"error":{"code":502,"message":"as in chat"}}\n\n', Kind.ERROR),
    ],
)
def test_events_are_told_apart(one, kind):
    assert MESSAGES.kind_of(one) is kind
    assert MESSAGES.kind_of(one.replace(b"\n", b"\r\n")) is kind


# ── errors


@each_row(
    ("error", "status"),
    [
        ({"type": "invalid_request_error"}, 400),
        ({"type": "authentication_error"}, 401),
        ({"type": "billing_error"}, 402),
        ({"type": "permission_error"}, 403),
        ({"type": "not_found_error"}, 404),
        ({"type": "request_too_large"}, 413),
        ({"type": "rate_limit_error"}, 429),
        ({"type": "api_error"}, 500),
        ({"type": "overloaded_error"}, 503),
        ({"type": "timeout_error"}, 504),
        ({"type": "something_new"}, 500),
        ({"type": "api_error", "error_type": "provider_unavailable"}, 502),
        ({"type": "api_error", "code": 408}, 408),
        ({}, 500),
        ("a text", 500),
        (None, 500),
    ],
)
def test_an_error_event_has_the_status_that_its_words_stand_for(error, status):
    _, events = read(event("error", error=error))
    assert events.refusal.status == status


def test_an_error_of_the_account_is_told_in_our_words_and_keeps_its_event():
    spent = {"type": "billing_error", "message": "Insufficient credits of user_2abcdefghij"}
    out, _ = read(TEXT, event("error", error=spent, user_id="user_2abcdefghij"))
    name, _, data = out.removeprefix(TEXT).partition(b"\n")
    told = json.loads(data.removeprefix(b"data: "))
    assert name == b"event: error"
    assert told["error"]["type"] == "api_error"  # not the client's credit, nor, after a 200, our account's
    assert "Insufficient" not in told["error"]["message"]
    assert b"user_2" not in out


def test_a_clients_own_error_keeps_its_message_without_what_names_our_account():
    bad = {"type": "invalid_request_error", "message": "sk-or-v1-0123abcd can't", "error_type": "invalid_prompt"}
    out, _ = read(event("error", error=bad, metadata={"raw": "PROMPT", "provider_name": "P"}, request_id=None))
    assert json.loads(out.partition(b"data: ")[2]) == {
        "type": "error",
        "error": {"type": "invalid_request_error", "message": "*** can't", "error_type": "invalid_prompt"},
        "request_id": None,
        "metadata": {"provider_name": "P"},
    }


@pytest.mark.parametrize(
    ("status", "payload", "error_type"),
    [
        (400, {"type": "error", "error": {"type": "invalid_request_error", "message": "bad"}}, "invalid_request_error"),
        (404, {"error": {"code": 404, "message": "bad", "metadata": {"raw": "PROMPT"}}}, "not_found_error"),
        (429, {"error": {"code": 429, "message": "bad", "type": "odd"}, "user_id": "user_2ab"}, "rate_limit_error"),
        (418, {"error": {"message": "bad"}}, "invalid_request_error"),
        (529, {"error": {"message": "bad"}}, "overloaded_error"),
        (500, {"error": {"message": "bad"}}, "api_error"),
    ],
)
def test_a_refusal_comes_back_in_the_envelope_whichever_it_came_in(status, payload, error_type):
    told = json.loads(MESSAGES.refusal_body(Refusal(status, payload), "r-1"))
    assert told == {"type": "error", "error": {"type": error_type, "message": "bad"}, "request_id": "r-1"}
    data = MESSAGES.refusal_event(Refusal(status, payload))
    assert data.startswith(b"event: error\ndata: ")
    assert json.loads(data.partition(b"data: ")[2])["error"]["type"] == error_type


@pytest.mark.parametrize("payload", [None, {}, {"error": "text"}, {"error": {"message": ""}}, {"type": "error"}])
def test_a_refusal_of_an_odd_form_is_still_an_error(payload):
    told = json.loads(MESSAGES.refusal_body(Refusal(418, payload), "r-1"))
    assert told["error"]["type"] == "api_error"
    assert "418" in told["error"]["message"]


@pytest.mark.parametrize(
    ("error", "error_type"),
    [
        (Unauthorized("x"), "authentication_error"),
        (QuotaExceeded("x"), "billing_error"),
        (Forbidden("x"), "permission_error"),
        (PayloadTooLarge("x"), "request_too_large"),
        (TooManyRequests("x", 5), "rate_limit_error"),
        (Busy("x"), "overloaded_error"),
        (AppError("x"), "api_error"),
    ],
)
def test_our_own_errors_have_the_envelope(error, error_type):
    expected = {"type": "error", "error": {"type": error_type, "message": "x"}, "request_id": "r-1"}
    assert json.loads(MESSAGES.error_body(error, "r-1")) == expected
    data = MESSAGES.error_event(error, "gen-1", "m", 3)
    assert data.startswith(b"event: error\ndata: ")
    assert data.endswith(b"\n\n")
    assert json.loads(data[19:])["error"] == expected["error"]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["error", "type", "usage", "message", "code"]), inner)
    ),
    max_leaves=10,
)
TYPES = ["error", "message_start", "message_delta", "content_block_delta", "content_block_start", "message", [], {}, 7]


@given(st.dictionaries(st.sampled_from(["error", "message", "usage", "delta", "content_block"]), json_values))
def test_any_event_is_survived(fields):
    for said in TYPES:
        out, _ = read(event(said, **fields))
        assert out.endswith(b"\n\n")
        MESSAGES.kind_of(event(said, **fields))
