"""The formats of OpenAI's chat completions, and of the text completions before them, in the stand-in."""

from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from sandbox import openrouter_answers as answers
from sandbox.http_server import Reply, Step
from sandbox.openrouter_accounts import dollar_text
from sandbox.openrouter_answers import Tool, Words
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
from sandbox.openrouter_models import DEFAULT_MODEL
from sandbox.openrouter_scenarios import break_off

ROLES = ("system", "developer", "user", "assistant", "tool")
TYPES_OF_FIELDS: dict[str, tuple[type, ...]] = {
    "model": (str,),
    "stream": (bool,),
    "max_tokens": (int,),
    "max_completion_tokens": (int,),
    "tools": (list,),
    "models": (list,),
}
DONE = b"data: [DONE]\n\n"
USAGE = (
    b'{"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d,"cost":%b,"is_byok":false,'
    b'"prompt_tokens_details":{"cached_tokens":0,"cache_write_tokens":0,"audio_tokens":0,"video_tokens":0},'
    b'"cost_details":{"upstream_inference_cost":%b,"upstream_inference_prompt_cost":%b,'
    b'"upstream_inference_completions_cost":%b},'
    b'"completion_tokens_details":{"reasoning_tokens":0,"image_tokens":0,"audio_tokens":0}}'
)
COMPLETION = (
    b'{"id":"%b","object":"%b","created":%d,"model":%b,"provider":"%b","system_fingerprint":null,'
    b'"service_tier":null,"choices":[{"index":0,"finish_reason":"%b","native_finish_reason":"%b","logprobs":null,'
    b'%b}],"usage":%b}'
)
CHUNK_START = b'data: {"id":"%b","object":"%b","created":%d,"model":%b,"provider":"%b",'
CHUNK_DELTA = b'"choices":[{"index":0,"delta":'
CHUNK_END = b',"finish_reason":null,"native_finish_reason":null}]}\n\n'
TOOL_START = (
    b'{"role":"assistant","content":null,"tool_calls":[{"index":0,"id":"call_sandbox","type":"function",'
    b'"function":{"name":%b,"arguments":""}}]}'
)
TOOL_MORE = b'{"role":"assistant","content":null,"tool_calls":[{"index":0,"function":{"arguments":%b}}]}'
TOOL_CALL = b'[{"index":0,"id":"call_sandbox","type":"function","function":{"name":%b,"arguments":%b}}]'


def delta_of(words: Words, at: int, piece: str) -> bytes:
    """Return the JSON of one delta."""
    if words.tool:
        return TOOL_MORE % orjson.dumps(piece) if at else TOOL_START % orjson.dumps(words.tool)
    return b'{"content":%b,"role":"assistant"}' % orjson.dumps(piece)


def deltas_of(words: Words) -> list[bytes]:
    """Return the JSON of all deltas."""
    return [delta_of(words, at, piece) for at, piece in enumerate(words.pieces)]


def message_of(words: Words) -> bytes:
    """Return the JSON of the assistant's message."""
    if words.tool:
        calls = TOOL_CALL % (orjson.dumps(words.tool), orjson.dumps(words.text))
        return b'{"role":"assistant","content":null,"refusal":null,"reasoning":null,"tool_calls":%b}' % calls
    return b'{"role":"assistant","content":%b,"refusal":null,"reasoning":null}' % orjson.dumps(words.text)


def usage_json(call: Call, tokens: int) -> bytes:
    """Return the usage block of an answer with so many tokens; it names the cost exactly."""
    prompt_tokens, (prompt_nano, completion_nano) = call.asked.prompt_tokens, call.costs(tokens)
    cost = dollar_text(prompt_nano + completion_nano)
    parts = dollar_text(prompt_nano), dollar_text(completion_nano)
    return USAGE % (prompt_tokens, tokens, prompt_tokens + tokens, cost, cost, *parts)


