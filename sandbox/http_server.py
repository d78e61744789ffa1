"""The wire layer of the stand-in: HTTP/1.1 on asyncio; an answer is a list of steps, so every byte can be staged."""

import asyncio
import enum
import http
import socket
import struct
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email.utils import formatdate
from typing import cast

import httptools

LARGEST_BODY = 256 * 1024 * 1024
LONGEST_PIPELINE = 64
RESET_ON_CLOSE = struct.pack("ii", 1, 0)
REASONS = {status.value: status.phrase.encode() for status in http.HTTPStatus} | {
    499: b"Client Closed Request",
    520: b"Web Server Returned an Unknown Error",
    521: b"Web Server Is Down",
    522: b"Connection Timed Out",
    523: b"Origin Is Unreachable",
    524: b"A Timeout Occurred",
    529: b"Site is overloaded",
}


class Ending(enum.Enum):
    """How an answer ends, as the last of its steps."""

    DONE = "complete; the connection is kept for the next request"
    CLOSE = "the server closes the connection in an orderly way"
    RESET = "the server breaks the connection off with a TCP reset"
    STALL = "nothing more is sent and the connection stays open"


class Mark(enum.Enum):
    """What is noted about an answer on its way."""

    AT_BREAK = "the answer has come to the point where it breaks or pauses"


Step = bytes | float | Ending | Mark
"""Bytes to send, seconds to wait, the end, or something to note."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer whose body is known before its first byte is sent."""

    status: int
    body: bytes
    headers: bytes = b""
    content_type: bytes = b"application/json"


