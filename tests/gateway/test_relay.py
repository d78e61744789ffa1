"""Bodies on their way down: usage from the tail of long ones, comments only when due, ends as they are."""

import json
import threading
from decimal import Decimal
from types import SimpleNamespace

import pytest

from formats.chat import MAX_HELD_BYTES
from formats.event_stream import KEEPALIVE, EventStream
from formats.registry import CHAT
from foundation.deadline import Deadline
from gateway.attempt import MAX_PLAIN_LOOKED_AT, Attempt
from gateway.forms import Form
from gateway.relay import Relay, Silence
from tests.support.data_plane import DONE, EVENT
from tests.support.scripted_upstream import CLOSE, JSON_CHUNKED, SSE, ScriptedUpstream, chunked
from upstream.connection import ConnectionLost
from upstream.http import UpstreamHttp

GZIP = JSON_CHUNKED.replace(b"\r\n\r\n", b"\r\nContent-Encoding: gzip\r\n\r\n")
USAGE = {"prompt_tokens": 3, "cost": 0.000007, "details": {"cached": 1}}


@pytest.fixture
def relay():
    """A relay of the answer that an upstream plays. begin: what of it was held until there was content."""
    upstream = ScriptedUpstream()
    http = UpstreamHttp(upstream.url, 2)
    exchanges = []

    def make(*steps, begin=b"", **settings):
        upstream.play("m", *steps)
        exchange = http.exchange(http.request_line("POST", "/x"), b'{"model":"m"}')
        exchanges.append(exchange)
        attempt = Attempt(CHAT, SimpleNamespace(name="key-0"), exchange, 2)
        attempt.wait_head(Deadline(5))
        attempt.held, attempt.events = begin, EventStream(CHAT) if attempt.form is Form.STREAM else None
        settings = {
            "idle_timeout": 2,
            "keepalive": 1,
            "client_is_gone": bool,
            "client_has_ended": bool,
            "model": "m",
        } | settings
        return Relay(attempt, deadline=Deadline(5), **settings)

    yield make
    for exchange in exchanges:
        exchange.close()
    http.close()
    upstream.close()


def whole(it):
    return b"".join(it.pieces()) + it.last_words()


def long_body(filler: int) -> bytes:
    return b'{"choices":[{"text":"' + b"x" * filler + b'"}],"usage":' + json.dumps(USAGE).encode() + b"}"


@pytest.mark.parametrize("filler", [MAX_PLAIN_LOOKED_AT, MAX_PLAIN_LOOKED_AT * 2])
def test_usage_of_a_long_body_is_read_from_its_tail(relay, filler):
    body = long_body(filler)
    it = relay(
        JSON_CHUNKED,
        *(chunked(body[i : i + 300_000], end=False) for i in range(9, len(body), 300_000)),
        b"0\r\n\r\n",
        begin=body[:9],
    )
    assert whole(it) == body
    assert it.usage == USAGE | {"cost": Decimal("0.000007")}
    assert it.outcome == "complete"


def test_a_long_body_without_usage_has_none(relay):
    body = b'{"choices":"' + b"x" * MAX_PLAIN_LOOKED_AT * 2 + b'"}'
    it = relay(JSON_CHUNKED, chunked(body[9:]), begin=body[:9])
    assert whole(it) == body
    assert it.usage is None


def test_closing_a_stream_reports_that_the_client_went(relay):
    it = relay(SSE, chunked(EVENT, end=False), 5.0, begin=b"begin")
    pieces = it.pieces()
    assert (next(pieces), next(pieces)) == (b"begin", EVENT)
    pieces.close()
    assert it.outcome == "client_gone"


@pytest.mark.parametrize("end", ["stall", "cut"])
def test_a_long_body_that_does_not_come_to_its_end_breaks_off(relay, end):
    it = relay(JSON_CHUNKED, chunked(b"1", end=False), CLOSE if end == "cut" else 5.0, begin=b'{"a":', idle_timeout=0.2)
    pieces = it.pieces()
    assert (next(pieces), next(pieces)) == (b'{"a":', b"1")
    with pytest.raises(ConnectionLost):
        next(pieces)
    assert it.outcome == ("cut" if end == "cut" else "stalled")


COMMENTS = [step for _ in range(200) for step in (chunked(b": OPENROUTER PROCESSING\n\n", end=False), 0.05)]
SLOW_EVENTS = [step for _ in range(12) for step in (chunked(EVENT, end=False), 0.1)]


