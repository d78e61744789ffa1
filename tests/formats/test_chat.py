"""The rules of chat: which events say something, and what errors look like in its streams."""

import json

import pytest

from formats.chat import Kind
from formats.registry import CHAT
from foundation.errors import UpstreamFailed
from tests.support.rows import each_row
from upstream.refusal import Refusal

COMMENT = b": OPENROUTER PROCESSING\n\n"
DONE = b"data: [DONE]\n\n"
CLEAN_ERROR = b'data: {"id":"gen-1","error":{"code":502,"message":"Provider returned error"},"choices":[]}\n\n'
ACCOUNT_ERROR = (
    b'data: {"id":"gen-1","object":"chat.completion.chunk","error":{"code":400,"message":"No key sk-or-v1-0123456789abcdef",'
    b'"metadata":{"error_type":"invalid_request","raw":"the prompt"}},"user_id":"user_2abcdefghijk","choices":[]}\n\n'
)


@pytest.mark.parametrize(
    "event", [CHAT.error_event(UpstreamFailed("Broke off"), "gen-7", "m"), CHAT.error_event(UpstreamFailed("x"))]
)
def test_an_error_of_ours_has_the_full_shape_of_a_chunk(event):
    assert event.startswith(b"data: ")
    assert event.endswith(b"\n\n")
    chunk = json.loads(event[6:])
    assert {"id", "object", "created", "model", "choices", "error"} <= set(chunk)
    assert chunk["error"]["code"] == 502
    assert chunk["error"]["metadata"]["error_type"] == "provider_unavailable"
    assert chunk["choices"][0]["finish_reason"] == "error"


def test_a_refusal_in_a_stream_keeps_openrouters_error():
    chunk = json.loads(
        CHAT.refusal_event(
            Refusal(429, {"id": "gen-2", "error": {"code": 429, "message": "slow down"}, "user_id": "user_2"}), "m"
        )[6:]
    )
    assert chunk["error"] == {"code": 429, "message": "slow down"}
    assert (chunk["id"], chunk["model"]) == ("gen-2", "m")


@pytest.mark.parametrize("payload", [{}, {"error": None}, {"error": "text"}, None])
def test_a_refusal_of_an_odd_form_is_still_an_error_in_the_stream(payload):
    chunk = json.loads(CHAT.refusal_event(Refusal(418, payload))[6:])
    assert chunk["error"]["code"] == 502
    assert isinstance(chunk["error"]["message"], str)


def chunk(delta, **choice):
    return (
        b"data: " + json.dumps({"id": "gen-1", "choices": [{"index": 0, "delta": delta, **choice}]}).encode() + b"\n\n"
    )


@each_row(
    "event",
    [
        *(
            chunk({"role": "assistant", field: value})
            for field, value in {
                "content": " ",
                "reasoning": "hm",
                "reasoning_details": [{}],
                "tool_calls": [{"index": 0}],
                "function_call": {"name": "f"},
                "refusal": "no",
                "audio": {"data": "x"},
                "images": [{}],
                "something_new": 1,
            }.items()
        ),
        chunk({}, finish_reason="stop"),
        chunk({}, message={"content": "x"}),
        chunk({}, text="x"),
        chunk("not an object"),
        b'data: {"choices":[7]}\n\n',
        b'data: {"choices":[],"usage":{"cost":1}}\n\n',
        b'data: {"choices":"x"}\n\n',
        b'data: {"object":"something new"}\n\n',
        b"data: {not json\n\n",
        b"data: 7\n\n",
        b"event: x\n\n",
        b"data: \n\n",
    ],
)
@each_row("line_end", [b"\n", b"\r\n"])
def test_what_says_anything_or_what_nobody_knows_is_content(event, line_end):
    assert CHAT.kind_of(event.replace(b"\n", line_end)) is Kind.CONTENT


@pytest.mark.parametrize(
    "event",
    [
        chunk({"role": "assistant", "content": ""}, finish_reason=None, logprobs=None),
        chunk({"role": "assistant", "content": None, "tool_calls": [], "reasoning_details": []}),
        b'data: {"choices":[],"debug":{"echo_upstream_body":{}}}\n\n',
        b'data: {"choices":[],"usage":null,"error":null}\r\n\r\n',
        b": a comment\ndata: [DONE]\n\n",
        DONE,
    ],
)
def test_what_says_nothing_yet_is_empty(event):
    assert CHAT.kind_of(event) is Kind.EMPTY


@pytest.mark.parametrize("event", [COMMENT, b": a\n: b\r\n\r\n", b"\n\n", b"\n"])
def test_comments_and_blank_lines_are_no_data(event):
    assert CHAT.kind_of(event) is Kind.COMMENT


def data(**payload):
    return b"data: " + json.dumps(payload).encode() + b"\n\n"


ERROR = {"code": 500, "message": "m"}
ENDED = {"delta": {"role": "assistant", "content": ""}, "finish_reason": "error", "native_finish_reason": None}


@pytest.mark.parametrize(
    "event",
    [
        CLEAN_ERROR,
        ACCOUNT_ERROR,
        data(error=ERROR, choices=[ENDED]),
        data(error=ERROR, choices=[ENDED], usage={"prompt_tokens": 3, "completion_tokens": 0, "cost": 0}),
        data(choices=[ENDED | {"error": ERROR}]),
        data(choices=[ENDED]),
        data(error=ERROR, choices=[{"message": {"role": "assistant", "content": None, "refusal": None}}]),
    ],
)
def test_an_error_alone_is_an_error(event):
    assert CHAT.kind_of(event) is Kind.ERROR


@pytest.mark.parametrize(
    "event",
    [
        chunk({"content": "x"}, error=ERROR),
        data(error=ERROR, choices=[ENDED], usage={"cost": 0.001}),
        data(error=ERROR, choices=[], usage={"prompt_tokens": 3, "completion_tokens": 1}),
        data(choices=[ENDED | {"delta": {"tool_calls": [{"id": "a"}]}, "error": ERROR}]),
        data(choices=[{"text": "so far", "finish_reason": "error", "error": ERROR}]),
        data(choices=[{"message": {"reasoning": "so far"}, "finish_reason": "error"}]),
    ],
)
def test_an_error_beside_content_or_a_bill_is_content(event):
    assert CHAT.kind_of(event) is Kind.CONTENT


WHOLE = {
    "id": "gen-1",
    "object": "chat.completion",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}],
    "usage": {"cost": 0.000007},
}


def test_a_whole_answer_becomes_the_stream_that_was_asked_for():
    first, end = CHAT.as_events(json.dumps(WHOLE).encode()).split(b"\n\n", 1)
    assert end == b"data: [DONE]\n\n"
    told = json.loads(first[6:])
    assert told["choices"] == [{"index": 0, "delta": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}]
    assert (told["object"], told["usage"], told["id"]) == ("chat.completion.chunk", WHOLE["usage"], "gen-1")
    called = {"choices": [{"message": {"tool_calls": [{"id": "a"}, {"id": "b"}]}}]}
    told = json.loads(CHAT.as_events(json.dumps(called).encode()).split(b"\n\n")[0][6:])
    assert [call["index"] for call in told["choices"][0]["delta"]["tool_calls"]] == [0, 1]


@pytest.mark.parametrize("body", [b"hello", b'{"a":\n1}', b"[1]", b'{"choices":[1]}', b"a\r\nb"])
def test_what_is_no_answer_becomes_one_event_that_holds_it(body):
    assert CHAT.as_events(body) == b"data: " + body.replace(b"\r", b"").replace(b"\n", b"\ndata: ") + b"\n\n"
