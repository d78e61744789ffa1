"""Pooled HTTP/1.1 connections to an upstream: send, wait for the head, read the body as it comes, abort.

    Exchange: connecting ──> sending ──> head ──> body ──> complete

One thread per exchange; nothing here is shared between threads but the stack of idle connections. Every step takes the
call's deadline, goes on where it was after NothingYet, and ends when its time is up. A connection that had carried an
exchange before, and ends before anything of this answer has come, was closed while it was idle: the request goes out
again, over a new one. llhttp (by httptools) parses.
Redirects are never followed, nothing is decompressed, no proxy settings or .netrc are read from the environment; how a
connection is made is the dial's to know (dial.py).
"""

from __future__ import annotations

import socket
import ssl
import time
from collections import deque
from collections.abc import Sequence
from urllib.parse import urlsplit

import httptools

from foundation.deadline import Deadline, TimeIsUp
from upstream.connection import (
    RECEIVE_BYTES,
    ConnectFailed,
    Connection,
    ConnectionLost,
    Dialling,
    NoFilesLeft,
    UpstreamError,
)
from upstream.dial import CannotConnect, Dial, dial_directly, no_files_left

MAX_HEAD_BYTES = 64 * 1024
JOINED_BYTES = 64 * 1024
# The headers that anybody here asks for: decoding all the others would take longer than the rest of a head.
_READ = "content-type content-length content-encoding transfer-encoding retry-after"
_READ += " x-generation-id x-provider-name x-ratelimit-reset"
READ_HEADERS = {name.encode("ascii"): name for name in _READ.split()}
# An end that comes later than this was not on its way when the request went out: it may be worked on, and billed.
STALE_SECONDS = 1.0


def authorization_of(text: str) -> bytes:
    """The header line that a key of this text is sent in."""
    return f"Authorization: Bearer {text}\r\n".encode("ascii")


Buffer = bytes | bytearray | memoryview


