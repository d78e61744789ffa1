"""Bodies, from the socket until they are let go: what one user sends costs nobody else anything."""

import io
import json
import socket
import threading

import psutil
import pytest

from foundation.errors import AppError, BadRequest, PayloadTooLarge, TooManyRequests, UnsupportedMedia
from serving.request_body import PIECE_BYTES, read_body
from tests.support.gateway import body_of, read_all, wait_for
from tests.support.scripted_upstream import JSON_CHUNKED, SSE, chunked, json_answer

MIB = 1024 * 1024
EVENT = b'data: {"id":"gen-1","choices":[{"index":0,"delta":{"content":"hi"}}]}\n\n'
DONE = b"data: [DONE]\n\n"
WHOLE = b'{"id":"gen-1","choices":[],"usage":{"cost":0.000007}}'
BUDGET = 24 * MIB
IMAGE = 8 * MIB


# ── reading


def environ(body, length=None, **more):
    sent = {"wsgi.input": io.BytesIO(body)} | more
    return sent if length is None else sent | {"CONTENT_LENGTH": str(length)}


@pytest.mark.parametrize("size", [0, 1, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES])
def test_a_body_is_read_whole_and_its_room_is_made_before(size):
    body, room = bytes(index % 251 for index in range(size)), []
    assert read_body(environ(body, size), 10**9, room.append) == body
    assert room == [size]
    room.clear()
    assert read_body(environ(body), 10**9, room.append) == body
    assert sum(room) == size
    assert max(room, default=0) <= PIECE_BYTES


@pytest.mark.parametrize(
    ("sent", "error"),
    [
        (environ(b"12345", 5), PayloadTooLarge),
        (environ(b"12345"), PayloadTooLarge),
        (environ(b"12", 3), BadRequest),
        (environ(b"12", "2x"), BadRequest),
        (environ(b"12", "-1"), BadRequest),
        (environ(b"12", 2, HTTP_CONTENT_ENCODING="gzip"), UnsupportedMedia),
    ],
)
def test_what_can_not_be_read_is_refused(sent, error):
    with pytest.raises(error):
        read_body(sent, 4)


def test_what_finds_no_room_is_not_read():
    def refuse(_size):
        raise TooManyRequests("no room", 1)

    for length in (5, None):
        sent = environ(b"12345", length)
        with pytest.raises(AppError):
            read_body(sent, 10, refuse)
        assert length is None or sent["wsgi.input"].tell() == 0


# ── over sockets


@pytest.fixture(scope="module", params=["granian", "gunicorn"])
def scripted(request, start, upstream):
    return start(
        SERVER=request.param,
        SERVER_THREADS=64,
        OPENROUTER_API_URL=upstream.url,
        OPENROUTER_API_KEYS=f"sk-or-v1-{'a' * 64}",
        BODY_BUDGET_BYTES=BUDGET,
    )


@pytest.fixture(scope="module")
def heavy(scripted):
    return scripted.new_user()


@pytest.fixture(scope="module")
def innocent(scripted):
    return scripted.new_user()


def large(model, size=IMAGE, stream=False):
    """A body of this size, most of it one string."""
    begin = b'{"model":"%b","stream":%b,"messages":[{"role":"user","content":"' % (
        model.encode(),
        b"true" if stream else b"false",
    )
    return begin + b"A" * (size - len(begin) - 4) + b'"}]}'


def status_of(answer):
    return int(answer.split(b" ", 2)[1])


def send(gateway, token, body):
    """The raw answer to a call with this body."""
    return read_all(gateway.open_raw(body, f"Authorization: Bearer {token}\r\n"))


def answer_to_head(gateway, token, line, more=b""):
    """The beginning of the answer to a call of which only the head is sent, and this."""
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {token}\r\n{line}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=30) as connection:
        connection.sendall(head.encode() + more)
        return connection.recv(65536)


def resident(gateway):
    """Bytes of memory of the gateway's largest process."""
    parent = psutil.Process(gateway.process.pid)
    return max(process.memory_info().rss for process in (parent, *parent.children(recursive=True)))


def test_bodies_that_find_no_room_are_refused_unread_and_other_users_calls_go_on(scripted, heavy, innocent, upstream):
    gate, model = threading.Event(), f"slow/{scripted.port}"
    upstream.play(model, gate, json_answer("200 OK", WHOLE))
    upstream.play("m", json_answer("200 OK", WHOLE))
    held = scripted.open_raw(large(model), f"Authorization: Bearer {heavy}\r\n")
    wait_for(lambda: upstream.requests_for(model))
    assert status_of(answer_to_head(scripted, heavy, f"Content-Length: {13 * MIB}")) == 413
    refusal = answer_to_head(scripted, heavy, f"Content-Length: {11 * MIB}")
    assert status_of(refusal) == 429
    assert b"retry-after: " in refusal.lower()
    # Four MiB more are what is left to this user; the next piece is refused, and nothing is sent that nobody reads.
    pieces = b"".join(b"%x\r\n%b\r\n" % (PIECE_BYTES, b" " * PIECE_BYTES) for _ in range(4 * MIB // PIECE_BYTES + 1))
    assert status_of(answer_to_head(scripted, heavy, "Transfer-Encoding: chunked", pieces)) == 429
    assert status_of(send(scripted, innocent, large("m"))) == 200
    assert scripted.chat(innocent, "m").status_code == 200
    gate.set()
    assert body_of(read_all(held)) == WHOLE
    assert status_of(send(scripted, heavy, large("m", 11 * MIB))) == 200


def test_a_streams_body_is_let_go_with_its_first_content(scripted, heavy, upstream):
    gate, model = threading.Event(), f"stream/{scripted.port}"
    upstream.play(model, SSE, chunked(EVENT, end=False), gate, chunked(DONE))
    before = resident(scripted)
    streams = []
    for _ in range(6):  # four times what the user may have in flight
        stream = scripted.open_raw(large(model, stream=True), f"Authorization: Bearer {heavy}\r\n")
        received = b""
        while EVENT not in received:
            received += stream.recv(65536)
        streams.append(stream)
    assert resident(scripted) - before < 2 * IMAGE
    gate.set()
    for stream in streams:
        assert DONE in read_all(stream)


def test_a_body_of_millions_of_values_is_refused_and_an_innocent_stream_flows_on(scripted, heavy, innocent, upstream):
    model, flow = f"flow/{scripted.port}", threading.Event()
    upstream.play(model, SSE, *[step for _ in range(3) for step in (chunked(EVENT, end=False), flow)], chunked(DONE))
    stream = scripted.open_chat(innocent, model)
    before = resident(scripted)
    nest = b'{"model":"m","messages":[{"role":"user","content":"hi"}],"x":[%b[]]}' % (b"[]," * 3_500_000)
    answers = [send(scripted, heavy, nest) for _ in range(2)]
    assert [status_of(answer) for answer in answers] == [400, 400]
    assert b"too complex" in answers[0]
    assert resident(scripted) - before < 3 * IMAGE
    flow.set()
    assert read_all(stream).count(EVENT) == 3


def test_a_large_body_goes_up_byte_for_byte_and_again_for_another_try(scripted, innocent, upstream):
    model = f"again/{scripted.port}"
    upstream.play_in_turn(model, (json_answer("500 Oops", b"{}"),), (JSON_CHUNKED, chunked(WHOLE)))
    body = large(model)
    assert status_of(send(scripted, innocent, body)) == 200
    assert [request.body == body for request in upstream.requests_for(model)] == [True, True]
    assert json.loads(upstream.requests_for(model)[0].body)["model"] == model
