"""The whole gateway in this process, without a server, and a stand-in that lets one call be like the other.

The stand-in sends each answer, and each event of a stream, in one piece, and an event only when the one before has been
taken: so every call takes the same steps, however busy the machine is.
"""

from __future__ import annotations

import base64
import importlib
import io
import json
import os
import secrets
import socketserver
import sys
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

MODEL = "openai/gpt-4o-mini"
EVENTS = 20  # of a stream, each with a piece of its text
USAGE = {
    "prompt_tokens": 8,
    "completion_tokens": EVENTS,
    "total_tokens": 8 + EVENTS,
    "cost": 0.0000132,
    "is_byok": False,
    "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
    "cost_details": {"upstream_inference_cost": None},
    "completion_tokens_details": {"reasoning_tokens": 0, "image_tokens": 0},
}
PRICES = {"prompt": "0.00000015", "completion": "0.0000006"}
MODELS = {"data": [{"id": MODEL, "name": MODEL, "context_length": 128000, "pricing": PRICES}]}
ABOUT: dict[str, Any] = {"model": MODEL, "created": 1733160000, "provider": "OpenAI"}
SWITCH_SECONDS = 0.001  # between the threads of the stand-in and of the call; the gateway's own is for hundreds of them
TEXT = "All happy families are alike; each unhappy family is unhappy in its own way. " * 8
# A header for each that OpenRouter's edge adds.
HEAD = "Date: Mon, 02 Dec 2024 17:20:00 GMT\r\nConnection: keep-alive\r\nCF-RAY: 8ebb\r\nVary: Accept-Encoding\r\n"
HEAD += "Access-Control-Allow-Origin: *\r\nX-Clerk-Auth-Status: signed-out\r\nServer: cloudflare\r\n"


class StandIn(socketserver.ThreadingTCPServer):
    """Answers model calls, and what the gateway asks about models and keys."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Connection)
        self.taken = threading.Semaphore(0)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        """The base of its paths."""
        return f"http://127.0.0.1:{self.server_address[1]}/api/v1"


class _Connection(socketserver.StreamRequestHandler):
    server: StandIn
    disable_nagle_algorithm = True

    def handle(self) -> None:
        while line := self.rfile.readline():
            length = 0
            while (header := self.rfile.readline().strip()) != b"":
                name, _, value = header.partition(b":")
                length = int(value) if name.lower() == b"content-length" else length
            body = self.rfile.read(length)
            if b"/chat/completions" not in line:
                self.wfile.write(_whole(MODELS) if b"/models" in line else _whole({"data": {}}))
            elif json.loads(body).get("stream"):
                self._stream(_new_name())
            else:
                name = _new_name()
                self.wfile.write(_whole(_answer(name), name))

    def _stream(self, name: str) -> None:
        deltas = [{"content": f"word {at} "} for at in range(EVENTS)]
        pieces = [_event(name, {"choices": [{"index": 0, "delta": delta}]}) for delta in deltas]
        end = _event(name, {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
        pieces.append(end + _event(name, {"choices": [], "usage": USAGE}) + _chunk(b"data: [DONE]\n\n") + _chunk(b""))
        self.wfile.write(_head(name, "text/event-stream", "Transfer-Encoding: chunked") + pieces[0])
        for piece in pieces[1:]:
            self.server.taken.acquire()
            self.wfile.write(piece)


def _new_name() -> str:
    """OpenRouter's name for an answer; all are equally long."""
    return f"gen-1733160000-{secrets.token_hex(10)}"


def _answer(name: str) -> dict[str, Any]:
    message = {"role": "assistant", "content": TEXT, "refusal": None}
    choice = {"index": 0, "finish_reason": "stop", "native_finish_reason": "stop", "message": message}
    return {"id": name, **ABOUT, "object": "chat.completion", "choices": [choice], "usage": USAGE}


def _whole(payload: object, name: str = "") -> bytes:
    body = json.dumps(payload).encode()
    return _head(name, "application/json", f"Content-Length: {len(body)}") + body


def _head(name: str, kind: str, framing: str) -> bytes:
    lines = f"HTTP/1.1 200 OK\r\n{HEAD}X-Generation-Id: {name}\r\nContent-Type: {kind}\r\n{framing}\r\n\r\n"
    return lines.encode()


def _event(name: str, payload: dict[str, Any]) -> bytes:
    text = json.dumps({"id": name, **ABOUT, "object": "chat.completion.chunk", **payload})
    return _chunk(f"data: {text}\n\n".encode())


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


class Gateway:
    """The program as `python app.py` makes it, with the settings of production, and one user of it."""

    def __init__(self, stand_in: StandIn, folder: Path) -> None:
        self._stand_in = stand_in
        os.environ |= {
            "ENV_FILE": os.devnull,
            "APP_ENV": "production",
            "SECRET_KEY": secrets.token_urlsafe(48),
            "ENCRYPTION_KEY": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
            "DEPLOYMENT_ID": "bench",
            "DATABASE_URL": f"sqlite:///{folder}/gateway.db",
            "DATA_DIR": str(folder),
            "OPENROUTER_API_URL": stand_in.url,
            "OPENROUTER_API_KEYS": ",".join(f"sk-or-v1-{secrets.token_hex(32)}" for _ in range(10)),
            "REGISTRATION": "open",
            "LOGIN_RATE_LIMIT_PER_MINUTE": "0",
        }
        self._app = importlib.import_module("app").app
        sys.setswitchinterval(SWITCH_SECONDS)
        account = {
            "username": "a@bench.test",
            "derived_key": base64.urlsafe_b64encode(secrets.token_bytes(48)).decode(),
        }
        b"".join(self._call("/register", account))
        self._token = json.loads(b"".join(self._call("/login", account)))["token"]

    def call(self, stream: bool) -> Callable[[], None]:
        """A model call, ready to be made."""
        question = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 100}
        environ = self._environ("/v1/chat/completions", question | ({"stream": True} if stream else {}), self._token)

        def make() -> None:
            self._stand_in.taken = threading.Semaphore(0)
            answer = self._answer(environ)
            for _ in answer:
                if stream:
                    self._stand_in.taken.release()
            if close := getattr(answer, "close", None):
                close()

        return make

    def _call(self, path: str, payload: dict[str, Any]) -> Iterable[bytes]:
        return self._answer(self._environ(path, payload))

    def _answer(self, environ: dict[str, Any]) -> Iterable[bytes]:
        told: list[str] = []
        answer: Iterable[bytes] = self._app(environ, lambda status, _headers, _error=None: told.append(status))
        if not told[0].startswith("20"):
            raise RuntimeError(f"{environ['PATH_INFO']} was answered with {told[0]}: {b''.join(answer)!r}")
        return answer

    def _environ(self, path: str, payload: dict[str, Any], token: str = "") -> dict[str, Any]:
        body = json.dumps(payload).encode()
        return {
            "REQUEST_METHOD": "POST",
            "PATH_INFO": path,
            "QUERY_STRING": "",
            "SERVER_NAME": "localhost",
            "SERVER_PORT": "80",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "REMOTE_ADDR": "127.0.0.1",
            "HTTP_HOST": "localhost",
            "HTTP_USER_AGENT": "bench",
            "HTTP_ACCEPT": "application/json",
            "CONTENT_LENGTH": str(len(body)),
            "CONTENT_TYPE": "application/json",
            "wsgi.input": io.BytesIO(body),
            "wsgi.errors": sys.stderr,
            "wsgi.url_scheme": "http",
            "wsgi.version": (1, 0),
            "wsgi.multithread": True,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
        } | ({"HTTP_AUTHORIZATION": f"Bearer {token}"} if token else {})
