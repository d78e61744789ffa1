"""The wire layer: connections that are kept, pipelined, closed, reset, and answers larger than any buffer."""

import json
import socket
from urllib.parse import urlsplit

import pytest
import requests

from sandbox.http_server import Heads, in_chunk


def get(path):
    return f"GET /api/v1{path} HTTP/1.1\r\nHost: stand-in\r\n\r\n".encode()


def connect(stand_in):
    return socket.create_connection(("127.0.0.1", urlsplit(stand_in.address).port), timeout=30)


def test_a_chunk_has_its_size_in_front():
    assert in_chunk(b"x" * 26) == b"1a\r\n" + b"x" * 26 + b"\r\n"


def test_a_head_ends_with_the_shared_headers():
    head = Heads(b"server: cloudflare\r\n").build(529, b"a: b\r\n")
    assert head.startswith(b"HTTP/1.1 529 Site is overloaded\r\na: b\r\ndate: ")
    assert head.endswith(b"server: cloudflare\r\n\r\n")


def test_a_connection_serves_many_requests(stand_in):
    with requests.Session() as session:
        ports = {session.get(stand_in.address + "/models/count", timeout=30).raw.version for _ in range(3)}
    assert ports == {11}


def test_pipelined_requests_are_answered_in_order(stand_in):
    with connect(stand_in) as connection:
        connection.sendall(get("/models/count") + get("/nowhere") + get("/models/count"))
        received = b""
        while received.count(b"HTTP/1.1 ") < 3 or not received.endswith(b"}}"):
            received += connection.recv(65536)
    assert [part[:3] for part in received.split(b"HTTP/1.1 ")[1:]] == [b"200", b"404", b"200"]


def test_a_request_may_come_byte_by_byte_and_wait_for_permission(stand_in):
    key = stand_in.new_key()["key"]
    body = json.dumps({"messages": [{"role": "user", "content": "slow"}], "max_tokens": 50}).encode()
    head = (
        f"POST /api/v1/chat/completions HTTP/1.1\r\nAuthorization: Bearer {key}\r\n"
        f"Expect: 100-continue\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with connect(stand_in) as connection:
        for byte in head.encode():
            connection.sendall(bytes([byte]))
        assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(body)
        assert connection.recv(100).startswith(b"HTTP/1.1 200 OK\r\n")


def test_an_answer_larger_than_every_buffer_arrives_whole(stand_in, body_of):
    size = 5_000_000
    answer, end = stand_in.raw_chat(stand_in.new_key()["key"], f"sandbox/huge-line?huge_bytes={size}&chunks=1")
    assert end == "closed"
    assert b'data: {"filler":"' + b"x" * size + b'"}\n\n' in body_of(answer)


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_is_noticed_at_once(stand_in, stream):
    key = stand_in.new_key()
    connection = stand_in.open_chat(key["key"], "sandbox/stream?chunks=3&pace_ms=60000&delay_ms=60000", stream)
    stand_in.logged(key["hash"], lambda entry: not entry["ended"])
    connection.close()
    entry = stand_in.logged(key["hash"], lambda entry: entry["ended"])
    assert entry["client_closed_early"]
    assert entry["elapsed_ms"] < 60_000  # when the next piece would have been due
    assert entry["chunks_sent"] == 0
    assert entry["bytes_sent"] == 0


def test_a_request_with_too_many_behind_it_is_refused(stand_in):
    with connect(stand_in) as connection:
        connection.sendall(get("/models/count") * 200)
        received = b""
        while data := connection.recv(1 << 20):
            received += data
    assert b"HTTP/1.1 429 Too Many Requests" in received
