"""Pages of other origins: what browsers are told, over sockets, under both servers. With a real one:
tests/clients/test_typescript_in_a_browser.py."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
import requests

from serving.cross_origin import EXPOSED, CrossOrigin
from tests.support.data_plane import WHOLE
from tests.support.gateway import Gateway, new_derived_key, wait_for
from tests.support.scripted_upstream import SSE, ScriptedUpstream, chunked, json_answer

APP, PHONE, EVIL = "https://app.example", "capacitor://localhost", "https://evil.test"
CALLS = [
    *("/v1/chat/completions", "/api/v1/messages", "/api/proxy/openrouter", "/v1/models", "/v1/models/a/b"),
    *("/api/usage/stats", "/api/quota", "/api/v1/openrouter/status", "/api/v1/openrouter/oauth/initiate"),
]
ACCOUNTS = ["/login", "/register", "/api/auth/login", "/api/auth/refresh", "/api/auth/kdf"]
CLOSED = ["/", "/dashboard", "/operator", "/api/docs", "/api/redoc", "/admin/users", "/static/pages.css"]
ASKED = "authorization,content-type,x-stainless-lang"


@pytest.fixture(scope="module", params=["granian", "gunicorn"])
def named(request: pytest.FixtureRequest, start: Callable[..., Gateway], upstream: ScriptedUpstream) -> Gateway:
    return start(
        SERVER=request.param,
        SERVER_THREADS=8,
        OPENROUTER_API_URL=upstream.url,
        OPENROUTER_API_KEYS=f"sk-or-v1-{'a' * 64}",
        CORS_ALLOWED_ORIGINS=f"{APP}, {PHONE}",
        RATE_LIMIT_KEY_RPM=1,
        MAX_BODY_BYTES=10_000,
    )


@pytest.fixture(scope="module")
def someone(named: Gateway) -> str:
    return named.new_user()


def ask(gateway: Gateway, path: str, origin: str, method: str = "POST", **more: str) -> requests.Response:
    """What a browser asks before it sends something."""
    wish = {"Origin": origin, "Access-Control-Request-Method": method, "Access-Control-Request-Headers": ASKED}
    return requests.options(gateway.url + path, headers=wish | more, timeout=30)


def told(answer: requests.Response) -> dict[str, str]:
    """What an answer says to browsers."""
    return {name.lower(): value for name, value in answer.headers.items() if name.lower().startswith("access-control")}


def check_readable(answer: requests.Response, origin: str = APP) -> None:
    assert told(answer) == {
        "access-control-allow-origin": origin,
        "access-control-expose-headers": ", ".join(EXPOSED),
    }
    assert "Origin" in answer.headers["Vary"]


@pytest.mark.parametrize("path", CALLS + ACCOUNTS)
def test_a_named_origin_may_ask(named: Gateway, path: str) -> None:
    for origin in (APP, PHONE):
        answer = ask(named, path, origin)
        assert (answer.status_code, answer.content) == (204, b"")
        assert told(answer) == {
            "access-control-allow-origin": origin,
            "access-control-expose-headers": ", ".join(EXPOSED),
            "access-control-allow-methods": "DELETE, GET, HEAD, PATCH, POST, PUT",
            "access-control-allow-headers": ASKED,
            "access-control-max-age": "7200",
        }
        assert answer.headers["Vary"] == "Origin"
        assert len(answer.headers["X-Request-Id"]) == 32


@pytest.mark.parametrize(
    "origin",
    [
        *(EVIL, "null", "https://app.example.evil.test", "https://xapp.example", "http://app.example", "*"),
        *("https://app.example:8443", "https://app.example/", "HTTPS://APP.EXAMPLE", f"{APP},{PHONE}", f"{APP} {EVIL}"),
    ],
)
def test_no_other_origin_may_ask_or_read(named: Gateway, someone: str, origin: str) -> None:
    for path in ("/v1/chat/completions", "/login", "/v1/models"):
        answer = ask(named, path, origin)
        assert (answer.status_code, told(answer), answer.headers["Vary"]) == (403, {}, "Origin")
        assert "CORS_ALLOWED_ORIGINS" in answer.json()["message"]
    read = requests.get(f"{named.url}/v1/key", headers={"Authorization": f"Bearer {someone}", "Origin": origin})
    assert (read.status_code, told(read), read.headers["Vary"]) == (200, {}, "Origin")


@pytest.mark.parametrize("path", CLOSED)
def test_pages_and_administration_are_open_to_nobody(named: Gateway, path: str) -> None:
    answers = [ask(named, path, APP), ask(named, path, APP, "GET")]
    answers.append(requests.get(named.url + path, headers={"Origin": APP}, timeout=30, allow_redirects=False))
    assert [told(answer) for answer in answers] == [{}, {}, {}]


def test_a_form_is_a_page_to_whoever_reads_it(named: Gateway) -> None:
    for path in ("/login", "/register"):
        assert told(ask(named, path, APP, "GET")) == {}
        page = requests.get(named.url + path, headers={"Origin": APP}, timeout=30)
        assert (page.status_code, told(page)) == (200, {})


def test_a_private_network_is_not_granted_and_headers_have_bounds(named: Gateway) -> None:
    more = {"Access-Control-Request-Private-Network": "true", "Access-Control-Request-Headers": "x" * 3000}
    answer = ask(named, "/v1/chat/completions", APP, **more)
    assert answer.status_code == 204
    assert not {name for name in told(answer) if name.endswith(("private-network", "allow-headers", "credentials"))}


def test_every_answer_to_a_named_origin_can_be_read(named: Gateway, someone: str, upstream: ScriptedUpstream) -> None:
    """Whole answers, streams, and refusals: those of OpenRouter, and ours before the body is read."""
    page = {"Origin": APP}
    body = {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}

    def call(status: int, token: str | None = someone, path: str = "/v1/chat/completions", **more: object) -> None:
        answer = named.post(path, {**body, **more}, token, headers=dict(page))
        assert answer.status_code == status, answer.text
        check_readable(answer)

    upstream.play("m", json_answer("200 OK", WHOLE))
    call(200)
    upstream.play("m", SSE, chunked(b'data: {"choices":[{"delta":{"content":"x"}}]}\n\n', b"data: [DONE]\n\n"))
    call(200, stream=True)
    upstream.play("m", json_answer("400 Bad Request", b'{"error":{"code":400,"message":"no"}}'))
    call(400)
    call(401, None)
    call(401, "sk-auto-unknown")
    call(400, model=7)
    call(413, pad="x" * 20_000)
    call(404, path="/v1/nowhere")
    key = named.post("/api/api-keys", {"name": "page"}, someone).json()["key"]
    upstream.play("m", json_answer("200 OK", WHOLE))
    call(200, key)
    call(429, key)
    answer = requests.get(f"{named.url}/v1/chat/completions", headers=page, timeout=30)
    assert answer.status_code == 405
    check_readable(answer)


def test_accounts_can_be_made_and_used_from_a_named_origin(named: Gateway) -> None:
    account = {"username": "page@example.com", "derived_key": new_derived_key()}
    for path, status in (("/register", 201), ("/login", 200)):
        answer = named.post(path, account, headers={"Origin": APP})
        assert answer.status_code == status
        check_readable(answer)
        assert "Set-Cookie" not in answer.headers
    refused = named.post("/login", account | {"derived_key": new_derived_key()}, headers={"Origin": APP})
    assert refused.status_code == 401
    check_readable(refused)


def test_preflights_need_no_thread_of_model_calls(named: Gateway, someone: str, upstream: ScriptedUpstream) -> None:
    """All of those are taken by calls that wait, and it is answered as ever."""
    upstream.play("waits", SSE, gate := threading.Event())
    before = len(upstream.requests_for("waits"))
    waiting = [named.open_chat(someone, "waits") for _ in range(8)]
    try:
        wait_for(lambda: len(upstream.requests_for("waits")) == before + 8)
        full = named.post("/v1/chat/completions", {"model": "m"}, someone, headers={"Origin": APP})
        assert full.status_code == 503
        check_readable(full)
        assert ask(named, "/v1/chat/completions", APP).status_code == 204
    finally:
        gate.set()
        for connection in waiting:
            connection.close()


# ── any origin


def environ(path: str, origin: str = EVIL, method: str = "POST") -> dict[str, str]:
    return {"PATH_INFO": path, "REQUEST_METHOD": method, "HTTP_ORIGIN": origin}


@pytest.mark.parametrize("path", CALLS)
def test_any_origin_may_call_with_a_token(path: str) -> None:
    assert ("Access-Control-Allow-Origin", "*") in CrossOrigin(["*"]).headers(environ(path))
    assert ("Access-Control-Allow-Origin", APP) in CrossOrigin(["*", APP]).headers(environ(path, APP))


@pytest.mark.parametrize("path", ACCOUNTS)
def test_any_origin_does_not_try_passwords(path: str) -> None:
    assert CrossOrigin(["*"]).headers(environ(path)) == [("Vary", "Origin")]
    assert CrossOrigin(["*", APP]).headers(environ(path)) == [("Vary", "Origin")]
    assert ("Access-Control-Allow-Origin", APP) in CrossOrigin(["*", APP]).headers(environ(path, APP))


@pytest.mark.parametrize("path", CLOSED)
def test_any_origin_reads_no_page(path: str) -> None:
    assert CrossOrigin(["*"]).headers(environ(path, method="GET")) == []


def test_without_the_setting_nothing_is_said() -> None:
    assert CrossOrigin([]).headers(environ("/v1/models")) == []
