"""One connection: waits by the call's deadline, hears an early answer, is known for stale, is closed if it comes late."""

import socket
import threading
import time
from collections import deque

import pytest

from foundation.deadline import Deadline, NothingYet, TimeIsUp
from tests.support.gateway import wait_for
from upstream.connection import MAX_IDLE_SECONDS, Connection, ConnectionLost
from upstream.http import UpstreamHttp

LONG = memoryview(b"x" * 20_000_000)


@pytest.fixture
def pair():
    """A connection and the upstream's end."""
    ours, theirs = socket.socketpair()
    idle = deque()
    yield Connection(ours, idle), theirs, idle
    ours.close()
    theirs.close()


def test_what_is_not_taken_is_waited_for_until_it_is_time_to_look_up(pair):
    connection, _, _ = pair
    deadline = Deadline(30)
    taken = connection.send(LONG, deadline)
    deadline.look_up_in(0.05)
    with pytest.raises(NothingYet):
        connection.send(LONG[taken:], deadline)
    with pytest.raises(TimeIsUp):
        connection.send(LONG[taken:], Deadline(0.05))


def test_an_upstream_that_answers_instead_of_reading_on_is_heard(pair):
    connection, theirs, _ = pair
    taken = connection.send(LONG, Deadline(30))
    theirs.sendall(b"HTTP/1.1 413")
    assert connection.send(LONG[taken:], Deadline(30)) == 0
    assert connection.receive(Deadline(30)) == b"HTTP/1.1 413"
    with pytest.raises(TimeIsUp):
        connection.receive(Deadline(0.05))


def test_what_has_come_is_received_and_the_end_too(pair):
    connection, theirs, _ = pair
    with pytest.raises(TimeIsUp):
        connection.receive(Deadline(0.05))
    theirs.sendall(b"abc")
    assert connection.receive(Deadline(30)) == b"abc"
    theirs.close()
    assert connection.receive(Deadline(30)) == b""


def test_a_connection_that_breaks_is_lost():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        connection = Connection(socket.create_connection(listener.getsockname()), deque())
        accepted, _ = listener.accept()
        accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        accepted.close()
        with pytest.raises(ConnectionLost, match="ConnectionResetError"):
            connection.receive(Deadline(30))
        connection.close()


def test_an_idle_one_is_stale_when_it_is_old_or_something_came(pair):
    connection, theirs, idle = pair
    connection.release(True)
    assert list(idle) == [connection]
    assert connection.reused
    assert not connection.is_stale()
    theirs.sendall(b"unasked")
    assert connection.is_stale()
    theirs.recv(0)
    connection.idle_since = time.monotonic() - MAX_IDLE_SECONDS - 1
    assert connection.is_stale()


def test_one_that_is_not_to_be_used_again_is_closed(pair):
    connection, theirs, idle = pair
    connection.release(False)
    assert theirs.recv(1) == b""
    connection.release(True)  # again does nothing
    assert not idle


def test_a_connection_that_comes_after_its_call_has_ended_is_closed():
    """So that no socket is left behind by a slow name server."""
    made, go_on = [], threading.Event()

    def slow_dial(_host, _port, _deadline):
        go_on.wait(10)
        made.append(socket.socketpair())
        return made[0][0]

    exchange = UpstreamHttp("http://slow.example/v1", 20, dial=slow_dial).exchange(b"", b"")
    with pytest.raises(TimeIsUp):
        exchange.wait_head(Deadline(0.05))
    exchange.close()
    go_on.set()
    assert wait_for(lambda: made)[0][1].recv(1) == b""
