"""What a client may rely on when OpenRouter fails, as docs/streaming.md says it: every fault, streamed and not.

In this process against exact bytes, then a few through real gateways.
"""

import itertools
import json
import re
import threading
import time
from pathlib import Path

import pytest

from foundation.errors import UpstreamFailed, UpstreamTimeout
from tests.support.data_plane import DONE, EVENT, KEEPALIVE, WHOLE, last_event, request, whole
from tests.support.gateway import wait_for
from tests.support.scripted_upstream import CLOSE, JSON_CHUNKED, SSE, chunked, json_answer
from upstream.connection import ConnectionLost

COMMENT = b": OPENROUTER PROCESSING\n\n"
SPACE = b"\n         \n"
ERROR = {"code": 502, "message": "Provider returned error", "metadata": {"error_type": "provider_unavailable"}}
SECRET = {"raw": "the prompt", "previous_errors": ["x"]}
ERROR_BODY = json.dumps({"id": "gen-1", "error": ERROR | {"metadata": ERROR["metadata"] | SECRET}}).encode()
ERROR_EVENT = b"data: " + ERROR_BODY + b"\n\n"
HTML = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 6\r\n\r\n<html>"
ENCODED = "Content-Encoding: gzip\r\n"
ENDLESS = 400
END = b"0\r\n\r\n"
MIB = 1024 * 1024


@pytest.fixture
def proxy(make_proxy):
    return make_proxy(
        keepalive_seconds=0.3, upstream_first_byte_timeout_seconds=2, upstream_idle_timeout_seconds=1, keys=4
    )


def check_error_event(event, code):
    """An event of ours or OpenRouter's with all that SDKs insist on."""
    assert event["error"]["code"] == code
    assert event["error"]["message"]
    assert isinstance(event["error"]["metadata"]["error_type"], str)
    assert event["object"] == "chat.completion.chunk"
    assert {"id", "created", "model"} <= set(event)
    assert event["choices"][0]["finish_reason"] == "error"


def events_of(body):
    """A stream's data as a strict client reads it: no event is cut, no comment stands within one."""
    assert body.endswith(b"\n\n")
    blocks = body.removesuffix(b"\n\n").split(b"\n\n")
    assert all(re.fullmatch(rb"(: [^\n]*)|(data: [^\n]*)", block) for block in blocks), blocks
    return [block[6:] for block in blocks if block.startswith(b"data: ")]


def forever(piece):
    return [step for _ in range(ENDLESS) for step in (chunked(piece, end=False), 0.05)]


# ── streamed


@pytest.mark.parametrize("cut", [b"", EVENT[:20], EVENT[:-1]])
def test_a_cut_stream_ends_with_an_error_event_and_without_done(proxy, upstream, cut):
    upstream.play("m", SSE, chunked(COMMENT, EVENT, cut or EVENT, end=False), 0.05, CLOSE)
    body = whole(proxy.forward(request(stream=True)))
    assert body.startswith(COMMENT + EVENT)
    events = events_of(body)
    check_error_event(json.loads(events[-1]), 502)
    assert b"[DONE]" not in events
    assert len(events) == (2 if cut else 3)
    assert len(upstream.received) == 1


def test_a_stalled_stream_ends_with_an_error_event_and_without_done(proxy, upstream):
    upstream.play("m", SSE, chunked(EVENT, EVENT[:20], end=False), 20.0)
    body = whole(proxy.forward(request(stream=True)))
    check_error_event(json.loads(events_of(body)[-1]), 504)
    assert b"[DONE]" not in body
    assert KEEPALIVE in body
    assert upstream.received[0].closed_by_client.wait(30)


@pytest.mark.parametrize("malformed", [b"data: {not json\n\n", b"data: \xff\xfe\n\n", b"nonsense\n\n", b"event: x\n\n"])
@pytest.mark.parametrize("first", [True, False])
def test_a_malformed_event_passes_as_it_is(proxy, upstream, malformed, first):
    stream = malformed + EVENT + DONE if first else EVENT + malformed + DONE
    upstream.play("m", SSE, chunked(stream))
    assert whole(proxy.forward(request(stream=True))) == stream
    assert len(upstream.received) == 1


def test_malformed_http_within_a_stream_is_a_cut(proxy, upstream):
    gate = threading.Event()
    upstream.play("m", SSE, chunked(EVENT, end=False), gate, b"no chunk\r\n", 5.0)
    answer = proxy.forward(request(stream=True))
    gate.set()
    check_error_event(last_event(whole(answer)), 502)


def test_an_error_before_content_is_tried_again_and_the_last_one_passed_on_cleaned(proxy, upstream):
    upstream.play("m", SSE, chunked(COMMENT, ERROR_EVENT))
    body = whole(proxy.forward(request(stream=True)))
    assert json.loads(events_of(body)[-1]) == {"id": "gen-1", "error": ERROR}
    assert b"prompt" not in body
    assert len(upstream.received) == 3


