"""gunicorn's worker: heads are waited for without threads, by address, and connections end as they are told."""

from __future__ import annotations

import socket
from types import SimpleNamespace

import pytest

from serving import gunicorn as module
from serving.gunicorn import Heads
from tests.support.gateway import Gateway, read_all


def waiting(timeout: float = 0.0) -> SimpleNamespace:
    class Connection(SimpleNamespace):
        __hash__ = object.__hash__

    return Connection(timeout=timeout)


def test_an_address_with_too_many_loses_its_oldest_and_no_other_does(monkeypatch):
    monkeypatch.setattr(module, "HEADS_PER_ADDRESS", 2)
    heads = Heads()
    first, second, third, others = (waiting() for _ in range(4))
    assert heads.add(others, "192.0.2.2") is None
    assert heads.add(first, "192.0.2.1") is None
    assert heads.add(second, "192.0.2.1") is None
    assert heads.add(third, "192.0.2.1") is first
    heads.remove(first)
    assert heads.longest_waiting() is others
    for one in (others, second, third):
        heads.remove(one)
    assert heads.longest_waiting() is None
    assert not heads._by_address


def test_when_the_process_ends_nobody_waits_longer_than_that():
    heads, one = Heads(), waiting(50.0)
    heads.add(one, "192.0.2.1")
    heads.hurry(2.0)
    assert one.timeout == 2.0


@pytest.fixture(scope="module")
def small(start) -> Gateway:
    return start(SERVER="gunicorn", SERVER_THREADS=8)


def ask(path: str = "/api/health", more: bytes = b"") -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: gateway\r\n".encode() + more + b"\r\n"


def one_answer(connection: socket.socket) -> bytes:
    received = b""
    while not received.endswith(b"}}"):
        received += connection.recv(65536)
    return received


def test_a_head_in_pieces_and_requests_in_a_row_on_one_connection_are_answered(small):
    with socket.create_connection(("127.0.0.1", small.port), timeout=30) as connection:
        for byte in ask():
            connection.sendall(bytes([byte]))
        assert one_answer(connection).startswith(b"HTTP/1.1 503")  # no keys
        connection.sendall(ask() + ask()[:9])
        assert one_answer(connection).startswith(b"HTTP/1.1 503")
        connection.sendall(ask(more=b"Connection: close\r\n")[9:])
        rest = read_all(connection)
    assert rest.startswith(b"HTTP/1.1 503")
    assert rest.count(b"HTTP/1.1 ") == 1


def test_a_head_that_is_too_long_is_refused(small):
    with socket.create_connection(("127.0.0.1", small.port), timeout=30) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: gateway\r\nX: " + b"x" * 2 * module.HEAD_BYTES)
        assert read_all(connection)[9:12] == b"431"


def test_an_answer_that_says_so_ends_the_connection(small):
    with socket.create_connection(("127.0.0.1", small.port), timeout=30) as connection:
        connection.sendall(b"GET /api/health HTTP/1.1\r\n\r\n")
        answer = read_all(connection)
    assert answer.startswith(b"HTTP/1.1 400")
    assert b"connection: close" in answer.lower()
