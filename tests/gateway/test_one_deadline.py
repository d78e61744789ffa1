"""Connecting, TLS and sending take of the call's time, as reading does; comments go out meanwhile; a client that leaves
in any of them is noticed."""

import socket
import threading
from contextlib import contextmanager

import pytest

from foundation.errors import UpstreamFailed, UpstreamTimeout
from openrouter_proxy import CLIENT_GONE_STATUS
from tests.support.data_plane import DONE, EVENT, WHOLE, finished, last_event, request, whole
from tests.support.scripted_upstream import SSE, chunked, json_answer

COMMENT = b": keep-alive\n\n"


@contextmanager
def listening(backlog=5):
    with socket.create_server(("127.0.0.1", 0), backlog=backlog) as listener:
        yield listener, f"127.0.0.1:{listener.getsockname()[1]}/api/v1"


@contextmanager
def never_accepting():
    """Its queue is full, so that connecting takes for ever."""
    with listening(backlog=0) as (listener, address):
        filling = [socket.socket() for _ in range(3)]
        for one in filling:
            one.setblocking(False)
            one.connect_ex(listener.getsockname())
        yield f"http://{address}"
        for one in filling:
            one.close()


@contextmanager
def never_shaking_hands():
    with listening() as (_, address):
        yield f"https://{address}"


@contextmanager
def never_reading():
    with listening() as (_, address):
        yield f"http://{address}"


STUCK = {"connecting": never_accepting, "TLS": never_shaking_hands, "sending": never_reading}
LONG = "x" * 20_000_000  # more than buffers take


@pytest.fixture(params=STUCK.values(), ids=STUCK)
def stuck(request):
    with request.param() as url:
        yield url


SLOW = {"upstream_connect_timeout_seconds": 20, "upstream_first_byte_timeout_seconds": 20}


def test_a_stream_gets_comments_meanwhile_and_ends_with_the_calls_time(make_proxy, stuck):
    proxy = make_proxy(openrouter_api_url=stuck, **SLOW | {"upstream_first_byte_timeout_seconds": 2})
    body = whole(proxy.forward(request(stream=True, filler=LONG)))
    assert body.startswith(COMMENT * 2)
    assert last_event(body)["error"]["code"] == 504


def test_a_call_may_ask_for_less_time_than_others_have(make_proxy, upstream):
    upstream.play("slow", 2.0, json_answer("200 OK", WHOLE))
    proxy = make_proxy(keepalive_seconds=60)
    with pytest.raises(UpstreamTimeout):
        proxy.forward(request("slow", timeout=1))
    assert whole(proxy.forward(request("slow"))) == WHOLE


def test_a_call_may_ask_for_more_time_before_its_answer_and_within(make_proxy, upstream):
    """Comments alone, longer than the usual times, as deep research sends them; nobody else's call waits so long."""
    comment = chunked(COMMENT, end=False)
    silence = (comment, 0.4, comment, 0.4, comment, 0.4, comment, 0.4)
    upstream.play("research", SSE, *silence, chunked(EVENT, end=False), *silence, chunked(DONE))
    proxy = make_proxy(keepalive_seconds=60, upstream_first_byte_timeout_seconds=1, upstream_idle_timeout_seconds=1)
    body = whole(proxy.forward(request("research", stream=True, timeout=20)))
    assert body.replace(COMMENT, b"") == EVENT + DONE
    with pytest.raises(UpstreamTimeout):
        proxy.forward(request("research", stream=True))


def test_a_plain_call_ends_with_the_calls_time(make_proxy, stuck):
    proxy = make_proxy(openrouter_api_url=stuck, **SLOW | {"upstream_first_byte_timeout_seconds": 1})
    with pytest.raises(UpstreamTimeout):
        proxy.forward(request(filler=LONG))


@pytest.mark.parametrize("stuck", [never_accepting, never_shaking_hands], ids=["connecting", "TLS"], indirect=True)
def test_connecting_has_a_time_of_its_own_after_which_it_is_tried_again(make_proxy, stuck, caplog):
    caplog.set_level("INFO")
    with pytest.raises(UpstreamFailed, match="could not be reached"):
        make_proxy(openrouter_api_url=stuck, upstream_connect_timeout_seconds=0.3).forward(request())
    assert [one["kind"] for one in finished(caplog)["tries"]] == ["unreachable"] * 3


def test_a_client_that_leaves_is_noticed(make_proxy, stuck, caplog):
    caplog.set_level("INFO")
    gone = threading.Event()
    proxy = make_proxy(openrouter_api_url=stuck, **SLOW)
    threading.Timer(0.7, gone.set).start()
    answer = proxy.forward(request(filler=LONG, client_is_gone=gone.is_set))
    assert (answer.status, whole(answer)) == (CLIENT_GONE_STATUS, b"")
    assert finished(caplog)["outcome"] == "client_gone"


def test_a_client_that_leaves_in_the_pause_between_tries_is_noticed(make_proxy, upstream, monkeypatch, caplog):
    caplog.set_level("INFO")
    monkeypatch.setattr("gateway.attempts._pause_seconds", lambda _tries: 4.5)
    upstream.play("m", json_answer("500 Oops", b"{}"))
    looks = iter([False])
    answer = make_proxy(upstream_first_byte_timeout_seconds=20).forward(
        request(client_is_gone=lambda: next(looks, True))
    )
    assert (answer.status, whole(answer)) == (CLIENT_GONE_STATUS, b"")
    line = finished(caplog)
    assert line["outcome"] == "client_gone"
    assert len(line["tries"]) == 1
    assert line["total_ms"] < 4500