def test_an_error_after_content_is_passed_on_cleaned(proxy, upstream):
    upstream.play("m", SSE, chunked(EVENT, ERROR_EVENT))
    body = whole(proxy.forward(request(stream=True)))
    assert body.startswith(EVENT)
    assert json.loads(events_of(body)[-1]) == {"id": "gen-1", "error": ERROR}
    assert b"prompt" not in body
    assert len(upstream.received) == 1


def test_a_stream_that_was_answered_with_an_error_body_is_tried_again_and_then_gets_that(proxy, upstream):
    upstream.play("m", json_answer("200 OK", ERROR_BODY))
    answer = proxy.forward(request(stream=True))
    if dict(answer.headers)["Content-Type"] == "application/json":
        assert json.loads(whole(answer)) == {"id": "gen-1", "error": ERROR}
    else:  # the tries took longer than the client can be left in silence
        check_error_event(last_event(whole(answer)), 502)
    assert len(upstream.received) == 3


@pytest.mark.parametrize("steps", [(SSE, chunked()), (SSE, chunked(COMMENT, DONE)), (SSE, CLOSE), (HTML,)])
def test_an_empty_stream_or_a_page_is_tried_again_and_then_an_error(make_proxy, upstream, steps):
    upstream.play("m", *steps)
    with pytest.raises(UpstreamFailed):
        make_proxy(keepalive_seconds=5).forward(request(stream=True))
    assert len(upstream.received) == 3


def test_comments_without_end_before_content_are_given_up_like_silence(proxy, upstream):
    upstream.play("m", SSE, *forever(COMMENT))
    begun = time.monotonic()
    body = whole(proxy.forward(request(stream=True)))
    assert body.startswith(COMMENT)  # passed on, as the sign of life that they are
    check_error_event(json.loads(events_of(body)[-1]), 504)
    assert time.monotonic() - begun >= 1.9
    assert len(upstream.received) == 1
    assert upstream.received[0].closed_by_client.wait(30)


def test_comments_without_end_after_content_are_given_up_like_silence(proxy, upstream):
    upstream.play("m", SSE, chunked(EVENT, end=False), *forever(COMMENT))
    body = whole(proxy.forward(request(stream=True)))
    assert body.startswith(EVENT + COMMENT)
    check_error_event(json.loads(events_of(body)[-1]), 504)
    assert body.count(COMMENT) < ENDLESS / 2


@pytest.mark.parametrize("stream", [True, False])
def test_what_came_compressed_passes_as_it_came(proxy, upstream, stream):
    body = b"\x1f\x8b not really, but who looks"
    head = json_answer("200 OK", body, ENCODED)
    upstream.play("m", head.replace(b"application/json", b"text/event-stream") if stream else head)
    answer = proxy.forward(request(stream=stream))
    assert dict(answer.headers)["Content-Encoding"] == "gzip"
    assert whole(answer) == body


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("end", [CLOSE, 20.0])
def test_what_came_compressed_and_not_whole_breaks_off(make_proxy, upstream, stream, end):
    # A stream that had to begin without its answer can't end in one that is not to be read.
    proxy = make_proxy(keepalive_seconds=60, upstream_idle_timeout_seconds=1)
    head = (SSE if stream else JSON_CHUNKED).replace(b"\r\n\r\n", b"\r\nContent-Encoding: gzip\r\n\r\n")
    upstream.play("m", head, chunked(b"\x1f\x8b", end=False), 0.05, end)
    with pytest.raises(ConnectionLost):
        whole(proxy.forward(request(stream=stream)))


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
def test_our_comments_never_split_an_event(proxy, upstream, line_end):
    stream = (EVENT * 2 + DONE).replace(b"\n", line_end)
    cuts = [0, 10, len(EVENT) + 30, len(stream) - 1, len(stream)]
    pieces = [chunked(stream[a:b], end=False) for a, b in itertools.pairwise(cuts)]
    gates = [threading.Event() for _ in pieces]
    upstream.play("m", SSE, *itertools.chain(*zip(pieces, gates, strict=True)), END)
    answer = proxy.forward(request(stream=True))
    body, number = b"", 0
    for piece in answer.body:
        body += piece
        if body.count(KEEPALIVE) > number and number < len(gates):
            gates[number].set()
            number += 1
    answer.body.close()
    assert body.count(KEEPALIVE) >= len(gates)
    assert body.replace(KEEPALIVE, b"") == stream
    blocks = re.split(rb"\r\n\r\n|\n\n", body)
    assert blocks.count(b": keep-alive") == body.count(b"keep-alive")


# ── not streamed


def test_a_cut_or_stalled_plain_answer_is_an_error_and_not_tried_again(proxy, upstream):
    upstream.play("m", JSON_CHUNKED, chunked(SPACE, WHOLE[:20], end=False), 0.05, CLOSE)
    with pytest.raises(UpstreamFailed):
        proxy.forward(request())
    upstream.play("m", JSON_CHUNKED, chunked(WHOLE[:20], end=False), 20.0)
    with pytest.raises(UpstreamTimeout):
        proxy.forward(request())
    assert len(upstream.received) == 2


@pytest.mark.parametrize("end", [CLOSE, 20.0])
def test_a_long_plain_answer_that_does_not_end_breaks_off(proxy, upstream, end):
    upstream.play("m", JSON_CHUNKED, chunked(b'{"a":"' + b"1" * 2 * MIB, end=False), 0.05, end)
    with pytest.raises(ConnectionLost):
        whole(proxy.forward(request()))


