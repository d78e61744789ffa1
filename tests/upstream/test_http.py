"""Connections to an upstream: reused when whole, closed when not, never trusted after anything odd."""

import json
import select
import socket
import ssl
import subprocess
import threading

import pytest

from foundation.deadline import Deadline, NothingYet, TimeIsUp
from tests.support.gateway import free_port, in_threads, wait_for
from tests.support.scripted_upstream import CLOSE, JSON_CHUNKED, RESET, SSE, ScriptedUpstream, chunked, json_answer
from upstream.connection import ConnectFailed, ConnectionLost
from upstream.http import UpstreamHttp


@pytest.fixture
def upstream():
    scripted = ScriptedUpstream()
    yield scripted
    scripted.close()


opened = []


@pytest.fixture
def client():
    """Make clients whose exchanges and connections end with the test."""
    clients = []

    def make(url):
        clients.append(UpstreamHttp(url, connect_timeout_seconds=2))
        return clients[-1]

    yield make
    while opened:
        opened.pop().close()
    for one in clients:
        one.close()


@pytest.fixture
def http(client, upstream):
    return client(upstream.url)


def send(http, model="m"):
    opened.append(http.exchange(http.request_line("POST", "/chat/completions"), json.dumps({"model": model}).encode()))
    return opened[-1]


def read_whole(exchange):
    exchange.wait_head(Deadline(60))
    body = b""
    while piece := exchange.read(Deadline(60)):
        body += piece
    return body


def looking_up_in(seconds):
    """Plenty of time, but for a look around."""
    deadline = Deadline(5)
    deadline.look_up_in(seconds)
    return deadline


def test_a_request_goes_out_as_given(http, upstream):
    upstream.play("m", json_answer("200 OK", b"{}"))
    head = http.request_line("POST", "/chat/completions") + b"X-Test: 1\r\n"
    exchange = http.exchange(head, b'{"model":"m"}')
    read_whole(exchange)
    exchange.close()
    [request] = upstream.received
    assert request.head.startswith(b"POST /api/v1/chat/completions HTTP/1.1\r\n")
    assert request.headers() == {"host": f"127.0.0.1:{upstream.port}", "x-test": "1", "content-length": "13"}
    assert request.body == b'{"model":"m"}'


@pytest.mark.parametrize(
    "answer",
    [
        json_answer("200 OK", b'{"a":1}'),
        JSON_CHUNKED + chunked(b'{"a"', b":1}"),
        b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + json_answer("200 OK", b'{"a":1}'),
        JSON_CHUNKED + b'7\r\n{"a":1}\r\n0\r\nX-Trailer: 1\r\nContent-Type: text/evil\r\n\r\n',
    ],
    ids=["length", "chunked", "early hints", "trailers"],
)
def test_a_whole_answer_is_read_and_its_connection_used_again(http, upstream, answer):
    upstream.play("m", answer)
    for _ in range(3):
        exchange = send(http)
        assert read_whole(exchange) == b'{"a":1}'
        assert (exchange.status, exchange.headers["content-type"]) == (200, "application/json")
        exchange.close()
    assert {request.connection for request in upstream.received} == {1}


@pytest.mark.parametrize(
    "answer",
    [
        json_answer("200 OK", b"{}", "Connection: close\r\n"),
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}",
        json_answer("200 OK", b"{}") + json_answer("200 OK", b'{"stolen":true}'),
        json_answer("200 OK", b"{}") + b"HTTP/1.1 200 OK\r\nX-Half",
        json_answer("200 OK", b"{}") + b"junk",
    ],
    ids=["close", "http 1.0", "an answer nobody asked for", "half of one", "junk"],
)
def test_a_connection_that_is_not_to_be_trusted_is_not_used_again(http, upstream, answer):
    upstream.play("m", answer)
    for _ in range(2):
        exchange = send(http)
        assert read_whole(exchange) == b"{}"
        exchange.close()
    assert [request.connection for request in upstream.received] == [1, 2]


def test_a_body_without_length_ends_with_its_connection(http, upstream):
    upstream.play(
        "m", b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: a\n\n", 0.05, b"data: b\n\n", CLOSE
    )
    exchange = send(http)
    exchange.wait_head(Deadline(60))
    assert exchange.read(Deadline(5)) == b"data: a\n\n"
    assert exchange.read(Deadline(5)) == b"data: b\n\n"
    assert exchange.read(Deadline(5)) == b""
    assert not exchange.delimited


