"""The model calls in the OpenAPI document: described by hand, because what they hold is OpenRouter's to say.

Bodies pass as they are, so that fields that OpenRouter adds tomorrow work today; only what the gateway itself reads is
described. A format that formats/registry.py has and FORMATS lacks is a KeyError.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from formats.chat import ModelApi
from serving.door import PATHS

Json = dict[str, Any]

TAG = {
    "name": "Model calls",
    "description": "What SDKs call. Bodies and answers are OpenRouter's own and pass unchanged, streamed or not.",
}
MODEL = {"type": "string", "description": "A model's name at OpenRouter"}
STREAM = {"type": "boolean", "description": "Whether the answer comes as server-sent events"}
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
USAGE = {"prompt_tokens": 14, "completion_tokens": 8, "total_tokens": 22, "cost": 0.0000069}
MESSAGE_SCHEMA = {
    "type": "object",
    "properties": {"role": {"type": "string"}, "content": {"type": ["string", "array", "null"]}},
    "required": ["role"],
}
MESSAGES = {"type": "array", "minItems": 1, "items": MESSAGE_SCHEMA}
SOUND = {"type": "object", "properties": {"data": {"type": "string"}, "format": {"type": "string"}}}
TWINS = "/api/v1/"
BASES = [{"url": "/", "description": "For OpenAI's and Anthropic's clients"}]
BASES += [{"url": "/api", "description": "For OpenRouter's clients"}]
HEADERS = ("X-Request-Id", "RateLimit-Policy", "RateLimit", "X-Cache")
# Statuses of refusals that are ours or OpenRouter's.
REFUSALS = (400, 401, 402, 403, 404, 408, 413, 415, 422, 429, 500, 502, 503, 504)


@dataclass(frozen=True)
class _Format:
    """One format of calls. fields: what the gateway reads of a body; stream: how a streamed answer looks;
    media: what an answer is. form: the fields of a form that does instead of JSON."""

    summary: str
    description: str
    fields: Json
    required: tuple[str, ...]
    example: Json
    answer: Json
    stream: str = ""
    error: str = "CallError"
    media: str = "application/json"
    form: Json | None = None
    status: int = 200


_CHUNK = '{"id":"gen-1","object":"chat.completion.chunk","created":1795270664,"model":"openai/gpt-4o-mini","choices":'
FORMATS = {
    "chat": _Format(
        "Chat completions",
        "OpenRouter's chat completions, as OpenAI's and OpenRouter's SDKs call them. `models` lists models to fall "
        "back to. See docs/streaming.md for what a client may rely on.",
        {"model": MODEL, "messages": MESSAGES, "stream": STREAM, "max_tokens": {"type": "integer", "minimum": 1}},
        ("messages",),
        {"model": "openai/gpt-4o-mini", "messages": QUESTION, "max_tokens": 100},
        {
            "id": "gen-1",
            "object": "chat.completion",
            "created": 1795270664,
            "model": "openai/gpt-4o-mini",
            "choices": [{"index": 0, "message": {"role": "assistant", "content": "Paris."}, "finish_reason": "stop"}],
            "usage": USAGE,
        },
        f'data: {_CHUNK}[{{"index":0,"delta":{{"content":"Paris."}},"finish_reason":null}}]}}\n\ndata: [DONE]\n\n',
    ),
    "completions": _Format(
        "Completions of a text",
        "The older form of completions.",
        {"model": MODEL, "prompt": {"type": ["string", "array"]}, "stream": STREAM},
        ("model", "prompt"),
        {"model": "openai/gpt-4o-mini", "prompt": "The capital of France is", "max_tokens": 10},
        {
            "id": "gen-1",
            "object": "text_completion",
            "created": 1795270664,
            "model": "openai/gpt-4o-mini",
            "choices": [{"index": 0, "text": " Paris.", "finish_reason": "stop"}],
            "usage": USAGE,
        },
        'data: {"id":"gen-1","object":"text_completion","choices":[{"index":0,"text":" Paris."}]}\n\ndata: [DONE]\n\n',
    ),
    "embeddings": _Format(
        "Embeddings",
        "Vectors of texts; never streamed.",
        {"model": MODEL, "input": {"type": ["string", "array"]}},
        ("model", "input"),
        {"model": "openai/text-embedding-3-small", "input": ["Paris", "Rome"]},
        {
            "object": "list",
            "model": "openai/text-embedding-3-small",
            "data": [{"object": "embedding", "index": 0, "embedding": [0.01, -0.02]}],
            "usage": {"prompt_tokens": 2, "total_tokens": 2, "cost": 4e-8},
        },
    ),
    "rerank": _Format(
        "Rerank",
        "Documents in the order in which they fit a question; never streamed.",
        {
            "model": MODEL,
            "query": {"type": "string", "minLength": 1},
            "documents": {"type": "array", "minItems": 1, "items": {"type": ["string", "object"]}},
            "top_n": {"type": "integer", "minimum": 1},
        },
        ("model", "query", "documents"),
        {"model": "cohere/rerank-v3.5", "query": "Where is Paris?", "documents": ["Paris is in France.", "Hello"]},
        {
            "id": "gen-rerank-1",
            "model": "cohere/rerank-v3.5",
            "results": [{"index": 0, "relevance_score": 0.98, "document": {"text": "Paris is in France."}}],
            "usage": {"search_units": 1, "total_tokens": 150, "cost": 0.001},
        },
    ),
    "images": _Format(
        "Images",
        "Pictures of a text, in base64. `/images/generations` is what OpenAI's clients call. With `stream` events bring"
        " previews, of models that make any; others' answers come as the events that end a stream.",
        {
            "model": MODEL,
            "prompt": {"type": "string", "minLength": 1},
            "n": {"type": "integer", "minimum": 1, "maximum": 10},
            "stream": STREAM,
        },
        ("model", "prompt"),
        {"model": "bytedance-seed/seedream-4.5", "prompt": "a red panda astronaut"},
        {
            "created": 1748372400,
            "data": [{"b64_json": "iVBORw0KGgo=", "media_type": "image/png"}],
            "usage": {"prompt_tokens": 0, "completion_tokens": 4175, "total_tokens": 4175, "cost": 0.04},
        },
        'data: {"type":"image_generation.completed","b64_json":"iVBORw0KGgo="}\n\ndata: [DONE]\n\n',
    ),
    "speech": _Format(
        "Speech",
        "A text, spoken: the answer is sound. What it cost is known from OpenRouter's record, some seconds later.",
        {"model": MODEL, "input": {"type": "string", "minLength": 1}},
        ("model", "input"),
        {"model": "mistralai/voxtral-mini-tts-2603", "input": "Hello world", "response_format": "mp3"},
        {},
        media="audio/*",
    ),
    "transcriptions": _Format(
        "Transcriptions",
        "Sound, written down; never streamed. As JSON with base64, or as the form that OpenAI's clients send.",
        {"model": MODEL, "input_audio": SOUND},
        ("model", "input_audio"),
        {"model": "openai/whisper-large-v3", "input_audio": {"data": "UklGRiQA", "format": "wav"}},
        {
            "text": "Hello, this is a test.",
            "usage": {"input_tokens": 83, "output_tokens": 30, "seconds": 9.2, "total_tokens": 113, "cost": 0.000508},
        },
        form={
            "type": "object",
            "properties": {"model": MODEL, "file": {"type": "string", "format": "binary"}},
            "required": ["model", "file"],
        },
    ),
    "videos": _Format(
        "Videos",
        "Starts a job that makes a video, and answers with its id: ask at `polling_url` until it is completed, then "
        "fetch the film. What it cost is billed once it is over.",
        {
            "model": MODEL,
            "prompt": {"type": "string", "minLength": 1},
            "duration": {"type": "integer", "minimum": 1, "maximum": 3600},
        },
        ("model",),
        {"model": "google/veo-3.1", "prompt": "A serene mountain landscape at sunset", "duration": 8},
        {"id": "job-abc123", "polling_url": "/api/v1/videos/job-abc123", "status": "pending"},
        status=202,
    ),
    "responses": _Format(
        "Responses",
        "OpenAI's Responses API, without its store: each request holds the whole conversation.",
        {"model": MODEL, "input": {"type": ["string", "array"]}, "stream": STREAM},
        ("model", "input"),
        {"model": "openai/gpt-4o-mini", "input": "What is the capital of France?"},
        {
            "id": "gen-1",
            "object": "response",
            "status": "completed",
            "model": "openai/gpt-4o-mini",
            "output": [
                {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Paris."}]}
            ],
            "usage": {"input_tokens": 14, "output_tokens": 8, "total_tokens": 22, "cost": 0.0000069},
        },
        'data: {"type":"response.output_text.delta","delta":"Paris."}\n\ndata: {"type":"response.completed"}\n\n',
    ),
    "messages": _Format(
        "Messages",
        "Anthropic's Messages API, as its SDKs call it; errors have its shape.",
        {
            "model": MODEL,
            "messages": MESSAGES,
            "max_tokens": {"type": "integer", "minimum": 1},
            "stream": STREAM,
        },
        ("model", "messages", "max_tokens"),
        {"model": "anthropic/claude-haiku-4.5", "messages": QUESTION, "max_tokens": 100},
        {
            "id": "gen-1",
            "type": "message",
            "role": "assistant",
            "model": "anthropic/claude-haiku-4.5",
            "content": [{"type": "text", "text": "Paris."}],
            "stop_reason": "end_turn",
            "usage": {"input_tokens": 14, "output_tokens": 8, "cost": 0.000054},
        },
        'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta",'
        '"text":"Paris."}}\n\nevent: message_stop\ndata: {"type":"message_stop"}\n\n',
        "MessagesError",
    ),
}
FORMATS["count_tokens"] = _Format(
    "Count a prompt's tokens",
    "Anthropic's count of a request before it is sent, estimated here and meant to err upwards: three bytes are a "
    "token, and an image is 1600. It costs nothing and counts as a request.",
    {"model": MODEL, "messages": MESSAGES},
    ("model", "messages"),
    {"model": "anthropic/claude-haiku-4.5", "messages": QUESTION},
    {"input_tokens": 20},
    error="MessagesError",
)
SCHEMAS: Json = {
    "CallError": {
        "description": "A refusal of ours (as `Error`), or one of OpenRouter's minus what identifies the operator's "
        "account.",
        "type": "object",
        "properties": {
            "error": {
                "type": "object",
                "properties": {"code": {"type": ["integer", "string"]}, "message": {"type": "string"}},
                "required": ["message"],
            }
        },
        "required": ["error"],
    },
    "MessagesError": {
        "description": "A refusal in the shape of Anthropic's Messages API.",
        "type": "object",
        "properties": {
            "type": {"const": "error"},
            "error": {
                "type": "object",
                "properties": {"type": {"type": "string"}, "message": {"type": "string"}},
                "required": ["type", "message"],
            },
            "request_id": {"type": ["string", "null"]},
        },
        "required": ["type", "error"],
    },
}
ERRORS: dict[str, Json] = {
    "CallError": {"error": {"code": 400, "message": "`messages` must be a non-empty list of objects", "param": None}},
    "MessagesError": {"type": "error", "error": {"type": "invalid_request_error", "message": "`messages` is missing"}},
}


def paths() -> dict[str, Json]:
    """The path items of all model calls, those under /v1 first. Those under /api/v1 are the same at another server:
    Swagger UI shows the first seven of a document's paths if there are more than a hundred."""
    return {path: {"post": _operation(path, api)} for path, api in PATHS.items() if not path.startswith(TWINS)}