def test_a_malformed_plain_answer_passes_as_it_is(proxy, upstream):
    upstream.play("m", json_answer("200 OK", b'{"choices":[{'))
    answer = proxy.forward(request())
    assert (answer.status, whole(answer)) == (200, b'{"choices":[{')


@pytest.mark.parametrize("before", [b"", SPACE])
def test_a_plain_answer_that_holds_an_error_is_tried_again_and_then_passed_on_cleaned(proxy, upstream, before):
    upstream.play("m", JSON_CHUNKED, chunked(before, ERROR_BODY) if before else chunked(ERROR_BODY))
    answer = proxy.forward(request())
    assert (answer.status, json.loads(whole(answer))) == (200, {"id": "gen-1", "error": ERROR})
    assert len(upstream.received) == 3


def test_a_plain_answer_with_an_error_beside_its_text_is_cleaned(proxy, upstream):
    error = {"code": 403, "message": "flagged", "metadata": {"reasons": ["x"], "flagged_input": "the prompt"}}
    choice = {"index": 0, "finish_reason": "error", "message": {"content": "half"}, "error": error}
    upstream.play("m", json_answer("200 OK", json.dumps({"choices": [choice]}).encode()))
    told = json.loads(whole(proxy.forward(request())))
    assert told["choices"][0]["message"]["content"] == "half"
    assert told["choices"][0]["error"]["metadata"] == {"reasons": ["x"]}


@pytest.mark.parametrize("steps", [(json_answer("200 OK", b""),), (JSON_CHUNKED, chunked(SPACE)), (HTML,)])
def test_an_empty_plain_answer_or_a_page_is_tried_again_and_then_an_error(make_proxy, upstream, steps):
    upstream.play("m", *steps)
    with pytest.raises(UpstreamFailed):
        make_proxy(keepalive_seconds=5).forward(request())
    assert len(upstream.received) == 3


def test_white_space_without_end_is_given_up_like_silence(proxy, upstream):
    upstream.play("m", JSON_CHUNKED, *forever(SPACE))
    answer = proxy.forward(request())
    body = whole(answer)
    assert body.startswith(SPACE)
    assert json.loads(body)["error"]["code"] == 504
    assert body.count(SPACE) < ENDLESS / 2
    assert upstream.received[0].closed_by_client.wait(30)


# ── through real gateways


@pytest.mark.parametrize("scenario", ["cut", "reset", "stall", "endless-comments", "error-mid", "error-split"])
def test_a_stream_that_fails_after_content_ends_with_an_error_event(gateway, token, scenario):
    body = gateway.chat(token, f"sandbox/{scenario}", stream=True).content
    events = events_of(body)
    check_error_event(json.loads(events[-1]), 504 if scenario in {"stall", "endless-comments"} else 502)
    assert len(events) > 1
    assert b"[DONE]" not in events


@pytest.mark.parametrize("scenario", ["drop", "drop-reset", "empty", "error-first", "error-first-comments", "502"])
@pytest.mark.parametrize("stream", [True, False])
def test_what_fails_before_content_never_looks_like_an_answer(gateway, token, scenario, stream):
    answer = gateway.chat(token, f"sandbox/{scenario}", stream=stream)
    if answer.headers["Content-Type"] == "text/event-stream":
        check_error_event(json.loads(events_of(answer.content)[-1]), 502)
    else:
        assert answer.json()["error"]["code"] == 502


def memory_of(pid):
    """The most that a process and its children have held at once so far, each by itself, in bytes."""
    held = int(re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text()).group(1)) * 1024
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return held + sum(map(memory_of, children))


@pytest.mark.parametrize("server", ["granian", "gunicorn"])
def test_a_line_of_a_hundred_megabytes_takes_no_memory(start, upstream, server):
    gateway = start(SERVER=server, OPENROUTER_API_URL=upstream.url, OPENROUTER_API_KEYS=f"sk-or-v1-{'b' * 64}")
    token = gateway.new_user()
    upstream.play("small", SSE, chunked(EVENT, DONE))
    assert gateway.chat(token, "small", stream=True).content == EVENT + DONE
    before = memory_of(gateway.process.pid)
    piece = chunked(b"x" * 65536, end=False)
    for stream, head, begin in ((True, SSE, b"data: "), (False, JSON_CHUNKED, b'{"a":"')):
        upstream.play("huge", head, chunked(begin, end=False), *[piece] * 1600, END)
        passed = 0
        with gateway.chat(token, "huge", stream=stream) if stream else ask_plainly(gateway, token) as answer:
            for part in answer.iter_content(65536):
                passed += len(part)
        assert passed == len(begin) + 1600 * 65536
    assert wait_for(lambda: memory_of(gateway.process.pid)) - before < 30 * MIB


def ask_plainly(gateway, token):
    body = {"model": "huge", "messages": [{"role": "user", "content": "Hello"}]}
    return gateway.post("/v1/chat/completions", body, token, stream=True)
