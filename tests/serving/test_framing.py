"""Heads that two readers could take for two requests: as rules, and over sockets under both servers."""

from __future__ import annotations

import socket

import pytest

from foundation.errors import AppError, BadRequest, NotSupported
from serving.framing import check_framing
from tests.support.gateway import read_all
from tests.support.rows import each_row

WHOLE = (
    b'{"id":"gen-1","choices":[{"index":0,"message":{"role":"assistant","content":"Hi"}}],"usage":{"cost":0.000007}}'
)
BODY = b'{"model":"m","messages":[{"role":"user","content":"hi"}]}'
LENGTH = b"Content-Length: %d\r\n" % len(BODY)
CHUNKS = b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY)
HOST = b"Host: gateway\r\n"


def head(protocol: str = "HTTP/1.1", **fields: str) -> dict[str, str]:
    return {"SERVER_PROTOCOL": protocol, "HTTP_HOST": "gateway", **fields}


@pytest.mark.parametrize("host", ["gateway", "gateway:5000", "192.0.2.1:80", "[2001:db8::1]:80", "a_b.example"])
def test_one_host_is_let_in(host):
    check_framing(head(HTTP_HOST=host))


@each_row("host", ["", "a,b", "a, a", ",a", "a b", "a/b", "a@b", "a\tb", "é"])
def test_none_and_two_are_not(host):
    with pytest.raises(BadRequest, match="Host") as raised:
        check_framing(head(HTTP_HOST=host))
    assert raised.value.headers["Connection"] == "close"


def test_http_1_0_knows_no_host():
    for protocol in ("HTTP/1", "HTTP/1.0"):  # granian's word, and gunicorn's
        check_framing({"SERVER_PROTOCOL": protocol})
        with pytest.raises(BadRequest):
            check_framing(head(protocol, HTTP_HOST="a,b"))


@pytest.mark.parametrize("coding", ["chunked", "Chunked", " chunked "])
def test_chunks_are_let_in(coding):
    check_framing(head(HTTP_TRANSFER_ENCODING=coding))


@pytest.mark.parametrize(
    ("coding", "length", "error"),
    [
        ("cow, chunked", None, NotSupported),
        ("gzip, chunked", None, NotSupported),
        ("chunked,chunked", None, NotSupported),
        ("chunked, cow", None, NotSupported),
        ("identity", "5", NotSupported),
        ("", "5", NotSupported),
        ("chunked", "5", BadRequest),
    ],
)
def test_what_says_the_bodys_end_in_another_way_or_two_is_not(coding, length, error):
    fields = {"HTTP_TRANSFER_ENCODING": coding} | ({"CONTENT_LENGTH": length} if length else {})
    with pytest.raises(AppError) as raised:
        check_framing(head(**fields))
    assert type(raised.value) is error
    assert raised.value.headers["Connection"] == "close"


@pytest.fixture(scope="module", params=["granian", "gunicorn"])
def gateway(request, start, upstream):
    keys = f"sk-or-v1-{'a' * 64}"
    return start(SERVER=request.param, OPENROUTER_API_URL=upstream.url, OPENROUTER_API_KEYS=keys)


MALFORMED = {
    "two hosts": HOST + b"Host: elsewhere\r\n" + LENGTH + b"\r\n" + BODY,
    "one host twice": HOST + HOST + LENGTH + b"\r\n" + BODY,
    "no host": LENGTH + b"\r\n" + BODY,
    "cow, chunked": HOST + b"Transfer-Encoding: cow, chunked\r\n\r\n" + CHUNKS,
    "gzip, chunked": HOST + b"Transfer-Encoding: gzip, chunked\r\n\r\n" + CHUNKS,
    "chunked twice": HOST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKS,
}


def test_they_are_answered_once_and_closed_and_nothing_goes_up_and_others_are_served(gateway, upstream):
    somebody, other = gateway.new_user(), gateway.new_user()
    credential = f"Authorization: Bearer {somebody}\r\nContent-Type: application/json\r\n".encode()
    before = len(upstream.received)
    for name, rest in MALFORMED.items():
        for path in (b"/v1/chat/completions", b"/api/auth/login", b"/api/health"):
            with socket.create_connection(("127.0.0.1", gateway.port), timeout=30) as connection:
                connection.sendall(b"POST %s HTTP/1.1\r\n" % path + credential + rest)
                answer = read_all(connection)  # to its end: it is closed
            assert answer[9:12] in {b"400", b"501"}, (name, path, answer)
            assert answer.count(b"HTTP/1.1 ") == 1
    assert len(upstream.received) == before
    assert gateway.chat(other, "m").status_code == 200
