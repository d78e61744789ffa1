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
SESSION_LINE = re.compile(rb"^X-Session-Id: (.*)\r\n", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class ProxyRequest:
    """A verified caller's call. headers: upstream header lines, from `forwarded_headers`."""

    request_id: str
    caller: Caller
    body: bytes
    headers: bytes
    client_is_gone: Callable[[], bool]

    def sticky_text(self, rule: str, chat: ChatBody) -> str | None:
        """What calls that should share a pool key have in common; None if any key will do.

        rule: `off`, `session` or `user`. A session's name counts only together with its user: whoever guesses another
        person's can't steer where their calls go.
        """
        if rule == "user":
            return str(self.caller.user_id)
        if rule == "off":
            return None
        line = SESSION_LINE.search(self.headers)
        # OpenRouter too lets the body win over the header.
        session = chat.session_id or (line.group(1).decode("ascii") if line else None)
        return f"{self.caller.user_id}/{session}" if session else None


def forwarded_headers(environ: dict[str, Any]) -> bytes:
    """The client's headers that may go up, as header lines. Raises BadRequest for one that can't be a header."""
    lines = ""
    for variable, name in FORWARDED.items():
        if (value := environ.get(variable)) is not None:
            if not HEADER_TEXT.fullmatch(value):
                raise BadRequest(f"The header {name} must be 1 to 1024 printable ASCII characters")
            lines += f"{name}: {value}\r\n"
    return lines.encode("ascii")


@dataclass(frozen=True, slots=True)
class ChatBody:
    """What the gateway has to know of a chat-completions body."""

    model: str
    stream: bool
    session_id: str | None = None


def read_body(body: bytes) -> ChatBody:
    """What a chat-completions body says of itself. The rest is OpenRouter's to judge. Raises BadRequest."""
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
    is_older_form = messages is None and isinstance(request.get("prompt"), str)  # OpenRouter still takes it
    if not is_older_form and (
        not isinstance(messages, list) or not messages or not all(isinstance(message, dict) for message in messages)
    ):
        raise BadRequest("`messages` must be a non-empty list of objects with `role` and `content`")
    session = request.get("session_id")
    return ChatBody(model or "", stream or False, session if isinstance(session, str) and session else None)
