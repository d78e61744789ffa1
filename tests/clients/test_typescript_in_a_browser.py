"""The TypeScript client in a real browser: as an ES module, under a strict policy, on a page of the gateway's origin, and
on one of an origin of its own."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import requests

from tests.support.browser import watched_page
from tests.support.gateway import ROOT, Gateway, wait_for

CLIENT = ROOT / "clients/typescript"
IMPORTS = {"openrouter-proxy-client": "/dist/index.js", "hash-wasm": "/node_modules/hash-wasm/dist/index.esm.min.js"}
IMPORT_MAP = json.dumps({"imports": IMPORTS})
DIGEST = base64.b64encode(hashlib.sha256(IMPORT_MAP.encode()).digest()).decode()
POLICY = f"default-src 'none'; connect-src {{}}; script-src 'self' 'sha256-{DIGEST}' 'wasm-unsafe-eval'"
PAGE = (
    f'<!doctype html><script type="importmap">{IMPORT_MAP}</script><script type="module" src="/browser.mjs"></script>'
)
FILES = {f"/{file.relative_to(CLIENT)}": file for file in (CLIENT / "dist").glob("*.js")}
FILES |= {IMPORTS["hash-wasm"]: CLIENT / IMPORTS["hash-wasm"][1:]}
FILES |= {"/browser.mjs": Path(__file__).parent / "typescript/browser.mjs"}
FILES |= {"/kdf_vectors.json": Path(__file__).parent / "kdf_vectors.json"}
ECHO = 'This is the stand-in for OpenRouter speaking. You said: "Hello"'


class SameOrigin(BaseHTTPRequestHandler):
    """Serves the page, and hands the rest on, as an app's reverse proxy does."""

    gateway_url: str
    connects_to = "'self'"

    def do_GET(self) -> None:
        file = FILES.get(self.path)
        if self.path == "/":
            self._say(
                200,
                {"Content-Type": "text/html", "Content-Security-Policy": POLICY.format(self.connects_to)},
                PAGE.encode(),
            )
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


class OwnOrigin(SameOrigin):
    """Serves the page alone, which may speak to anybody."""

    gateway_url = "http://nobody.invalid"
    connects_to = "*"


@contextmanager
def serving(handler: type[SameOrigin]) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def origin(running) -> Iterator[str]:
    with serving(type("SameOriginAsThisGateway", (SameOrigin,), {"gateway_url": running.url})) as address:
        yield address


@pytest.fixture(scope="module")
def own_origin() -> Iterator[str]:
    with serving(OwnOrigin) as address:
        yield address


@pytest.fixture(scope="module", params=["granian", "gunicorn"])
def elsewhere(request, start, stand_in, pool_keys, own_origin) -> Gateway:
    """A gateway that pages of that origin may call."""
    return start(
        SERVER=request.param,
        OPENROUTER_API_URL=stand_in.address,
        OPENROUTER_API_KEYS=",".join(key["key"] for key in pool_keys),
        KEEPALIVE_SECONDS=1,
        CORS_ALLOWED_ORIGINS=own_origin,
    )


def check(told: dict[str, object]) -> None:
    """What comes of each case of browser.mjs."""
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


def test_all_of_the_client_works_in_a_browser(browser, origin):
    with watched_page(browser) as page:
        page.goto(origin)
        check(wait_for(lambda: page.evaluate("globalThis.told")))


def test_all_of_the_client_works_from_another_origin(browser, own_origin, elsewhere):
    with watched_page(browser) as page:
        page.goto(f"{own_origin}/#{elsewhere.url}")
        check(wait_for(lambda: page.evaluate("globalThis.told")))


# What a page sees of an answer, or the name of what it is refused with.
ASK = """async ([url, token, path, more]) => {
    const headers = { Authorization: `Bearer ${token}` };
    try {
        const answer = await fetch(url + path, { headers, ...more });
        const text = await answer.text();
        return [answer.status, Boolean(text), answer.headers.get("X-Request-Id")?.length ?? null];
    } catch (problem) { return problem.name; }
}"""


def test_a_page_reads_calls_alone_and_only_on_an_origin_that_is_named(browser, own_origin, elsewhere):
    token = elsewhere.new_user()

    def ask(page, path, **more):
        return page.evaluate(ASK, [elsewhere.url, token, path, more])

    with watched_page(browser, but=elsewhere.url) as page:
        page.context.add_cookies([{"name": "session", "value": token, "url": elsewhere.url}])
        page.goto(f"{own_origin}/kdf_vectors.json")
        assert ask(page, "/v1/models") == [200, True, 32]
        assert ask(page, "/v1/models", headers={}) == [401, True, 32]
        assert ask(page, "/v1/models", credentials="include") == "TypeError"
        assert ask(page, "/dashboard", headers={}) == "TypeError"
        assert ask(page, "/admin/users") == "TypeError"
        page.goto(own_origin.replace("127.0.0.1", "localhost") + "/kdf_vectors.json")
        assert ask(page, "/v1/models") == "TypeError"
        assert ask(page, "/v1/models", headers={}) == "TypeError"
