"""Pooled HTTP/1.1 connections to an upstream: send, wait for the head, read the body as it comes, abort.

One thread per exchange and blocking sockets: nothing here is shared between threads but the stack of idle
connections. llhttp (by httptools) parses. Redirects are never followed, nothing is decompressed, no proxy settings
or .netrc are read from the environment; how a connection is made is the dial's to know (upstream/dial.py).
"""

from __future__ import annotations

import math
import select
import socket
import ssl
import time
from collections import deque
from urllib.parse import urlsplit

import httptools

from upstream.dial import CannotConnect, Dial, dial_directly

RECEIVE_BYTES = 16 * 1024
MAX_HEAD_BYTES = 64 * 1024
# The headers that anybody here asks for: decoding all the others would take longer than the rest of a head.
READ_HEADERS = {b"content-type", b"content-length", b"content-encoding", b"transfer-encoding", b"retry-after"}
READ_HEADERS |= {b"x-generation-id", b"x-provider-name", b"x-ratelimit-reset"}
# OpenRouter's edge closes idle connections after minutes; a younger one is alive unless its socket says otherwise.
MAX_IDLE_SECONDS = 60.0
# One that was in use a moment ago is taken as it is: asking its socket costs system calls for each request.
TRUSTED_IDLE_SECONDS = 0.5


def authorization_of(text: str) -> bytes:
    """The header line that a key of this text is sent in."""
    return f"Authorization: Bearer {text}\r\n".encode("ascii")


class UpstreamError(Exception):
    """The exchange failed below HTTP."""


class ConnectFailed(UpstreamError):
    """No connection: nothing was sent."""


class ConnectionLost(UpstreamError):
    """The upstream went away, or spoke something other than HTTP, before its answer was whole."""


class NothingYet(Exception):
    """No byte came within the time given; the exchange goes on."""


class Exchange:
    """One request and its answer on one connection. `status` and `headers` (lower-case names) after `wait_head`."""

    __slots__ = (
        "_connection",
        "_head_bytes",
        "_keep_alive",
        "_parser",
        "_parts",
        "_spoilt",
        "complete",
        "delimited",
        "has_head",
        "headers",
        "status",
    )

    def __init__(self, connection: _Connection, unsent: bool = False) -> None:
        self._connection = connection
        self._parser = httptools.HttpResponseParser(self)
        self._parts: list[bytes] = []
        self._head_bytes = 0
        self.status = 0
        self.headers: dict[str, str] = {}
        self.has_head = False
        self.complete = False
        self._keep_alive = False
        self._spoilt = unsent
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
            self.headers[name.decode("ascii")] = value.decode("latin-1")

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

    def wait_head(self, seconds: float) -> None:
        """Return when status and headers are here. Raises NothingYet after `seconds`, ConnectionLost."""
        begun = time.monotonic()
        left = seconds
        while not self.has_head:
            self._receive(left)
            left = max(begun + seconds - time.monotonic(), 0.001)

    def read(self, seconds: float) -> bytes:
        """The body's next bytes as they come, b"" at its end. Raises NothingYet after `seconds`, ConnectionLost."""
        while not self._parts:
            if self.complete:
                return b""
            self._receive(seconds)
        parts, self._parts = self._parts, []
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _receive(self, seconds: float) -> None:
        data = self._connection.receive(seconds)
        if not data:
            if self.has_head and not self.delimited:
                self.complete = True  # the end of the connection is the end of the body
                return
            raise ConnectionLost("the upstream closed the connection within its answer")
        if not self.has_head:
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
        self._connection.release(self.reusable)


class _Connection:
    __slots__ = ("_idle", "_socket", "_timeout", "idle_since", "in_use", "reused")

    def __init__(self, sock: socket.socket, idle: deque[_Connection]) -> None:
        self._socket = sock
        self._timeout = -1.0
        self._idle = idle
        self.idle_since = 0.0
        self.in_use = True
        self.reused = False

    def send(self, data: bytes, seconds: float) -> None:
        if self._timeout < seconds:  # the time of the answer before is as good, if it is not shorter
            self._set_timeout(seconds)
        self._socket.sendall(data)

    def receive(self, seconds: float) -> bytes:
        self._set_timeout(seconds)
        try:
            return self._socket.recv(RECEIVE_BYTES)
        except TimeoutError:
            raise NothingYet from None
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise NothingYet from None
        except OSError as error:
            raise ConnectionLost(f"{type(error).__name__} while reading the upstream's answer") from None

    def _set_timeout(self, seconds: float) -> None:
        seconds = math.ceil(seconds * 10) / 10
        if seconds != self._timeout:  # each change is a system call, so tenths of a second must do
            self._socket.settimeout(seconds)
            self._timeout = seconds

    def is_stale(self) -> bool:
        """True if the upstream has closed the idle connection, or sent what nobody asked for."""
        idle = time.monotonic() - self.idle_since
        if idle < TRUSTED_IDLE_SECONDS:
            return False
        if idle > MAX_IDLE_SECONDS:
            return True
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return bool(poll.poll(0))

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


