"""The format of OpenAI's responses in the stand-in: typed events, and a response object at both ends of a stream."""

from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from sandbox import openrouter_answers as answers
from sandbox.http_server import Reply, Step
from sandbox.openrouter_accounts import dollars
from sandbox.openrouter_answers import Tool
from sandbox.openrouter_calls import (
    NO_TEXT,
    Asked,
    Call,
    check_role,
    check_types,
    checked_list,
    count_tokens,
    model_of,
)
from sandbox.openrouter_faults import Refused, bad_request
from sandbox.openrouter_models import DEFAULT_MODEL
from sandbox.openrouter_scenarios import break_off

ROLES = ("system", "developer", "user", "assistant")
TYPES_OF_FIELDS: dict[str, tuple[type, ...]] = {
    "model": (str,),
    "models": (list,),
    "stream": (bool,),
    "store": (bool,),
    "previous_response_id": (str,),
    "instructions": (str,),
    "max_output_tokens": (int,),
    "tools": (list,),
    "text": (dict,),
}
SHOWN_AS_SENT = (
    "instructions",
    "max_output_tokens",
    "metadata",
    "temperature",
    "top_p",
    "tool_choice",
    "tools",
    "text",
)


class Responses:
    """`POST /responses`, which keeps nothing from one call to the next."""

    name = "responses"

    def read(self, document: dict[str, Any]) -> Asked:
        """Return the request; its refusals have a code that is text, unlike all others of OpenRouter."""
        try:
            return asked_of(document)
        except Refused as refused:
            issues = [{"code": "invalid_type", "message": refused.values_given.get("MESSAGE", "")}]
            raise Refused("400-responses", RAW=orjson.dumps(issues).decode()) from None

    def whole(self, call: Call) -> bytes:
        return orjson.dumps(self._response(call, ended_as(call), [item_of(call, ended_as(call))], call.words.tokens))

    def failed_whole(self, call: Call) -> bytes:
        return orjson.dumps(self._failed(call))

    def opening(self, call: Call) -> Iterator[Step]:
        begun = self._response(call, "in_progress", [])
        yield event(call, "response.created", response=begun)
        yield event(call, "response.in_progress", response=begun)
        nothing: dict[str, Any] = {"arguments": ""} if call.words.tool else {"content": []}
        item = item_of(call, "in_progress") | nothing
        yield event(call, "response.output_item.added", output_index=0, item=item)
        if not call.words.tool:
            yield event(call, "response.content_part.added", **place(call), part=text_part(""))

    def delta(self, call: Call, at: int, piece: str) -> bytes:  # noqa: ARG002 - as the others have it
        if call.words.tool:
            where = {"output_index": 0, "item_id": item_id(call)}
            return event(call, "response.function_call_arguments.delta", **where, delta=piece)
        return event(call, "response.output_text.delta", **place(call), delta=piece, logprobs=[])

    def failure(self, call: Call) -> bytes:
        error = answers.error_of(call.plan.error_code)
        if call.plan.error_shape == "no-choices":
            return event(call, "error", code=str(error["code"]), message=error["message"], param=None)
        name = "response.error" if call.plan.error_shape == "null-finish" else "response.failed"
        return event(call, name, response=self._failed(call))

    def closing(self, call: Call) -> Iterator[Step]:
        plan, words, status = call.plan, call.words, ended_as(call)
        item = item_of(call, status)
        if plan.finish and words.tool:
            done = {"output_index": 0, "item_id": item_id(call), "name": words.tool, "arguments": words.text}
            yield event(call, "response.function_call_arguments.done", **done)
        elif plan.finish:
            yield event(call, "response.output_text.done", **place(call), text=words.text, logprobs=[])
            yield event(call, "response.content_part.done", **place(call), part=text_part(words.text))
        if plan.finish:
            yield event(call, "response.output_item.done", output_index=0, item=item)
        yield from break_off(plan, "usage")
        if plan.finish:
            tokens = None if plan.usage == "none" else call.exchange.chunks_sent
            yield event(call, f"response.{status}", response=self._response(call, status, [item], tokens))
        yield from break_off(plan, "done")
        if plan.done:
            yield b"data: [DONE]\n\n"

    def refusal(self, reply: Reply) -> Reply:
        return reply

    def _failed(self, call: Call) -> dict[str, Any]:
        error = answers.error_of(call.plan.error_code)
        limited = error["code"] == 429
        shown = {"code": "rate_limit_exceeded" if limited else "server_error", "message": error["message"]}
        tokens = call.exchange.chunks_sent if call.plan.error_usage else None
        failed = self._response(call, "failed", [], tokens)
        return failed | {"error": shown, "error_type": error["metadata"]["error_type"]}

    def _response(
        self, call: Call, status: str, output: list[dict[str, Any]], tokens: int | None = None
    ) -> dict[str, Any]:
        as_sent = {name: call.asked.document.get(name) for name in SHOWN_AS_SENT}
        return as_sent | {
            "id": call.body_id("resp_"),
            "object": "response",
            "created_at": call.created,
            "completed_at": call.created if status == "completed" else None,
            "model": call.model_name,
            "status": status,
            "output": output,
            "error": None,
            "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
            "parallel_tool_calls": True,
            "presence_penalty": None,
            "frequency_penalty": None,
            "tool_choice": as_sent["tool_choice"] or "auto",
            "tools": as_sent["tools"] or [],
            "text": as_sent["text"] or {"format": {"type": "text"}},
            "store": False,
            "service_tier": None,
            "usage": None if tokens is None else usage_of(call, tokens),
        }