def test_comments_alone_do_not_keep_a_stream_alive(relay):
    it = relay(SSE, *COMMENTS, begin=EVENT, idle_timeout=0.5)
    body = whole(it)
    assert body.startswith(EVENT + b": OPENROUTER PROCESSING\n\n")
    assert json.loads(body.rpartition(b"data: ")[2])["error"]["code"] == 504
    assert it.outcome == "stalled"
    assert body.count(b"PROCESSING") < 150  # and not only once the comments had ended too


def test_events_and_the_pieces_of_a_long_one_do(relay):
    it = relay(SSE, *SLOW_EVENTS, chunked(DONE), idle_timeout=0.5)
    assert whole(it) == EVENT * 12 + DONE
    assert it.outcome == "complete"
    long = [b"data: " + b"x" * MAX_HELD_BYTES, *[b"x" * 100] * 12, b"\n\n"]
    it = relay(
        SSE, *(step for piece in long for step in (chunked(piece, end=False), 0.1)), chunked(DONE), idle_timeout=0.5
    )
    assert whole(it) == b"".join(long) + DONE
    assert it.outcome == "complete"


UNDELIMITED = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"


@pytest.mark.parametrize("last", [b"", DONE])
def test_the_connections_end_ends_a_stream_only_after_done(relay, last):
    it = relay(UNDELIMITED, EVENT + last, CLOSE)
    body = whole(it)
    if last:
        assert (body, it.outcome) == (EVENT + DONE, "complete")
    else:
        assert (json.loads(body.removeprefix(EVENT)[6:])["error"]["code"], it.outcome) == (502, "cut")


def test_an_unread_body_that_breaks_off_is_reported_as_cut(relay):
    it = relay(GZIP, chunked(b"abc", end=False), CLOSE, begin=b"begin")
    pieces = it.pieces()
    assert (next(pieces), next(pieces)) == (b"begin", b"abc")
    with pytest.raises(ConnectionLost):
        next(pieces)
    assert it.outcome == "cut"


def test_a_comment_is_due_only_after_silence():
    assert Silence(60).comment_if_due() == b""
    silence = Silence(60)
    silence.last_sent -= 61
    assert silence.comment_if_due() == KEEPALIVE
    assert silence.comment_if_due() == b""


def test_a_fault_of_ours_within_a_stream_ends_it_with_an_error_and_not_as_finished(relay, caplog):
    def faulty():
        raise ZeroDivisionError

    it = relay(SSE, chunked(b"data: {}\n\n", end=False), 5.0, client_is_gone=faulty)
    out = whole(it)
    assert out.startswith(b"data: {}\n\n")
    assert json.loads(out.removeprefix(b"data: {}\n\n")[6:])["error"]["code"] == 500
    assert it.outcome == "broken"
    assert "ZeroDivisionError" in caplog.text


def test_a_client_that_sends_no_more_is_asked_by_comments_whether_it_is_there(relay):
    gate = threading.Event()
    steps = SSE, chunked(EVENT, end=False), gate, chunked(DONE)
    it = relay(*steps, client_has_ended=lambda: True, keepalive=60, idle_timeout=20)
    passed = b""
    for piece in it.pieces():
        passed += piece
        if passed.count(KEEPALIVE) == 2:
            gate.set()
    assert passed.replace(KEEPALIVE, b"") == EVENT + DONE
    assert it.outcome == "complete"


@pytest.mark.parametrize(
    "steps",
    [(SSE, chunked(b"data: " + b"x" * MAX_HELD_BYTES * 2, end=False)), (JSON_CHUNKED, chunked(b"[", end=False))],
)
def test_where_no_comment_may_be_sent_it_has_most_likely_gone(relay, steps):
    it = relay(*steps, 10.0, begin=b"x", client_has_ended=lambda: True, idle_timeout=20)
    whole(it)
    assert it.outcome == "client_gone"


@pytest.mark.parametrize("end", [CLOSE, 5.0])
def test_what_breaks_after_done_was_whole(relay, end):
    it = relay(SSE, chunked(b"data: {}\n\ndata: [DONE]\n\n", end=False), end, idle_timeout=0.2)
    assert whole(it) == b"data: {}\n\ndata: [DONE]\n\n"
    assert it.outcome == "complete"