class UpstreamHttp:
    """Connections to one base URL such as https://openrouter.ai/api/v1. dial: makes them."""

    def __init__(
        self,
        base_url: str,
        connect_timeout_seconds: float,
        send_timeout_seconds: float = 60.0,
        dial: Dial = dial_directly,
    ) -> None:
        parts = urlsplit(base_url)
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._path = parts.path.rstrip("/")
        self._authority = parts.netloc
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._connect_timeout_seconds = connect_timeout_seconds
        self._send_timeout_seconds = send_timeout_seconds
        self._dial = dial
        self._idle: deque[_Connection] = deque()

    def request_line(self, method: str, path: str) -> bytes:
        """The constant beginning of a request's head: its line and the Host header."""
        return f"{method} {self._path}{path} HTTP/1.1\r\nHost: {self._authority}\r\n".encode("ascii")

    def send(self, head: bytes, body: bytes) -> Exchange:
        """Send a request. head: from `request_line`, then header lines but Content-Length, without the blank line.

        A connection that the upstream closed while it was idle is replaced. Raises ConnectFailed, ConnectionLost.
        """
        message = b"%sContent-Length: %d\r\n\r\n%s" % (head, len(body), body)
        while True:
            connection = self._idle_connection() or self._connect()
            try:
                connection.send(message, self._send_timeout_seconds)
            except (BrokenPipeError, ConnectionResetError):
                if connection.reused:
                    connection.release(False)
                    continue
                # The upstream has stopped reading: what it says instead, such as 413, may be here already.
                return Exchange(connection, unsent=True)
            except OSError as error:
                connection.release(False)
                raise ConnectionLost(f"{type(error).__name__} while sending the request") from None
            return Exchange(connection)

    def get(self, path: str, headers: bytes, seconds: float, max_bytes: int) -> tuple[int, bytes]:
        """A whole small answer: its status and body. headers: lines, with what authorizes if anything must.

        Raises UpstreamError, NothingYet if it is not whole after `seconds` or has more than `max_bytes`.
        """
        return self._whole("GET", path, headers, b"", seconds, max_bytes)

    def post(self, path: str, body: bytes, seconds: float, max_bytes: int) -> tuple[int, bytes]:
        """The same for a JSON body that nothing but itself authorizes."""
        return self._whole("POST", path, b"Content-Type: application/json\r\n", body, seconds, max_bytes)

    def _whole(
        self, method: str, path: str, headers: bytes, sent: bytes, seconds: float, max_bytes: int
    ) -> tuple[int, bytes]:
        until = time.monotonic() + seconds
        head = self.request_line(method, path) + b"Accept: application/json\r\nAccept-Encoding: identity\r\n" + headers
        exchange = self.send(head, sent)
        try:
            exchange.wait_head(seconds)
            body = bytearray()
            while len(body) <= max_bytes and (left := until - time.monotonic()) > 0:
                piece = exchange.read(left)
                if not piece:
                    return exchange.status, bytes(body)
                body += piece
            raise NothingYet
        finally:
            exchange.close()

    def _idle_connection(self) -> _Connection | None:
        while True:
            try:
                connection = self._idle.pop()  # the youngest: the oldest may age out
            except IndexError:
                return None
            if not connection.is_stale():
                connection.in_use = True
                return connection
            connection.close()

    def _connect(self) -> _Connection:
        sock = None
        try:
            sock = self._dial(self._host, self._port, self._connect_timeout_seconds)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls:
                sock = self._tls.wrap_socket(sock, server_hostname=self._host)
        except CannotConnect as error:
            raise ConnectFailed(str(error)) from None
        except OSError as error:
            if sock:
                sock.close()
            raise ConnectFailed(f"{type(error).__name__} while connecting to the upstream") from None
        return _Connection(sock, self._idle)

    def close(self) -> None:
        """Close the idle connections."""
        while self._idle:
            self._idle.pop().close()