def asked_of(document: dict[str, Any]) -> Asked:
    """Return the request if it has the right shape."""
    check_types(document, TYPES_OF_FIELDS)
    if document.get("store") or document.get("previous_response_id") is not None:
        raise bad_request("store and previous_response_id are not supported: nothing is kept here")
    given = document.get("input")
    items = checked_list("input", [{"role": "user", "content": given}] if isinstance(given, str) else given)
    for at, item in enumerate(items):
        if item.get("type", "message") == "message":
            check_role(f"input.{at}", item, ROLES)
    texts = [answers.text_of(item.get("content") or item.get("output")) for item in items]
    said = [text for text, item in zip(texts, items, strict=True) if item.get("role") == "user"]
    text_format = (document.get("text") or {}).get("format")
    return Asked(
        model=model_of(document, DEFAULT_MODEL),
        streamed=document.get("stream") is True,
        said=said[-1] if said else "",
        prompt_tokens=count_tokens([*texts, *filter(None, [document.get("instructions")])]),
        document=document,
        ceiling=document.get("max_output_tokens"),
        tools=tools_in(document),
        wanted_tool=wanted_tool(document),
        tool_has_answered=items[-1].get("type") == "function_call_output",
        text_format=text_format if isinstance(text_format, dict) else NO_TEXT,
    )


def tools_in(document: Mapping[str, Any]) -> list[Tool]:
    """Return the tools that may be called."""
    return [
        Tool(tool["name"], tool.get("parameters"))
        for tool in document.get("tools") or []
        if isinstance(tool, dict) and tool.get("type") == "function" and isinstance(tool.get("name"), str)
    ]


def wanted_tool(document: Mapping[str, Any]) -> str | None:
    """Return the name of the tool that must be called, "" for any of them, None if none must."""
    choice = document.get("tool_choice")
    if isinstance(choice, dict) and choice.get("type") == "function":
        return str(choice.get("name"))
    return "" if choice == "required" else None


def event(call: Call, kind: str, /, **more: Any) -> bytes:
    """Return one event; they are counted, and have no `event:` line at OpenRouter."""
    numbered = {"type": kind, "sequence_number": call.events} | more
    call.events += 1
    return b"data: " + orjson.dumps(numbered) + b"\n\n"


def ended_as(call: Call) -> str:
    """Return the status of a response that has ended as planned."""
    return "incomplete" if call.words.finish_reason == "length" else "completed"


def item_id(call: Call) -> str:
    """Return the id of the one item of the output."""
    return call.body_id("fc_" if call.words.tool else "msg_")


def item_of(call: Call, status: str) -> dict[str, Any]:
    """Return the one item of the output: a message or a call of a tool."""
    words = call.words
    shown: dict[str, Any] = {"id": item_id(call), "status": status}
    if words.tool:
        return shown | {
            "type": "function_call",
            "call_id": "call_sandbox",
            "name": words.tool,
            "arguments": words.text,
        }
    return shown | {"type": "message", "role": "assistant", "content": [text_part(words.text)]}


def text_part(text: str) -> dict[str, Any]:
    """Return the one part of a message."""
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def place(call: Call) -> dict[str, Any]:
    """Return where the text of a response stands."""
    return {"item_id": item_id(call), "output_index": 0, "content_index": 0}


def usage_of(call: Call, tokens: int) -> dict[str, Any]:
    """Return the usage block of an answer with so many tokens."""
    prompt_nano, completion_nano = call.costs(tokens)
    cost = dollars(prompt_nano + completion_nano)
    return {
        "input_tokens": call.asked.prompt_tokens,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": call.asked.prompt_tokens + tokens,
        "cost": cost,
        "is_byok": False,
        "cost_details": {
            "upstream_inference_cost": cost,
            "upstream_inference_input_cost": dollars(prompt_nano),
            "upstream_inference_output_cost": dollars(completion_nano),
        },
    }
