"""One call upstream and back: what goes up, what comes down, when it is tried again, what happens in silence.

In this process, over real sockets: the proxy's own objects against an upstream that plays exact bytes.
"""

import json
import logging
import threading

import pytest

from accounts.caller import Caller
from billing.quotas.rate_limits import UNLIMITED
from config.version import USER_AGENT
from formats.registry import CHAT
from foundation.errors import (
    AppError,
    Busy,
    PaymentRequired,
    TooManyRequests,
    UpstreamFailed,
    UpstreamRefused,
    UpstreamTimeout,
)
from gateway.bodies import HeldBody
from gateway.request import ProxyRequest
from tests.support.data_plane import DONE, EVENT, WHOLE, finished, last_event, request, whole
from tests.support.gateway import wait_for
from tests.support.scripted_upstream import CLOSE, JSON_CHUNKED, RESET, SSE, chunked, json_answer
from upstream.connection import ConnectionLost

# ── what goes up


def test_the_body_goes_up_byte_for_byte_under_our_headers_only(make_proxy, upstream):
    upstream.play("m", json_answer("200 OK", WHOLE))
    body = b' {"model": "m",\n "x":1.50, "big":123456789012345678901,"messages":[{"role":"user","content":"\\u00e9 \xc3\xa9"}] } '
    whole(
        make_proxy().forward(
            ProxyRequest(
                CHAT, "r", Caller(1, "s", 9e9), HeldBody(body), b"X-Session-Id: 7\r\n", lambda: False, UNLIMITED
            )
        )
    )
    [received] = upstream.received
    assert received.body == body
    headers = received.headers()
    assert headers.pop("authorization").startswith("Bearer sk-or-v1-0000")
    assert headers == {
        "host": f"127.0.0.1:{upstream.port}",
        "content-type": "application/json",
        "accept": "*/*",
        "accept-encoding": "identity",
        "user-agent": USER_AGENT,
        "http-referer": "https://myapp.com",
        "x-title": "Test",
        "x-openrouter-title": "Test",
        "x-session-id": "7",
        "content-length": str(len(body)),
    }


def test_keys_are_picked_at_random(make_proxy, upstream):
    upstream.play("m", json_answer("200 OK", WHOLE))
    proxy = make_proxy()
    for _ in range(40):
        whole(proxy.forward(request()))
    assert len({received.headers()["authorization"] for received in upstream.received}) == 3


# ── what comes down


def test_a_plain_answer_comes_back_unchanged_with_listed_headers_only(make_proxy, upstream):
    noise = "Set-Cookie: a=b\r\nServer: cloudflare\r\nCF-Ray: 1\r\nX-Generation-Id: gen-1\r\nX-Provider-Name: P\r\nX-Request-Id: z\r\n"
    upstream.play("m", json_answer("200 OK", WHOLE, noise))
    answer = make_proxy().forward(request())
    assert answer.status == 200
    assert dict(answer.headers) == {
        "Content-Type": "application/json",
        "X-Generation-Id": "gen-1",
        "X-Provider-Name": "P",
        "Content-Length": str(len(WHOLE)),
    }
    assert whole(answer) == WHOLE


def test_white_space_before_json_passes_at_once(make_proxy, upstream):
    gate = threading.Event()
    space = b"\n         \n"
    upstream.play("m", JSON_CHUNKED, chunked(space, end=False), gate, chunked(space, WHOLE))
    pieces = iter((answer := make_proxy().forward(request())).body)
    assert next(pieces) == space
    gate.set()
    assert space + b"".join(pieces) == space + space + WHOLE
    answer.body.close()


def test_a_200_with_an_error_body_is_cleaned_after_its_white_space(make_proxy, upstream):
    error = b'{"id":"gen-1","error":{"code":502,"message":"Upstream error","metadata":{"raw":"prompt"}},"user_id":"user_2abcdefghij"}'
    upstream.play("m", JSON_CHUNKED, chunked(b"\n   \n", error))
    answer = make_proxy().forward(request())
    body = whole(answer)
    assert answer.status == 200
    assert json.loads(body) == {"id": "gen-1", "error": {"code": 502, "message": "Upstream error"}}