@pytest.mark.parametrize("end", [CLOSE, RESET])
@pytest.mark.parametrize(
    "begin",
    [
        b"",
        b"HTTP/1.1 200 O",
        SSE + chunked(b"data: a\n\n", end=False),
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc",
    ],
    ids=["nothing", "half a head", "chunked", "length"],
)
def test_an_answer_that_breaks_off_is_never_taken_for_whole(http, upstream, begin, end):
    upstream.play("m", begin, 0.05, end)
    exchange = send(http)
    with pytest.raises(ConnectionLost):
        read_whole(exchange)
    assert not exchange.complete
    assert not exchange.reusable


@pytest.mark.parametrize(
    "garbage",
    [
        b"<html>no http here</html>\r\n\r\n",
        b"HTTP/1.1 99999 X\r\n\r\n",
        SSE + b"zz\r\nbad chunk\r\n",
        b"\x16\x03\x01\x02\x00",
    ],
)
def test_what_is_not_http_is_refused(http, upstream, garbage):
    upstream.play("m", garbage, CLOSE)
    with pytest.raises(ConnectionLost):
        read_whole(send(http))


def test_headers_without_end_are_refused(http, upstream):
    upstream.play("m", b"HTTP/1.1 200 OK\r\n" + b"X-Filler: %s\r\n" % (b"x" * 8000) * 20 + b"\r\n")
    with pytest.raises(ConnectionLost):
        read_whole(send(http))


def test_silence_is_reported_and_the_exchange_goes_on(http, upstream):
    gate = threading.Event()
    upstream.play("m", gate, SSE, gate, chunked(b"data: a\n\n"))
    exchange = send(http)
    with pytest.raises(NothingYet):
        exchange.wait_head(looking_up_in(0.05))
    gate.set()
    exchange.wait_head(Deadline(60))
    assert exchange.read(Deadline(5)) == b"data: a\n\n"


def test_closing_within_an_answer_closes_the_connection_at_once(http, upstream):
    upstream.play("m", SSE + chunked(b"data: a\n\n", end=False), 10.0)
    exchange = send(http)
    exchange.wait_head(Deadline(60))
    exchange.close()
    assert upstream.received[0].closed_by_client.wait(2)
    exchange.close()  # again does nothing


def test_a_connection_closed_while_idle_is_replaced(http, upstream):
    upstream.play("m", json_answer("200 OK", b"{}"), 0.05, CLOSE)
    first = send(http)
    read_whole(first)
    first.close()
    idle = http._idle[0]
    wait_for(idle.is_stale)
    upstream.play("m", json_answer("200 OK", b"{}"))
    assert read_whole(send(http)) == b"{}"
    assert [request.connection for request in upstream.received] == [1, 2]


@pytest.mark.parametrize(
    "surplus", [json_answer("200 OK", b'{"of": "nobody"}'), b'"}\n'], ids=["another answer", "more than its length"]
)
def test_what_comes_after_an_answer_is_nobody_elses(http, upstream, surplus):
    upstream.play("m", json_answer("200 OK", b'{"of": "me"}'), 0.01, surplus)
    first = send(http)
    assert read_whole(first) == b'{"of": "me"}'
    first.close()
    [idle] = http._idle
    wait_for(lambda: select.select([idle._socket], [], [], 0)[0])  # a moment later, and no later than that
    upstream.play("m", json_answer("200 OK", b'{"of": "somebody else"}'))
    assert read_whole(send(http)) == b'{"of": "somebody else"}'
    assert [request.connection for request in upstream.received] == [1, 2]


# What an upstream does that keeps no connection, though it says so: the next request meets one that is at its end.
CLOSING = [(CLOSE,), (RESET,)]


@pytest.mark.parametrize("end", CLOSING, ids=["closed", "reset"])
def test_of_a_thousand_calls_in_bursts_none_meets_a_connection_that_was_closed(http, upstream, end, monkeypatch):
    monkeypatch.setattr("upstream.http.STALE_SECONDS", 60.0)  # a busy machine may tell of a reset after a second
    upstream.play("m", json_answer("200 OK", b"{}"), *end)

    def burst():
        for _ in range(25):
            exchange = send(http)
            assert read_whole(exchange) == b"{}"
            exchange.close()
        return True

    assert in_threads(40, burst) == [True] * 40


