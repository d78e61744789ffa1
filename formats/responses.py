"""OpenAI's Responses format: events with a type, three of which repeat the whole response and so the request."""

from __future__ import annotations

from typing import Any

from formats import body
from formats.chat import ModelApi, named_event, status_of, unexplained
from foundation.errors import AppError
from upstream.disclosure import clean, clean_error
from upstream.refusal import Refusal
from upstream.refusals import classify

Json = dict[str, Any]

# The events that repeat the request's instructions and tools, and at last the answer, have to be read.
MAX_HELD_RESPONSE_BYTES = 4 * 1024 * 1024
BEGUN: Json = {"status": "in_progress", "output": [], "usage": None, "error": None}


class ResponsesApi(ModelApi):
    """The format of POST /responses."""

    name = "responses"
    path = "/responses"
    read = staticmethod(body.read_response)
    end_mark = b'"response"'  # the key of the whole response, which the last event repeats and deltas lack
    has_reasons = False
    max_held_bytes = MAX_HELD_RESPONSE_BYTES
    reads_tail = False  # the request's own tools and metadata are in the body, and may be made to look like usage
    _last = ("response.completed", "response.incomplete", "response.failed", "response.done")
    _begin = ("response.created", "response.in_progress", "response.queued", "response.debug")

    def _may_be_content(self, payload: Json) -> bool:
        said = payload.get("type")
        if said in self._begin:
            return False
        if said == "response.output_item.added":
            return _has_content(payload.get("item"))
        if said in ("response.content_part.added", "response.reasoning_summary_part.added"):
            part = payload.get("part")
            return not isinstance(part, dict) or any(value for name, value in part.items() if name != "type")
        return not (isinstance(said, str) and said.endswith(".delta") and payload.get("delta") in ("", None))

    def _has_said(self, payload: Json) -> bool:
        whole = payload.get("response")
        output = (whole if isinstance(whole, dict) else payload).get("output")
        return any(map(_has_content, output)) if isinstance(output, list) else bool(output)

    def is_end(self, payload: Json) -> bool:
        return payload.get("type") in self._last

    def _events_of(self, payload: Json) -> bytes | None:
        output, status = payload.get("output"), payload.get("status") or "completed"
        if not isinstance(output, list) or f"response.{status}" not in self._last:
            return None
        events: list[Json] = [{"type": "response.created", "response": payload | BEGUN}]
        for at, item in enumerate(output):
            where = {"output_index": at, "item": item}
            events += [{"type": "response.output_item.added", **where} | _as_begun(item)]
            events += [event | {"output_index": at} for event in _as_deltas(item)]
            events.append({"type": "response.output_item.done", **where})
        events.append({"type": f"response.{status}", "response": payload})
        return b"".join(named_event(one["type"], one | {"sequence_number": at}) for at, one in enumerate(events))

    def event(self, payload: Json) -> bytes:
        name = payload.get("type")
        return named_event(name if name in ("response.error", "response.failed") else "error", payload)

    def usage_in(self, payload: Json) -> Json | None:
        if "type" not in payload:
            return super().usage_in(payload)
        response = payload.get("response")
        return super().usage_in(response) if payload["type"] in self._last and isinstance(response, dict) else None

    def with_usage(self, _known: Json | None, usage: Json) -> Json:
        return usage | {"prompt_tokens": usage.get("input_tokens"), "completion_tokens": usage.get("output_tokens")}

    def refusal_in(self, payload: Json) -> Refusal | None:
        said = payload.get("type")
        if said is None:
            error, whole = payload.get("error"), payload
            if not error and payload.get("status") != "failed":
                return None
        elif said == "response.failed":
            whole = payload["response"] if isinstance(payload.get("response"), dict) else {}
            error = whole.get("error")
        elif said in ("error", "response.error") or payload.get("error"):
            error, whole = payload.get("error") or payload, payload
        else:
            return None
        error = error if isinstance(error, dict) else {"message": str(error or "The response failed")}
        return Refusal(status_of(error, whole.get("error_type")), payload | {"error": error}, is_late=True)

    def told(self, payload: Json) -> Json:
        refusal = self.refusal_in(payload)
        if refusal is None:
            return payload
        row = classify(refusal)
        ours = _response_error(row.answer(refusal)) if row.answer else None
        shown = clean(payload)  # `error` beside the type, if it is there
        if isinstance(response := payload.get("response"), dict):
            shown["response"] |= {"error": ours or clean_error(response.get("error"))}
        elif ours and "error" in payload:
            shown["error"] = ours
        if "type" in payload and "response" not in payload:
            words = ours or clean_error({name: payload[name] for name in ("code", "message") if name in payload})
            shown |= {name: value for name, value in words.items() if name in ("code", "message")}
        return shown

    def error_event(
        self, error: AppError, _generation_id: str | None = None, _model: str = "", number: int = 0
    ) -> bytes:
        return self._error(_response_error(error), number)

    def refusal_event(self, refusal: Refusal, _model: str = "") -> bytes:
        error = clean(refusal.payload or {}).get("error")
        return self._error(error if isinstance(error, dict) else _response_error(unexplained(refusal)), 0)

    def _error(self, error: Json, number: int) -> bytes:
        # Twice the same: OpenAI's document has the fields flat, and its SDKs raise only for what is below `error`.
        flat = {"type": "error", "code": str(error.get("code")), "message": error.get("message"), "param": None}
        return self.event(flat | {"sequence_number": number, "error": error})


def _has_content(item: object) -> bool:
    """True if an item of the output says anything; messages and thoughts may begin empty."""
    if not isinstance(item, dict) or item.get("type") not in ("message", "reasoning"):
        return True
    return bool(item.get("content") or item.get("summary") or item.get("encrypted_content"))


def _as_begun(item: Any) -> Json:
    """How an item begins in a stream: without its text, which its deltas bring."""
    if not isinstance(item, dict):
        return {}
    empty: dict[str, Json] = {"message": {"content": []}, "function_call": {"arguments": ""}}
    status = {"status": "in_progress"} if "status" in item else {}
    return {"item": item | empty.get(str(item.get("type")), {}) | status}


def _as_deltas(item: Any) -> list[Json]:
    """What a stream says between an item's begin and its end."""
    if not isinstance(item, dict):
        return []
    item_id = item.get("id")
    if item.get("type") == "function_call":
        named = {"item_id": item_id, "delta": item.get("arguments")}
        done = {"item_id": item_id, "name": item.get("name"), "arguments": item.get("arguments")}
        kind = "response.function_call_arguments"
        return [{"type": f"{kind}.delta", **named}, {"type": f"{kind}.done", **done}]
    events: list[Json] = []
    parts = item.get("content") if item.get("type") == "message" else None
    for at, part in enumerate(parts if isinstance(parts, list) else []):
        where = {"item_id": item_id, "content_index": at}
        is_text = isinstance(part, dict) and part.get("type") == "output_text"
        begun = part | {"text": ""} if is_text else part
        events.append({"type": "response.content_part.added", **where, "part": begun})
        if is_text:
            events.append({"type": "response.output_text.delta", **where, "delta": part.get("text"), "logprobs": []})
            events.append({"type": "response.output_text.done", **where, "text": part.get("text"), "logprobs": []})
        events.append({"type": "response.content_part.done", **where, "part": part})
    return events


def _response_error(error: AppError) -> Json:
    """An error of ours as Responses have it: with a word as its code."""
    code = {400: "invalid_prompt", 429: "rate_limit_exceeded"}.get(error.status, "server_error")
    return {**error.to_dict()["error"], "code": code}  # type: ignore[dict-item]
