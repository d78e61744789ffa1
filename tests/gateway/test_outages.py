"""An upstream that is away, fails, or asks for patience: what it costs others, and what may have been billed."""

import json
import logging
import time
from email.utils import formatdate

import pytest

from foundation.errors import AppError, Busy, UpstreamFailed
from gateway.retry_budget import LEAST_OF_ALL, SHARE
from tests.support.data_plane import DONE, EVENT, WHOLE, finished, request, whole
from tests.support.gateway import free_port, in_threads, wait_for
from tests.support.scripted_upstream import CLOSE, RESET, SSE, ScriptedUpstream, chunked, json_answer

PAGE = b"HTTP/1.1 502 Bad Gateway\r\nContent-Type: text/html\r\nContent-Length: 6\r\n\r\n<html>"
GOOD = json_answer("200 OK", WHOLE)


def error(status, headers="", **metadata):
    body = {"error": {"code": status, "message": "x", "metadata": metadata}}
    return json_answer(f"{status} No", json.dumps(body).encode(), headers)


def records(proxy):
    """What was written down of the calls, a dictionary for each try."""
    found = {}
    for line in proxy.usage._journal._path.read_bytes().splitlines():
        record = json.loads(line)
        found.setdefault((record["request_id"], record["attempt"]), {}).update(record)
    return list(found.values())


# ── away


def test_an_outage_is_told_at_once_and_ends_by_itself(make_proxy, caplog):
    port = free_port()
    proxy = make_proxy(openrouter_api_url=f"http://127.0.0.1:{port}/api/v1")
    with pytest.raises(UpstreamFailed):
        proxy.forward(request())
    reach = proxy.destinations.openrouter.reach
    wait_for(lambda: reach.is_away)
    caplog.set_level(logging.INFO)
    for stream in (True, False):
        caplog.clear()
        with pytest.raises(Busy) as refused:
            proxy.forward(request(user_id=2, stream=stream))
        assert 1 <= int(refused.value.headers["Retry-After"]) <= 6
        assert finished(caplog)["tries"] == []  # nobody waited for a connection
    assert {record["state"] for record in records(proxy)} == {"void"}
    back = ScriptedUpstream(port=port)
    back.play("m", GOOD)
    wait_for(lambda: not reach.is_away)
    assert whole(proxy.forward(request(user_id=2))) == WHOLE
    back.close()


def test_an_outage_through_a_whole_gateway(start):
    port = free_port()
    gateway = start(
        OPENROUTER_API_URL=f"http://127.0.0.1:{port}/api/v1",
        OPENROUTER_API_KEYS=f"sk-or-v1-{'a' * 64}",
        SERVER_THREADS=16,
    )
    someone, another = gateway.new_user(), gateway.new_user()
    assert gateway.chat(someone).status_code == 502
    wait_for(lambda: "upstream_away" in gateway.log())
    refused = gateway.chat(another)
    assert refused.status_code == 503
    assert 1 <= int(refused.headers["Retry-After"]) <= 6
    assert refused.json()["error"]["type"] == "service_busy"
    health = gateway.get("/api/health").json()
    assert (health["status"], health["openrouter"]["status"]) == ("degraded", "unreachable")
    back = ScriptedUpstream(port=port)
    back.play("openai/gpt-4o-mini", GOOD)
    wait_for(lambda: "upstream_back" in gateway.log())
    assert gateway.chat(another).status_code == gateway.chat(someone).status_code == 200
    assert gateway.get("/api/health").json()["openrouter"] == {"status": "ok"}
    back.close()


DEAD = {
    "reset": (RESET,),
    "closed": (CLOSE,),
    "cut": (SSE, chunked(EVENT[:9], end=False), CLOSE),
    "edge": (PAGE,),
    "524": (b"HTTP/1.1 524 \r\nContent-Type: text/html\r\nContent-Length: 6\r\n\r\n<html>",),
    "provider": (error(502, provider_name="P"),),
    "limited": (error(429, provider_name="P"),),
    "not there": (error(404),),
}


@pytest.mark.parametrize("name", DEAD)
def test_one_users_dead_model_stops_nobody_else(make_proxy, upstream, name):
    upstream.play("dead", *DEAD[name])
    upstream.play("m", GOOD)
    proxy = make_proxy(keepalive_seconds=5)

    def fail():
        for _ in range(3):
            try:
                whole(proxy.forward(request(model="dead", stream=True)))
            except AppError:
                pass
            assert whole(proxy.forward(request(user_id=2))) == WHOLE
        return True

    assert in_threads(5, fail) == [True] * 5
    assert not proxy.destinations.openrouter.reach.is_away