def leave_idle(http, count):
    """Use so many connections at once, and leave them."""
    exchanges = [send(http) for _ in range(count)]
    for exchange in exchanges:
        exchange.wait_head(Deadline(60))
    for exchange in exchanges:
        read_whole(exchange)
        exchange.close()
    assert len(http._idle) == count


def reused(http, upstream, *steps):
    """A request over a connection that has carried another before. steps: what the upstream does with it."""
    upstream.play_in_turn("m", [json_answer("200 OK", b"{}")], steps, [json_answer("200 OK", b'{"again":1}')])
    first = send(http)
    read_whole(first)
    first.close()
    return send(http)


@pytest.mark.parametrize("end", [CLOSE, RESET])
def test_a_reused_connection_that_ends_without_an_answer_is_followed_by_a_new_one(http, upstream, end):
    exchange = reused(http, upstream, end)
    assert read_whole(exchange) == b'{"again":1}'
    assert [request.connection for request in upstream.received] == [1, 1, 2]
    assert upstream.received[1].body == upstream.received[2].body


def test_it_is_followed_by_a_new_one_though_others_are_idle(http, upstream):
    """They were most likely closed with it."""
    upstream.play("m", json_answer("200 OK", b"{}"), 0.2)
    leave_idle(http, 3)
    upstream.play_in_turn("m", [RESET], [json_answer("200 OK", b"{}")])
    assert read_whole(send(http)) == b"{}"
    assert upstream.received[-1].connection == 4


