"""What a client may send up: a chat-completions body, and a few headers out of a list."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import json_text
from auth import Caller
from errors import BadRequest
from rate_limits import Admission

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
# Far more than any model writes or answers with: what is larger would only be a way to spoil sums.
MAX_TOKENS, MAX_CHOICES, MAX_MODELS = 10_000_000, 128, 32
SESSION_LINE = re.compile(rb"^X-Session-Id: (.*)\r\n", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class ProxyRequest:
    """A verified caller's call.

    headers: upstream header lines, from `forwarded_headers`. admission: released when the call is over.
    """

    request_id: str
    caller: Caller
    body: bytes
    headers: bytes
    client_is_gone: Callable[[], bool]
    admission: Admission

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
    """What the gateway has to know of a chat-completions body.

    max_tokens: at most so many tokens an answer; None if the client sets no bound. n: answers asked for. models: to
    fall back to, in this order.
    """

    model: str
    stream: bool
    session_id: str | None = None
    max_tokens: int | None = None
    n: int = 1
    models: tuple[str, ...] = ()


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
    session = session if isinstance(session, str) and session else None
    older, newer = _whole(request, "max_tokens", MAX_TOKENS), _whole(request, "max_completion_tokens", MAX_TOKENS)
    # Which of two bounds OpenRouter obeys is not documented; the larger is the safe one for what a call may cost.
    bound = older if newer is None or (older is not None and older > newer) else newer
    n = _whole(request, "n", MAX_CHOICES) or 1
    return ChatBody(model or "", stream or False, session, bound, n, _models(request))


def _whole(request: dict[str, Any], name: str, largest: int) -> int | None:
    value = request.get(name)
    # Not isinstance: true is an int to Python.
    if value is None or (type(value) is int and 1 <= value <= largest):
        return value
    raise BadRequest(f"`{name}` must be a whole number from 1 to {largest}")


def _models(request: dict[str, Any]) -> tuple[str, ...]:
    models = request.get("models")
    if models is None:
        return ()
    if not isinstance(models, list) or len(models) > MAX_MODELS or not all(isinstance(name, str) for name in models):
        raise BadRequest(f"`models` must be a list of at most {MAX_MODELS} strings, the models to fall back to")
    return tuple(models)