def test_a_long_plain_answer_passes_in_pieces_and_its_usage_is_found(make_proxy, upstream, caplog):
    caplog.set_level(logging.INFO)
    long = b'{"choices":[{"message":{"content":"' + b"x" * 1_300_000 + b'"}}],"usage":{"prompt_tokens":3,"cost":0.5}}'
    upstream.play("m", JSON_CHUNKED, chunked(long[:1000], long[1000:]))
    answer = make_proxy().forward(request())
    pieces = list(answer.body)
    answer.body.close()
    assert b"".join(pieces) == long
    assert len(pieces) > 2
    assert finished(caplog)["prompt_tokens"] == 3


@pytest.mark.parametrize("size", [1, 2, 3, 5, 1000])
@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
def test_a_stream_comes_back_byte_for_byte_however_it_is_cut(make_proxy, upstream, size, line_end):
    events = (
        b": OPENROUTER PROCESSING\n\n" * 2 + 'data: {"choices":[{"delta":{"content":"é👋🏽"}}]}\n\n'.encode() + EVENT
    )
    events += b'data: {"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2,"cost":0.1}}\n\n' + DONE
    events = events.replace(b"\n", line_end)
    upstream.play(
        "m", SSE, *(chunked(events[i : i + size], end=False) for i in range(0, len(events), size)), b"0\r\n\r\n"
    )
    answer = make_proxy(keepalive_seconds=60).forward(request(stream=True))
    assert dict(answer.headers)["Content-Type"] == "text/event-stream"
    assert whole(answer) == events


def test_a_stream_without_done_or_last_blank_line_comes_back_as_it_is(make_proxy, upstream):
    last = b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}'
    upstream.play("m", SSE, chunked(EVENT, last))
    assert whole(make_proxy().forward(request(stream=True))) == EVENT + last


def test_each_event_passes_before_the_next_one_is_sent(make_proxy, upstream):
    gates = [threading.Event() for _ in range(3)]
    steps = [step for gate in gates for step in (chunked(EVENT, end=False), gate)]
    upstream.play("m", SSE, *steps, chunked(DONE))
    pieces = iter((answer := make_proxy().forward(request(stream=True))).body)
    for gate in gates:
        assert next(pieces) == EVENT
        gate.set()
    assert next(piece for piece in pieces if piece not in {b"", b": keep-alive\n\n"}) == DONE
    answer.body.close()


def test_a_compressed_answer_that_nobody_asked_for_passes_with_its_encoding(make_proxy, upstream):
    upstream.play("m", json_answer("200 OK", b"\x1f\x8b-not-really", "Content-Encoding: gzip\r\n"))
    answer = make_proxy().forward(request())
    assert dict(answer.headers)["Content-Encoding"] == "gzip"
    assert whole(answer) == b"\x1f\x8b-not-really"


# ── in silence, and when things break


def test_a_silent_stream_gets_comments_of_ours_between_events(make_proxy, upstream):
    gate = threading.Event()
    upstream.play("m", SSE, chunked(EVENT, end=False), gate, chunked(DONE))
    answer = make_proxy(keepalive_seconds=0.1).forward(request(stream=True))
    passed = b""
    for piece in answer.body:
        passed += piece
        if passed.count(b": keep-alive\n\n") == 2:
            gate.set()
    assert passed.replace(b": keep-alive\n\n", b"") == EVENT + DONE
    answer.body.close()


def test_a_stream_that_has_not_begun_begins_with_comments_of_ours(make_proxy, upstream):
    gate = threading.Event()
    upstream.play("m", gate, SSE, chunked(EVENT, DONE))
    answer = make_proxy().forward(request(stream=True))
    assert (answer.status, dict(answer.headers)["Content-Type"]) == (200, "text/event-stream")
    pieces = iter(answer.body)
    assert next(pieces) == b": keep-alive\n\n"
    gate.set()
    assert b"".join(pieces).replace(b": keep-alive\n\n", b"") == EVENT + DONE
    answer.body.close()


def test_a_refusal_after_the_stream_had_to_begin_is_an_event(make_proxy, upstream):
    gate = threading.Event()
    error = b'{"error":{"code":400,"message":"bad model"},"user_id":"user_2abcdefghij"}'
    upstream.play("m", gate, json_answer("400 Bad Request", error))
    answer = make_proxy().forward(request(stream=True))
    pieces = iter(answer.body)
    next(pieces)
    gate.set()
    event = last_event(b"".join(pieces))
    answer.body.close()
    assert event["error"] == {"code": 400, "message": "bad model"}
    assert event["choices"][0]["finish_reason"] == "error"
    assert "user_id" not in event


