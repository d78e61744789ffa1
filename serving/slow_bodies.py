"""Bodies that clients have begun to send: none is waited for longer than its time.

No server lets a read that takes too long be ended, but both let its connection be: then the read comes back, and with
it its thread.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from foundation.errors import RequestTimeout

PROTOCOL = "openrouter_proxy.protocol"  # in granian's environ: what sends the answer (serving/granian.py)
LOOK_SECONDS = 0.5
SLOW_SECONDS = 0.5  # by then an honest sender's body is here, however busy the process is
SHUT_READING = 0


def too_slow() -> RequestTimeout:
    """What its sender is told."""
    return RequestTimeout("The request's body did not come in time", {"Connection": "close"})


class _Nothing:
    """A body of an answer that ends before it has begun."""

    def __next__(self) -> bytes:
        raise StopIteration

    def close(self) -> None:
        pass


def _close_by_cut_answer(protocol: Any) -> None:
    """Close a connection of granian's. Whatever is answered, it waits for the rest of the request's body first, unless
    the answer is shorter than promised: then there is nothing that could be saved."""
    protocol.response_iter(408, [("Content-Length", "1")], _Nothing())


class BodyOnItsWay:
    """A body that a thread is reading. latest: in monotonic seconds."""

    __slots__ = ("_begun", "_environ", "_lock", "_state", "latest")

    def __init__(self, environ: dict[str, Any], latest: float) -> None:
        self._environ = environ
        self._lock = threading.Lock()
        self._state = "reading"
        self._begun = time.monotonic()
        self.latest = latest

    @property
    def is_slow(self) -> bool:
        """True if its sender may be let go for another."""
        return time.monotonic() - self._begun > SLOW_SECONDS

    def end(self) -> bool:
        """Let its sender go; False if the body is here already. Any thread's."""
        with self._lock:
            if self._state != "reading":
                return False
            self._state = "ended"
        if sock := self._environ.get("gunicorn.socket"):
            try:
                sock.shutdown(SHUT_READING)  # the reader answers
            except OSError:
                pass  # it has just been closed
        elif protocol := self._environ.get(PROTOCOL):
            _close_by_cut_answer(protocol)
        return True

    def note_whole(self) -> bool:
        """The body is here, or has broken off; False if its sender has been let go before."""
        with self._lock:
            if self._state == "reading":
                self._state = "whole"
            return self._state == "whole"


class SlowBodies:
    """Looks after all bodies on their way."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._bodies: set[BodyOnItsWay] = set()
        self._is_looking = False

    def expect(self, environ: dict[str, Any], seconds: float) -> BodyOnItsWay:
        """A body that has so many seconds from now on; `take` reads it."""
        body = BodyOnItsWay(environ, time.monotonic() + seconds)
        with self._lock:
            self._bodies.add(body)
            if not self._is_looking:
                self._is_looking = True
                threading.Thread(target=self._look, name="slow-bodies", daemon=True).start()
        return body

    def take(self, body: BodyOnItsWay, read: Callable[[], bytearray]) -> bytearray:
        """What `read` returns or raises; RequestTimeout if the sender was let go meanwhile."""
        try:
            return read()
        finally:
            with self._lock:
                self._bodies.discard(body)
            if not body.note_whole():
                raise too_slow()

    def _look(self) -> None:
        while True:
            time.sleep(LOOK_SECONDS)
            now = time.monotonic()
            with self._lock:
                late = [body for body in self._bodies if body.latest <= now]
            for body in late:
                body.end()