@pytest.mark.parametrize(
    "steps",
    [(b"HTTP/1.1 200", CLOSE), (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", RESET)],
    ids=["half a head", "no body"],
)
def test_once_a_byte_has_come_nothing_is_sent_again(http, upstream, steps):
    with pytest.raises(ConnectionLost):
        read_whole(reused(http, upstream, *steps))
    assert len(upstream.received) == 2


def test_an_end_that_comes_late_may_have_been_billed_and_is_lost(http, upstream, monkeypatch):
    monkeypatch.setattr("upstream.http.STALE_SECONDS", 0.0)
    with pytest.raises(ConnectionLost):
        read_whole(reused(http, upstream, CLOSE))
    assert len(upstream.received) == 2


def test_what_must_not_be_done_twice_is_sent_once(http, upstream):
    upstream.play_in_turn("", [json_answer("200 OK", b"{}")], [CLOSE], [json_answer("200 OK", b"{}")])
    assert http.post("/keys", b"{}", 5, 1000) == (200, b"{}")
    with pytest.raises(ConnectionLost):
        http.post("/keys", b"{}", 5, 1000)
    assert http.get("/key", b"", 5, 1000) == (200, b"{}")


def test_a_new_connection_that_ends_without_an_answer_is_lost(http, upstream):
    upstream.play_in_turn("m", [json_answer("200 OK", b"{}")], [CLOSE])
    first = send(http)
    read_whole(first)
    first.close()
    with pytest.raises(ConnectionLost):
        read_whole(send(http))
    assert len(upstream.received) == 3


def test_what_was_sent_and_cant_be_sent_again_is_not_said_to_be_unsent(http, upstream):
    exchange = reused(http, upstream, CLOSE)
    upstream.close()
    http._port = free_port()
    with pytest.raises(ConnectionLost):
        read_whole(exchange)


def test_a_refusal_before_the_request_was_read_is_heard(client):
    """An edge that refuses a large body answers and closes without reading it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def refuse():
            connection, _ = listener.accept()
            connection.recv(1000)
            connection.sendall(json_answer("413 Content Too Large", b"{}", "Connection: close\r\n"))
            connection.shutdown(socket.SHUT_RDWR)
            ended.wait(10)
            connection.close()

        ended = threading.Event()
        threading.Thread(target=refuse, daemon=True).start()
        http = client(f"http://127.0.0.1:{listener.getsockname()[1]}/api/v1")
        exchange = http.exchange(http.request_line("POST", "/x"), b"x" * 20_000_000)
        opened.append(exchange)
        exchange.wait_head(Deadline(60))
        ended.set()
        assert exchange.status == 413
        assert not exchange.reusable


def test_connections_idle_for_long_are_closed_though_younger_ones_are_enough(http, upstream, monkeypatch):
    upstream.play("m", json_answer("200 OK", b"{}"))
    leave_idle(http, 3)
    for connection in list(http._idle)[:2]:
        connection.idle_since -= 61
    again = send(http)
    read_whole(again)
    again.close()
    assert len(http._idle) == 1


def test_no_server_is_a_failed_connection_in_which_nothing_was_sent(client):
    with pytest.raises(ConnectFailed):
        read_whole(send(client(f"http://127.0.0.1:{free_port()}/api/v1")))


# ── small answers as a whole


def get(http, seconds=5):
    return http.get("/key", b"X-Test: 1\r\n", seconds, 100)


@pytest.mark.parametrize("status", ["200 OK", "307 Temporary Redirect", "404 Not Found", "500 Oops"])
def test_a_small_answer_is_read_whole_and_its_connection_used_again(http, upstream, status):
    upstream.play("", json_answer(status, b"x" * 100))
    for _ in range(2):
        assert get(http) == (int(status[:3]), b"x" * 100)
    assert len(http._idle) == 1
    assert upstream._connections == 1


def test_a_small_body_is_posted_without_anything_that_authorizes(http, upstream):
    upstream.play("", json_answer("200 OK", b"{}"))
    assert http.post("/auth/keys", b'{"code": "x"}', 5, 100) == (200, b"{}")
    [received] = upstream.received
    head = received.head.decode().lower()
    assert head.startswith("post /api/v1/auth/keys http/1.1\r\n")
    assert "content-type: application/json\r\n" in head
    assert "authorization" not in head
    assert received.body == b'{"code": "x"}'


@pytest.mark.parametrize(
    ("steps", "error"),
    [
        ([JSON_CHUNKED + chunked(b"x" * 101, end=False), 60.0], TimeIsUp),
        ([60.0], TimeIsUp),
        ([JSON_CHUNKED, 60.0], TimeIsUp),
        ([JSON_CHUNKED, *[chunked(b"x", end=False), 0.02] * 100], TimeIsUp),
        ([JSON_CHUNKED + chunked(b"x", end=False), CLOSE], ConnectionLost),
        ([RESET], ConnectionLost),
        ([b"nonsense", CLOSE], ConnectionLost),
    ],
)
def test_what_is_too_long_or_too_slow_or_broken_is_no_answer(http, upstream, steps, error):
    upstream.play("", *steps)
    with pytest.raises(error):
        get(http, 0.3)
    assert not http._idle


def test_a_whole_answer_that_is_too_long_is_no_answer_either(http, upstream):
    upstream.play("", json_answer("200 OK", b"x" * 101))
    with pytest.raises(TimeIsUp):
        get(http)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    files = folder / "cert.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=DNS:localhost", "-out", str(files[0]), "-keyout", str(files[1])]
    subprocess.run(command, check=True, capture_output=True)
    return files


@pytest.fixture
def tls_upstream(certificate):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    scripted = ScriptedUpstream(context)
    yield scripted
    scripted.close()


def test_tls_streams_events_and_reuses_connections(tls_upstream, client, certificate, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    http = client(f"https://localhost:{tls_upstream.port}/api/v1")
    gate = threading.Event()
    tls_upstream.play("m", SSE, chunked(b"data: a\n\n", end=False), gate, chunked(b"data: b\n\n"))
    for _ in range(2):
        exchange = send(http)
        exchange.wait_head(Deadline(60))
        assert exchange.read(Deadline(5)) == b"data: a\n\n"
        if not gate.is_set():
            with pytest.raises(NothingYet):
                exchange.read(looking_up_in(0.05))
            gate.set()
        assert read_whole(exchange) == b"data: b\n\n"
        exchange.close()
    assert {request.connection for request in tls_upstream.received} == {1}


def test_tls_with_a_certificate_that_nobody_vouches_for_is_refused(client, tls_upstream):
    http = client(f"https://localhost:{tls_upstream.port}/api/v1")
    with pytest.raises(ConnectFailed):
        read_whole(send(http))