@pytest.mark.parametrize("end", [CLOSE, RESET])
def test_a_stream_that_breaks_off_ends_with_an_error_and_not_with_done(make_proxy, upstream, end):
    upstream.play("m", SSE, chunked(EVENT, EVENT[:20], end=False), 0.05, end)
    body = whole(make_proxy().forward(request(stream=True)))
    assert body.startswith(EVENT)
    assert last_event(body)["error"]["code"] == 502
    assert DONE not in body


def test_a_stream_that_stalls_ends_with_an_error(make_proxy, upstream):
    upstream.play("m", SSE, chunked(EVENT, end=False), 20.0)
    body = whole(make_proxy(upstream_idle_timeout_seconds=0.6).forward(request(stream=True)))
    assert last_event(body)["error"]["code"] == 504
    assert upstream.received[0].closed_by_client.wait(2)


@pytest.mark.parametrize("stream", [True, False])
def test_an_upstream_that_never_begins_is_given_up(make_proxy, upstream, stream):
    upstream.play("m", 20.0)
    proxy = make_proxy(upstream_first_byte_timeout_seconds=0.6)
    if stream:
        assert last_event(whole(proxy.forward(request(stream=True))))["error"]["code"] == 504
    else:
        with pytest.raises(UpstreamTimeout):
            proxy.forward(request())
    assert upstream.received[0].closed_by_client.wait(2)
    assert len(upstream.received) == 1  # it may be working on it: a second try might be billed too


def test_a_plain_answer_that_breaks_off_breaks_off_for_the_client_too(make_proxy, upstream):
    upstream.play("m", JSON_CHUNKED, chunked(b'{"a":' + b"1" * 1_200_000, end=False), 0.05, CLOSE)
    answer = make_proxy().forward(request())
    with pytest.raises(ConnectionLost):
        whole(answer)


def test_a_plain_answer_that_breaks_off_within_white_space_ends_with_an_error(make_proxy, upstream):
    gate = threading.Event()
    upstream.play("m", JSON_CHUNKED, chunked(b"\n   \n", end=False), gate, chunked(WHOLE[:10], end=False), CLOSE)
    pieces = iter((answer := make_proxy().forward(request())).body)
    assert next(pieces) == b"\n   \n"  # the status is out
    gate.set()
    assert json.loads(b"".join(pieces))["error"]["code"] == 502
    answer.body.close()
    assert len(upstream.received) == 1


def test_a_short_plain_answer_that_breaks_off_is_an_error_and_not_tried_again(make_proxy, upstream):
    upstream.play("m", JSON_CHUNKED, chunked(WHOLE[:10], end=False), 0.05, CLOSE)
    with pytest.raises(UpstreamFailed):
        make_proxy().forward(request())
    assert len(upstream.received) == 1


@pytest.mark.parametrize("ask", ["after a piece", "before any piece"])
def test_closing_the_answer_closes_the_upstream_at_once(make_proxy, upstream, ask):
    upstream.play("m", SSE, chunked(EVENT, end=False), 20.0)
    answer = make_proxy().forward(request(stream=True))
    if ask == "after a piece":
        assert next(iter(answer.body)) == EVENT
    answer.body.close()
    assert upstream.received[0].closed_by_client.wait(2)


def test_a_client_that_goes_while_the_upstream_is_silent_is_noticed(make_proxy, upstream):
    gone = threading.Event()
    upstream.play("m", SSE, chunked(EVENT, end=False), 20.0)
    answer = make_proxy().forward(request(stream=True, client_is_gone=gone.is_set))
    pieces = (piece for piece in answer.body if piece != b": keep-alive\n\n")
    assert next(pieces) == EVENT
    gone.set()
    assert list(pieces) == []
    assert upstream.received[0].closed_by_client.wait(2)


# ── tried again


def test_a_refused_key_is_replaced_and_rests_for_nobody(make_proxy, upstream):
    proxy = make_proxy(keys=2)
    dead = json_answer("401 Unauthorized", b'{"error":{"code":401,"message":"User not found."}}')
    upstream.play("m", dead)
    with pytest.raises(UpstreamFailed):
        proxy.forward(request())
    assert len({received.headers()["authorization"] for received in upstream.received}) == 2
    upstream.play("n", json_answer("200 OK", WHOLE))
    assert proxy.forward(request("n")).status == 200


