"""What a client may send up: a chat-completions body, and a few headers out of a list."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import json_text
from auth import Caller
from errors import BadRequest

# Client headers that go up, by their WSGI names. Not among them: the response cache's (X-OpenRouter-Cache*), because
# all users share our account and would read each other's cached answers.
FORWARDED = {
    f"HTTP_{name.upper().replace('-', '_')}": name
    for name in (
        "X-Session-Id",
        "X-OpenRouter-Metadata",
        "X-OpenRouter-Experimental-Metadata",
        "X-Anthropic-Beta",
        "X-OpenRouter-Fusion-Depth",
        "X-OpenRouter-Subagent-Depth",
        "X-OpenRouter-Advisor-Depth",
    )
}
HEADER_TEXT = re.compile(r"[\x20-\x7e]{1,1024}")


@dataclass(frozen=True, slots=True)
class ProxyRequest:
    """A verified caller's call. headers: upstream header lines, from `forwarded_headers`."""

    request_id: str
    caller: Caller
    body: bytes
    headers: bytes
    client_is_gone: Callable[[], bool]


def forwarded_headers(environ: dict[str, Any]) -> bytes:
    """The client's headers that may go up, as header lines. Raises BadRequest for one that can't be a header."""
    lines = ""
    for variable, name in FORWARDED.items():
        if (value := environ.get(variable)) is not None:
            if not HEADER_TEXT.fullmatch(value):
                raise BadRequest(f"The header {name} must be 1 to 1024 printable ASCII characters")
            lines += f"{name}: {value}\r\n"
    return lines.encode("ascii")


def read_body(body: bytes) -> tuple[str, bool]:
    """Model and `stream` of a chat-completions body. The rest is OpenRouter's to judge. Raises BadRequest."""
    try:
        request = json_text.parse(body)
    except json_text.BadJson as error:
        raise BadRequest(f"The body is {error}") from None
    if not isinstance(request, dict):
        raise BadRequest("The body must be a JSON object with `model` and `messages`")
    model, stream, messages = request.get("model"), request.get("stream"), request.get("messages")
    if model is not None and not isinstance(model, str):
        raise BadRequest('`model` must be a string such as "openai/gpt-4o-mini"')
    if stream is not None and not isinstance(stream, bool):
        raise BadRequest("`stream` must be true or false")
    if messages is None and isinstance(request.get("prompt"), str):
        return model or "", stream or False  # the older form, which OpenRouter still takes
    if not isinstance(messages, list) or not messages or not all(isinstance(message, dict) for message in messages):
        raise BadRequest("`messages` must be a non-empty list of objects with `role` and `content`")
    return model or "", stream or False