class Exchange:
    """One request and the answer to it. The handler fills in the answer with `send` or `play`."""

    __slots__ = (
        "_on_end",
        "_steps",
        "_timer",
        "at_break",
        "body",
        "body_parts",
        "body_size",
        "chunks_sent",
        "client_closed_early",
        "connection",
        "ended_at",
        "headers",
        "keep_alive",
        "key_hash",
        "method",
        "path",
        "query",
        "sent_bytes",
        "started_at",
        "status",
        "target",
        "wall_time",
    )

    def __init__(self, connection: "Connection") -> None:
        self.connection = connection
        self.method = ""
        self.target = b""
        self.path = ""
        self.query = ""
        self.headers: list[tuple[bytes, bytes]] = []
        self.body_parts: list[bytes] = []
        self.body_size = 0
        self.body = b""
        self.keep_alive = True
        self.key_hash = ""
        self.status = 0
        self.sent_bytes = 0
        self.chunks_sent = 0
        self.client_closed_early = False
        self.at_break = False
        self.wall_time = time.time()
        self.started_at = time.monotonic()
        self.ended_at = 0.0
        self._steps: Iterator[Step] = iter(())
        self._on_end: Callable[[bool], None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def header(self, name: bytes) -> bytes:
        """Return the first header with this lower-case name, or nothing."""
        for received, value in self.headers:
            if received.lower() == name:
                return value
        return b""

    def elapsed_ms(self) -> float:
        """Return the time from the request to the end of the answer, or to now."""
        return ((self.ended_at or time.monotonic()) - self.started_at) * 1000

    def send(self, status: int, whole_answer: bytes) -> None:
        """Send an answer that is ready to go out, head and body."""
        self.status = status
        if self.method == "HEAD":
            whole_answer = whole_answer[: whole_answer.index(b"\r\n\r\n") + 4]
        self._write(whole_answer)
        self._finish(Ending.DONE)

    def play(self, status: int, steps: Iterator[Step], on_end: Callable[[bool], None] | None = None) -> None:
        """Send an answer step by step; `on_end` learns whether the client left before its end."""
        self.status = status
        self._steps = steps
        self._on_end = on_end
        self.advance()

    def advance(self) -> None:
        """Carry on with the steps until the next wait, the end, or a full send buffer."""
        self._timer = None
        for step in self._steps:
            if isinstance(step, bytes):
                self._write(step)
                if self.connection.send_buffer_is_full:
                    return
            elif isinstance(step, Ending):
                self._finish(step)
                return
            elif isinstance(step, Mark):
                self.at_break = True
            else:
                self._timer = self.connection.loop.call_later(step, self.advance)
                return
        self._finish(Ending.DONE)

    def abandon(self) -> None:
        """Stop, because the client has closed the connection."""
        self.client_closed_early = True
        if self._timer:
            self._timer.cancel()
        self._steps = iter(())
        self._end(cancelled=True)

    def resume(self) -> None:
        """Carry on after a full send buffer has drained."""
        if self._timer is None and not self.ended_at:
            self.advance()

    def _write(self, data: bytes) -> None:
        self.sent_bytes += len(data)
        self.connection.transport.write(data)

    def _finish(self, ending: Ending) -> None:
        if ending is Ending.STALL:
            self._steps = iter((Ending.STALL,))
            return
        self._end(cancelled=False)
        if ending is Ending.RESET:
            self.connection.reset()
        elif ending is Ending.CLOSE or not self.keep_alive:
            self.connection.transport.close()
        self.connection.exchange_ended()

    def _end(self, cancelled: bool) -> None:
        self.ended_at = time.monotonic()
        if self._on_end:
            self._on_end(cancelled)


Handler = Callable[[Exchange], None]


class Connection(asyncio.Protocol):
    """One client's connection: parses requests and hands them, one after the other, to the handler."""

    transport: asyncio.Transport
    loop: asyncio.AbstractEventLoop

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._parser = httptools.HttpRequestParser(self)
        self._waiting: deque[Exchange] = deque()
        self._arriving = Exchange(self)
        self._current: Exchange | None = None
        self._serving = False
        self.send_buffer_is_full = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.loop = asyncio.get_running_loop()

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._refuse(b"400 Bad Request")
            return
        if self._waiting:
            self._serve()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio calls it so
        self._waiting.clear()
        if self._current:
            self._current.abandon()
            self._current = None

    def pause_writing(self) -> None:
        self.send_buffer_is_full = True

    def resume_writing(self) -> None:
        self.send_buffer_is_full = False
        if self._current:
            self._current.resume()

    def on_message_begin(self) -> None:
        self._arriving = Exchange(self)

    def on_url(self, url: bytes) -> None:
        self._arriving.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._arriving.headers.append((name, value))

    def on_headers_complete(self) -> None:
        if self._arriving.header(b"expect").lower() == b"100-continue":
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        self._arriving.body_size += len(body)
        self._arriving.body_parts.append(body)
        if self._arriving.body_size > LARGEST_BODY:
            self._refuse(b"413 Payload Too Large")

    def on_message_complete(self) -> None:
        exchange = self._arriving
        exchange.method = self._parser.get_method().decode("latin-1")
        path, _, query = exchange.target.decode("latin-1").partition("?")
        exchange.path, exchange.query = path, query
        exchange.body = b"".join(exchange.body_parts)
        exchange.body_parts = []
        exchange.keep_alive = self._parser.should_keep_alive()
        self._waiting.append(exchange)
        if len(self._waiting) > LONGEST_PIPELINE:
            self._refuse(b"429 Too Many Requests")

    def exchange_ended(self) -> None:
        """Go on to the next request, if the client has sent it already."""
        self._current = None
        if self._waiting:
            self._serve()

    def reset(self) -> None:
        """Close with a TCP reset instead of an orderly end."""
        self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        self.transport.abort()

    def client_is_local(self) -> bool:
        """Tell whether the other end is on this machine."""
        host = str((self.transport.get_extra_info("peername") or ("",))[0])
        return host in ("::1", "::ffff:127.0.0.1") or host.startswith("127.")

    def _serve(self) -> None:
        if self._serving:
            return
        self._serving = True
        while self._waiting and self._current is None and not self.transport.is_closing():
            self._current = self._waiting.popleft()
            self._handler(self._current)
        self._serving = False

    def _refuse(self, status_line: bytes) -> None:
        self._waiting.clear()
        if not self.transport.is_closing():
            self.transport.write(b"HTTP/1.1 %b\r\nserver: cloudflare\r\nconnection: close\r\n\r\n" % status_line)
            self.transport.close()


class Heads:
    """Builds heads of answers from a block of headers that they share."""

    def __init__(self, shared_headers: bytes) -> None:
        self._shared_headers = shared_headers
        self._second = 0
        self._block = b""

    def build(self, status: int, headers: bytes, version: bytes = b"1.1") -> bytes:
        """Return a status line, the given header lines, and the shared ones with the date."""
        second = int(time.time())
        if second != self._second:
            self._second = second
            self._block = b"date: %b\r\n%b\r\n" % (formatdate(second, usegmt=True).encode(), self._shared_headers)
        reason = REASONS.get(status, b"Unknown")
        return b"HTTP/%b %d %b\r\n%b%b" % (version, status, reason, headers, self._block)


def in_chunk(data: bytes) -> bytes:
    """Wrap data as one chunk of `Transfer-Encoding: chunked`."""
    return b"%x\r\n%b\r\n" % (len(data), data)


async def listen(handler: Handler, host: str, port: int) -> asyncio.Server:
    """Start to accept connections and return the listening server."""
    loop = asyncio.get_running_loop()
    return await loop.create_server(lambda: Connection(handler), host, port, backlog=2048)