class Exchange:
    """One request and its answer on one connection. `status` and `headers` (lower-case names) after `wait_head`."""

    __slots__ = (
        "_connection",
        "_dialling",
        "_head_bytes",
        "_is_sent_again",
        "_keep_alive",
        "_may_repeat",
        "_message",
        "_parser",
        "_parts",
        "_sent_at",
        "_spoilt",
        "_unsent",
        "_upstream",
        "complete",
        "delimited",
        "has_head",
        "headers",
        "status",
    )

    def __init__(self, upstream: UpstreamHttp, message: Sequence[Buffer], may_repeat: bool) -> None:
        self._upstream = upstream
        self._may_repeat = may_repeat
        self._connection: Connection | None = None
        self._dialling: Dialling | None = None
        self._message = message
        """Kept as long as it may have to go out again."""
        self._unsent: list[memoryview] | None = _views(message)
        self._sent_at = 0.0
        self._is_sent_again = False
        self._parser = httptools.HttpResponseParser(self)
        self._parts: list[bytes] = []
        self._head_bytes = 0
        self.status = 0
        self.headers: dict[str, str] = {}
        self.has_head = False
        self.complete = False
        self._keep_alive = False
        self._spoilt = False
        self.delimited = False
        """True if the body's end is marked (by length or chunks), so that a cut can be told from an end."""

    # ── callbacks of the parser

    def on_message_begin(self) -> None:
        self._spoilt = self._spoilt or self.complete  # an answer to nothing: this connection is not to be trusted again

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.has_head:  # a trailer
            return
        name = name.lower()
        if name in READ_HEADERS:
            self.headers[READ_HEADERS[name]] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        if self.complete:
            return
        self.status = self._parser.get_status_code()
        if self.status >= 200:
            self.has_head = True
            self.delimited = "content-length" in self.headers or "chunked" in self.headers.get("transfer-encoding", "")

    def on_body(self, body: bytes) -> None:
        if not self.complete:
            self._parts.append(body)

    def on_message_complete(self) -> None:
        if self.status < 200:  # an interim answer; the real one follows on the same connection
            self.headers = {}
        elif not self.complete:
            self.complete = True
            self._keep_alive = self._parser.should_keep_alive()

    # ── what the proxy calls

    def wait_head(self, deadline: Deadline) -> None:
        """Connect, send, and return when status and headers are here.

        Raises ConnectFailed, ConnectionLost; NothingYet, TimeIsUp as the deadline says.
        """
        while not self.has_head:
            if self._unsent is not None:
                self._send(deadline)
            try:
                self._receive(deadline)
            except ConnectionLost:
                if not self._was_stale():
                    raise
                self._send_again(deadline)

    def read(self, deadline: Deadline) -> bytes:
        """The body's next bytes as they come, b"" at its end. Raises ConnectionLost, NothingYet, TimeIsUp."""
        while not self._parts:
            if self.complete:
                return b""
            self._receive(deadline)
        parts, self._parts = self._parts, []
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _send(self, deadline: Deadline) -> None:
        """Send what is left of the message, over an idle connection or a new one."""
        while self._unsent is not None:
            connection = self._connection or self._connect(deadline)
            unsent = self._unsent
            try:
                sent = connection.send(unsent[0], deadline)
                self._spoilt = not sent
                unsent[:1] = [unsent[0][sent:]] if sent < len(unsent[0]) else []
            except OSError as error:
                if connection.reused:
                    self._send_again(deadline)
                    continue
                if not isinstance(error, BrokenPipeError | ConnectionResetError):
                    raise ConnectionLost(f"{type(error).__name__} while sending the request") from None
                # The upstream has stopped reading: what it says instead, such as 413, may be here already.
                self._spoilt = True
            if self._spoilt or not unsent:
                self._unsent = None
        self._sent_at = time.monotonic()
        if self._connection and not self._connection.reused:
            self._message = ()

    def _was_stale(self) -> bool:
        """True if the connection, now at its end, was closed by the upstream while it was idle."""
        is_reused = self._connection is not None and self._connection.reused
        return (
            self._may_repeat and is_reused and not self._head_bytes and time.monotonic() - self._sent_at < STALE_SECONDS
        )

    def _send_again(self, deadline: Deadline) -> None:
        """Begin anew on a connection of our own making: other idle ones were most likely closed with this one."""
        assert self._connection is not None and self._message  # noqa: S101 - it was sent over one
        self._connection.release(False)
        self._connection, self._unsent = None, _views(self._message)
        self._is_sent_again = True
        self._dialling = self._upstream.dial(deadline)

    def _connect(self, deadline: Deadline) -> Connection:
        # What must not be done twice goes over a new one: an idle one may be at its end, and nobody could tell.
        may_be_idle = self._may_repeat and self._dialling is None
        connection = self._upstream.idle_connection() if may_be_idle else None
        if connection is None:
            self._dialling = self._dialling or self._upstream.dial(deadline)
            try:
                connection = self._dialling.wait(deadline)
            except ConnectFailed as error:
                if self._is_sent_again:  # so nobody can say that nothing was sent
                    raise ConnectionLost(str(error)) from None
                raise
            self._dialling = None
        self._connection = connection
        return connection

    def _receive(self, deadline: Deadline) -> None:
        assert self._connection is not None  # noqa: S101 - what was sent was sent over one
        data = self._connection.receive(deadline)
        if not data:
            if self.has_head and not self.delimited:
                self.complete = True  # the end of the connection is the end of the body
                return
            raise ConnectionLost("the upstream closed the connection within its answer")
        if not self.has_head:
            self._message = ()
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES + RECEIVE_BYTES:
                raise ConnectionLost("the upstream's headers are too long")
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if self.complete:  # our answer is whole; what follows it is nobody's
                self._spoilt = True
                return
            cause = error.__context__
            raise cause if isinstance(cause, UpstreamError) else ConnectionLost(f"bad HTTP: {error}") from None

    @property
    def reusable(self) -> bool:
        """True once the answer is whole and the upstream keeps the connection open."""
        return self.complete and self.delimited and not self._spoilt and self._keep_alive

    def close(self) -> None:
        """Give the connection back if it can be used again, else close it at once. May be called twice."""
        self._message, self._unsent = (), None
        if self._dialling:
            self._dialling.give_up()
        if self._connection:
            self._connection.release(self.reusable)


