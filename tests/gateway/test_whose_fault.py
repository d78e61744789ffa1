"""Whose fault was it? For every documented shape of a failure: one caller's calls meet it, and another's go on.

Through a real gateway whose keys all meet the same: a shape that took a key, an account or a model from others would
soon leave the second caller without any. docs/upstream-errors.md has a row for each.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests

from tests.support.gateway import ROOT, Gateway, wait_for
from tests.support.scripted_upstream import SSE, ScriptedUpstream, Step, chunked, json_answer

CALLS = 3  # of the one whose calls fail, at once
BY_KEY = b'{"data":{"label":"x","limit":null,"limit_remaining":null,"usage":0,"creator_user_id":"user_1"}}'
TEXT = {"role": "assistant", "content": "so far"}
USAGE = {"prompt_tokens": 30, "completion_tokens": 40, "cost": 0.01}
GOOD = {
    "id": "gen-1",
    "object": "chat.completion",
    "model": "good",
    "choices": [{"index": 0, "message": TEXT, "finish_reason": "stop"}],
    "usage": USAGE,
}
PATHS = {
    "chat": "/v1/chat/completions",
    "messages": "/v1/messages",
    "responses": "/v1/responses",
    "completions": "/v1/completions",
    "embeddings": "/v1/embeddings",
}
SHORT = (401, 402, 403, 429, 502)
CODES = (400, 401, 402, 403, 404, 408, 413, 422, 429, 500, 502, 503, 524, 529)
DOCUMENTED = {
    400: "Invalid request parameters",
    401: "Missing Authentication header",
    402: "Insufficient credits. Add more using https://openrouter.ai/credits",
    403: "Only management keys can perform this operation",
    404: "Resource not found",
    408: "Operation timed out. Please try again later.",
    409: "Resource conflict. Please try again later.",
    413: "Request payload too large",
    422: "Invalid argument",
    429: "Rate limit exceeded",
    500: "Internal Server Error",
    502: "Provider returned error",
    503: "Service temporarily unavailable",
    524: "Request timed out. Please try again later.",
    529: "Provider returned error",
}
# What OpenRouter was seen to say of our key and account, beside what its document has.
OF_OURS = {
    "401-unknown": (401, "User not found.", {}),
    "401-disabled": (401, "Invalid credentials: this API key is disabled", {}),
    "401-else": (401, "Something new", {}),
    "402-in-flight": (402, "...", {"limit_source": "openrouter_in_flight_budget"}),
    "402-key": (402, "...", {"limit_source": "openrouter_key_limit"}),
    "402-credits": (402, "...", {"limit_source": "openrouter_credits"}),
    "402-else": (402, "Payment required", {}),
    "403-key-limit": (403, "Key limit exceeded (total limit). Manage it", {}),
    "403-budget": (403, "Workspace monthly budget of $500.00 exceeded.", {}),
    "403-region": (403, "This request arrived on the global data region, but", {}),
    "429-free": (429, "Rate limit exceeded: free-models-per-day", {"limit_source": "openrouter_free_tier_daily"}),
    "429-provider": (429, "Provider returned error", {"provider_name": "P", "raw": "slow down"}),
    "402-provider": (402, "Provider returned error", {"provider_name": "P", "raw": "Insufficient Balance"}),
    "401-provider": (401, "Provider returned error", {"provider_name": "P", "raw": "invalid x-api-key"}),
}
WORDS_OF_MESSAGES = [
    "invalid_request_error",
    "authentication_error",
    "permission_error",
    "not_found_error",
    "rate_limit_error",
    "api_error",
    "overloaded_error",
    "billing_error",
    "timeout_error",
]
WORDS_OF_RESPONSES = [
    "server_error",
    "rate_limit_exceeded",
    "invalid_prompt",
    "vector_store_timeout",
    "invalid_image",
    "invalid_image_format",
    "invalid_base64_image",
    "invalid_image_url",
    "image_too_large",
    "image_too_small",
    "image_parse_error",
    "image_content_policy_violation",
    "invalid_image_mode",
    "image_file_too_large",
    "unsupported_image_media_type",
    "empty_image_file",
    "failed_to_download_image",
    "image_file_not_found",
    "bio_policy",
    "data_residency_mismatch",
]


def data(payload: Any, name: str = "") -> bytes:
    return (f"event: {name}\n" if name else "").encode() + b"data: " + json.dumps(payload).encode() + b"\n\n"


def chunk(choice: dict[str, Any], **more: Any) -> bytes:
    whole = {"id": "gen-2", "object": "chat.completion.chunk", "created": 1, "model": "bad", "choices": [choice]}
    return data(whole | more)


def of_code(code: Any, **metadata: Any) -> dict[str, Any]:
    message = DOCUMENTED.get(code, "Provider stopped")
    return {"code": code, "message": message} | ({"metadata": metadata} if metadata else {})


def stream(*events: bytes) -> tuple[Step, ...]:
    return (SSE, chunked(*events))


def plain(payload: Any, status: str = "200 OK", headers: str = "") -> tuple[Step, ...]:
    return (json_answer(status, json.dumps(payload).encode(), headers),)


CONTENT = chunk({"index": 0, "delta": {"content": "so"}})
FAILED = {"index": 0, "delta": {"content": ""}, "finish_reason": "error"}


def chat_shapes() -> Iterator[tuple[str, str, Any]]:
    for code in CODES:
        yield f"chunk-{code}", "stream", stream(chunk(FAILED, error=of_code(code)))
        yield f"late-chunk-{code}", "stream", stream(CONTENT, chunk(FAILED, error=of_code(code)))
        yield f"plain-{code}", "plain", plain({"id": "gen-2", "error": of_code(code)})
        choice = {"index": 0, "message": TEXT, "finish_reason": "error", "error": of_code(code)}
        part = {"id": "gen-3", "object": "chat.completion", "choices": [choice], "usage": USAGE}
        yield f"choice-{code}", "plain", plain(part)
    yield "chunk-word", "stream", stream(chunk(FAILED, error=of_code("rate_limit_exceeded")))
    yield "chunk-bare", "stream", stream(data({"error": of_code(429)}))


def http_shapes() -> Iterator[tuple[str, str, Any]]:
    for code, message in DOCUMENTED.items():
        yield f"http-{code}", "plain", plain({"error": {"code": code, "message": message}}, f"{code} No")
    for name, (code, message, metadata) in OF_OURS.items():
        error = {"code": code, "message": message, "metadata": metadata}
        yield f"http-{name}", "plain", plain({"error": error}, f"{code} No", "Retry-After: 2\r\n")
        yield f"event-{name}", "stream", stream(chunk(FAILED, error=error))


def messages_shapes() -> Iterator[tuple[str, str, Any]]:
    statuses = dict(zip(WORDS_OF_MESSAGES, (400, 401, 403, 404, 429, 500, 529, 402, 504), strict=True))
    for word in WORDS_OF_MESSAGES:
        envelope = {"type": "error", "error": {"type": word, "message": "Invalid API key"}, "request_id": None}
        yield f"messages-{word}", "stream", stream(data(envelope, "error"))
        yield f"messages-http-{word}", "plain", plain(envelope, f"{statuses[word]} No")


def responses_shapes() -> Iterator[tuple[str, str, Any]]:
    for word in WORDS_OF_RESPONSES:
        error = {"code": word, "message": "Rate limit exceeded. Please try again later."}
        whole = {"id": "resp-1", "object": "response", "status": "failed", "error": error, "output": []}
        event = {"type": "response.failed", "response": whole, "sequence_number": 1}
        yield f"responses-failed-{word}", "stream", stream(data(event, "response.failed"))
        flat = {"type": "error", **error, "param": None, "sequence_number": 1}
        yield f"responses-error-{word}", "stream", stream(data(flat, "error"))
        yield f"responses-plain-{word}", "plain", plain(whole)


FORMATS = {"chat": (chat_shapes, http_shapes), "messages": (messages_shapes,), "responses": (responses_shapes,)}
SHAPES = {
    name: (api, form, script) for api, shapes in FORMATS.items() for make in shapes for name, form, script in make()
}


class World:
    """A gateway with three keys, at an upstream that plays a shape to one model, and answers all others."""

    def __init__(self, start: Callable[..., Gateway]) -> None:
        self.upstream = ScriptedUpstream()
        self.upstream.play("", *plain(json.loads(BY_KEY)))
        self.upstream.play("good", *plain(GOOD))
        keys = ",".join(f"sk-or-v1-{number:064x}" for number in (1, 2, 3))
        self.gateway = start(OPENROUTER_API_URL=self.upstream.url, OPENROUTER_API_KEYS=keys)
        self.bad, self.good = self.gateway.new_user(), self.gateway.new_user()

    def fail(self, name: str) -> list[requests.Response]:
        """Calls that meet the shape, at once."""
        api, form, script = SHAPES[name]
        self.upstream.play(name, *script)
        answers: list[requests.Response] = []
        threads = [threading.Thread(target=lambda: answers.append(self.ask(api, form, name))) for _ in range(CALLS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return answers

    def ask(self, api: str, form: str, model: str) -> requests.Response:
        asked = [{"role": "user", "content": "Hello"}]
        body: dict[str, Any] = {"model": model, "stream": form == "stream", "max_tokens": 9}
        body |= {"input": asked} if api == "responses" else {"messages": asked}
        return self.gateway.post(PATHS[api], body, self.bad)

    def innocent(self) -> int:
        return self.gateway.chat(self.good, "good").status_code

    def health(self) -> dict[str, Any]:
        return self.gateway.get("/api/health").json()


@pytest.fixture(scope="module")
def world(start: Callable[..., Gateway]) -> Iterator[World]:
    made = World(start)
    yield made
    made.upstream.close()


def is_short(name: str) -> bool:
    """True for the shapes that the ordinary suite plays: of those that differ by a code alone, the telling ones."""
    kind, _, code = name.rpartition("-")
    if code.isdigit() and kind != "http":
        return int(code) in SHORT
    return not kind.startswith("responses") or code in ("rate_limit_exceeded", "server_error", "bio_policy")


def check(world: World, name: str) -> None:
    """Meet the shape, and see what is told; another caller goes on meanwhile and afterwards."""
    answers: list[requests.Response] = []
    failing = threading.Thread(target=lambda: answers.extend(world.fail(name)))
    failing.start()
    during = [world.innocent() for _ in range(2)]
    failing.join()
    assert during + [world.innocent() for _ in range(4)] == [200] * 6
    assert len(answers) == CALLS
    for answer in answers:
        assert "OpenRouter credit" not in answer.text
        assert answer.status_code != 401  # the caller would take its own key for bad
        assert "resting" not in answer.text


@pytest.mark.parametrize("name", list(filter(is_short, SHAPES)))
def test_one_callers_failure_is_nobody_elses(world, name):
    check(world, name)
    pool = world.health()["pool"]
    assert (pool["status"], pool["usable"]) == ("ok", 3)


@pytest.mark.torture
@pytest.mark.parametrize("name", SHAPES)
def test_one_callers_failure_is_nobody_elses_for_long(world, name):
    """Once a second for a hundred seconds."""
    for _ in range(100):
        began = time.monotonic()
        check(world, name)
        time.sleep(max(0, began + 1 - time.monotonic()))
    assert world.health()["pool"]["usable"] == 3


# ── the document


def test_the_document_has_a_row_for_each_shape():
    text = (ROOT / "docs/upstream-errors.md").read_text()
    rows = re.findall(r"^\| `([a-z0-9*-]+)` \|", text, re.MULTILINE)
    told = [re.compile(row.replace("*", "[a-z0-9_-]+")) for row in rows]
    assert [name for name in SHAPES if not any(one.fullmatch(name) for one in told)] == []
    assert [one.pattern for one in told if not any(map(one.fullmatch, SHAPES))] == []


def test_calls_that_failed_are_told_with_their_reasons(world):
    world.fail("http-429")
    calls = wait_for(lambda: world.health()["calls"])
    assert calls["failed"] >= CALLS
    assert calls["why"]["limited-somewhere"] >= CALLS
