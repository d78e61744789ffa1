"""What the stand-in says: the words of an answer, and the JSON of completions, chunks, usage and errors around them."""

import functools
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from sandbox.openrouter_accounts import dollar_text

LONGEST_ECHO = 200
FILLER_TEXT = "This is the stand-in for OpenRouter, and it counts its words one by one."
MULTI_BYTE_TEXT = "Grüße 🌍 こんにちは 👩‍🚀 Ελλάδα ñandú 🇨🇳 čau €5 naïve"
USAGE = (
    b'{"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d,"cost":%b,"is_byok":false,'
    b'"prompt_tokens_details":{"cached_tokens":0,"cache_write_tokens":0,"audio_tokens":0,"video_tokens":0},'
    b'"cost_details":{"upstream_inference_cost":%b,"upstream_inference_prompt_cost":%b,'
    b'"upstream_inference_completions_cost":%b},'
    b'"completion_tokens_details":{"reasoning_tokens":0,"image_tokens":0,"audio_tokens":0}}'
)
COMPLETION = (
    b'{"id":"%b","object":"chat.completion","created":%d,"model":%b,"provider":"%b","system_fingerprint":null,'
    b'"service_tier":null,"choices":[{"index":0,"finish_reason":"%b","native_finish_reason":"%b","logprobs":null,'
    b'"message":%b}],"usage":%b}'
)
CHUNK_START = b'data: {"id":"%b","object":"chat.completion.chunk","created":%d,"model":%b,"provider":"%b",'
CHUNK_DELTA = b'"choices":[{"index":0,"delta":'
CHUNK_END = b',"finish_reason":null,"native_finish_reason":null}]}\n\n'
EMPTY_CHOICE = (
    b'"choices":[{"index":0,"delta":{"content":"","role":"assistant"},'
    b'"finish_reason":"%b","native_finish_reason":"%b"}]'
)


@dataclass(frozen=True, slots=True)
class Words:
    """An answer: as one message, or as deltas of one token each, which are made only for streams."""

    tokens: int
    deltas: Callable[[], list[bytes]]
    message: bytes
    finish_reason: bytes


def spoken(words: list[str]) -> Words:
    """Return an answer that says these words."""
    return Words(len(words), lambda: deltas_of(words), message_of(" ".join(words)), b"stop")


def deltas_of(words: list[str]) -> list[bytes]:
    """Return one delta for each word, all but the first with the space before it."""
    spaced = [word if at == 0 else " " + word for at, word in enumerate(words)]
    return [b'{"content":%b,"role":"assistant"}' % orjson.dumps(word) for word in spaced]


def message_of(text: str) -> bytes:
    """Return the JSON of an assistant's message."""
    return b'{"role":"assistant","content":%b,"refusal":null,"reasoning":null}' % orjson.dumps(text)


@functools.lru_cache(maxsize=64)
def filler(count: int, multi_byte: bool) -> Words:
    """Return an answer of so many words."""
    text = MULTI_BYTE_TEXT if multi_byte else FILLER_TEXT
    return spoken(list(itertools.islice(itertools.cycle(text.split(" ")), count)))


def echo(messages: list[Mapping[str, Any]]) -> Words:
    """Return an answer that repeats what the user said last."""
    said = next((text_of(message) for message in reversed(messages) if message["role"] == "user"), "")
    if len(said) > LONGEST_ECHO:
        said = said[:LONGEST_ECHO] + "…"
    return spoken(f'This is the stand-in for OpenRouter speaking. You said: "{said}"'.split(" "))


def text_of(message: Mapping[str, Any]) -> str:
    """Return the text of a message, whose content is text or a list of parts."""
    content = message.get("content")
    if isinstance(content, list):
        parts = (part.get("text") for part in content if isinstance(part, dict))
        return " ".join(part for part in parts if isinstance(part, str))
    return content if isinstance(content, str) else ""


def json_object(messages: list[Mapping[str, Any]]) -> Words:
    """Return an answer that is a JSON object."""
    said = text_of(messages[-1])[:LONGEST_ECHO]
    return spoken(orjson.dumps({"stand_in": True, "you_said": said}).decode().split(" "))


def tool_call(name: str) -> Words:
    """Return an answer that calls a tool, its arguments in two pieces."""
    quoted, arguments = orjson.dumps(name), ('{"query":', '"stand-in"}')
    start = b'{"role":"assistant","content":null,"tool_calls":[{"index":0,"id":"call_sandbox","type":"function",'
    more = b'{"role":"assistant","content":null,"tool_calls":[{"index":0,"function":{"arguments":%b}}]}'
    deltas = [start + b'"function":{"name":%b,"arguments":""}}]}' % quoted]
    deltas += [more % orjson.dumps(piece) for piece in arguments]
    message = b'{"role":"assistant","content":null,"refusal":null,"reasoning":null,"tool_calls":[' + (
        b'{"index":0,"id":"call_sandbox","type":"function","function":{"name":%b,"arguments":%b}}]}'
        % (quoted, orjson.dumps("".join(arguments)))
    )
    return Words(len(deltas), lambda: deltas, message, b"tool_calls")


def shortened(words: Words, tokens: int) -> Words:
    """Return the answer cut off after so many tokens."""
    deltas = words.deltas()[:tokens]
    text = "".join(orjson.loads(delta).get("content") or "" for delta in deltas)
    return Words(len(deltas), lambda: deltas, message_of(text), b"length")


def usage_json(prompt_tokens: int, completion_tokens: int, prompt_nano: int, completion_nano: int) -> bytes:
    """Return the usage block; the costs are those of all prompt and completion tokens together."""
    cost = dollar_text(prompt_nano + completion_nano)
    total = prompt_tokens + completion_tokens
    parts = dollar_text(prompt_nano), dollar_text(completion_nano)
    return USAGE % (prompt_tokens, completion_tokens, total, cost, cost, *parts)


def error_json(code: str, metadata: bool = True) -> bytes:
    """Return the error object of an answer that failed after its 200; the code is a number if it looks like one."""
    number = int(code) if code.isdecimal() else None
    error: dict[str, Any] = {
        "code": code if number is None else number,
        "message": "Upstream error from Nvidia: Service temporarily overloaded",
    }
    if metadata:
        error["metadata"] = {"error_type": "rate_limit_exceeded" if number == 429 else "provider_unavailable"}
    return orjson.dumps(error)
