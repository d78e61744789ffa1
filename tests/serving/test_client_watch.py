"""Which of a process's connections can be a call's own, by what the kernel says of them. What servers make of it is in
test_door.py."""

import os
import socket
import sys
import time

import pytest

from serving import client_watch
from serving.client_watch import QUEUED_SECONDS, ClientConnection, ClientWatch, tcp_connections
from tests.support.gateway import wait_for

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the kernel of Linux says this")


GRANIAN = {"SERVER_SOFTWARE": "Granian", "REMOTE_ADDR": "127.0.0.1", "SERVER_PORT": "8000"}


class Server:
    """Connections that this process has accepted, each with its client's end."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.open = []

    def request(self):
        client = socket.create_connection(("127.0.0.1", self.port))
        accepted, _ = self.listener.accept()
        client.sendall(b"POST ...")
        accepted.recv(100)
        self.open += [client, accepted]
        return accepted

    def watch(self, entered=None):
        environ = GRANIAN | {"SERVER_PORT": str(self.port)}
        return ClientWatch(environ, time.monotonic() if entered is None else entered).is_gone


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(client_watch, "LOOK_SECONDS", 0.0)
    made = Server()
    yield made
    for one in [made.listener, *made.open]:
        one.close()


def later(monkeypatch, connections):
    """What the kernel will say, some time from now."""
    monkeypatch.setattr(client_watch, "tcp_connections", lambda: connections)


def test_a_client_is_there_until_the_server_has_closed_its_connection(server):
    accepted = server.request()
    is_gone = server.watch()
    assert not is_gone()
    accepted.close()
    assert is_gone()


def test_a_client_that_left_before_the_first_look_has_gone(server):
    accepted = server.request()
    is_gone = server.watch()
    accepted.close()
    assert is_gone()


def test_connections_that_have_got_an_answer_since_or_come_later_are_others(server):
    mine, other = server.request(), server.request()
    is_gone = server.watch()
    time.sleep(client_watch.SLOP_SECONDS * 2)
    other.sendall(b"HTTP/1.1 200 OK")
    server.request()
    assert not is_gone()
    mine.close()
    assert is_gone()


def test_calls_that_cant_be_told_apart_keep_each_other(server):
    mine, other = server.request(), server.request()
    watches = [server.watch(), server.watch()]
    assert not any(is_gone() for is_gone in watches)
    mine.close()
    assert not any(is_gone() for is_gone in watches)
    other.close()
    assert all(is_gone() for is_gone in watches)


def seen(inode, received_at, address="127.0.0.1", port=8000, sent_at=0.0):
    return ClientConnection(inode, address, port, sent_at, received_at)


def watch(monkeypatch, connections, entered):
    later(monkeypatch, [seen(99, 0.0, address=""), *connections])
    monkeypatch.setattr(client_watch, "LOOK_SECONDS", -1.0)
    return ClientWatch(GRANIAN | {"REMOTE_ADDR": "::ffff:127.0.0.1"}, entered).is_gone


def test_a_call_that_waited_long_for_a_thread_is_not_given_up_for_a_younger_neighbour(monkeypatch):
    entered = time.monotonic()
    queued = seen(1, entered - QUEUED_SECONDS - 5)
    is_gone = watch(monkeypatch, [queued], entered)
    assert not is_gone()


def test_an_older_call_that_waits_is_known_and_no_candidate(monkeypatch):
    entered = time.monotonic()
    old = seen(1, entered - QUEUED_SECONDS - 5)
    waiting = watch(monkeypatch, [old], old.received_at)
    assert not waiting()
    left = watch(monkeypatch, [old], entered)
    assert left()
    assert not waiting()


@pytest.mark.parametrize("other", [{"address": "127.0.0.2"}, {"port": 8001}])
def test_connections_of_others_and_to_others_do_not_count(monkeypatch, other):
    entered = time.monotonic()
    assert watch(monkeypatch, [seen(1, entered, **other)], entered)()


def test_once_something_is_sent_granian_finds_out_for_itself(server):
    accepted = server.request()
    watch = ClientWatch(GRANIAN | {"SERVER_PORT": str(server.port)}, time.monotonic())
    watch.note_answer()
    accepted.close()
    assert not watch.is_gone()


def test_a_unix_socket_has_no_address_and_nobody_is_given_up():
    assert not ClientWatch(GRANIAN | {"REMOTE_ADDR": ""}, time.monotonic()).is_gone()


def test_nobody_is_given_up_under_another_server_or_where_sockets_cant_be_seen(monkeypatch):
    assert not ClientWatch(GRANIAN | {"SERVER_SOFTWARE": "other"}, time.monotonic()).is_gone()
    is_gone = watch(monkeypatch, [], time.monotonic())
    later(monkeypatch, [])
    assert not is_gone()


GUNICORN = {"SERVER_PROTOCOL": "HTTP/1.1"}


@pytest.fixture
def lent(server):
    """A connection as gunicorn lends it, and its client's end."""
    accepted = server.request()
    return accepted, server.open[-2]


def test_gunicorn_lends_its_socket(lent):
    ours, client = lent
    watch = ClientWatch(GUNICORN | {"gunicorn.socket": ours}, 0.0)
    assert not watch.is_gone()
    client.sendall(b"the next request")
    assert not watch.is_gone()
    ours.close()
    assert watch.is_gone()


def test_a_client_that_has_closed_its_own_side_only_is_there(lent):
    ours, client = lent
    watch = ClientWatch(GUNICORN | {"gunicorn.socket": ours}, 0.0)
    client.shutdown(socket.SHUT_WR)
    wait_for(lambda: watch.is_gone() or watch.has_ended())
    assert client.recv(100).startswith(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert not watch.is_gone()
    watch.note_answer()
    ours.sendall(b"the answer")
    assert not watch.is_gone()
    client.close()


@pytest.mark.parametrize("is_answered", [False, True])
def test_one_that_has_closed_both_sides_has_gone_once_something_was_sent(lent, is_answered):
    ours, client = lent
    watch = ClientWatch(GUNICORN | {"gunicorn.socket": ours}, 0.0)
    client.close()
    if is_answered:
        watch.note_answer()
        wait_for(lambda: watch.is_gone() or watch.has_ended())
        assert not watch.is_gone()
        ours.sendall(b"a comment")
    wait_for(watch.is_gone)


def test_a_client_of_the_old_protocol_is_sent_no_interim_answer(lent):
    ours, client = lent
    watch = ClientWatch({"SERVER_PROTOCOL": "HTTP/1.0", "gunicorn.socket": ours}, 0.0)
    client.shutdown(socket.SHUT_WR)
    wait_for(lambda: watch.is_gone() or watch.has_ended())
    ours.sendall(b"the answer")
    assert client.recv(100) == b"the answer"


def inode_of(sock):
    return os.fstat(sock.fileno()).st_ino


def test_the_kernels_times_are_ours(server):
    accepted = server.request()
    before = time.monotonic()
    [found] = [one for one in tcp_connections() if one.inode == inode_of(accepted)]
    assert before - 1 < found.received_at <= time.monotonic()
    time.sleep(0.1)
    accepted.sendall(b"x")
    after = wait_for(lambda: next(one for one in tcp_connections() if one.inode == found.inode))
    assert after.sent_at > found.sent_at
    assert (after.inode, after.address) == (found.inode, "127.0.0.1")
