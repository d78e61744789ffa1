"""OpenAI's Responses: which events say something, usage at the end only, errors flat and nested."""

import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from formats.chat import MAX_HELD_BYTES, Kind
from formats.event_stream import EventStream
from formats.registry import RESPONSES
from formats.responses import MAX_HELD_RESPONSE_BYTES
from foundation.errors import TooManyRequests, UpstreamFailed
from tests.support.rows import each_row
from upstream.refusal import Refusal


def event(said, **fields):
    return f"event: {said if isinstance(said, str) else 0}\ndata: {json.dumps({'type': said, **fields})}\n\n".encode()


RESPONSE = {"id": "resp_1", "object": "response", "status": "in_progress", "error": None, "usage": None}
CREATED = event("response.created", response=RESPONSE, sequence_number=0)
ITEM = event("response.output_item.added", item={"type": "message", "content": []})
PART = event("response.content_part.added", part={"type": "output_text", "text": "", "annotations": []})
TEXT = event("response.output_text.delta", delta='a "response" with "usage" and "error"', sequence_number=4)
USAGE = {"input_tokens": 10, "output_tokens": 25, "total_tokens": 35, "cost": 0.0012}
COMPLETED = event("response.completed", response=RESPONSE | {"status": "completed", "usage": USAGE})
STREAM = CREATED + ITEM + PART + TEXT + COMPLETED


def read(*pieces):
    events = EventStream(RESPONSES)
    out = b"".join(events.feed(piece) for piece in pieces)
    return out + events.finish(), events


def in_pieces(data, size):
    return [data[i : i + size] for i in range(0, len(data), size)]


@given(st.integers(1, 500))
def test_a_stream_passes_byte_for_byte_and_its_usage_is_found(size):
    out, events = read(*in_pieces(STREAM, size))
    assert out == STREAM
    assert (events.done, events.refusal) == (True, None)
    found = {name: events.usage[name] for name in ("prompt_tokens", "completion_tokens", "cost")}
    assert found == {"prompt_tokens": 10, "completion_tokens": 25, "cost": Decimal("0.0012")}


@pytest.mark.parametrize("end", ["response.completed", "response.incomplete", "response.failed", "response.done"])
def test_each_end_is_one(end):
    assert read(TEXT, event(end, response=RESPONSE))[1].done
    assert not read(TEXT, event("response.output_text.done", text=end))[1].done


def test_usage_before_the_end_is_not_believed():
    _, events = read(event("response.in_progress", response=RESPONSE | {"usage": USAGE}))
    assert events.usage is None


def test_a_tool_that_looks_like_usage_is_none():
    tool = {"type": "function", "parameters": {"usage": {"cost": 0, "input_tokens": 0, "output_tokens": 0}}}
    body = RESPONSE | {"tools": [tool], "usage": USAGE, "metadata": {"z": 1}}
    _, events = read(
        event("response.created", response=body | {"usage": None}), event("response.completed", response=body)
    )
    assert events.usage["cost"] == Decimal("0.0012")
    assert RESPONSES.usage_in(body) == USAGE
    assert not RESPONSES.reads_tail


def test_an_end_that_repeats_a_long_request_is_read_all_the_same():
    long = RESPONSE | {"instructions": "x" * MAX_HELD_BYTES * 4, "usage": USAGE, "tools": [{"error": {}}]}
    stream = (
        event("response.created", response=long | {"usage": None}) + TEXT + event("response.completed", response=long)
    )
    out, events = read(*in_pieces(stream, 16384))
    assert out == stream
    assert events.done
    assert events.usage["cost"] == Decimal("0.0012")


def test_an_end_too_long_to_be_read_passes_unread():
    long = event("response.completed", response=RESPONSE | {"instructions": "x" * MAX_HELD_RESPONSE_BYTES * 2})
    out, events = read(*in_pieces(CREATED + long, 100_000))
    assert out == CREATED + long
    assert events.is_unread


@each_row(
    ("one", "kind"),
    [
        (b": a comment\n\n", Kind.COMMENT),
        (CREATED, Kind.EMPTY),
        (event("response.in_progress", response=RESPONSE), Kind.EMPTY),
        (event("response.queued", response=RESPONSE), Kind.EMPTY),
        (event("response.debug", debug={}), Kind.EMPTY),
        (ITEM, Kind.EMPTY),
        (event("response.output_item.added", item={"type": "reasoning", "summary": []}), Kind.EMPTY),
        (PART, Kind.EMPTY),
        (event("response.output_text.delta", delta=""), Kind.EMPTY),
        (b"data: [DONE]\n\n", Kind.EMPTY),
        (event("response.output_item.added", item={"type": "function_call", "name": "f"}), Kind.CONTENT),
        (event("response.output_item.added", item="odd"), Kind.CONTENT),
        (event("response.content_part.added", part={"type": "output_text", "text": "x"}), Kind.CONTENT),
        (TEXT, Kind.CONTENT),
        (event("response.reasoning_text.delta", delta="hm"), Kind.CONTENT),
        (event("response.function_call_arguments.delta", delta="{"), Kind.CONTENT),
        (COMPLETED, Kind.CONTENT),
        (event("response.incomplete", response=RESPONSE), Kind.CONTENT),
        (event("response.something_new"), Kind.CONTENT),
        (b"data: {not json\n\n", Kind.CONTENT),
        (b"data: 7\n\n", Kind.CONTENT),
        (event("error", code="server_error", message="x"), Kind.ERROR),
        (event("response.error", error={"code": 500}), Kind.ERROR),
        (event("response.failed", response=RESPONSE | {"error": {"code": "server_error"}}), Kind.ERROR),
        (event("response.failed", response=RESPONSE), Kind.ERROR),
        (b'data: {"error":{"code":502,"message":"as in chat"}}\n\n', Kind.ERROR),
    ],
)
def test_events_are_told_apart(one, kind):
    assert RESPONSES.kind_of(one) is kind
    assert RESPONSES.kind_of(one.replace(b"\n", b"\r\n")) is kind


