"""One attempt: what is held until there is content, what counts as none, and what is known when it ends."""

import threading
import time
from decimal import Decimal
from types import SimpleNamespace

import pytest

from formats.chat import MAX_HELD_BYTES
from formats.registry import CHAT
from foundation.deadline import Deadline, NothingYet, TimeIsUp
from foundation.errors import AppError
from gateway.attempt import MAX_PLAIN_LOOKED_AT, Attempt, NoAnswer, broken
from gateway.forms import Form
from tests.support.data_plane import DONE, EVENT, WHOLE
from tests.support.scripted_upstream import CLOSE, JSON_CHUNKED, RESET, SSE, ScriptedUpstream, chunked, json_answer
from upstream.connection import ConnectionLost
from upstream.http import UpstreamHttp

COMMENT = b": OPENROUTER PROCESSING\n\n"
ROLE = b'data: {"id":"gen-1","choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}\n\n'
ERROR = b'data: {"id":"gen-1","error":{"code":502,"message":"Provider returned error"},"choices":[]}\n\n'
HTML = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 6\r\n\r\n<html>"
GZIP = JSON_CHUNKED.replace(b"\r\n\r\n", b"\r\nContent-Encoding: gzip\r\n\r\n")


@pytest.fixture
def make_attempt():
    """An attempt whose upstream plays these steps, and a function that lets it go on until it is known or looks up."""
    upstream = ScriptedUpstream()
    http = UpstreamHttp(upstream.url, 1)
    attempts = []

    def make(*steps, idle_timeout=60.0, seconds=60.0):
        upstream.play("m", *steps)
        exchange = http.exchange(http.request_line("POST", "/x"), b'{"model":"m"}')
        one, deadline = Attempt(CHAT, SimpleNamespace(name="key-0"), exchange, idle_timeout), Deadline(seconds)
        attempts.append(one)

        def advance(look_up_in=60.0):
            deadline.look_up_in(look_up_in)
            if one.form is None:
                one.wait_head(deadline)
            one.wait_answer(deadline)

        return one, advance

    yield make
    for one in attempts:
        one.close()
    http.close()
    upstream.close()


def look_up_until(comes, advance):
    """Let an attempt look up, for nothing else, until this has come."""
    until = time.monotonic() + 60
    while not comes():
        assert time.monotonic() < until
        with pytest.raises(NothingYet):
            advance(0.05)


@pytest.mark.parametrize("head", [SSE, JSON_CHUNKED, GZIP])
def test_the_answers_name_is_known_with_its_head(make_attempt, head):
    named = head.replace(b"\r\n\r\n", b"\r\nX-Generation-Id: gen-7\r\n\r\n")
    one, advance = make_attempt(named, 5.0)
    look_up_until(lambda: one.generation_id, advance)
    assert (one.generation_id, one.known) == ("gen-7", None)


# ── streams


def test_a_stream_is_held_until_its_first_content(make_attempt):
    one, advance = make_attempt(SSE, chunked(COMMENT, ROLE, end=False), 0.1, chunked(ROLE, EVENT, end=False), 5.0)
    advance()
    assert (one.form, one.held, one.refusal) == (Form.STREAM, COMMENT + ROLE + ROLE + EVENT, None)
    assert one.has_content


def test_comments_before_all_data_can_be_passed_on_earlier(make_attempt):
    looked_up = threading.Event()
    one, advance = make_attempt(SSE, chunked(COMMENT, COMMENT, ROLE, COMMENT, end=False), looked_up, chunked(EVENT))
    look_up_until(lambda: one.has_blank, advance)
    assert one.take_blank() == COMMENT * 2
    assert not one.has_blank
    assert one.take_blank() == b""
    looked_up.set()
    advance()
    assert one.held == ROLE + COMMENT + EVENT


@pytest.mark.parametrize("first", [EVENT, EVENT[:-1] + b" " + EVENT[-1:] + b"\n"])
def test_an_error_after_content_is_the_streams_own_affair(make_attempt, first):
    one, advance = make_attempt(SSE, chunked(COMMENT + first + ERROR))
    advance()
    assert one.refusal is None
    assert one.held == COMMENT + first + ERROR


