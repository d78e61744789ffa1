"""Anthropic's Messages format: events with a name, usage at both ends of a stream, and an envelope for errors."""

from __future__ import annotations

from typing import Any

from formats import body
from formats.chat import SHARED_HEADERS, ModelApi, by_variable, named_event, status_of, unexplained
from foundation import json_text
from foundation.errors import AppError
from upstream.disclosure import clean, hide_account
from upstream.refusal import Refusal
from upstream.refusals import classify

Json = dict[str, Any]

ANTHROPIC_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    524: "timeout_error",
    529: "overloaded_error",
}


class MessagesApi(ModelApi):
    """The format of POST /messages."""

    name = "messages"
    path = "/messages"
    forwarded = by_variable(*SHARED_HEADERS, "Anthropic-Version", "Anthropic-Beta")
    request_id_headers = ("X-Request-Id", "request-id")  # Anthropic's SDKs read the second
    read = staticmethod(body.read_message)
    end_mark = b"message_stop"
    has_reasons = False
    reads_tail = False  # a tool's input is a model's JSON, not a text, and may be made to look like usage

    def _may_be_content(self, payload: Json) -> bool:
        said = payload.get("type")
        if said in ("message_start", "message_stop", "ping", "content_block_stop"):
            return False
        if said == "content_block_start":
            return _has_content(payload.get("content_block"))
        if said == "content_block_delta":
            delta = payload.get("delta")
            return not isinstance(delta, dict) or any(value for name, value in delta.items() if name != "type")
        return True

    def _has_said(self, payload: Json) -> bool:
        content = payload.get("content")
        return any(map(_has_content, content)) if isinstance(content, list) else bool(content)

    def is_end(self, payload: Json) -> bool:
        return payload.get("type") == "message_stop"

    def are_signs_of_life(self, events: bytes) -> bool:
        if b'"ping"' not in events:
            return super().are_signs_of_life(events)
        return all(_is_ping(line[5:]) for line in events.splitlines() if line.startswith(b"data:"))

    def _events_of(self, payload: Json) -> bytes | None:
        content = payload.get("content")
        if not isinstance(content, list) or not all(isinstance(block, dict) for block in content):
            return None
        ends = {"stop_reason": payload.get("stop_reason"), "stop_sequence": payload.get("stop_sequence")}
        begun = payload | {"content": [], "stop_reason": None, "stop_sequence": None}
        events: list[Json] = [{"type": "message_start", "message": begun}]
        for at, block in enumerate(content):
            empty, deltas = _as_deltas(block)
            events.append({"type": "content_block_start", "index": at, "content_block": empty})
            events += [{"type": "content_block_delta", "index": at, "delta": delta} for delta in deltas]
            events.append({"type": "content_block_stop", "index": at})
        events.append({"type": "message_delta", "delta": ends, "usage": payload.get("usage") or {}})
        if payload.get("error"):
            events.append({"type": "error", "error": payload["error"]})
        else:
            events.append({"type": "message_stop"})
        return b"".join(named_event(event["type"], event) for event in events)

    def event(self, payload: Json) -> bytes:
        return named_event("error", payload)

    def usage_in(self, payload: Json) -> Json | None:
        message = payload.get("message")
        if payload.get("type") != "message_start" or not isinstance(message, dict):
            return super().usage_in(payload)
        # What is written, and so what it costs, is not known yet: those fields hold the place only.
        begun = super().usage_in(message)
        return begun and {name: begun[name] for name in begun if name not in ("output_tokens", "cost")}

    def with_usage(self, known: Json | None, usage: Json) -> Json:
        merged = (known or {}) | {name: value for name, value in usage.items() if value is not None}
        # What was read from or written to the prompt's cache is counted apart, and is a part of the prompt.
        parts = [merged.get(f"{name}input_tokens") for name in ("", "cache_creation_", "cache_read_")]
        counts = [count for part in parts if (count := json_text.whole(part)) is not None]
        return merged | {
            "prompt_tokens": sum(counts) if counts else None,
            "completion_tokens": merged.get("output_tokens"),
        }

    def refusal_in(self, payload: Json) -> Refusal | None:
        error = payload.get("error")
        if not error and payload.get("type") != "error":
            return None
        error = error if isinstance(error, dict) else {"message": str(error or "OpenRouter reported an error")}
        return Refusal(status_of(error), payload | {"error": error}, is_late=True)

    def told(self, payload: Json) -> Json:
        refusal = self.refusal_in(payload)
        if refusal is None:
            return payload
        row, shown = classify(refusal), clean(payload)
        if row.answer:
            told = _envelope(row.answer(refusal), shown.get("request_id"))
        else:
            told = self._cleaned(refusal, shown.get("request_id"))
        if "usage" in shown:
            told["usage"] = shown["usage"]
        # Where an answer came with it, the error stands beside that.
        return shown | {"error": told["error"]} if payload.get("content") else told

    def _cleaned(self, refusal: Refusal, request_id: object) -> Json:
        """OpenRouter's refusal in this envelope, whichever it came in."""
        cleaned = clean(refusal.payload or {})
        error = cleaned.get("error")
        if not isinstance(error, dict) or not error.get("message"):
            return _envelope(unexplained(refusal), request_id)
        error_type = error.get("type")
        if error_type not in ANTHROPIC_TYPES.values():
            error_type = _anthropic_type(refusal.status)
        shown: Json = {"type": "error", "error": {"type": error_type, "message": error["message"]}}
        shown["request_id"] = request_id
        if word := refusal.error_type:
            shown["error"]["error_type"] = hide_account(word)
        if metadata := error.get("metadata") or cleaned.get("metadata"):
            shown["metadata"] = metadata
        return shown

    def error_body(self, error: AppError, request_id: str) -> bytes:
        return json_text.write(_envelope(error, request_id))

    def refusal_body(self, refusal: Refusal, request_id: str) -> bytes:
        return json_text.write(self._cleaned(refusal, request_id))

    def error_event(
        self, error: AppError, _generation_id: str | None = None, _model: str = "", _number: int = 0
    ) -> bytes:
        return self.event(_envelope(error, None))

    def refusal_event(self, refusal: Refusal, _model: str = "") -> bytes:
        return self.event(self._cleaned(refusal, None))


