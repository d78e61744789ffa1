"""Told to stop, a server lets running answers finish; killed, it starts again as if nothing had been."""

import signal
import socket
import threading
import time

import psutil
import pytest
import requests

from tests.support.gateway import body_of, new_derived_key, read_all, run, wait_for
from tests.support.scripted_upstream import SSE, ScriptedUpstream, chunked, json_answer

EVENT = b'data: {"id":"gen-1","choices":[{"index":0,"delta":{"content":"hi"}}]}\n\n'
DONE = b"data: [DONE]\n\n"


@pytest.fixture
def upstream():
    scripted = ScriptedUpstream()
    yield scripted
    scripted.close()


@pytest.fixture(params=["granian", "gunicorn"])
def settings(request, upstream, tmp_path):
    return {
        "SERVER": request.param,
        "SERVER_THREADS": 16,
        "OPENROUTER_API_URL": upstream.url,
        "OPENROUTER_API_KEYS": f"sk-or-v1-{'b' * 64}",
        "DATA_DIR": tmp_path / "data",
        "KEEPALIVE_SECONDS": 1,
    }


def test_a_running_stream_finishes_after_sigterm(settings, upstream, start):
    gateway = start(**settings)
    gate = threading.Event()
    upstream.play("m", SSE, chunked(EVENT, end=False), gate, chunked(EVENT, DONE))
    connection = gateway.open_chat(gateway.new_user(), "m")
    received = b""
    while EVENT not in received:
        received += connection.recv(65536)
    gateway.process.send_signal(signal.SIGTERM)
    wait_for(lambda: not accepts(gateway))
    gate.set()
    body = body_of(received + read_all(connection)).replace(b": keep-alive\n\n", b"")
    assert body == EVENT + EVENT + DONE
    assert gateway.process.wait(60) == 0


def test_what_is_still_open_when_the_time_is_over_ends_with_an_error(settings, upstream, start):
    gateway = start(**settings | {"DRAIN_SECONDS": 1})
    token = gateway.new_user()
    upstream.play("silent", SSE, chunked(EVENT, end=False), 60.0)
    upstream.play("busy", SSE, *[step for _ in range(1200) for step in (chunked(EVENT, end=False), 0.05)])
    upstream.play("waiting", 60.0)
    silent, busy, waiting = (gateway.open_chat(token, model) for model in ("silent", "busy", "waiting"))
    plain = gateway.open_chat(token, "waiting", stream=False)
    streams = (silent, busy, waiting)
    for connection, sign in zip(streams, (EVENT, EVENT, b": keep-alive"), strict=True):
        received = b""
        while sign not in received:
            received += connection.recv(65536)
    wait_for(lambda: len(upstream.requests_for("waiting")) == 2)
    gateway.process.send_signal(signal.SIGTERM)
    for connection in streams:
        rest = read_all(connection)
        assert rest.endswith(b"0\r\n\r\n"), "the end of an answer, not of a connection"
        assert b'"code":503' in rest.rpartition(b"data: ")[2]
        assert b"[DONE]" not in rest
    assert read_all(plain).startswith(b"HTTP/1.1 503 ")
    assert gateway.process.wait(60) == 0
    assert all(request.closed_by_client.wait(10) for request in upstream.received)


def accepts(gateway):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", gateway.port)) == 0


