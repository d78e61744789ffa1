"""Anthropic's clients read Anthropic's errors: on its own paths always, and where all ask, if they say who they are."""

from __future__ import annotations

import pytest
import requests

from serving.dialects import speaks_anthropic
from tests.support.gateway import Gateway, refusal_of

VERSION = {"anthropic-version": "2023-06-01"}
OWN = ["/v1/messages", "/api/v1/messages", "/v1/messages/batches", "/v1/messages/", "/v1/messages/count_tokens"]


@pytest.mark.parametrize("path", OWN)
def test_its_own_paths_are_known(path):
    assert speaks_anthropic({"PATH_INFO": path})


@pytest.mark.parametrize("path", ["/v1/models", "/api/v1/models", "/v1/models/a/b"])
def test_where_all_ask_the_version_tells(path):
    assert speaks_anthropic({"PATH_INFO": path, "HTTP_ANTHROPIC_VERSION": "2023-06-01"})
    assert not speaks_anthropic({"PATH_INFO": path})
    assert not speaks_anthropic({"PATH_INFO": path, "HTTP_ANTHROPIC_VERSION": ""})


@pytest.mark.parametrize("path", ["/v1/messagesx", "/v1/chat/completions", "/messages", "/v2/messages", "/v1/modelsx"])
def test_other_paths_are_not(path):
    assert not speaks_anthropic({"PATH_INFO": path, "HTTP_ANTHROPIC_VERSION": "2023-06-01"})


def check(answer: requests.Response, status: int, kind: str) -> None:
    """Anthropic's envelope, with its name for the error and for the header that names the request."""
    assert answer.status_code == status, answer.text
    told = answer.json()
    assert set(told) == {"type", "error", "request_id"}
    assert (told["type"], told["error"]["type"]) == ("error", kind)
    assert told["error"]["message"]
    assert told["request_id"] == answer.headers["request-id"] == answer.headers["X-Request-Id"]


@pytest.fixture(scope="module", params=["granian", "gunicorn"])
def strict(request, start, upstream) -> Gateway:
    """A gateway whose every limit is near."""
    return start(
        SERVER=request.param,
        OPENROUTER_API_URL=upstream.url,
        OPENROUTER_API_KEYS=f"sk-or-v1-{'a' * 64}",
        MAX_BODY_BYTES=4000,
        RATE_LIMIT_KEY_RPM=1,
    )


def test_every_refusal_under_its_paths_is_in_its_envelope(strict):
    token = strict.new_user()
    body = {"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": "Hello"}]}
    check(strict.post("/v1/messages/batches", body, token), 404, "not_found_error")
    check(strict.get("/v1/messages/batches/x", token), 404, "not_found_error")
    check(strict.post("/v1/messages/", body, token), 404, "not_found_error")
    for path in ("/v1/messages", "/api/v1/messages/count_tokens"):
        check(strict.get(path, token), 405, "invalid_request_error")
        check(strict.post(path, body), 401, "authentication_error")
        check(strict.post(path, {**body, "system": "x" * 5000}, token), 413, "request_too_large")
        check(strict.post(path, {**body, "messages": []}, token), 400, "invalid_request_error")
        compressed = strict.post(path, body, token, headers={"Content-Encoding": "gzip"})
        check(compressed, 415, "invalid_request_error")
        malformed = strict.post(path, body, token, headers={"Host": "a, b"})
        if malformed.headers["Content-Type"] == "application/json":  # gunicorn refuses it before anybody is asked
            check(malformed, 400, "invalid_request_error")
    key = strict.post("/api/api-keys", {"name": "one"}, token).json()["key"]
    assert strict.post("/v1/messages/count_tokens", body, key).status_code == 200
    limited = strict.post("/v1/messages/count_tokens", body, key)
    check(limited, 429, "rate_limit_error")
    assert limited.headers["Retry-After"]


def test_the_models_are_refused_in_the_form_of_who_asks(strict):
    for path in ("/v1/models", "/v1/models/a/b"):
        check(requests.get(strict.url + path, headers=VERSION, timeout=30), 401, "authentication_error")
        assert "Authorization" in refusal_of(strict.get(path))


def test_x_api_key_is_the_same_as_a_bearer(strict):
    token, other = strict.new_user(), strict.new_user()
    for path in ("/api/auth/me", "/api/quota", "/api/usage/stats", "/v1/key", "/api/v1/keys", "/api/v1/stats"):

        def ask(path: str = path, **headers: str) -> int:
            return requests.get(strict.url + path, headers=headers, timeout=30).status_code

        assert ask(**{"x-api-key": token}) == 200
        assert ask(**{"x-api-key": token, "Authorization": f"Bearer {token}"}) == 200
        assert ask(**{"x-api-key": other, "Authorization": f"Bearer {token}"}) == 400
        assert ask(**{"x-api-key": "sk-auto-unknown"}) == 401
    for path in ("/v1/chat/completions", "/v1/embeddings", "/api/proxy/openrouter"):
        assert strict.post(path, {}, headers={"x-api-key": token}).status_code == 400  # who calls comes first


def test_counting_takes_the_scope_of_messages_and_is_not_sent_up(strict, upstream):
    token = strict.new_user()
    body = {"model": "m", "messages": [{"role": "user", "content": "Hello" * 100}]}
    before = len(upstream.received)
    answer = strict.post("/v1/messages/count_tokens?beta=true", body, token)
    assert answer.status_code == 200
    assert set(answer.json()) == {"input_tokens"}
    assert answer.json()["input_tokens"] >= 100
    key = strict.post("/api/api-keys", {"name": "chats", "scopes": ["chat"]}, token).json()["key"]
    check(strict.post("/v1/messages/count_tokens", body, key), 403, "permission_error")
    assert len(upstream.received) == before
    assert strict.get("/api/usage/logs", token).json()["items"] == []