def refusals() -> dict[str, Json]:
    """The responses that calls of all formats refer to: in each of them, they would be most of the document."""
    return {
        f"{error}{status}": {
            "description": HTTPStatus(status).phrase,
            "headers": _headers("Retry-After") if status in {429, 503} else _headers(),
            "content": {
                "application/json": {"schema": {"$ref": f"#/components/schemas/{error}"}, "example": ERRORS[error]}
            },
        }
        for error in ERRORS
        for status in REFUSALS
    }


def _headers(*more: str) -> Json:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in (*HEADERS, *more)}


def _operation(path: str, api: ModelApi) -> Json:
    one = FORMATS[api.name]
    body = {"type": "object", "properties": one.fields, "required": list(one.required)}
    sent: Json = {"application/json": {"schema": body, "example": one.example}}
    if one.form:
        sent["multipart/form-data"] = {"schema": one.form}
    content: Json = {"application/json": {"schema": {"type": "object"}, "example": one.answer}}
    if one.media != "application/json":
        content = {one.media: {"schema": {"type": "string", "format": "binary"}}}
    if one.stream:
        content["text/event-stream"] = {"schema": {"type": "string"}, "example": one.stream}
    responses: Json = {
        str(one.status): {"description": "The model's answer", "headers": _headers(), "content": content}
    }
    responses |= {str(status): {"$ref": f"#/components/responses/{one.error}{status}"} for status in REFUSALS}
    return {
        "operationId": "call" + re.sub(r"\W", "_", path),
        "summary": one.summary,
        "description": one.description,
        "tags": [TAG["name"]],
        **({"servers": BASES} if path.startswith("/v1/") else {}),
        "security": [{"accessToken": []}, {"clientKey": []}, {"xApiKey": []}],
        "requestBody": {"required": True, "content": sent},
        "responses": responses,
    }