@pytest.mark.parametrize("before", [b"", COMMENT, COMMENT + ROLE])
def test_an_error_before_content_is_a_refusal_under_status_200(make_attempt, before):
    one, advance = make_attempt(SSE, chunked(before + ERROR + DONE))
    advance()
    assert (one.refusal.status, one.status) == (502, 200)
    assert one.held == before + ERROR + DONE


@pytest.mark.parametrize(
    ("steps", "kind"),
    [
        ((CLOSE,), "lost"),
        ((RESET,), "lost"),
        ((SSE, chunked()), "empty"),
        ((SSE, chunked(COMMENT, ROLE, DONE)), "empty"),
        ((SSE, CLOSE), "cut"),
        ((SSE, chunked(COMMENT, ROLE, end=False), CLOSE), "cut"),
        ((SSE, chunked(EVENT[:20], end=False), CLOSE), "cut"),
        ((JSON_CHUNKED, chunked()), "empty"),
        ((JSON_CHUNKED, chunked(b"\n   \n")), "empty"),
        ((JSON_CHUNKED, chunked(b"\n   \n", end=False), CLOSE), "cut"),
        ((GZIP, chunked()), "empty"),
        ((HTML,), "page"),
    ],
)
def test_what_ends_without_content_is_no_answer(make_attempt, steps, kind):
    _, advance = make_attempt(*steps)
    with pytest.raises(NoAnswer) as failure:
        advance()
    assert failure.value.kind == kind


def test_no_connection_is_no_answer(make_attempt):
    http = UpstreamHttp("http://127.0.0.1:1", 1)
    with pytest.raises(NoAnswer) as failure:
        Attempt(CHAT, SimpleNamespace(name="k"), http.exchange(b"", b""), 1).wait_head(Deadline(5))
    assert failure.value.kind == "unreachable"


def test_no_more_than_a_bound_is_held(make_attempt):
    one, advance = make_attempt(SSE, *[chunked(ROLE * 100, end=False)] * 20, 5.0)
    advance()
    assert one.has_content
    assert MAX_HELD_BYTES < len(one.held) <= MAX_HELD_BYTES + 32 * 1024


def test_a_long_event_counts_as_content_before_it_is_whole(make_attempt):
    one, advance = make_attempt(SSE, chunked(b"data: " + b"x" * 2 * MAX_HELD_BYTES, end=False), 5.0)
    advance()
    assert one.has_content


def test_where_no_event_ends_nothing_of_ours_can_be_put_so_the_answer_begins(make_attempt):
    line = b":" + b"x" * (MAX_HELD_BYTES - 1) + b"\n"  # of it, all but its end passes: exactly the bound
    one, advance = make_attempt(SSE, chunked(line, end=False), 5.0)
    advance()
    assert one.has_content


def test_comments_that_never_end_do_not_hold_the_caller(make_attempt):
    one, advance = make_attempt(SSE, *[chunked(COMMENT, end=False), 0.01] * 300)
    look_up_until(lambda: one.has_blank, advance)
    assert one.take_blank()


# ── plain


def test_a_small_body_is_whole_at_once(make_attempt):
    one, advance = make_attempt(JSON_CHUNKED, chunked(WHOLE[:7], end=False), 0.05, chunked(WHOLE[7:]))
    advance()
    assert (one.form, one.held, one.is_whole) == (Form.PLAIN, WHOLE, True)
    assert one.usage["cost"] == Decimal("0.000007")


def test_a_long_body_is_not_held_to_its_end(make_attempt):
    body = b'{"a":"' + b"x" * MAX_PLAIN_LOOKED_AT * 2 + b'"}'
    one, advance = make_attempt(JSON_CHUNKED, chunked(body))
    advance()
    assert not one.is_whole
    assert body.startswith(one.held)
    assert len(one.held) < MAX_PLAIN_LOOKED_AT + 32 * 1024


def test_white_space_can_be_passed_on_earlier(make_attempt):
    looked_up = threading.Event()
    one, advance = make_attempt(JSON_CHUNKED, chunked(b"\n   \n", end=False), looked_up, chunked(b" ", WHOLE))
    look_up_until(lambda: one.has_blank, advance)
    assert one.take_blank() == b"\n   \n"
    looked_up.set()
    advance()
    assert one.held == b" " + WHOLE


def test_a_body_that_is_no_json_passes_unchanged(make_attempt):
    one, advance = make_attempt(JSON_CHUNKED, chunked(b"this is not json"))
    advance()
    assert (one.held, one.is_whole) == (b"this is not json", True)