class Chat:
    """`POST /chat/completions`."""

    name = "chat"
    whole_object, chunk_object = b"chat.completion", b"chat.completion.chunk"

    def read(self, document: dict[str, Any]) -> Asked:
        """Return the request; a prompt does instead of messages."""
        check_types(document, TYPES_OF_FIELDS)
        messages = document.get("messages")
        if isinstance(document.get("prompt"), str) and messages is None:
            messages = [{"role": "user", "content": document["prompt"]}]
        if messages is None:
            raise bad_request('Input required: specify "prompt" or "messages"')
        messages = checked_list("messages", messages)
        for at, message in enumerate(messages):
            check_role(f"messages.{at}", message, ROLES)
            if not isinstance(message.get("content"), str | list | None):
                raise bad_request(f"messages.{at}.content: Invalid input: expected string or array")
        texts = [answers.text_of(message.get("content")) for message in messages]
        of_user = [text for text, message in zip(texts, messages, strict=True) if message["role"] == "user"]
        return Asked(
            model=model_of(document, DEFAULT_MODEL),
            streamed=document.get("stream") is True,
            said=of_user[-1] if of_user else "",
            prompt_tokens=count_tokens(texts),
            document=document,
            ceiling=document.get("max_completion_tokens") or document.get("max_tokens"),
            tools=tools_in(document),
            wanted_tool=wanted_tool(document),
            tool_has_answered=messages[-1]["role"] == "tool",
            text_format=format_of(document.get("response_format")),
        )

    def whole(self, call: Call) -> bytes:
        words = call.words
        return COMPLETION % (
            call.id.encode(),
            self.whole_object,
            call.created,
            orjson.dumps(call.model_name),
            call.model.provider.encode(),
            words.finish_reason.encode(),
            words.finish_reason.encode(),
            self._choice(words),
            usage_json(call, words.tokens),
        )

    def failed_whole(self, call: Call) -> bytes:
        return b'{"id":"%b","error":%b}' % (call.id.encode(), orjson.dumps(answers.error_of(call.plan.error_code)))

    def opening(self, call: Call) -> Iterator[Step]:  # noqa: ARG002 - nothing opens these streams
        return iter(())

    def delta(self, call: Call, at: int, piece: str) -> bytes:
        return self._start(call) + CHUNK_DELTA + delta_of(call.words, at, piece) + CHUNK_END

    def failure(self, call: Call) -> bytes:
        plan = call.plan
        reason = b"null" if plan.error_shape == "null-finish" else b'"error"'
        event = self._start(call) + b'"error":%b' % orjson.dumps(answers.error_of(plan.error_code))
        if plan.error_shape != "no-choices":
            event += b',"choices":[{"index":0,%b,"finish_reason":%b}]' % (self._no_delta(), reason)
        if plan.error_usage:
            event += b',"usage":' + usage_json(call, call.exchange.chunks_sent)
        return event + b"}\n\n"

    def closing(self, call: Call) -> Iterator[Step]:
        plan, start, reason = call.plan, self._start(call), call.words.finish_reason.encode()
        choice = b'"choices":[{"index":0,%b,"finish_reason":"%b","native_finish_reason":"%b"}]' % (
            self._no_delta(),
            reason,
            reason,
        )
        if plan.finish:
            yield start + choice + b"}\n\n"
        yield from break_off(plan, "usage")
        if plan.usage != "none":
            choices = choice if plan.usage == "new" else b'"choices":[]'
            usage = usage_json(call, call.exchange.chunks_sent)
            yield start + b'"service_tier":null,' + choices + b',"usage":' + usage + b"}\n\n"
        yield from break_off(plan, "done")
        if plan.done:
            yield DONE

    def refusal(self, reply: Reply) -> Reply:
        return reply

    def _start(self, call: Call) -> bytes:
        of_whom = orjson.dumps(call.model_name), call.model.provider.encode()
        return CHUNK_START % (call.id.encode(), self.chunk_object, call.created, *of_whom)

    def _choice(self, words: Words) -> bytes:
        return b'"message":' + message_of(words)

    def _no_delta(self) -> bytes:
        return b'"delta":{"content":"","role":"assistant"}'


class Completions(Chat):
    """`POST /completions`: a text that is carried on, without roles and tools."""

    name = "completions"
    whole_object = chunk_object = b"text_completion"

    def read(self, document: dict[str, Any]) -> Asked:
        check_types(document, TYPES_OF_FIELDS)
        prompt = document.get("prompt")
        if not isinstance(prompt, str | list):
            raise bad_request('Input required: specify "prompt" or "messages"')
        texts = prompt if isinstance(prompt, list) else [prompt]
        said = answers.text_of([{"text": text} for text in texts])  # numbers are tokens, which nobody reads here
        return Asked(
            model=model_of(document, DEFAULT_MODEL),
            streamed=document.get("stream") is True,
            said=said,
            prompt_tokens=count_tokens([said]),
            document=document,
            ceiling=document.get("max_tokens"),
        )

    def delta(self, call: Call, at: int, piece: str) -> bytes:  # noqa: ARG002 - as the others have it
        return self._start(call) + b'"choices":[{"index":0,"text":%b' % orjson.dumps(piece) + CHUNK_END

    def _choice(self, words: Words) -> bytes:
        return b'"text":' + orjson.dumps(words.text)

    def _no_delta(self) -> bytes:
        return b'"text":""'


def tools_in(document: Mapping[str, Any]) -> list[Tool]:
    """Return the tools that may be called."""
    functions = [tool.get("function") for tool in document.get("tools") or [] if isinstance(tool, dict)]
    return [
        Tool(function["name"], function.get("parameters"))
        for function in functions
        if isinstance(function, dict) and isinstance(function.get("name"), str)
    ]


def wanted_tool(document: Mapping[str, Any]) -> str | None:
    """Return the name of the tool that must be called, "" for any of them, None if none must."""
    choice = document.get("tool_choice")
    if isinstance(choice, dict) and isinstance(choice.get("function"), dict):
        return str(choice["function"].get("name"))
    return "" if choice == "required" else None


def format_of(response_format: object) -> Mapping[str, Any]:
    """Return the format that is asked for, with its schema beside the type, as responses have it."""
    if not isinstance(response_format, dict):
        return NO_TEXT
    inner = response_format.get("json_schema")
    return response_format | {"schema": inner.get("schema")} if isinstance(inner, dict) else response_format