def test_the_second_try_succeeds_and_the_client_sees_only_that(make_proxy, upstream):
    proxy = make_proxy(keys=2)
    first = json_answer("500 Internal Server Error", b'{"error":{"code":500,"message":"Internal Server Error"}}')
    upstream.play("m", first)
    play_second = threading.Event()

    def answer_well_from_now_on():
        wait_for(lambda: upstream.received)
        upstream.play("m", json_answer("200 OK", WHOLE))
        play_second.set()

    threading.Thread(target=answer_well_from_now_on, daemon=True).start()
    upstream.play("m", play_second, first)
    assert whole(proxy.forward(request())) == WHOLE
    assert len(upstream.received) == 2
    assert proxy.destinations.openrouter.keys.usable_count() == 2  # a failing server is not the key's fault


def test_the_clients_own_fault_is_not_tried_again_and_harms_no_key(make_proxy, upstream):
    proxy = make_proxy()
    error = b'{"error":{"code":400,"message":"x is not a valid model ID"}}'
    upstream.play("m", json_answer("400 Bad Request", error))
    answer = proxy.forward(request())
    assert (answer.status, whole(answer)) == (400, error)
    assert len(upstream.received) == 1
    assert proxy.destinations.openrouter.keys.usable_count() == 3


def test_a_refusals_retry_after_is_passed_on(make_proxy, upstream):
    error = (
        b'{"error":{"code":429,"message":"x is temporarily rate-limited upstream","metadata":{"provider_name":"P"}}}'
    )
    upstream.play("m", json_answer("429 Too Many Requests", error, "Retry-After: 33\r\n"))
    answer = make_proxy().forward(request())
    assert (answer.status, dict(answer.headers)["Retry-After"], whole(answer)) == (429, "33", error)


@pytest.mark.parametrize("break_off", [CLOSE, RESET])
def test_an_upstream_that_closes_without_an_answer_is_tried_once_more(make_proxy, upstream, break_off):
    upstream.play("m", break_off)
    with pytest.raises(UpstreamFailed):
        make_proxy(keys=1).forward(request())
    assert len(upstream.received) == 2


def test_nothing_is_tried_again_once_an_answer_has_begun(make_proxy, upstream):
    upstream.play("m", SSE, chunked(EVENT, end=False), CLOSE)
    whole(make_proxy().forward(request(stream=True)))
    assert len(upstream.received) == 1


def test_an_account_without_credit_is_a_402_that_no_sdk_retries(make_proxy, upstream):
    upstream.play(
        "m", json_answer("402 Payment Required", b'{"error":{"code":402,"message":"Insufficient credits. Add"}}')
    )
    proxy = make_proxy(keys=2)
    for _ in range(2):  # nothing rests: a smaller call may pass
        with pytest.raises(PaymentRequired) as refused:
            proxy.forward(request())
        assert refused.value.headers["x-should-retry"] == "false"
    assert len(upstream.received) == 4


def test_an_empty_pool_is_said_before_anything_is_sent(make_proxy, upstream):
    with pytest.raises(Busy):
        make_proxy(keys=0).forward(request())
    assert upstream.received == []


@pytest.mark.parametrize("page", [b"<html>502</html>", b"", b"not json", b"[1,2]"])
def test_a_page_of_the_edge_becomes_our_error(make_proxy, upstream, page):
    head = f"HTTP/1.1 502 Bad Gateway\r\nContent-Type: text/html\r\nContent-Length: {len(page)}\r\n\r\n"
    upstream.play("m", head.encode() + page)
    with pytest.raises(UpstreamFailed, match="502"):
        make_proxy().forward(request())


def test_a_redirect_is_never_followed(make_proxy, upstream):
    upstream.play("m", json_answer("307 Temporary Redirect", b"{}", f"Location: {upstream.url}/elsewhere\r\n"))
    with pytest.raises(UpstreamFailed):
        make_proxy().forward(request())
    assert len(upstream.received) == 1


