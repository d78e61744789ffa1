"""Reads server-sent events as they pass: usage, errors, end; in bounded memory.

Whole events go through, byte for byte; an event cut across network chunks is held until its end is here. That costs
nothing (upstreams send whole events) and it means that between two calls of `feed` the client is always at an event's
border: a comment or an error of our own can be put there without splitting anything.
"""

from __future__ import annotations

import re
import time
from enum import Enum
from typing import Any

import answer_usage
import json_text
from errors import AppError, UpstreamFailed
from openrouter_errors import Refusal, clean, refusal_in, told

# A longer event is content: it goes on in pieces, unread, so that memory stays bounded.
MAX_HELD_BYTES = 64 * 1024
EVENT_ENDS = (b"\n\n", b"\n\r\n", b"\r\r")
BLANK_LINE = re.compile(rb"\r\n\r\n|\n\n|\n\r\n|\r\r")
LINE_ENDS = re.compile(rb"[\r\n]{1,3}\Z")
DONE = re.compile(rb"(?:\A|[\r\n])data: ?\[DONE\]")  # at the begin of a line: an answer may talk about it
KEEPALIVE = b": keep-alive\n\n"


class Kind(Enum):
    """What an event means for a stream that has not begun: whether the call can still be tried again after it."""

    COMMENT = "comment"
    EMPTY = "empty"
    """Data without content: a role, a debug chunk, [DONE]."""
    CONTENT = "content"
    ERROR = "error"


def events_in(data: bytes) -> list[bytes]:
    """Whole events, one by one."""
    ends = [border.end() for border in BLANK_LINE.finditer(data)]
    return [data[a:b] for a, b in zip([0, *ends], [*ends, len(data)], strict=True) if b > a]


def kind_of(event: bytes) -> Kind:
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
    if isinstance(payload, dict) and refusal_in(payload):
        return Kind.ERROR
    return Kind.CONTENT if _may_be_content(payload) else Kind.EMPTY


def _may_be_content(payload: Any) -> bool:
    choices = payload.get("choices") if isinstance(payload, dict) else None
    return not isinstance(choices, list) or bool(payload.get("usage")) or any(map(_has_content, choices))


def _has_content(choice: Any) -> bool:
    """True if a choice says anything at all (text, reasoning, tools, an end, what nobody knows yet) but its role."""
    if not isinstance(choice, dict):
        return True
    delta = choice.get("delta") or {}
    if not isinstance(delta, dict):
        return True
    said = [value for name, value in choice.items() if name not in {"index", "delta"}]
    return any(said) or any(value for name, value in delta.items() if name != "role")


def error_event(error: AppError, generation_id: str | None = None, model: str = "") -> bytes:
    """An error of ours within a stream."""
    return _error_chunk(error.to_dict()["error"], generation_id, model)


def refusal_event(refusal: Refusal, model: str = "") -> bytes:
    """OpenRouter's refusal within a stream that had to begin before it came."""
    payload = refusal.payload or {}
    error = clean(payload).get("error")
    if not isinstance(error, dict):
        error = UpstreamFailed(f"OpenRouter refused the request with status {refusal.status}").to_dict()["error"]
    return _error_chunk(error, payload.get("id"), model)


def _error_chunk(error: object, generation_id: str | None, model: str) -> bytes:
    # The full shape of a chunk: OpenRouter's Python SDK refuses one without any of these.
    chunk = {
        "id": generation_id or "gen-none",
        "object": "chat.completion.chunk",
        "created": int(time.time()),
        "model": model or "unknown",
        "error": error,
        "choices": [{"index": 0, "delta": {"content": ""}, "finish_reason": "error", "native_finish_reason": None}],
    }
    return b"data: " + json_text.write(chunk) + b"\n\n"


class EventStream:
    """One answer's events. After the end: `usage` and the first `refusal` if events held them, `done` if [DONE] came.

    `at_border` is False only within an event of more than MAX_HELD_BYTES.
    """

    def __init__(self) -> None:
        self.usage: dict[str, Any] | None = None
        self.refusal: Refusal | None = None
        self.done = False
        self.count = 0
        """Data events so far, more or less: about as many as there were tokens."""
        self.at_border = True
        self._dropping = False
        self._held = bytearray()

    def feed(self, data: bytes) -> bytes:
        """Take a network chunk; return what may go on to the client now, possibly nothing."""
        if not self._held and self.at_border and data.endswith(b"\n\n"):
            return self._look(data)  # nearly every chunk of a well-behaved upstream
        searched = max(0, len(self._held) - 3)
        self._held += data
        ready = b""
        if not self.at_border:
            ready, searched = self._rest_of_long_event(searched), 0
        if not self.at_border:
            return ready
        if cut := self._last_border(searched):
            ready += self._look(bytes(self._held[:cut]))
            del self._held[:cut]
        return ready + self._overflow()

    def finish(self) -> bytes:
        """The upstream has ended: what was still held, an event without its blank line."""
        rest, self._held = bytes(self._held), bytearray()
        if self.at_border:
            return self._look(rest)
        return b"" if self._dropping else rest

    def _last_border(self, searched: int) -> int:
        """Where the last whole event in `_held` ends, or 0."""
        held = self._held
        return max((at + len(mark) for mark in EVENT_ENDS if (at := held.rfind(mark, searched)) >= 0), default=0)

    def _rest_of_long_event(self, searched: int) -> bytes:
        border = BLANK_LINE.search(self._held, searched)
        if border:
            cut, self.at_border = border.end(), True
        else:
            # Line ends stay: the next chunk may make a blank line of them.
            tail = LINE_ENDS.search(self._held)
            cut = tail.start() if tail else len(self._held)
        rest = b"" if self._dropping else bytes(self._held[:cut])
        del self._held[:cut]
        self._dropping = self._dropping and not border
        return rest

    def _overflow(self) -> bytes:
        if len(self._held) <= MAX_HELD_BYTES:
            return b""
        self.at_border = False
        if b'"error"' in self._held:  # too long to be cleaned: the client gets our words instead
            self._dropping = True
            self._rest_of_long_event(0)
            return self._in_our_words()
        return self._rest_of_long_event(0)

    def _look(self, events: bytes) -> bytes:
        """Note what whole events say; return them, cleaned where they hold an error."""
        self.count += events.count(b"data:")
        if b'"usage"' not in events and b'"error"' not in events and b"[DONE]" not in events:
            return events
        return b"".join(map(self._look_at_one, events_in(events)))

    def _look_at_one(self, event: bytes) -> bytes:
        if b'"error"' not in event and not answer_usage.USAGE.search(event):
            self.done = self.done or bool(DONE.search(event))
            return event
        lines = [line[5:] for line in event.splitlines() if line.startswith(b"data:")]
        try:
            payload = json_text.parse(b"\n".join(lines))
            if not isinstance(payload, dict):
                return event
            if isinstance(payload.get("usage"), dict):
                self.usage = answer_usage.exact(event, payload["usage"])
            refusal = refusal_in(payload)
            if refusal is None:
                return event
            self.refusal = self.refusal or refusal
            shown = told(payload)
            return event if shown == payload else b"data: " + json_text.write(shown) + b"\n\n"
        except json_text.BadJson:
            return event if b'"error"' not in event else self._in_our_words()

    def _in_our_words(self) -> bytes:
        failure = UpstreamFailed("OpenRouter reported an error that can't be passed on")
        self.refusal = self.refusal or Refusal(failure.status, None)
        return error_event(failure)
