"""The stand-in for OpenRouter with answers that it, being faithful, has not: models `odd/<name>`, byte by byte.

Bodies for these models are not read, however large they are. `POST /odd/edge` makes it behave as an edge that closes
idle connections: a request on one that has been idle gets no byte, and a reset.
"""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import Iterator
from typing import Any

import uvloop

from sandbox.http_server import Ending, Exchange, Step, in_chunk, listen
from sandbox.openrouter import API, Options, StandIn, announce, options_from

IDLE_SECONDS = 0.1
SLOW_SECONDS = 60.0
FLOOD_BYTES = 64 * 1024 * 1024
EDGE = "/odd/edge"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nTransfer-Encoding: chunked\r\n\r\n"
STREAM, PLAIN = HEAD % b"text/event-stream", HEAD % b"application/json"
USAGE = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7, "cost": 0.000007}
MESSAGES_OF = {
    401: "User not found.",
    402: "Insufficient credits. Add more using https://openrouter.ai/settings/credits",
    403: "Key limit exceeded (total limit)",
    408: "Request timed out",
    429: "Rate limit exceeded",
    500: "Internal Server Error",
    502: "The provider is down",
    503: "Overloaded",
    504: "The provider timed out",
}


def chat_chunk(**more: Any) -> bytes:
    """An event of a chat stream."""
    return _event({"id": "gen-odd", "object": "chat.completion.chunk", "created": 1, "model": "odd/x", **more})


def _event(payload: object, name: str = "") -> bytes:
    return (f"event: {name}\n" if name else "").encode() + b"data: " + json.dumps(payload).encode() + b"\n\n"


CONTENT = chat_chunk(choices=[{"index": 0, "delta": {"content": "hi"}}])
LAST = chat_chunk(choices=[{"index": 0, "delta": {}, "finish_reason": "stop"}], usage=USAGE) + b"data: [DONE]\n\n"


def _chat_error(code: int | str, after: bytes = b"") -> list[Step]:
    error = {"code": code, "message": MESSAGES_OF.get(code, str(code)) if isinstance(code, int) else code}
    choices = [{"index": 0, "delta": {"content": ""}, "finish_reason": "error"}]
    return [STREAM, in_chunk(after + chat_chunk(error=error, choices=choices)), b"0\r\n\r\n"]


def _message_error(kind: str) -> list[Step]:
    error = {"type": "error", "error": {"type": kind, "message": kind}}
    return [STREAM, in_chunk(_event(error, "error")), b"0\r\n\r\n"]


def _response_error(code: str) -> list[Step]:
    response = {"id": "gen-odd", "object": "response", "status": "failed", "error": {"code": code, "message": code}}
    failed = {"type": "response.failed", "sequence_number": 1, "response": response}
    return [STREAM, in_chunk(_event(failed, "response.failed")), b"0\r\n\r\n"]


def _plain(**more: Any) -> list[Step]:
    body = {"id": "gen-odd", "object": "chat.completion", "created": 1, "model": "odd/x", "usage": USAGE, **more}
    return [PLAIN, in_chunk(json.dumps(body).encode()), b"0\r\n\r\n"]


def _choice(**more: Any) -> list[dict[str, Any]]:
    return [{"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop", **more}]


# Errors within 200, by documented shape: ChatStreamChunk.error, MessagesErrorEvent, ResponsesErrorField; and in bodies.
CHAT_CODES = (*MESSAGES_OF, "rate_limit_exceeded", "insufficient_quota", "server_error")
MESSAGE_KINDS = ("rate_limit_error", "billing_error", "authentication_error", "permission_error", "overloaded_error")
RESPONSE_CODES = ("rate_limit_exceeded", "server_error", "invalid_prompt", "vector_store_timeout")
SCRIPTS: dict[str, list[Step]] = {
    "whole": _plain(choices=_choice()),
    "slow": [SLOW_SECONDS, *_plain(choices=_choice())],
    "plain-choice-429": _plain(choices=_choice(error={"code": 429, "message": "Rate limit exceeded"})),
    "plain-choice-402": _plain(choices=_choice(error={"code": 402, "message": "Insufficient credits"})),
    "plain-429": _plain(choices=[], error={"code": 429, "message": "Rate limit exceeded"}),
    **{f"event-{code}": _chat_error(code) for code in CHAT_CODES},
    **{f"late-event-{code}": _chat_error(code, CONTENT) for code in (402, 429, 502)},
    **{f"message-{kind}": _message_error(kind) for kind in MESSAGE_KINDS},
    **{f"response-{code}": _response_error(code) for code in RESPONSE_CODES},
}


def _stream() -> Iterator[Step]:
    """A chunk a second, without an end."""
    yield STREAM
    while True:
        yield in_chunk(CONTENT)
        yield 1.0


def _flood() -> Iterator[Step]:
    """More than any buffer takes, at once."""
    yield STREAM
    piece = in_chunk(CONTENT * 1000)
    for _ in range(FLOOD_BYTES // len(piece)):
        yield piece
    yield in_chunk(LAST)
    yield b"0\r\n\r\n"


class OddStandIn(StandIn):
    """Plays `SCRIPTS`, `odd/stream` and `odd/flood`; everything else is the stand-in's."""

    closes_idle = False

    def handle(self, exchange: Exchange) -> None:
        """Answer one request."""
        now = time.monotonic()
        used_at = getattr(exchange.connection, "used_at", None)
        exchange.connection.used_at = now  # type: ignore[attr-defined]
        if exchange.path == EDGE:
            self.closes_idle = True
            exchange.send(204, b"HTTP/1.1 204 No Content\r\n\r\n")
        elif self.closes_idle and used_at and now - used_at > IDLE_SECONDS:
            exchange.play(0, iter([Ending.RESET]))
        elif exchange.body.startswith(b'{"model": "odd/'):
            name = exchange.body[15 : exchange.body.index(b'"', 15)].decode()
            play = {"stream": _stream, "flood": _flood}.get(name)
            exchange.play(200, play() if play else iter(SCRIPTS[name]))
        else:
            super().handle(exchange)


async def run(options: Options) -> None:
    """Serve until a signal asks to stop."""
    stand_in = OddStandIn(options)
    server = await listen(stand_in.handle, options.host, options.port)
    announce(f"http://{options.host}:{server.sockets[0].getsockname()[1]}{API}", stand_in.management_key)
    told = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, told.set)
    await told.wait()
    server.close()


if __name__ == "__main__":
    uvloop.run(run(options_from()))
