"""A format in which models are called: what its bodies, events, ends and errors look like, by the rules of chat.

Everything else of a format is between the client and OpenRouter, and passes as it is. A keep-alive is a comment in all
of them: every reader of server-sent events skips those, and chat clients choke on anything else.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any

from formats import body
from formats.body import CallBody
from foundation import json_text
from foundation.errors import AppError, UpstreamFailed
from foundation.json_members import Text
from upstream.disclosure import clean, is_clean, told
from upstream.refusals import Refusal, refusal_in, status_of_word

Json = dict[str, Any]

# A longer event is content: it goes on in pieces, unread, so that memory stays bounded.
MAX_HELD_BYTES = 64 * 1024

# Client headers that go up. Not among them: the response cache's (X-OpenRouter-Cache*), because all users share our
# account and would read each other's cached answers.
SHARED_HEADERS = (
    "X-Session-Id",
    "X-OpenRouter-Metadata",
    "X-OpenRouter-Experimental-Metadata",
    "X-Anthropic-Beta",
    "X-OpenRouter-Fusion-Depth",
    "X-OpenRouter-Subagent-Depth",
    "X-OpenRouter-Advisor-Depth",
)


def by_variable(*names: str) -> dict[str, str]:
    """Headers by their WSGI names."""
    return {f"HTTP_{name.upper().replace('-', '_')}": name for name in names}


class Kind(Enum):
    """What an event means for a stream that has not begun: whether the call can still be tried again after it."""

    COMMENT = "comment"
    EMPTY = "empty"
    """Data without content: a role, a debug chunk, a ping, [DONE]."""
    CONTENT = "content"
    ERROR = "error"


class ModelApi:
    """Chat completions, and what other formats have in common with them.

    name: in scopes of client keys. path: below the base URL, OpenRouter's and ours. forwarded: client headers that go
    up, by their WSGI names. end_mark: bytes without which no event is a stream's end. must_end: a stream without its
    end was cut, even if HTTP says that it is whole. pings: matches the data of events that are mere signs of life.
    reads_tail: the last usage block of a long body is the answer's own, because nothing of the request is repeated.
    """

    name = "chat"
    path = "/chat/completions"
    forwarded: Mapping[str, str] = by_variable(*SHARED_HEADERS)
    takes_api_key_header = False
    request_id_headers: tuple[str, ...] = ("X-Request-Id",)
    read: Callable[[Text], CallBody] = staticmethod(body.read_chat)
    end_mark = b"[DONE]"
    must_end = False
    max_held_bytes = MAX_HELD_BYTES
    reads_tail = True
    pings: re.Pattern[bytes] | None = None
    _end = re.compile(rb"(?:\A|[\r\n])data: ?\[DONE\]")  # at the begin of a line: an answer may talk about it

    # ── events

    def kind_of(self, event: bytes) -> Kind:
        """What one whole event is. In doubt it is content: then the call is not tried again, and not billed twice."""
        lines = [line for line in event.splitlines() if line]
        if all(line.startswith(b":") for line in lines):
            return Kind.COMMENT
        data = b"\n".join(line[5:] for line in lines if line.startswith(b"data:"))
        if data.strip() == b"[DONE]":
            return Kind.EMPTY
        try:
            payload = json_text.parse(data)
        except json_text.BadJson:
            payload = None
        if isinstance(payload, dict) and self.refusal_in(payload):
            return Kind.ERROR
        return Kind.CONTENT if not isinstance(payload, dict) or self._may_be_content(payload) else Kind.EMPTY

    def _may_be_content(self, payload: Json) -> bool:
        choices = payload.get("choices")
        return not isinstance(choices, list) or bool(payload.get("usage")) or any(map(_has_content, choices))

    def is_end(self, event: bytes) -> bool:
        """True for the event after which a stream is whole."""
        return bool(self._end.search(event))

    def event(self, payload: Json) -> bytes:
        """A payload as an event. Raises BadJson."""
        return b"data: " + json_text.write(payload) + b"\n\n"

    # ── usage

    def usage_in(self, payload: Json) -> Json | None:
        """The usage block of a whole body, or of an event that says it for good."""
        usage = payload.get("usage")
        return usage if isinstance(usage, dict) else None

    def with_usage(self, _known: Json | None, usage: Json) -> Json:
        """What is known of an answer's usage after one more block, with chat's names: prompt_tokens,
        completion_tokens, cost."""
        return usage

    # ── errors

    def refusal_in(self, payload: Json) -> Refusal | None:
        """The refusal that a body or an event under status 200 holds, if it holds one."""
        return refusal_in(payload)

    def told(self, payload: Json) -> Json:
        """A body or event that may hold an error as the client may see it: cleaned, or with our words where it is
        about our key or account."""
        return told(payload)

    def error_body(self, error: AppError, _request_id: str) -> bytes:
        """An error of ours as a whole body."""
        return error.to_json()

    def refusal_body(self, refusal: Refusal, _request_id: str) -> bytes:
        """OpenRouter's refusal as a whole body, cleaned; byte for byte where nothing had to be."""
        payload = refusal.payload
        if payload is None:
            return unexplained(refusal).to_json()
        cleaned = clean(payload)
        return refusal.body if cleaned == payload and is_clean(refusal.body) else json_text.write(cleaned)

    def error_event(
        self, error: AppError, generation_id: str | None = None, model: str = "", _number: int = 0
    ) -> bytes:
        """An error of ours within a stream, after `number` events."""
        return self._error_chunk(error.to_dict()["error"], generation_id, model)

    def refusal_event(self, refusal: Refusal, model: str = "") -> bytes:
        """OpenRouter's refusal within a stream that had to begin before it came."""
        cleaned = clean(refusal.payload or {})
        error, generation_id = cleaned.get("error"), cleaned.get("id")
        if not isinstance(error, dict):
            error = unexplained(refusal).to_dict()["error"]
        return self._error_chunk(error, generation_id if isinstance(generation_id, str) else None, model)

    def _error_chunk(self, error: object, generation_id: str | None, model: str) -> bytes:
        # The full shape of a chunk: OpenRouter's Python SDK refuses one without any of these.
        chunk = {
            "id": generation_id or "gen-none",
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": model or "unknown",
            "error": error,
            "choices": [{"index": 0, "delta": {"content": ""}, "finish_reason": "error", "native_finish_reason": None}],
        }
        return self.event(chunk)


def _has_content(choice: Any) -> bool:
    """True if a choice says anything at all (text, reasoning, tools, an end, what nobody knows yet) but its role."""
    if not isinstance(choice, dict):
        return True
    delta = choice.get("delta") or {}
    if not isinstance(delta, dict):
        return True
    said = [value for name, value in choice.items() if name not in {"index", "delta"}]
    return any(said) or any(value for name, value in delta.items() if name != "role")


def unexplained(refusal: Refusal) -> AppError:
    """What a refusal is called that says nothing itself."""
    return UpstreamFailed(f"The upstream refused the request with status {refusal.status}")


def named_event(name: str, payload: Json) -> bytes:
    """An event with its name on a line of its own. Raises BadJson."""
    return b"event: " + name.encode("ascii") + b"\ndata: " + json_text.write(payload) + b"\n\n"


def status_of(error: Json, more: object = None) -> int:
    """The HTTP status of an error that names itself by a number or a word."""
    code = error.get("code")
    if isinstance(code, int) and 400 <= code < 600:
        return code
    words = (error.get("error_type"), more, code, error.get("type"))
    return next((status for word in words if (status := status_of_word(word))), 500)
