"""One connection to an upstream: being made, sent over, received from, kept for the next call or closed.

Sockets with time-outs, used by one thread at a time. Every wait is by the call's deadline. Only making a connection has
a thread of its own, because name servers and handshakes can't be interrupted.
"""

from __future__ import annotations

import math
import select
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable

from foundation.deadline import Deadline, TimeIsUp

RECEIVE_BYTES = 16 * 1024
# How long a send may stand still before we look whether the upstream answers instead of reading on.
SEND_SECONDS = 0.5
# How long a dial whose time is over is given to say what it waited for. A name server's answer never comes in time.
REASON_SECONDS = 0.2
# OpenRouter's edge closes idle connections after minutes; a younger one is alive unless its socket says otherwise.
MAX_IDLE_SECONDS = 60.0


class UpstreamError(Exception):
    """The exchange failed below HTTP."""


class ConnectFailed(UpstreamError):
    """No connection: nothing was sent."""


class NoFilesLeft(ConnectFailed):
    """This process, or this machine, may open no more files: our fault, and says nothing of the upstream."""


class ConnectionLost(UpstreamError):
    """The upstream went away, or spoke something other than HTTP, before its answer was whole."""


class Connection:
    """A socket. idle: where it waits between calls, the youngest on the right. reused: it has carried a call before."""

    __slots__ = ("_early", "_idle", "_readable", "_socket", "_timeout", "idle_since", "in_use", "reused")

    def __init__(self, sock: socket.socket, idle: deque[Connection]) -> None:
        self._socket = sock
        self._readable = select.poll()
        self._readable.register(sock, select.POLLIN)
        self._timeout = -1.0
        self._early = b""
        self._idle = idle
        self.idle_since = 0.0
        self.in_use = True
        self.reused = False

    def send(self, data: memoryview, deadline: Deadline) -> int:
        """How many bytes were taken; 0 if the upstream answers instead of reading on.

        Raises OSError, NothingYet, TimeIsUp.
        """
        while True:
            seconds = deadline.wait()
            if not 0 < self._timeout <= seconds:  # a shorter one, of the answer before, is as good
                self._set_timeout(min(seconds, SEND_SECONDS))
            try:
                return self._socket.send(data)
            except TimeoutError:
                self._early = self._receive_now()
                if self._early:
                    return 0

    def receive(self, deadline: Deadline) -> bytes:
        """What has come, b"" at the end. Raises ConnectionLost, NothingYet, TimeIsUp."""
        if self._early:
            early, self._early = self._early, b""
            return early
        while True:
            self._set_timeout(deadline.wait())
            try:
                return self._socket.recv(RECEIVE_BYTES)
            except TimeoutError:
                continue  # the deadline says what that means
            except OSError as error:
                raise ConnectionLost(f"{type(error).__name__} while reading the upstream's answer") from None

    def _receive_now(self) -> bytes:
        """What is there without waiting, b"" for nothing."""
        self._set_timeout(0)
        try:
            return self._socket.recv(RECEIVE_BYTES)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return b""

    def _set_timeout(self, seconds: float) -> None:
        seconds = math.ceil(seconds * 10) / 10
        if seconds != self._timeout:  # each change is a system call, so tenths of a second must do
            self._socket.settimeout(seconds)
            self._timeout = seconds

    def is_stale(self) -> bool:
        """True if the upstream has closed the idle connection, or sent what nobody asked for.

        That is asked however young it is: what came after an answer would be taken for the next one, somebody else's.
        """
        if time.monotonic() - self.idle_since > MAX_IDLE_SECONDS:
            return True
        return bool(self._readable.poll(0))

    def release(self, reusable: bool) -> None:
        if not self.in_use:
            return
        self.in_use = False
        if reusable:
            self.idle_since, self.reused = time.monotonic(), True
            self._idle.append(self)
            try:  # the oldest stand on the left, and are never reached while the youngest are enough
                while self.idle_since - self._idle[0].idle_since > MAX_IDLE_SECONDS:
                    self._idle.popleft().close()
            except IndexError:
                pass  # other threads took the rest
        else:
            self.close()

    def close(self) -> None:
        self._socket.close()


class Dialling:
    """A connection in the making, in a thread of its own: it takes as long as it takes, and nobody waits longer than
    he wants to."""

    def __init__(self, connect: Callable[[], Connection], step: Deadline) -> None:
        self._connect = connect
        self._step = step
        self._is_done = threading.Event()
        self._lock = threading.Lock()
        self._made: Connection | Exception | None = None
        self._is_wanted = True
        threading.Thread(target=self._run, name="dial", daemon=True).start()

    def _run(self) -> None:
        made: Connection | Exception
        try:
            made = self._connect()
        except Exception as error:  # noqa: BLE001 - raised where it is waited for
            made = error
        with self._lock:
            self._made = made
            if not self._is_wanted and isinstance(made, Connection):
                made.close()
        self._is_done.set()

    def wait(self, deadline: Deadline) -> Connection:
        """The connection. Raises ConnectFailed, NothingYet; TimeIsUp if that is the whole call's."""
        while not self._is_done.is_set():
            try:
                self._is_done.wait(self._step.wait())
            except TimeIsUp:
                if deadline.is_over:
                    raise
                if not self._is_done.wait(REASON_SECONDS):
                    raise ConnectFailed("TimeoutError while connecting to the upstream") from None
        if isinstance(self._made, Exception):
            if deadline.is_over:  # the thread has given up at the same moment
                raise TimeIsUp
            raise self._made
        assert self._made  # noqa: S101 - it is done
        return self._made

    def give_up(self) -> None:
        """Close the connection, as soon as there is one."""
        with self._lock:
            self._is_wanted = False
            if isinstance(self._made, Connection):
                self._made.close()
