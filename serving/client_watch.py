"""Whether a client is still there while nothing is written to it.

gunicorn lends its socket to ask. An end that comes in tells only that the client sends no more; whether it still reads
shows when something is sent to it. Before the answer that is `100 Continue`, which every HTTP/1.1 client has to put up
with; later it is for whoever writes the body to send something. granian closes a connection as soon as its client has
done so, but while a plain answer is awaited it tells nobody, and of the client it names the address without the port.
So a call that takes long looks which of this process's connections can be its own: from that address, the last bytes
received just before the call was whole, and nothing sent since. Once the last of these is closed, the client has gone.
Calls of one address that came within two seconds of each other and all wait can't be told apart: none of them is given
up before the last client has gone. That way nobody is given up who is there.
"""

from __future__ import annotations

import os
import socket
import stat
import struct
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from weakref import WeakValueDictionary

# The first byte of a call may have waited so long for a thread before the call was entered.
QUEUED_SECONDS = 2.0
# The kernel counts in its ticks, of which some have four milliseconds; calls and packets cross.
SLOP_SECONDS = 0.03
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
# A look costs some microseconds for each open file.
LOOK_SECONDS = 1.0
# The beginning of Linux's struct tcp_info (linux/tcp.h): milliseconds since data was sent, and since it was received.
TCP_INFO, LAST_SENT, LAST_RECEIVED = struct.Struct("=8x12I"), 9, 11


class ClientWatch:
    """Tells of one call's client; asked only now and then. To be made when the call's body is whole.

    entered: when the call was, in monotonic seconds.
    """

    def __init__(self, environ: dict[str, Any], entered: float) -> None:
        self._ask: Callable[[], bool] = _never
        self._lent: _LentSocket | None = None
        self._is_for_waiting = environ.get("SERVER_SOFTWARE") == "Granian" and sys.platform == "linux"
        if sock := environ.get("gunicorn.socket"):
            self._lent = _LentSocket(sock, may_continue=environ.get("SERVER_PROTOCOL") == "HTTP/1.1")
            self._ask = self._lent.is_closed
        elif self._is_for_waiting and environ["REMOTE_ADDR"]:
            self._ask = _Candidates(environ["REMOTE_ADDR"], int(environ["SERVER_PORT"]), entered).are_gone

    def is_gone(self) -> bool:
        """True if the client has gone; False in doubt."""
        return self._ask()

    def has_ended(self) -> bool:
        """True if the client sends no more. It may have gone, too: that shows once something is sent to it."""
        return self._lent is not None and self._lent.has_ended

    def note_answer(self) -> None:
        """From now on something is sent, by which granian finds out for itself."""
        if self._is_for_waiting:
            self._ask = _never
        if self._lent:
            self._lent.may_continue = False


def _never() -> bool:
    return False


class _LentSocket:
    """The client's connection, lent by gunicorn while it waits. may_continue: interim answers may be sent.

    has_ended: the client has closed its side at least.
    """

    def __init__(self, sock: socket.socket, may_continue: bool) -> None:
        self._sock = sock
        self.may_continue = may_continue
        self.has_ended = False

    def is_closed(self) -> bool:
        """True once the connection is closed in both directions; asks, if the client has closed its own."""
        try:
            self.has_ended = self.has_ended or self._sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
            if not self.has_ended:
                return False
            if self.may_continue:
                self._sock.send(CONTINUE, socket.MSG_DONTWAIT)
            return self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0
        except BlockingIOError:
            return False
        except ValueError:  # TLS sockets can't peek
            return False
        except OSError:
            return True


@dataclass(frozen=True, slots=True)
class ClientConnection:
    """A TCP socket of this process. inode: its name. address: the other end's, "" if it listens. port: ours. Times are
    monotonic."""

    inode: int
    address: str
    port: int
    sent_at: float
    received_at: float


class _Candidates:
    """The connections of which one carries a call."""

    def __init__(self, address: str, port: int, entered: float) -> None:
        self._address = address.removeprefix("::ffff:")
        self._port = port
        self._entered = entered
        self._whole = time.monotonic()
        self._inodes: set[int] | None = None

    def are_gone(self) -> bool:
        """True if none of them is open any more, as far as this process's sockets can be seen at all."""
        seen = _look.connections(self._whole)
        if not any(one.port == self._port and not one.address for one in seen):
            return False
        possible = {one.inode: one for one in seen if self._can_be(one)}
        if self._inodes is None:
            begun = self._entered - QUEUED_SECONDS
            recent = {inode for inode, one in possible.items() if one.received_at >= begun}
            self._inodes = recent or {inode for inode in possible if inode not in _look.known}
        self._inodes &= possible.keys()
        if len(self._inodes) == 1:
            _look.known[next(iter(self._inodes))] = self
        return not self._inodes

    def _can_be(self, one: ClientConnection) -> bool:
        latest = self._whole + SLOP_SECONDS
        is_from_there = (one.address, one.port) == (self._address, self._port)
        return is_from_there and one.received_at <= latest and one.sent_at <= latest


class _Look:
    """All calls that wait share one look around."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._at = 0.0
        self._found: list[ClientConnection] = []
        self.known: WeakValueDictionary[int, _Candidates] = WeakValueDictionary()
        """Calls that wait, by the one connection that can be theirs."""

    def connections(self, since: float) -> list[ClientConnection]:
        """This process's connections, as they were after `since` and not long ago."""
        with self._lock:
            if self._at < max(since, time.monotonic() - LOOK_SECONDS):
                self._at, self._found = time.monotonic(), tcp_connections()
            return self._found


def tcp_connections() -> list[ClientConnection]:
    """Those of this process that are open. Linux only."""
    found = []
    with os.scandir("/proc/self/fd") as entries:
        numbers = [int(entry.name) for entry in entries]
    for number in numbers:
        try:
            status = os.fstat(number)
            if not stat.S_ISSOCK(status.st_mode):
                continue
            sock = socket.socket(fileno=number)  # borrowed: never closed here
        except OSError:
            continue
        try:
            if sock.type is socket.SOCK_STREAM and sock.family in {socket.AF_INET, socket.AF_INET6}:
                found.append(_described(sock, status.st_ino))
        except OSError:
            pass  # it has just been closed
        finally:
            sock.detach()
    return found


def _described(sock: socket.socket, inode: int) -> ClientConnection:
    numbers = TCP_INFO.unpack(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO.size))
    now = time.monotonic()
    sent_at, received_at = now - numbers[LAST_SENT] / 1000, now - numbers[LAST_RECEIVED] / 1000
    try:
        address = str(sock.getpeername()[0]).removeprefix("::ffff:")
    except OSError:
        address = ""
    return ClientConnection(inode, address, sock.getsockname()[1], sent_at, received_at)


_look = _Look()
