"""gunicorn's worker, made so that threads are for requests: what clients still send is waited for without one.

accepted ──> head, read by the main thread as it comes ──> a thread ──> the next request's head
                                                              └─> lingering, while the last bytes are on their way
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from selectors import EVENT_READ
from typing import Any

from gunicorn.workers.gthread import TConn, ThreadWorker

from serving import ending

HEAD_SECONDS = 30.0
HEAD_BYTES = 64 * 1024
TOO_LONG = b"HTTP/1.1 431 Request Header Fields Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
HEADS_PER_ADDRESS = 1000
LINGER_SECONDS = 2.0
DRAIN_SECONDS = 0.05  # for the rest of a body that nobody wanted: it is here, or the connection ends


class Heads:
    """Connections whose head has not come whole, by the address they come from, the longest waiting first."""

    def __init__(self) -> None:
        self._waiting: dict[Any, str] = {}
        self._by_address: dict[str, dict[Any, None]] = {}

    def add(self, conn: Any, address: str) -> Any | None:
        """Count a connection in; returns the one that has to go for it, if its address has too many."""
        self._waiting[conn] = address
        of_address = self._by_address.setdefault(address, {})
        of_address[conn] = None
        return next(iter(of_address)) if len(of_address) > HEADS_PER_ADDRESS else None

    def remove(self, conn: Any) -> None:
        """Count one out: its head is whole, or it has to go."""
        address = self._waiting.pop(conn)
        of_address = self._by_address[address]
        del of_address[conn]
        if not of_address:
            del self._by_address[address]

    def longest_waiting(self) -> Any | None:
        """The one that has waited longest."""
        return next(iter(self._waiting), None)

    def hurry(self, latest: float) -> None:
        """Let none wait longer than until then."""
        for conn in self._waiting:
            conn.timeout = min(conn.timeout, latest)


class Worker(ThreadWorker):  # type: ignore[misc]
    """gthread, which by itself holds a thread for each connection that has sent a byte, and for each that closes."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._heads = Heads()
        self._lingering: dict[Any, float] = {}

    def load_wsgi(self) -> None:
        """Let the application close a connection: gunicorn drops its `Connection` header."""
        super().load_wsgi()
        self.wsgi: Any = _closing_when_told(self.wsgi)

    # ── heads

    def accept(self, listener: Any) -> bool:
        """Take a connection, and wait for its head; False if none is there. Without room, who waits longest goes."""
        try:
            sock, address = listener.accept()
        except OSError:
            return False
        self.nr_conns += 1
        conn = TConn(self.cfg, sock, address, listener.getsockname())
        if self.nr_conns >= self.worker_connections and (longest := self._heads.longest_waiting()):
            self._give_up(longest)
        self._await_head(conn, b"")
        return True

    def on_client_socket_readable(self, conn: Any, client: Any) -> None:
        """A connection that was kept alive: wait for the rest of its next head."""
        self.poller.unregister(client)
        self.keepalived_conns.remove(conn)
        self._await_head(conn, b"")

    def _await_head(self, conn: Any, begun: bytes) -> None:
        conn.head = begun
        if self.cfg.is_ssl:  # which takes a thread
            self.enqueue_req(conn)
            return
        conn.sock.setblocking(False)
        conn.timeout = time.monotonic() + HEAD_SECONDS
        self.poller.register(conn.sock, EVENT_READ, partial(self._read_head, conn))
        if surplus := self._heads.add(conn, str(conn.client[0]) if conn.client else ""):
            self._give_up(surplus)
        if begun:
            self._look_at_head(conn)

    def _read_head(self, conn: Any, sock: Any) -> None:
        data = _received(sock)
        if data is None:
            return
        if not data:
            self._give_up(conn)
            return
        conn.head += data
        self._look_at_head(conn)

    def _look_at_head(self, conn: Any) -> None:
        conn.head = conn.head.lstrip(b"\r\n")  # some clients end a body with more than its length
        is_whole = b"\r\n\r\n" in conn.head
        if not is_whole and len(conn.head) <= HEAD_BYTES:
            return
        self._heads.remove(conn)
        self.poller.unregister(conn.sock)
        if is_whole:
            conn.data_ready = True
            self.enqueue_req(conn)
        else:
            with suppress(OSError):  # it has gone
                conn.sock.send(TOO_LONG)
            self._linger(conn)

    def _give_up(self, conn: Any) -> None:
        self._heads.remove(conn)
        self._close(conn)

    def _close(self, conn: Any) -> None:
        self.poller.unregister(conn.sock)
        self.nr_conns -= 1
        conn.close()

    # ── a request, in a thread

    def handle(self, conn: Any) -> Any:
        """Serve the request whose head is here."""
        if conn.head:
            conn.init()
            conn.parser.unreader.unread(conn.head)
            conn.head = b""
        return super().handle(conn)

    def _keepalive_after(self, conn: Any, keepalive: bool) -> bool:
        return bool(keepalive and conn.parser.finish_body(deadline=time.monotonic() + DRAIN_SECONDS))

    def finish_request(self, conn: Any, fs: Any) -> None:
        """Wait for the connection's next request, or end it."""
        kept = not fs.cancelled() and fs.exception() is None and fs.result()
        if kept and (rest := conn.parser.unreader.take_buffered()):
            self._await_head(conn, rest)
        elif kept:
            super().finish_request(conn, fs)
        else:
            self._linger(conn)

    # ── the end of a connection

    def _linger(self, conn: Any) -> None:
        """Close so that our last bytes arrive (RFC 9112, 9.6). gunicorn's way holds a thread for up to two seconds."""
        try:
            conn.sock.shutdown(1)  # no more from us
            conn.sock.setblocking(False)
            self.poller.register(conn.sock, EVENT_READ, partial(self._drain, conn))
        except (OSError, ValueError):
            self.nr_conns -= 1
            conn.close()
            return
        self._lingering[conn] = time.monotonic() + LINGER_SECONDS

    def _drain(self, conn: Any, sock: Any) -> None:
        data = _received(sock)
        if data is None:
            return
        if not data:
            del self._lingering[conn]
            self._close(conn)

    def murder_pending(self) -> None:
        """Close what has waited for too long; end if it is time: called once a second."""
        super().murder_pending()
        if self.alive and ending.is_due():
            self.handle_exit(signal.SIGTERM, None)
        now = time.monotonic()
        while (conn := self._heads.longest_waiting()) and conn.timeout <= now:
            self._give_up(conn)
        while self._lingering and (conn := next(iter(self._lingering))) and self._lingering[conn] <= now:
            del self._lingering[conn]
            self._close(conn)

    def _cap_keepalive(self, deadline: float) -> None:
        super()._cap_keepalive(deadline)
        self._heads.hurry(deadline)

    # ── the end of the process

    def handle_exit(self, sig: int, frame: Any) -> None:
        """End once all calls have: not after what lasts for itself, and not before DRAIN_DELAY_SECONDS."""
        ending.announce()
        if ending.is_due():
            ending.tell()
            super().handle_exit(sig, frame)

    def set_accept_enabled(self, enabled: bool) -> None:
        """Begin or cease to take connections; at the end take those that wait, and leave the port to others.

        By itself gunicorn keeps its socket: whoever connects then waits, and is cut off in the end.
        """
        super().set_accept_enabled(enabled)
        if enabled or self.alive:
            return
        for listener in self.sockets:
            while self.accept(listener):
                pass
            listener.close()

    def handle_quit(self, sig: int, frame: Any) -> None:
        """End at once, without gunicorn's call of the thread pool from within the signal's handler.

        If the signal comes while the pool is being given a request, that call waits for ever for a lock of its own.
        """
        super(ThreadWorker, self).handle_quit(sig, frame)


def _received(sock: Any) -> bytes | None:
    """What has come, b"" at the end; None if nothing has."""
    try:
        data: bytes = sock.recv(HEAD_BYTES)
    except BlockingIOError:
        return None
    except OSError:
        return b""
    return data


def _closing_when_told(application: Callable[[Any, Any], Iterable[bytes]]) -> Callable[[Any, Any], Iterable[bytes]]:
    def run(environ: Any, start_response: Any) -> Iterable[bytes]:
        def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            if ("Connection", "close") in headers:
                start_response.__self__.force_close()
            return start_response(status, headers, exc_info)

        return application(environ, start)

    return run
