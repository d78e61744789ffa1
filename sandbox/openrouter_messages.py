"""The format of Anthropic's messages in the stand-in: named events, blocks of content, and its own errors."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
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
from sandbox.openrouter_faults import bad_request
from sandbox.openrouter_scenarios import break_off

ROLES = ("system", "user", "assistant")
TYPES_OF_FIELDS: dict[str, tuple[type, ...]] = {
    "model": (str,),
    "models": (list,),
    "stream": (bool,),
    "max_tokens": (int,),
    "tools": (list,),
    "tool_choice": (dict,),
    "output_config": (dict,),
    "output_format": (dict,),
}
STOP_REASONS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}
ERROR_TYPES = {
    401: ("authentication_error", "authentication"),
    402: ("billing_error", "payment_required"),
    403: ("permission_error", "permission_denied"),
    404: ("not_found_error", "not_found"),
    408: ("timeout_error", "timeout"),
    429: ("rate_limit_error", "rate_limit_exceeded"),
    503: ("overloaded_error", "provider_overloaded"),
    504: ("timeout_error", "timeout"),
    524: ("timeout_error", "timeout"),
    529: ("overloaded_error", "provider_overloaded"),
}


class Messages:
    """`POST /messages`."""

    name = "messages"

    def read(self, document: dict[str, Any]) -> Asked:
        """Return the request; the model is required here, the number of tokens is not at OpenRouter."""
        check_types(document, TYPES_OF_FIELDS)
        if not document.get("model"):
            raise bad_request("model: Invalid input: expected string, received undefined")
        messages = checked_list("messages", document.get("messages"))
        for at, message in enumerate(messages):
            check_role(f"messages.{at}", message, ROLES)
            if not isinstance(message.get("content"), str | list):
                raise bad_request(f"messages.{at}.content: Invalid input: expected string or array")
        texts = [answers.text_of(message["content"]) for message in messages]
        said = [text for text, message in zip(texts, messages, strict=True) if message["role"] == "user"]
        system = answers.text_of(document.get("system"))
        return Asked(
            model=model_of(document, ""),
            streamed=document.get("stream") is True,
            said=said[-1] if said else "",
            prompt_tokens=count_tokens([*texts, *filter(None, [system])]),
            document=document,
            ceiling=document.get("max_tokens"),
            tools=tools_in(document),
            wanted_tool=wanted_tool(document),
            tool_has_answered=has_result(messages[-1]["content"]),
            text_format=format_of(document),
        )

    def whole(self, call: Call) -> bytes:
        words = call.words
        block: dict[str, Any] = {"type": "text", "text": words.text, "citations": None}
        if words.tool:
            block = tool_block(call, orjson.Fragment(words.text) if is_json(words.text) else {})
        ended = {"stop_reason": STOP_REASONS[words.finish_reason]}
        usage = usage_of(call, words.tokens) | costs_of(call, words.tokens)
        return orjson.dumps(message_of(call) | ended | {"content": [block], "usage": usage})

    def failed_whole(self, call: Call) -> bytes:
        return orjson.dumps(self._error(call) | {"request_id": call.id})

    def opening(self, call: Call) -> Iterator[Step]:
        yield event("message_start", message=message_of(call) | {"content": [], "usage": usage_of(call, 0)})
        block = tool_block(call, {}) if call.words.tool else {"type": "text", "text": "", "citations": None}
        yield event("content_block_start", index=0, content_block=block)
        yield event("ping")

    def delta(self, call: Call, at: int, piece: str) -> bytes:  # noqa: ARG002 - as the others have it
        kind, field = ("input_json_delta", "partial_json") if call.words.tool else ("text_delta", "text")
        return event("content_block_delta", index=0, delta={"type": kind, field: piece})

    def failure(self, call: Call) -> bytes:
        return event("error", **self._error(call))

    def closing(self, call: Call) -> Iterator[Step]:
        plan, tokens = call.plan, call.exchange.chunks_sent
        if plan.finish:
            yield event("content_block_stop", index=0)
        yield from break_off(plan, "usage")
        if plan.finish:
            reason = STOP_REASONS[call.words.finish_reason]
            delta = {"stop_reason": reason, "stop_sequence": None, "stop_details": None, "container": None}
            usage = {} if plan.usage == "none" else {"usage": usage_of(call, tokens) | costs_of(call, tokens)}
            yield event("message_delta", delta=delta, **usage)
        yield from break_off(plan, "done")
        if plan.done:
            yield event("message_stop")

    def refusal(self, reply: Reply) -> Reply:
        """Return a refusal in Anthropic's envelope; the pages of the edge stay as they are."""
        if not reply.body.startswith(b"{"):
            return reply
        document = orjson.loads(reply.body)
        error = document.pop("error")
        kind, error_type = types_of(error["code"] if isinstance(error["code"], int) else reply.status)
        metadata = error.get("metadata")
        shown = {
            "type": kind,
            "message": error["message"],
            "error_type": (metadata or {}).get("error_type", error_type),
        }
        more = document | ({} if metadata is None else {"metadata": metadata})
        return replace(reply, body=orjson.dumps({"type": "error", "error": shown, "request_id": None} | more))

    def _error(self, call: Call) -> dict[str, Any]:
        error = answers.error_of(call.plan.error_code)
        kind, _ = types_of(error["code"] if isinstance(error["code"], int) else 500)
        shown = {"type": kind, "message": error["message"], "error_type": error["metadata"]["error_type"]}
        return {"type": "error", "error": shown}