def _has_content(block: object) -> bool:
    """True if a block says anything; text and thoughts may begin empty."""
    if not isinstance(block, dict) or block.get("type") not in ("text", "thinking"):
        return True
    return any(value for name, value in block.items() if name != "type")


def _is_ping(data: bytes) -> bool:
    try:
        payload = json_text.parse(data)
    except json_text.BadJson:
        return False
    return isinstance(payload, dict) and payload.get("type") == "ping"


def _as_deltas(block: Json) -> tuple[Json, list[Json]]:
    """A whole block as a stream has it: how it begins, and what is said of it then."""
    said = block.get("type")
    if said == "text":
        return block | {"text": ""}, [{"type": "text_delta", "text": block.get("text")}]
    if said == "thinking":
        told: list[Json] = [{"type": "thinking_delta", "thinking": block.get("thinking")}]
        if signature := block.get("signature"):
            told.append({"type": "signature_delta", "signature": signature})
        return block | {"thinking": "", "signature": ""}, told
    if said == "tool_use":
        written = json_text.write(block.get("input") or {}).decode()
        return block | {"input": {}}, [{"type": "input_json_delta", "partial_json": written}]
    return block, []


def _envelope(error: AppError, request_id: object) -> Json:
    """An error of ours as Anthropic's clients read it."""
    told_error = {"type": _anthropic_type(error.status), "message": error.message}
    return {"type": "error", "error": told_error, "request_id": request_id}


def _anthropic_type(status: int) -> str:
    return ANTHROPIC_TYPES.get(status, "invalid_request_error" if status < 500 else "api_error")