def test_a_damaged_body_that_may_hold_an_error_does_not_name_our_account(make_attempt):
    one, advance = make_attempt(JSON_CHUNKED, chunked(b'{"error":{"message":"user_abcdefghij"'))
    advance()
    assert one.held == b'{"error":{"message":"***"'


@pytest.mark.parametrize(
    ("end", "status", "kind"), [((CLOSE,), 502, "cut"), ((RESET,), 502, "cut"), ((5.0,), 504, "stalled")]
)
def test_a_body_that_has_begun_and_does_not_end_is_an_error_and_not_tried_again(make_attempt, end, status, kind):
    one, advance = make_attempt(JSON_CHUNKED, chunked(b" {", end=False), 0.05, *end, idle_timeout=0.3)
    with pytest.raises(AppError) as refused:
        advance()
    assert (refused.value.status, one.kind) == (status, kind)


def test_a_body_that_goes_on_slowly_is_waited_for(make_attempt):
    steps = [step for byte in WHOLE[:8] for step in (chunked(bytes([byte]), end=False), 0.3)]
    one, advance = make_attempt(JSON_CHUNKED, *steps, chunked(WHOLE[8:]), idle_timeout=1.5)
    with pytest.raises(NothingYet):
        advance(0.3)
    advance()
    assert one.held == WHOLE


@pytest.mark.parametrize(("body", "is_cut"), [(WHOLE, False), (WHOLE[:-5], True)])
def test_a_body_that_the_connections_end_ends_must_be_json(make_attempt, body, is_cut):
    one, advance = make_attempt(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n" + body, CLOSE)
    if is_cut:
        with pytest.raises(AppError):
            advance()
    else:
        advance()
        assert one.held == WHOLE


# ── refusals


def test_a_refusal_is_read_with_its_body(make_attempt):
    body = b'{"error":{"code":429,"message":"x"}}'
    one, advance = make_attempt(json_answer("429 Too Many Requests", body, "Retry-After: 7\r\n"))
    advance()
    assert one.form is Form.REFUSAL
    assert (one.refusal.status, one.refusal.retry_after, one.refusal.body) == (429, "7", body)
    assert one.refusal.error["code"] == 429


@pytest.mark.parametrize("body", [b"<html>", b"", b"[1]"])
def test_a_refusal_that_is_no_json_object_has_no_payload(make_attempt, body):
    one, advance = make_attempt(json_answer("502 Bad Gateway", body))
    advance()
    assert one.refusal.payload is None


def test_a_refusals_body_is_waited_for_in_slices(make_attempt):
    head = JSON_CHUNKED.replace(b"200 OK", b"400 Bad Request")
    looked_up = threading.Event()
    one, advance = make_attempt(head, chunked(b'{"error":', end=False), looked_up, chunked(b'{"code":400}}'))
    for _ in range(3):
        with pytest.raises(NothingYet):
            advance(0.05)
    looked_up.set()
    advance()
    assert one.refusal.error == {"code": 400}


def test_what_broke_off_and_what_fell_silent_are_told_apart():
    assert broken(ConnectionLost("x")).status == 502
    assert broken(TimeIsUp()).status == 504


# ── time


DRIPS = {
    "chunk extensions": [step for _ in range(200) for step in (b";x=y", 0.02)],
    "trailers": [b"0\r\n", *(step for _ in range(200) for step in (b"X-T: 1\r\n", 0.02))],
}


@pytest.mark.parametrize("drip", DRIPS.values(), ids=DRIPS)
@pytest.mark.parametrize("begin", [SSE + b"1", JSON_CHUNKED + b"1"], ids=["stream", "plain"])
def test_bytes_that_are_no_body_do_not_make_the_time_begin_anew(make_attempt, begin, drip):
    if drip[0] == b"0\r\n":
        begin = begin[:-1]
    one, advance = make_attempt(begin, *drip, 20.0, seconds=0.5)
    with pytest.raises(TimeIsUp):
        advance()
    assert not one.has_content


def test_a_head_that_drips_is_given_up_too(make_attempt):
    _, advance = make_attempt(b"HTTP/1.1 200 OK\r\n", *[b"X-A: 1\r\n", 0.02] * 200, seconds=0.5)
    with pytest.raises(TimeIsUp):
        advance()