def test_in_the_delay_calls_are_carried_and_nobody_is_sent_here_any_more(settings, upstream, start):
    upstream.play("m", json_answer("200 OK", b"{}"))
    gateway = start(**settings | {"DRAIN_DELAY_SECONDS": 600})
    token = gateway.new_user()
    assert gateway.get("/readyz").status_code == 200
    with requests.Session() as client:
        assert client.get(f"{gateway.url}/livez").headers.get("Connection", "keep-alive") == "keep-alive"
        gateway.process.send_signal(signal.SIGTERM)
        wait_for(lambda: gateway.get("/readyz").status_code == 503)
        assert gateway.get("/readyz").json() == {"status": "not_ready", "reason": "ending"}
        assert gateway.get("/livez").status_code == 200
        # Also a connection that was kept: its client goes elsewhere with the next request.
        for answered in (client.get(f"{gateway.url}/livez"), gateway.chat(token, "m"), gateway.chat("wrong", "m")):
            assert answered.headers["Connection"].lower() == "close"
    assert gateway.chat(token, "m").status_code == 200
    assert gateway.chat(token, "m", stream=True).status_code == 200
    for process in children_of(gateway):
        process.kill()
    gateway.stop(signal.SIGKILL)


def test_after_the_delay_connections_are_refused_and_streams_end_whole(settings, upstream, start):
    gateway = start(by_app_py=True, **settings | {"DRAIN_DELAY_SECONDS": 1})
    token = gateway.new_user()
    gate = threading.Event()
    longer_than_is_waited = [gate] * 4  # an upstream waits for half a minute
    upstream.play("m", SSE, chunked(EVENT, end=False), *longer_than_is_waited, chunked(EVENT, DONE))
    began = time.monotonic()
    gateway.process.send_signal(signal.SIGTERM)
    wait_for(lambda: gateway.get("/readyz").status_code == 503)
    connection = gateway.open_chat(token, "m")
    received = b""
    while EVENT not in received:
        received += connection.recv(65536)
    wait_for(lambda: not accepts(gateway))
    assert time.monotonic() - began >= 1
    assert gateway.process.poll() is None
    gate.set()
    assert body_of(received + read_all(connection)).replace(b": keep-alive\n\n", b"") == EVENT + EVENT + DONE
    assert gateway.process.wait(60) == 0


def test_after_a_kill_accounts_sessions_and_pool_are_as_before(settings, upstream, start, tmp_path):
    upstream.play("m", json_answer("200 OK", b"{}"))
    gateway = start(**settings)
    account = {"username": "before@example.com", "derived_key": new_derived_key()}
    assert gateway.post("/register", account).status_code == 201
    tokens = gateway.post("/login", account).json()
    for process in children_of(gateway):
        process.kill()
    gateway.stop(signal.SIGKILL)
    again = start(**settings)
    assert again.chat(tokens["token"], "m").status_code == 200
    assert again.post("/api/auth/refresh", {"refresh_token": tokens["refresh_token"]}).status_code == 200
    assert again.post("/login", account).status_code == 200
    assert again.post("/register", account).json()["message"] == "Username already exists"


def test_uses_counted_until_a_stop_are_written(settings, upstream, start, tmp_path):
    upstream.play("m", json_answer("200 OK", b"{}"))
    gateway = start(**settings)
    token = gateway.new_user()
    for _ in range(7):
        assert gateway.chat(token, "m").status_code == 200
    assert gateway.stop() == 0
    again = start(**settings)
    shown = run("-m", "flask", "--app", "app", "pool", **again.settings).stdout
    assert '"used":7' in shown


def children_of(gateway):
    return psutil.Process(gateway.process.pid).children(recursive=True)


def workers_of(gateway):
    return psutil.Process(gateway.process.pid).children()


def test_granians_worker_ends_when_its_parent_was_killed(upstream, start, tmp_path):
    upstream.play("m", json_answer("200 OK", b"{}"))
    settings = {"DATA_DIR": tmp_path / "data", "SERVER_THREADS": 16, "SERVER_WORKERS": 2}
    gateway = start(OPENROUTER_API_URL=upstream.url, **settings)
    assert gateway.post("/register", {}).status_code == 400  # one worker has begun to serve, maybe no other
    wait_for(lambda: len(workers_of(gateway)) == 2)
    workers = workers_of(gateway)
    gateway.stop(signal.SIGKILL)
    _gone, alive = psutil.wait_procs(workers, timeout=60)
    assert not alive, "an orphaned worker would hold the port against its successor"
