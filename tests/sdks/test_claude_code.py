"""Claude Code's own sequence of calls, as it sends them: a greeting, the models, a probe of the key, a count, a turn with
tools and its results. It is no library, so what it writes on the wire is replayed."""

from __future__ import annotations

import json
from typing import Any

import pytest
import requests

from tests.support.gateway import wait_for

MODEL = "anthropic/claude-sonnet-4.6"
# So many features and more are named by agents; users add their own, or take all of them away.
BETAS = ",".join(["claude-code-20250219", "interleaved-thinking-2025-05-14", *(f"feature-{n}-2026" for n in range(80))])
SYSTEM = [
    {"type": "text", "text": "x-anthropic-billing-header: cc_version=2.1.96; cc_entrypoint=cli;"},
    {"type": "text", "text": "You are Claude Code.", "cache_control": {"type": "ephemeral"}},
]
TOOLS = [
    {"name": name, "description": f"{name} a file", "input_schema": {"type": "object", "properties": {"query": {}}}}
    for name in ("Read", "Edit", "Bash")
]
METADATA = {"user_id": '{"device_id":"d","account_uuid":"","session_id":"s"}'}


class ClaudeCode:
    """What it sends, with its headers. auth: a key in either of the two headers."""

    def __init__(self, url: str, auth: dict[str, str], betas: str = BETAS) -> None:
        self.http = requests.Session()
        self.http.headers = {
            "Accept": "application/json",
            "Content-Type": "application/json",
            "User-Agent": "claude-cli/2.1.96 (external, cli)",
            "X-Stainless-Lang": "js",
            "X-Stainless-Retry-Count": "0",
            "X-Claude-Code-Session-Id": "0b0e",
            "anthropic-dangerous-direct-browser-access": "true",
            "anthropic-version": "2023-06-01",
            "anthropic-beta": betas,
            "x-app": "cli",
            **auth,
        }
        self.url = url

    def post(self, path: str, **body: Any) -> requests.Response:
        answer = self.http.post(self.url + path, json=body, timeout=30)
        assert answer.status_code == 200, answer.text
        assert answer.headers["request-id"]
        return answer

    def stream(self, **body: Any) -> list[dict[str, Any]]:
        """The events of a streamed turn."""
        answer = self.post("/v1/messages?beta=true", stream=True, system=SYSTEM, metadata=METADATA, **body)
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        lines = answer.content.decode().splitlines()
        return [json.loads(line[6:]) for line in lines if line.startswith("data: ")]


@pytest.mark.parametrize("header", ["x-api-key", "Authorization"])
def test_its_sequence_of_calls(gateway, key, header):
    claude = ClaudeCode(gateway.url, {header: key if header == "x-api-key" else f"Bearer {key}"})
    assert claude.http.head(gateway.url + "/", timeout=30, allow_redirects=False).status_code < 400
    # which models there are: it takes those whose names begin with its maker's
    listed = wait_for(lambda: claude.http.get(gateway.url + "/v1/models?limit=1000", timeout=30).json().get("data"))
    assert MODEL in {model["id"] for model in listed if model["type"] == "model" and model["display_name"]}
    # whether the key works
    quota = [{"role": "user", "content": "quota"}]
    probe = claude.post("/v1/messages?beta=true", model=MODEL, max_tokens=1, messages=quota, metadata=METADATA)
    assert probe.json()["type"] == "message"
    # how much the conversation is
    question = {"role": "user", "content": [{"type": "text", "text": "Hello", "cache_control": {"type": "ephemeral"}}]}
    count = claude.post("/v1/messages/count_tokens?beta=true", model=MODEL, messages=[question], tools=TOOLS)
    assert count.json()["input_tokens"] > 10
    # a turn, with its tools
    events = claude.stream(model="sandbox/tools", max_tokens=32_000, messages=[question], tools=TOOLS)
    assert (events[0]["type"], events[-1]["type"]) == ("message_start", "message_stop")
    [begun] = [event["content_block"] for event in events if event["type"] == "content_block_start"]
    assert begun["type"] == "tool_use"
    assert [event["delta"]["stop_reason"] for event in events if event["type"] == "message_delta"] == ["tool_use"]
    # and the next one, with the tool's result
    result = {"type": "tool_result", "tool_use_id": begun["id"], "content": "sunny", "is_error": False}
    messages = [question, {"role": "assistant", "content": [begun]}, {"role": "user", "content": [result]}]
    events = claude.stream(model="sandbox/tools", max_tokens=32_000, messages=messages, tools=TOOLS)
    assert [event["delta"]["stop_reason"] for event in events if event["type"] == "message_delta"] == ["end_turn"]


@pytest.mark.parametrize("betas", ["", "x" * 8000])
def test_beta_headers_may_be_empty_or_long(gateway, key, betas):
    claude = ClaudeCode(gateway.url, {"x-api-key": key}, betas)
    assert claude.stream(model=MODEL, max_tokens=5, messages=[{"role": "user", "content": "Hello"}])


def test_what_is_not_there_is_said_in_its_words(gateway, key):
    claude = ClaudeCode(gateway.url, {"x-api-key": key})
    for path in ("/v1/messages/batches", "/v1/messages/x"):
        answer = claude.http.post(gateway.url + path, json={}, timeout=30)
        assert (answer.status_code, answer.json()["error"]["type"]) == (404, "not_found_error")
