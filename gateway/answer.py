"""What goes back to a client: a status, headers out of a list, and a body."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import msgspec

from upstream.http import Exchange

# OpenRouter's headers that come down. Retry-After goes with refusals only.
RETURNED = {"content-type": "Content-Type", "x-generation-id": "X-Generation-Id", "x-provider-name": "X-Provider-Name"}
RETURNED |= {"content-encoding": "Content-Encoding"}
STREAM_HEADERS = [("Cache-Control", "no-cache"), ("X-Accel-Buffering", "no")]
EVENT_STREAM = [("Content-Type", "text/event-stream")]
JSON = [("Content-Type", "application/json")]

Headers = list[tuple[str, str]]


class ProxyAnswer(msgspec.Struct, frozen=True):
    """What goes back. The body's iterator must be closed, whole or not: that ends the exchange upstream."""

    status: int
    headers: Headers
    body: Iterable[bytes]


class ClosingBody:
    """A body whose closing ends the call, even if no byte of it was ever asked for (a generator's would not)."""

    __slots__ = ("_finish", "_pieces")

    def __init__(self, finish: Callable[[str, int], None], pieces: Iterator[bytes]) -> None:
        self._finish = finish
        self._pieces = pieces

    def __iter__(self) -> Iterator[bytes]:
        return self._pieces

    def close(self) -> None:
        self._pieces.close()  # type: ignore[attr-defined]
        self._finish("client_gone", 200)


def headers_of(exchange: Exchange, *, is_stream: bool) -> Headers:
    """The headers of an upstream's answer that come down; a stream's has its type, whatever it was sent as."""
    sent = exchange.headers
    headers = [(name, sent[field]) for field, name in RETURNED.items() if field in sent]
    if not is_stream:
        return headers
    if not sent.get("content-type", "").lower().startswith("text/event-stream"):
        headers = [*EVENT_STREAM, *(header for header in headers if header[0] != "Content-Type")]
    return headers + STREAM_HEADERS
