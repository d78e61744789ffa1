"""The TypeScript client in a real browser: as an ES module, under a strict policy, on a page of the gateway's origin."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import requests

from tests.support.browser import watched_page
from tests.support.gateway import ROOT, wait_for

CLIENT = ROOT / "clients/typescript"
IMPORTS = {"openrouter-proxy-client": "/dist/index.js", "hash-wasm": "/node_modules/hash-wasm/dist/index.esm.min.js"}
IMPORT_MAP = json.dumps({"imports": IMPORTS})
DIGEST = base64.b64encode(hashlib.sha256(IMPORT_MAP.encode()).digest()).decode()
POLICY = f"default-src 'none'; connect-src 'self'; script-src 'self' 'sha256-{DIGEST}' 'wasm-unsafe-eval'"
PAGE = (
    f'<!doctype html><script type="importmap">{IMPORT_MAP}</script><script type="module" src="/browser.mjs"></script>'
)
FILES = {f"/{file.relative_to(CLIENT)}": file for file in (CLIENT / "dist").glob("*.js")}
FILES |= {IMPORTS["hash-wasm"]: CLIENT / IMPORTS["hash-wasm"][1:]}
FILES |= {"/browser.mjs": Path(__file__).parent / "typescript/browser.mjs"}
FILES |= {"/kdf_vectors.json": Path(__file__).parent / "kdf_vectors.json"}
ECHO = 'This is the stand-in for OpenRouter speaking. You said: "Hello"'


class SameOrigin(BaseHTTPRequestHandler):
    """Serves the page, and hands the rest on: the gateway has no CORS, so an app's reverse proxy does the same."""

    gateway_url: str

    def do_GET(self) -> None:
        file = FILES.get(self.path)
        if self.path == "/":
            self._say(200, {"Content-Type": "text/html", "Content-Security-Policy": POLICY}, PAGE.encode())
        elif file:
            kind = "application/json" if file.suffix == ".json" else "text/javascript"
            self._say(200, {"Content-Type": kind}, file.read_bytes())
        elif self.path.startswith("/elsewhere/"):
            self._say(307, {"Location": "/api/auth/kdf"})
        else:
            self._hand_on()

    def do_POST(self) -> None:
        self._hand_on()

    def log_message(self, *_: object) -> None:
        pass

    def _say(self, status: int, headers: dict[str, str], body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def _hand_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        names = ("Authorization", "Content-Type")
        sent = {name: self.headers[name] for name in names if name in self.headers}
        url = self.gateway_url + self.path
        with requests.request(self.command, url, data=body, headers=sent, stream=True, timeout=30) as answer:
            hidden = {"connection", "transfer-encoding", "content-length", "date", "server"}
            self._say(
                answer.status_code, {name: text for name, text in answer.headers.items() if name.lower() not in hidden}
            )
            try:
                while data := answer.raw.read1(65536):
                    self.wfile.write(data)
            except ConnectionError:  # the page has aborted
                pass


@pytest.fixture
def origin(running) -> Iterator[str]:
    handler = type("SameOriginAsThisGateway", (SameOrigin,), {"gateway_url": running.url})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_all_of_the_client_works_in_a_browser(browser, origin):
    with watched_page(browser) as page:
        page.goto(origin)
        told = wait_for(lambda: page.evaluate("globalThis.told"))
    vectors = json.loads(FILES["/kdf_vectors.json"].read_text())["vectors"]
    assert told == {
        "derives": len(vectors),
        "registers": "User registered successfully",
        "name_is_taken": ["ProxyError", 400, "username_taken", None],
        "wrong_password": ["ProxyError", 401, "authentication_error", None],
        "logs_in": True,
        "chats": ECHO,
        "streams": ECHO,
        "refreshes_once": [True, "2"],
        "breaks_off": ["ProxyError", 502, "upstream_failed", None],
        "stops": ["ProxyError", 502, "upstream_failed", None],
        "is_limited": ["ProxyError", 429, "", 3],
        "aborts": ["AbortError", None, None, None],
        "redirect": ["ProxyError", 0, "", None],
        "logs_out": [None, None, ""],
        "is_logged_out": ["ProxyError", 401, "authentication_error", None],
    }
