"""Bodies that do not come: how long they are waited for, what that costs their sender, and that it costs nobody else."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from foundation.errors import RequestTimeout
from serving.slow_bodies import SlowBodies
from tests.support.gateway import Gateway, new_derived_key, read_all, wait_for
from tests.support.scripted_upstream import SSE, ScriptedUpstream, chunked

WHOLE = (
    b'{"id":"gen-1","choices":[{"index":0,"message":{"role":"assistant","content":"Hi"}}],"usage":{"cost":0.000007}}'
)
EVENT = b'data: {"id":"gen-1","choices":[{"index":0,"delta":{"content":"Hi"}}]}\n\n'
THREADS = 16
DEFAULTS = dict.fromkeys((f"RATE_LIMIT_{kind}_CONCURRENT" for kind in ("USER", "KEY", "ADDRESS")), "")


def test_a_body_that_comes_in_time_is_handed_on_and_is_nobodys_to_end_any_more():
    bodies = SlowBodies()
    body = bodies.expect({}, 60)
    assert bodies.take(body, lambda: b"{}") == b"{}"
    assert not body.end()


def test_one_whose_sender_was_let_go_is_not_used_even_if_it_has_come():
    """Or a call would be made, and billed, whose answer nobody gets."""
    bodies = SlowBodies()
    body = bodies.expect({}, 60)
    assert body.end()
    assert not body.end()
    with pytest.raises(RequestTimeout):
        bodies.take(body, lambda: b"{}")


def test_one_that_is_late_is_ended_by_itself():
    bodies, told = SlowBodies(), threading.Event()

    class Connection:
        def shutdown(self, how: int) -> None:
            assert how == socket.SHUT_RD
            told.set()

    def read() -> bytes:
        assert told.wait(30)
        return b""

    body = bodies.expect({"gunicorn.socket": Connection()}, 0.1)
    in_time = bodies.expect({}, 60)
    with pytest.raises(RequestTimeout):
        bodies.take(body, read)
    assert bodies.take(in_time, lambda: b"{}") == b"{}"
    assert not bodies._bodies


# ── over sockets


def settings_with(upstream: ScriptedUpstream) -> dict[str, object]:
    keys = f"sk-or-v1-{'a' * 64}"
    return {"SERVER_THREADS": THREADS, "OPENROUTER_API_URL": upstream.url, "OPENROUTER_API_KEYS": keys}


@pytest.fixture(scope="module", params=["granian", "gunicorn"])
def small(request, start, upstream) -> Gateway:
    """Few threads, and the limits that everybody has by default."""
    return start(SERVER=request.param, CLIENT_BODY_TIMEOUT_SECONDS=2, **settings_with(upstream), **DEFAULTS)


@pytest.fixture
def somebody(small) -> str:
    """Without the calls of the test before, which may not have ended yet."""
    return small.new_user()


@pytest.fixture(scope="module")
def operator(small) -> dict[str, str]:
    account = {"username": "operator@example.com", "derived_key": new_derived_key()}
    assert small.post("/register", account).status_code == 201
    return account


@contextmanager
def opened(gateway: Gateway, count: int, sent: bytes) -> Iterator[list[socket.socket]]:
    """So many connections on which this was sent."""
    connections = []
    try:
        for _ in range(count):
            connections.append(socket.create_connection(("127.0.0.1", gateway.port), timeout=30))
            connections[-1].sendall(sent)
        yield connections
    finally:
        for connection in connections:
            connection.close()


def half_sent(path: str, token: str) -> bytes:
    head = (
        f"POST {path} HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n"
    )
    return f"{head}Content-Length: 100\r\n\r\n{{".encode()


def assert_others_are_served(gateway: Gateway, operator: dict[str, str], other: str) -> None:
    """Within a moment: slow senders make room, whoever has just begun to send does not."""
    assert gateway.get("/api/health").status_code == 200
    wait_for(lambda: gateway.post("/login", operator).status_code == 200)
    wait_for(lambda: gateway.get("/api/quota", other).status_code == 200)
    assert gateway.chat(other, "m").status_code == 200


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/login", "/api/quota", "/api/health"])
def test_bodies_that_never_end_keep_nobody_else_out(small, somebody, operator, path):
    """Ten times as many as there are threads for model calls."""
    other = small.new_user()
    with opened(small, THREADS * 10, half_sent(path, somebody)):
        assert_others_are_served(small, operator, other)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/videos/job-1/content", "/api/health"])
def test_a_strangers_body_is_not_waited_for_where_calls_are(small, somebody, path):
    """Nor that of whoever asks for a film, which has a call's place."""
    with opened(small, 1, half_sent(path, "nobodys")) as (connection,):
        assert read_all(connection)[:13] in {b"HTTP/1.1 401 ", b"HTTP/1.1 405 "}
    assert small.chat(somebody, "m").status_code == 200


@pytest.mark.parametrize("server", ["granian", "gunicorn"])
def test_where_users_may_call_any_number_at_once_slow_bodies_make_room_for_calls(start, upstream, server):
    gateway = start(SERVER=server, **settings_with(upstream))
    somebody, other = gateway.new_user(), gateway.new_user()
    with opened(gateway, THREADS * 10, half_sent("/v1/chat/completions", somebody)):
        for _ in range(10):
            wait_for(lambda: gateway.chat(other, "m").status_code == 200)


def test_streams_of_one_user_keep_nobody_else_out(small, somebody, operator, upstream):
    other, gate = small.new_user(), threading.Event()
    model = f"endless/{small.port}"
    upstream.play(model, SSE, chunked(EVENT, end=False), gate)
    streams = [small.open_chat(somebody, model) for _ in range(THREADS * 3)]
    try:
        refused = 0
        for stream in streams:
            refused += stream.recv(12) == b"HTTP/1.1 429"
        assert refused == THREADS * 3 - 4
        assert_others_are_served(small, operator, other)
    finally:
        gate.set()
        for stream in streams:
            stream.close()


def test_heads_that_never_end_keep_nobody_else_out(small, operator):
    other = small.new_user()
    with (
        opened(small, 300, b"POST /login HTTP/1.1\r\nHost: gate"),
        opened(small, 300, b""),
    ):
        assert_others_are_served(small, operator, other)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/login"])
def test_whoever_does_not_finish_a_body_is_let_go_and_its_place_is_free(small, somebody, path):
    with opened(small, 4, half_sent(path, somebody)) as connections:
        for connection in connections:
            answer = read_all(connection)  # ends: the gateway closes
            assert not answer or answer.startswith(b"HTTP/1.1 408 ")
    wait_for(lambda: small.chat(somebody, "m").status_code == 200)


def test_a_body_that_comes_in_pieces_is_served(small, somebody):
    body = b'{"model":"m","messages":[{"role":"user","content":"hi"}]}'
    head = half_sent("/v1/chat/completions", somebody).replace(b"Length: 100", b"Length: %d" % len(body))
    with socket.create_connection(("127.0.0.1", small.port), timeout=30) as connection:
        connection.sendall(head[:20])
        for piece in (head[20:], body[1:9], body[9:]):
            time.sleep(0.05)
            connection.sendall(piece)
        assert connection.recv(12) == b"HTTP/1.1 200"
