"""An upstream that plays exact bytes: for what the stand-in, being well-behaved, would never send.

Each script is a list of steps, chosen by the request's model: bytes are sent as they are; a float is a pause in seconds;
an Event is waited for; RESET and CLOSE end the connection. After a script the connection serves the next request.
Requests without a model get the script of the model "", at first a 404; those without a body are not noted.
"""

from __future__ import annotations

import json
import socket
import ssl
import struct
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

RESET, CLOSE = "reset", "close"
Step = bytes | float | threading.Event | str


@dataclass
class Received:
    """One request as it came, and how its connection went on."""

    head: bytes
    body: bytes
    connection: int
    closed_by_client: threading.Event = field(default_factory=threading.Event)

    def headers(self) -> dict[str, str]:
        lines = self.head.decode("latin-1").split("\r\n")[1:]
        return {name.lower(): value for name, _, value in (line.partition(": ") for line in lines if line)}


class ScriptedUpstream:
    """Listens on a port, or on any that is free; `play` says what the next requests for a model get."""

    def __init__(self, tls: ssl.SSLContext | None = None, port: int = 0) -> None:
        self._tls = tls
        self.scripts: dict[str, list[Sequence[Step]]] = {"": [(json_answer("404 Not Found", b"{}"),)]}
        self.received: list[Received] = []
        self._listener = socket.create_server(("127.0.0.1", port), backlog=128)
        self.port = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/api/v1"
        self._connections = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def play(self, model: str, *steps: Step) -> None:
        """What requests for this model get from now on."""
        self.scripts[model] = [steps]

    def play_in_turn(self, model: str, *scripts: Sequence[Step]) -> None:
        """What the next requests for this model get, one after the other; the last is for all that follow."""
        self.scripts[model] = list(scripts)

    def requests_for(self, model: str) -> list[Received]:
        """The requests for a model so far."""
        return [request for request in list(self.received) if json.loads(request.body).get("model") == model]

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._connections += 1
            threading.Thread(target=self._serve, args=(connection, self._connections), daemon=True).start()

    def _serve(self, connection: socket.socket, number: int) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._tls:
            try:
                connection = self._tls.wrap_socket(connection, server_side=True)
            except OSError:
                connection.close()
                return
        stream = connection.makefile("rb")
        try:
            while head := _read_head(stream):
                length = int(next(v for k, v in _fields(head) if k == "content-length"))
                request = Received(head, stream.read(length), number)
                if length:
                    self.received.append(request)
                if not self._play(connection, request):
                    return
        except OSError:
            pass
        finally:
            connection.close()

    def _play(self, connection: socket.socket, request: Received) -> bool:
        scripts = self.scripts[json.loads(request.body or b"{}").get("model", "")]
        for step in scripts.pop(0) if len(scripts) > 1 else scripts[0]:
            if isinstance(step, bytes):
                try:
                    connection.sendall(step)
                except OSError:
                    request.closed_by_client.set()
                    return False
            elif step == RESET:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                return False
            elif step == CLOSE:
                return False
            elif _client_closes_within(connection, step):
                request.closed_by_client.set()
                return False
        return True


def _client_closes_within(connection: socket.socket, pause: float | threading.Event) -> bool:
    """Pause, and tell whether the client closed meanwhile."""
    for _ in range(round(pause * 100) if isinstance(pause, float | int) else 3000):
        if isinstance(pause, threading.Event) and pause.is_set():
            return False
        if isinstance(connection, ssl.SSLSocket):
            time.sleep(0.01)  # TLS can't be peeked at; its tests don't ask who closed
            continue
        connection.settimeout(0.01)
        try:
            if connection.recv(1, socket.MSG_PEEK) == b"":
                return True
        except TimeoutError:
            pass
        except OSError:
            return True
        finally:
            connection.settimeout(None)
    return False


def _read_head(stream) -> bytes:
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        line = stream.readline()
        if not line:
            return b""
        head += line
    return head


def _fields(head: bytes) -> list[tuple[str, str]]:
    lines = head.decode("latin-1").split("\r\n")[1:]
    return [(name.lower(), value) for name, _, value in (line.partition(": ") for line in lines if line)]


def chunked(*pieces: bytes, end: bool = True) -> bytes:
    """Pieces in HTTP's chunked coding."""
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + (b"0\r\n\r\n" if end else b"")


SSE = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
JSON_CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"


def json_answer(status: str, body: bytes, headers: str = "") -> bytes:
    """A whole JSON answer."""
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\n{headers}Content-Length: {len(body)}\r\n\r\n"
    return head.encode() + body