# ── failing


def test_failures_of_all_calls_dont_triple_the_load(make_proxy, upstream):
    upstream.play("m", error(503))
    proxy = make_proxy()
    users = iter(range(10))

    def fail():
        user = next(users)
        return [proxy.forward(request(user_id=user)).status for _ in range(20)]

    assert in_threads(10, fail) == [[503] * 20] * 10
    assert len(upstream.received) <= 200 * (1 + SHARE) + LEAST_OF_ALL


def test_who_fails_all_the_time_leaves_others_their_retries(make_proxy, upstream):
    upstream.play("dead", error(503))
    proxy = make_proxy()
    for _ in range(15):
        proxy.forward(request(model="dead"))
    assert len(upstream.received) < 15 * 2
    upstream.play_in_turn("m", (error(503),), (error(503),), (GOOD,))
    assert whole(proxy.forward(request(user_id=2))) == WHOLE


# ── asked to wait


def http_date(seconds):
    return formatdate(time.time() + seconds, usegmt=True)


@pytest.mark.parametrize("asked", ["1", None], ids=["seconds", "date"])
def test_a_server_that_asks_for_a_moment_gets_it(make_proxy, upstream, caplog, asked):
    upstream.play_in_turn("m", (error(503, f"Retry-After: {asked or http_date(2)}\r\n"),), (GOOD,))
    proxy = make_proxy()
    caplog.set_level(logging.INFO)
    assert whole(proxy.forward(request())) == WHOLE
    first, second = finished(caplog)["tries"]
    assert finished(caplog)["total_ms"] - first["ms"] - second["ms"] >= 900


def edge(status, headers):
    return PAGE.replace(b"502 Bad Gateway\r\n", f"{status} No\r\n{headers}".encode())


@pytest.mark.parametrize("failure", [error, edge])
@pytest.mark.parametrize("asked", ["90", None], ids=["seconds", "date"])
def test_one_that_asks_for_long_is_not_asked_again_and_the_client_is_told(make_proxy, upstream, asked, failure):
    upstream.play("m", failure(503, f"Retry-After: {asked or http_date(90)}\r\n"))
    proxy = make_proxy()
    try:
        told = dict(proxy.forward(request()).headers)
    except UpstreamFailed as raised:
        told = raised.headers
    assert 60 <= int(told["Retry-After"]) <= 90
    assert len(upstream.received) == 1


# ── perhaps billed


@pytest.mark.parametrize(
    "answer",
    [
        error(504),
        error(504, provider_name="P"),
        error(524),
        PAGE.replace(b"502", b"524"),
        PAGE.replace(b"502", b"504"),
        PAGE.replace(b"502", b"520"),
    ],
)
def test_what_may_have_been_billed_is_tried_once_more_and_unknown_to_the_ledger(make_proxy, upstream, answer):
    upstream.play("m", answer)
    proxy = make_proxy()
    try:
        whole(proxy.forward(request()))
    except AppError as error:
        assert error.status in {502, 504}
    assert len(upstream.received) == 2
    assert [record["state"] for record in records(proxy)] == ["unknown", "unknown"]
    assert all(record.get("cost_nano") is None for record in records(proxy))


@pytest.mark.parametrize("first", [(error(504),), (RESET,)])
def test_there_is_one_more_try_whatever_becomes_of_that(make_proxy, upstream, first):
    upstream.play_in_turn("m", first, (error(500),), (GOOD,))
    assert make_proxy().forward(request()).status == 500
    assert len(upstream.received) == 2
    upstream.play_in_turn("m", (error(500),), first, (GOOD,))
    assert whole(make_proxy().forward(request())) == WHOLE


def test_a_timeout_within_a_stream_is_tried_once_more_too(make_proxy, upstream):
    event = b'data: {"error":{"code":504,"message":"x"}}\n\n'
    upstream.play("m", SSE, chunked(event, DONE))
    whole(make_proxy(keepalive_seconds=5).forward(request(stream=True)))
    assert len(upstream.received) == 2


def test_what_was_refused_at_once_is_free(make_proxy, upstream):
    upstream.play("m", error(503))
    proxy = make_proxy()
    whole(proxy.forward(request()))
    assert {record["state"] for record in records(proxy)} == {"void"}
