"""Bodies on their way down: white space at once, usage from the tail of long ones, comments only when due."""

import json

import pytest

from answer_relay import MAX_PLAIN_LOOKED_AT, AnswerRelay, Silence, broken
from errors import AppError
from event_stream import KEEPALIVE
from tests.scripted_upstream import CLOSE, JSON_CHUNKED, SSE, ScriptedUpstream, chunked
from upstream_http import ConnectionLost, NothingYet, UpstreamHttp

USAGE = {"prompt_tokens": 3, "cost": 0.000007, "details": {"cached": 1}}


@pytest.fixture
def relay():
    """A relay of the answer that an upstream plays, and the outcomes that it reports."""
    upstream = ScriptedUpstream()
    http = UpstreamHttp(upstream.url, 2)
    exchanges = []

    def make(*steps, **settings):
        upstream.play("m", *steps)
        exchange = http.send(http.request_line("POST", "/x"), b'{"model":"m"}')
        exchanges.append(exchange)
        exchange.wait_head(5)
        outcomes = []
        settings = {"idle_timeout": 2, "keepalive": 1, "client_is_gone": lambda: False, "model": "m"} | settings
        return AnswerRelay(exchange, ended=outcomes.append, **settings), outcomes

    yield make
    for exchange in exchanges:
        exchange.close()
    http.close()
    upstream.close()


def long_body(filler: int) -> bytes:
    return b'{"choices":[{"text":"' + b"x" * filler + b'"}],"usage":' + json.dumps(USAGE).encode() + b"}"


def test_a_small_body_is_whole_at_once(relay):
    body = long_body(10)
    it, outcomes = relay(JSON_CHUNKED, chunked(body[:7], end=False), 0.05, chunked(body[7:]))
    assert it.whole() == (body, True)
    assert it.usage == USAGE
    assert outcomes == []


@pytest.mark.parametrize("filler", [MAX_PLAIN_LOOKED_AT, MAX_PLAIN_LOOKED_AT * 2])
def test_usage_of_a_long_body_is_read_from_its_tail(relay, filler):
    body = long_body(filler)
    it, outcomes = relay(
        JSON_CHUNKED, *(chunked(body[i : i + 300_000], end=False) for i in range(0, len(body), 300_000)), b"0\r\n\r\n"
    )
    begin, is_whole = it.whole()
    assert not is_whole
    assert b"".join(it.plain(begin)) == body
    assert it.usage == USAGE
    assert outcomes == ["complete"]


def test_a_long_body_without_usage_has_none(relay):
    body = b'{"choices":"' + b"x" * MAX_PLAIN_LOOKED_AT * 2 + b'"}'
    it, _ = relay(JSON_CHUNKED, chunked(body))
    assert b"".join(it.plain(it.whole()[0])) == body
    assert it.usage is None


def test_white_space_alone_is_passed_and_ends(relay):
    it, outcomes = relay(JSON_CHUNKED, chunked(b" \n", end=False), 0.05, chunked(b" \n"))
    assert b"".join(it.plain(it.whole()[0])) == b" \n \n"
    assert outcomes == ["complete"]


def test_a_body_that_is_no_json_passes_unchanged(relay):
    it, _ = relay(JSON_CHUNKED, chunked(b"this is not json"))
    assert it.whole() == (b"this is not json", True)


def test_a_body_that_may_hold_an_error_but_cant_be_read_is_not_passed(relay):
    it, _ = relay(JSON_CHUNKED, chunked(b'{"error":{"message":"user_abcdefghij"'))
    with pytest.raises(AppError):
        it.whole()


def test_a_body_that_stalls_is_a_504_while_the_client_has_nothing(relay):
    it, _ = relay(JSON_CHUNKED, chunked(b"{", end=False), 5.0, idle_timeout=0.2)
    with pytest.raises(AppError) as refused:
        it.whole()
    assert refused.value.status == 504


def test_closing_a_stream_reports_that_the_client_went(relay):
    it, outcomes = relay(SSE, chunked(b"data: {}\n\n", end=False), 5.0)
    pieces = it.stream()
    assert next(pieces) == b"data: {}\n\n"
    pieces.close()
    assert outcomes == ["client_gone"]


def test_an_unread_body_that_breaks_off_is_reported_as_cut(relay):
    it, outcomes = relay(JSON_CHUNKED, chunked(b"abc", end=False), CLOSE)
    pieces = it.unread()
    assert next(pieces) == b"abc"
    with pytest.raises(ConnectionLost):
        next(pieces)
    assert outcomes == ["cut"]


def test_a_comment_is_due_only_after_silence():
    assert Silence(60).comment_if_due() == b""
    silence = Silence(60)
    silence.last_sent -= 61
    assert silence.comment_if_due() == KEEPALIVE
    assert silence.comment_if_due() == b""


def test_what_broke_off_and_what_fell_silent_are_told_apart():
    assert broken(ConnectionLost("x")).status == 502
    assert broken(NothingYet()).status == 504


def test_a_fault_of_ours_within_a_stream_ends_it_with_an_error_and_not_as_finished(relay, caplog):
    def faulty():
        raise ZeroDivisionError

    it, outcomes = relay(SSE, chunked(b"data: {}\n\n", end=False), 5.0, client_is_gone=faulty)
    out = b"".join(it.stream())
    assert out.startswith(b"data: {}\n\n")
    assert json.loads(out.removeprefix(b"data: {}\n\n")[6:])["error"]["code"] == 500
    assert outcomes == ["broken"]
    assert "ZeroDivisionError" in caplog.text


def test_what_breaks_after_done_was_whole(relay):
    it, _ = relay(SSE, chunked(b"data: {}\n\ndata: [DONE]\n\n", end=False), CLOSE)
    assert b"".join(it.stream()) == b"data: {}\n\ndata: [DONE]\n\n"