def types_of(status: int) -> tuple[str, str]:
    """Return Anthropic's and OpenRouter's names of a kind of error."""
    other = ("api_error", "server") if status >= 500 else ("invalid_request_error", "invalid_request")
    return ERROR_TYPES.get(status, other)


def tools_in(document: Mapping[str, Any]) -> list[Tool]:
    """Return the tools that may be called."""
    return [
        Tool(tool["name"], tool.get("input_schema"))
        for tool in document.get("tools") or []
        if isinstance(tool, dict) and isinstance(tool.get("name"), str)
    ]


def wanted_tool(document: Mapping[str, Any]) -> str | None:
    """Return the name of the tool that must be called, "" for any of them, None if none must."""
    choice = document.get("tool_choice") or {}
    if choice.get("type") == "tool":
        return str(choice.get("name"))
    return "" if choice.get("type") == "any" else None


def has_result(content: object) -> bool:
    """Return whether a content tells what a tool returned."""
    blocks = content if isinstance(content, list) else []
    return any(isinstance(block, dict) and block.get("type") == "tool_result" for block in blocks)


def format_of(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the format that is asked for, under its present name or the older one."""
    found = (document.get("output_config") or {}).get("format") or document.get("output_format")
    return found if isinstance(found, dict) else NO_TEXT


def event(name: str, /, **more: Any) -> bytes:
    """Return one event with its name, which its data repeat."""
    return b"event: %b\ndata: %b\n\n" % (name.encode(), orjson.dumps({"type": name} | more))


def message_of(call: Call) -> dict[str, Any]:
    """Return the message without what is not known before its end."""
    return {
        "id": call.body_id("msg_"),
        "type": "message",
        "role": "assistant",
        "model": call.model_name,
        "provider": call.model.provider,
        "container": None,
        "stop_reason": None,
        "stop_sequence": None,
        "stop_details": None,
    }


def tool_block(call: Call, arguments: object) -> dict[str, Any]:
    """Return the block that calls a tool."""
    return {"type": "tool_use", "id": "toolu_sandbox", "name": call.words.tool, "input": arguments}


def is_json(text: str) -> bool:
    """Tell whether a text is JSON: the arguments of a tool may have been cut short."""
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return True


def usage_of(call: Call, tokens: int) -> dict[str, Any]:
    """Return the usage block of an answer with so many tokens, as Anthropic has it."""
    return {
        "input_tokens": call.asked.prompt_tokens,
        "output_tokens": tokens,
        "output_tokens_details": None,
        "cache_creation": None,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "inference_geo": None,
        "server_tool_use": None,
        "service_tier": "standard",
    }


def costs_of(call: Call, tokens: int) -> dict[str, Any]:
    """Return what OpenRouter adds to the usage block when an answer is over."""
    prompt_nano, completion_nano = call.costs(tokens)
    cost = dollars(prompt_nano + completion_nano)
    details = {
        "upstream_inference_cost": cost,
        "upstream_inference_prompt_cost": dollars(prompt_nano),
        "upstream_inference_completions_cost": dollars(completion_nano),
    }
    return {"cost": cost, "is_byok": False, "cost_details": details}