def _views(message: Sequence[Buffer]) -> list[memoryview]:
    return [memoryview(part) for part in message if len(part)]


class UpstreamHttp:
    """Connections to one base URL such as https://openrouter.ai/api/v1. dial: makes them."""

    def __init__(self, base_url: str, connect_timeout_seconds: float, dial: Dial = dial_directly) -> None:
        parts = urlsplit(base_url)
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._path = parts.path.rstrip("/")
        self._authority = parts.netloc
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._connect_timeout_seconds = connect_timeout_seconds
        self._dial = dial
        self._idle: deque[Connection] = deque()

    def request_line(self, method: str, path: str) -> bytes:
        """The constant beginning of a request's head: its line and the Host header."""
        return f"{method} {self._path}{path} HTTP/1.1\r\nHost: {self._authority}\r\n".encode("ascii")

    def exchange(self, head: bytes, *body: Buffer, may_repeat: bool = True) -> Exchange:
        """A request, to be sent. head: from `request_line`, then header lines but Content-Length, without the blank
        line. body: in pieces, which stay the caller's if they are large. may_repeat: False for what must not be done
        twice, not even if a connection looks closed while it was idle (RFC 9110, 9.2.2)."""
        size = sum(map(len, body))
        head = b"%sContent-Length: %d\r\n\r\n" % (head, size)
        # What fits into one packet or some goes with its head; to copy more costs more than another system call.
        message = (b"".join((head, *body)),) if size <= JOINED_BYTES else (head, *body)
        return Exchange(self, message, may_repeat)

    def get(self, path: str, headers: bytes, seconds: float, max_bytes: int) -> tuple[int, bytes]:
        """A whole small answer: its status and body. headers: lines, with what authorizes if anything must.

        Raises UpstreamError, TimeIsUp if it is not whole after `seconds` or has more than `max_bytes`.
        """
        return self._whole("GET", path, headers, b"", seconds, max_bytes)

    def post(self, path: str, body: bytes, seconds: float, max_bytes: int) -> tuple[int, bytes]:
        """The same for a JSON body that nothing but itself authorizes."""
        return self._whole("POST", path, b"Content-Type: application/json\r\n", body, seconds, max_bytes)

    def _whole(
        self, method: str, path: str, headers: bytes, sent: bytes, seconds: float, max_bytes: int
    ) -> tuple[int, bytes]:
        deadline = Deadline(seconds)
        head = self.request_line(method, path) + b"Accept: application/json\r\nAccept-Encoding: identity\r\n" + headers
        exchange = self.exchange(head, sent, may_repeat=method == "GET")
        try:
            exchange.wait_head(deadline)
            body = bytearray()
            while len(body) <= max_bytes:
                piece = exchange.read(deadline)
                if not piece:
                    return exchange.status, bytes(body)
                body += piece
            raise TimeIsUp
        finally:
            exchange.close()

    # ── what exchanges ask for

    def idle_connection(self) -> Connection | None:
        """One that was used before, and is still good as far as can be seen."""
        while True:
            try:
                connection = self._idle.pop()  # the youngest: the oldest may age out
            except IndexError:
                return None
            if not connection.is_stale():
                connection.in_use = True
                return connection
            connection.close()

    def dial(self, deadline: Deadline) -> Dialling:
        """Begin to make a new connection."""
        step = deadline.within(self._connect_timeout_seconds)
        return Dialling(lambda: self._connect(step), step)

    def _connect(self, deadline: Deadline) -> Connection:
        sock = None
        try:
            sock = self._dial(self._host, self._port, deadline)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls:
                sock.settimeout(max(deadline.left, 0.001))
                sock = self._tls.wrap_socket(sock, server_hostname=self._host)
        except OSError as error:
            if sock:
                sock.close()
            if no_files_left(error):
                raise NoFilesLeft("no more files may be opened") from None
            if isinstance(error, CannotConnect):
                raise ConnectFailed(str(error)) from None
            raise ConnectFailed(f"{type(error).__name__} while connecting to the upstream") from None
        return Connection(sock, self._idle)

    def close(self) -> None:
        """Close the idle connections."""
        while self._idle:
            self._idle.pop().close()