# ── errors


@each_row(
    ("one", "status"),
    [
        (event("error", code="rate_limit_exceeded", message="x"), 429),
        (event("error", code="server_error", message="x"), 500),
        (event("error", code="invalid_prompt", message="x"), 400),
        (event("error", error={"code": 408, "message": "x"}), 408),
        (event("response.failed", response=RESPONSE | {"error": {"code": "invalid_image", "message": "x"}}), 400),
        (
            event(
                "response.failed",
                response=RESPONSE | {"error": {"code": "server_error"}, "error_type": "provider_unavailable"},
            ),
            502,
        ),
        (event("response.failed", response=RESPONSE | {"error": "a text"}), 500),
        (b'data: {"error":{"code":503,"message":"x"}}\n\n', 503),
    ],
)
def test_an_error_has_the_status_that_its_words_stand_for(one, status):
    _, events = read(one)
    assert events.refusal.status == status


@pytest.mark.parametrize(
    ("one", "error_of"),
    [
        (event("error", code="x", message="sk-or-v1-0123abcd", sequence_number=2), lambda told: told),
        (event("error", error={"code": 400, "message": "sk-or-v1-0123abcd", "stack": "x"}), lambda told: told["error"]),
        (
            event(
                "response.failed",
                response=RESPONSE | {"error": {"code": "invalid_prompt", "message": "sk-or-v1-0123abcd"}},
            ),
            lambda told: told["response"]["error"],
        ),
    ],
)
def test_an_error_passes_cleaned_wherever_it_stands(one, error_of):
    out, _ = read(one)
    assert b"sk-or" not in out
    assert out.startswith(one.partition(b"\n")[0])
    assert error_of(json.loads(out.partition(b"data: ")[2]))["message"] == "***"
    assert b"stack" not in out


@pytest.mark.parametrize(
    "one",
    [
        event("error", code="authentication", message="User not found."),
        event("error", error={"code": 401, "message": "User not found."}),
        event("response.failed", response=RESPONSE | {"error": {"code": 401, "message": "User not found."}}),
        b'data: {"error":{"code":401,"message":"User not found."}}\n\n',
    ],
)
def test_an_error_about_credentials_is_told_in_our_words_wherever_it_stands(one):
    out, events = read(one)
    assert events.refusal.status == 401
    assert b"User not found" not in out
    assert b"401" not in out
    assert b"The model's provider refused" in out


def test_a_failed_body_holds_a_refusal_and_keeps_the_clients_own_fields():
    failed = RESPONSE | {
        "status": "failed",
        "metadata": {"mine": "x"},
        "error": {"code": "invalid_prompt", "message": "m"},
    }
    assert RESPONSES.refusal_in(failed).status == 400
    assert RESPONSES.refusal_in(RESPONSE) is None
    assert RESPONSES.told(failed) == failed


def test_a_refusal_with_metadata_beside_its_error_is_cleaned_there_too():
    payload = {"error": {"code": "invalid_prompt", "message": "bad"}, "metadata": {"raw": "PROMPT", "reason": "r"}}
    refusal = Refusal(400, payload, body=json.dumps(payload).encode())
    assert json.loads(RESPONSES.refusal_body(refusal, "r-1")) == {
        "error": {"code": "invalid_prompt", "message": "bad"},
        "metadata": {"reason": "r"},
    }


def test_our_errors_in_a_stream_are_flat_for_the_document_and_nested_for_the_sdks():
    data = RESPONSES.error_event(UpstreamFailed("Broke off"), "gen-1", "m", 7)
    assert data.startswith(b"event: error\ndata: ")
    told = json.loads(data[19:])
    nested = told.pop("error")
    assert told == {
        "type": "error",
        "code": "server_error",
        "message": "Broke off",
        "param": None,
        "sequence_number": 7,
    }
    assert (nested["code"], nested["message"], nested["type"]) == ("server_error", "Broke off", "upstream_failed")
    limited = json.loads(RESPONSES.error_event(TooManyRequests("x", 5), None, "", 0)[19:])
    assert limited["code"] == "rate_limit_exceeded"


@pytest.mark.parametrize("payload", [{"error": {"code": 429, "message": "slow"}, "user_id": "user_2ab"}, {}, None])
def test_a_refusal_in_a_stream_is_an_event_too(payload):
    data = RESPONSES.refusal_event(Refusal(429, payload), "m")
    told = json.loads(data.removeprefix(b"event: error\ndata: "))
    assert (
        told["message"]
        == told["error"]["message"]
        == ("slow" if payload else "The upstream refused the request with status 429")
    )
    assert "user_id" not in told


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["error", "type", "usage", "code"]), inner)
    ),
    max_leaves=10,
)


@given(st.dictionaries(st.sampled_from(["error", "response", "item", "part", "delta", "code", "message"]), json_values))
def test_any_event_is_survived(fields):
    for said in ("error", "response.failed", "response.output_item.added", "response.output_text.delta", [], {}, 7):
        out, _ = read(event(said, **fields))
        assert out.endswith(b"\n\n")
        RESPONSES.kind_of(event(said, **fields))
