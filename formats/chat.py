"""A format in which models are called: what its bodies, events, ends and errors look like, by the rules of chat.

Everything else of a format is between the client and OpenRouter, and passes as it is. A keep-alive is a comment in all
of them: every reader of server-sent events skips those, and chat clients choke on anything else.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import Enum
from typing import Any

from formats import body, usage_block
from formats.body import CallBody
from foundation import json_text
from foundation.errors import AppError, UpstreamFailed
from foundation.json_members import Text
from upstream.disclosure import clean, is_clean, told
from upstream.refusal import Refusal, refusal_in, status_of_word

Json = dict[str, Any]

# A longer event is content: it goes on in pieces, unread, so that memory stays bounded.
MAX_HELD_BYTES = 64 * 1024
BYTE_ORDER_MARK = b"\xef\xbb\xbf"  # before a stream's first event it is none of it, to any client

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

    name: in scopes of client keys. path: below the base URL, OpenRouter's and ours. aliases: ours beside it. forwarded:
    client headers that go up, by their WSGI names. end_mark: bytes without which no event is a stream's end.
    has_reasons: an event with `reason_mark` may say why the answer ended, after which the end may be missing if HTTP
    says that all is whole. reads_tail: the last usage block of a long body is the answer's own, because nothing of the
    request is repeated. is_text: what an answer costs that broke off can be told from how much of it came.
    takes_forms: a body may be a form with a file. is_job: a call starts what goes on after its answer, and never twice.
    """

    name = "chat"
    path = "/chat/completions"
    aliases: tuple[str, ...] = ()
    forwarded: Mapping[str, str] = by_variable(*SHARED_HEADERS)
    request_id_headers: tuple[str, ...] = ("X-Request-Id",)
    read: Callable[[Text], CallBody] = staticmethod(body.read_chat)
    end_mark = b"[DONE]"
    has_reasons = True
    reason_mark = b'"finish_reason"'
    max_held_bytes = MAX_HELD_BYTES
    reads_tail = True
    is_text = True
    takes_forms = False
    is_job = False

    # ── events

    def kind_of(self, event: bytes) -> Kind:
        """What one whole event is. In doubt it is content: then the call is not tried again, and not billed twice."""
        data = data_of(event)
        if data is None:
            return Kind.COMMENT
        if is_done(data):
            return Kind.EMPTY
        try:
            payload = json_text.parse(data)
        except json_text.BadJson:
            return Kind.CONTENT
        return self.kind_of_payload(payload) if isinstance(payload, dict) else Kind.CONTENT

    def kind_of_payload(self, payload: Json) -> Kind:
        """What an event or a whole body is. An error beside content, or beside a bill, counts as content: all of it
        passes, and nothing is tried again, because that would be billed again."""
        if self.refusal_in(payload) is None:
            return Kind.CONTENT if self._may_be_content(payload) else Kind.EMPTY
        has_come = self._has_said(payload) or usage_block.is_billed(self.usage_in(payload) or {})
        return Kind.CONTENT if has_come else Kind.ERROR

    def _may_be_content(self, payload: Json) -> bool:
        choices = payload.get("choices")
        return not isinstance(choices, list) or bool(payload.get("usage")) or any(map(_has_content, choices))

    def _has_said(self, payload: Json) -> bool:
        """True if something of an answer stands beside an error."""
        choices = payload.get("choices")
        return isinstance(choices, list) and any(map(_has_said, choices))

    def is_end(self, _payload: Json) -> bool:
        """True for the event after which a stream is whole; [DONE] has no payload."""
        return False

    def is_finished(self, payload: Json) -> bool:
        """True if a choice says why it has ended."""
        choices = payload.get("choices")
        return isinstance(choices, list) and any(isinstance(one, dict) and one.get("finish_reason") for one in choices)

    def as_events(self, body: bytes) -> bytes:
        """A whole plain answer as the stream that was asked for; where that would lose something, one event has it."""
        try:
            payload = json_text.parse(body)
            events = self._events_of(payload) if isinstance(payload, dict) else None
        except json_text.BadJson:
            events = None
        return events or b"".join(in_one_event([body]))

    def _events_of(self, payload: Json) -> bytes | None:
        """The events of a whole answer; None for what is none. Raises BadJson."""
        choices = payload.get("choices")
        if not isinstance(choices, list) or not all(isinstance(choice, dict) for choice in choices):
            return None
        return self.event(payload | self._as_chunk(choices)) + b"data: [DONE]\n\n"

    def _as_chunk(self, choices: list[Json]) -> Json:
        return {"object": "chat.completion.chunk", "choices": [_as_delta(choice) for choice in choices]}

    def are_signs_of_life(self, events: bytes) -> bool:
        """True for comments, and for what a format has in their place."""
        return not (events.startswith(b"data:") or b"\ndata:" in events or b"\rdata:" in events)

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
        is_as_sent = refusal.body and cleaned == payload and is_clean(refusal.body)
        return refusal.body if is_as_sent else json_text.write(cleaned)

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


def _has_said(choice: Any) -> bool:
    if not isinstance(choice, dict):
        return False
    parts = [part for part in (choice.get("delta"), choice.get("message")) if isinstance(part, dict)]
    return bool(choice.get("text")) or any(value for part in parts for name, value in part.items() if name != "role")


def _as_delta(choice: Json) -> Json:
    """A whole choice as a stream has it. Calls of tools are told apart by an index there."""
    delta = choice.get("message")
    if isinstance(delta, dict) and isinstance(delta.get("tool_calls"), list):
        numbered = enumerate(delta["tool_calls"])
        calls = [{"index": at} | call if isinstance(call, dict) else call for at, call in numbered]
        delta = delta | {"tool_calls": calls}
    return {name: value for name, value in choice.items() if name != "message"} | {"delta": delta or {}}


def data_of(event: bytes) -> bytes | None:
    """The data of an event; None for comments alone."""
    lines = [line for line in event.removeprefix(BYTE_ORDER_MARK).splitlines() if line]
    if all(line.startswith(b":") for line in lines):
        return None
    return b"\n".join(line[5:] for line in lines if line.startswith(b"data:"))


def is_done(data: bytes) -> bool:
    """True for the data of chat's last event, which is no JSON."""
    return data.strip() == b"[DONE]"


def in_one_event(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """A text as the data of one event, as it comes: each of its lines becomes one of the event's."""
    yield b"data: "
    for piece in pieces:
        yield piece.replace(b"\r", b"").replace(b"\n", b"\ndata: ")
    yield b"\n\n"


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
