"""Those who are told of alerts, on real sockets: a receiver of webhooks, a mail server."""

from __future__ import annotations

import ssl
import subprocess
import threading
from collections import deque
from dataclasses import dataclass
from email import message_from_bytes, policy
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, LoginPassword

from tests.support.gateway import free_port

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw3vXx0mQbT1c="  # of tests, known to everybody


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate of `localhost` that is its own authority, and its key."""
    files = folder / "cert.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=DNS:localhost", "-out", str(files[0]), "-keyout", str(files[1])]
    subprocess.run(command, check=True, capture_output=True)
    return files


@dataclass
class Posted:
    path: str
    headers: dict[str, str]
    body: bytes


class Receiver:
    """Takes webhooks. statuses: what the next ones are answered with, 200 after that."""

    def __init__(self) -> None:
        self.posted: list[Posted] = []
        self.statuses: deque[int] = deque()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                receiver.posted.append(Posted(self.path, headers, body))
                self.send_response(receiver.statuses.popleft() if receiver.statuses else 200)
                self.send_header("Location", "http://127.0.0.1:1/")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/hook?key=abc"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class MailServer:
    """Takes e-mail over TLS, from `user` with `password`. refuses: addresses that it does not know."""

    def __init__(self, certificate: tuple[Path, Path], is_tls_at_once: bool = False) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
        self.received: list[tuple[list[str], EmailMessage]] = []
        self.refuses: set[str] = set()
        more: dict[str, Any] = {"ssl_context": context} if is_tls_at_once else {"tls_context": context}
        self._controller = Controller(
            self,
            hostname="localhost",
            port=free_port(),
            authenticator=self._authenticate,
            auth_required=not is_tls_at_once,
            auth_require_tls=not is_tls_at_once,
            require_starttls=not is_tls_at_once,
            **more,
        )
        self._controller.start()
        self.port = self._controller.port

    def _authenticate(self, _server: Any, _session: Any, _envelope: Any, _how: str, given: Any) -> AuthResult:
        is_right = isinstance(given, LoginPassword) and given == LoginPassword(b"user", b"correct horse")
        return AuthResult(success=is_right, handled=False)

    async def handle_RCPT(self, _server: Any, _session: Any, envelope: Any, address: str, _options: Any) -> str:
        if address in self.refuses:
            return "550 No such user"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:
        message = message_from_bytes(envelope.content, policy=policy.default)
        self.received.append((envelope.rcpt_tos, message))  # type: ignore[arg-type]
        return "250 OK"

    def close(self) -> None:
        self._controller.stop()