@pytest.mark.parametrize("stream", [True, False])
def test_an_error_about_credit_under_status_200_rests_nothing_and_is_told_in_our_words(make_proxy, upstream, stream):
    proxy = make_proxy(keys=2)
    error = b'{"id":"gen-1","error":{"code":402,"message":"Insufficient credits. Add more"}}'
    if stream:
        upstream.play("m", SSE, chunked(b"data: " + error + b"\n\n"))
    else:
        upstream.play("m", JSON_CHUNKED, chunked(b"\n   \n", end=False), 0.05, chunked(error))
    body = whole(proxy.forward(request(stream=stream)))
    assert b"Insufficient" not in body
    assert json.loads(body.removeprefix(b"data: "))["error"]["code"] == 502
    assert len(upstream.received) == 1
    assert proxy.destinations.openrouter.keys.usable_count() == 2


def test_an_error_that_repeats_half_an_emoji_keeps_its_status_and_is_cleaned(make_proxy, upstream):
    error = b'{"error":{"code":403,"message":"flagged \\ud83d","metadata":{"reasons":["x"],"flagged_input":"PROMPT"}},"user_id":"user_2abcdefghij"}'
    for status in ("403 Forbidden", "200 OK"):
        upstream.play("m", json_answer(status, error))
        answer = make_proxy().forward(request())
        assert answer.status == int(status[:3])
        assert json.loads(whole(answer)) == {
            "error": {"code": 403, "message": "flagged \ud83d", "metadata": {"reasons": ["x"]}}
        }


def test_a_refusal_that_trickles_is_not_waited_for(make_proxy, upstream, monkeypatch):
    monkeypatch.setattr("gateway.attempt.REFUSAL_SECONDS", 0.3)
    upstream.play(
        "m",
        JSON_CHUNKED.replace(b"200 OK", b"400 Bad Request"),
        *(step for _ in range(20) for step in (chunked(b" ", end=False), 0.1)),
    )
    with pytest.raises(UpstreamRefused):
        make_proxy().forward(request())


def test_in_flight_budget_asks_one_client_to_wait_and_rests_no_key(make_proxy, upstream):
    error = b'{"error":{"code":402,"message":"x","metadata":{"limit_source":"openrouter_in_flight_budget"}}}'
    upstream.play("m", json_answer("402 Payment Required", error, "Retry-After: 30\r\n"))
    proxy = make_proxy(keys=1)
    with pytest.raises(TooManyRequests) as refused:
        proxy.forward(request())
    assert refused.value.headers["Retry-After"] == "30"
    assert proxy.destinations.openrouter.keys.usable_count() == 1


# ── finished


@pytest.mark.parametrize(
    ("steps", "fields", "outcome"),
    [
        ((json_answer("200 OK", WHOLE),), {}, "complete"),
        ((SSE, chunked(EVENT, DONE)), {"stream": True}, "complete"),
        ((SSE, chunked(EVENT, end=False), CLOSE), {"stream": True}, "cut"),
        ((SSE, chunked(b'data: {"error":{"code":502,"message":"x"}}\n\n')), {"stream": True}, "error"),
        (
            (json_answer("404 Not Found", b'{"error":{"code":404,"message":"No endpoints found for x."}}'),),
            {},
            "refused",
        ),
        ((json_answer("502 Bad Gateway", b"<html>"),), {}, "failed"),
    ],
)
def test_every_call_is_logged_once_with_its_outcome_and_nothing_private(
    make_proxy, upstream, caplog, steps, fields, outcome
):
    caplog.set_level(logging.INFO)
    upstream.play("a/m:free", *steps)
    proxy = make_proxy()
    try:
        whole(proxy.forward(request(model="a/m:free", **fields)))
    except AppError:
        pass
    line = finished(caplog)
    assert (line["outcome"], line["model"], line["user_id"]) == (outcome, "a/m:free", 1)
    if steps == (json_answer("200 OK", WHOLE),):
        assert (line["prompt_tokens"], line["completion_tokens"], line["cost_usd"]) == (3, 4, 0.000007)


@pytest.mark.parametrize(
    "secret", ["my secret prompt/in the wrong field", "kwO_BcgkIdu55h3C4p_Xt1EMQ0SOxWLMb_x1-zAuJR-t701Okl", "x" * 300]
)
def test_what_is_no_model_name_is_not_logged(make_proxy, upstream, caplog, secret):
    caplog.set_level(logging.INFO)
    upstream.play(secret, json_answer("400 Bad Request", b'{"error":{"code":400,"message":"no"}}'))
    whole(make_proxy().forward(request(model=secret)))
    assert finished(caplog)["model"] is None
