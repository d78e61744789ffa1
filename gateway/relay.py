"""A body on its way from OpenRouter to the client, once it has content: a stream's events, a long JSON text, or bytes
unread.

Each form is a generator that a server iterates and closes. Whatever way it ends, it reports how: complete, error,
cut, stalled or client_gone.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

from formats import usage_block
from formats.chat import ModelApi
from formats.event_stream import KEEPALIVE, EventStream
from foundation.errors import AppError, ServiceFault, UpstreamFailed, UpstreamTimeout
from upstream.http import ConnectionLost, Exchange, NothingYet
from upstream.refusals import Refusal

log = logging.getLogger("proxy")

# How often a silent stream looks whether its client is still there.
TICK_SECONDS = 0.5
# A plain body up to this size is held until it is whole and looked at: if it breaks off, or is an error, the client's
# answer can still be chosen. A longer one passes as it comes.
MAX_PLAIN_LOOKED_AT = 1024 * 1024
USAGE_TAIL_BYTES = 16 * 1024


class ClientGone(Exception):
    """Nobody is listening any more."""


class Silence:
    """When a client that hears nothing is due a comment: some give up after five silent seconds."""

    def __init__(self, keepalive_seconds: float) -> None:
        self._keepalive_seconds = keepalive_seconds
        self.last_sent = time.monotonic()

    def comment_if_due(self) -> bytes:
        """A comment, or b"": writing even nothing is how some servers notice that the client has gone."""
        now = time.monotonic()
        if now - self.last_sent < self._keepalive_seconds:
            return b""
        self.last_sent = now
        return KEEPALIVE


class AnswerRelay:
    """The body of one answer, from its first content on.

    ended: called once with the outcome; `usage` and `refusal` are set by then if OpenRouter sent them.
    """

    def __init__(
        self,
        exchange: Exchange,
        *,
        api: ModelApi,
        model: str,
        idle_timeout: float,
        keepalive: float,
        client_is_gone: Callable[[], bool],
        ended: Callable[[str], None],
    ) -> None:
        self.usage: dict[str, Any] | None = None
        self.refusal: Refusal | None = None
        self._exchange = exchange
        self._api = api
        self._model = model
        self._idle_timeout = idle_timeout
        self._keepalive = keepalive
        self._client_is_gone = client_is_gone
        self._ended = ended

    def stream(self, events: EventStream, begin: bytes) -> Iterator[bytes]:
        """Events as they come, and comments of ours while none do. What breaks off ends with an error event.

        events: has read the stream so far. begin: what of it the client has not got yet.
        """
        outcome: str = "client_gone"
        failure: AppError | None = None
        try:
            yield begin
            yield from self._events(events)
            outcome = "error" if events.refusal else "complete"
        except ClientGone:
            return
        except (NothingYet, ConnectionLost) as error:
            if events.done:  # nothing is missing but the end of the framing
                outcome = "error" if events.refusal else "complete"
            else:
                outcome = "stalled" if isinstance(error, NothingYet) else "cut"
                failure = broken(error)
        except Exception:
            log.exception("unexpected_error")
            outcome, failure = "broken", ServiceFault()
        finally:
            self.usage, self.refusal = events.usage, events.refusal
            self._ended(outcome)
        if failure and not events.done:
            generation = self._exchange.headers.get("x-generation-id")
            yield (b"" if events.at_border else b"\n\n") + self._api.error_event(
                failure, generation, self._model, events.count
            )
        elif rest := events.finish():
            yield rest

    def _events(self, events: EventStream) -> Iterator[bytes]:
        """Until the upstream's end. Raises ConnectionLost, and NothingYet when no data came for too long."""
        silence, pings = Silence(self._keepalive), self._api.pings
        last_data = silence.last_sent
        while True:
            try:
                data = self._exchange.read(TICK_SECONDS)
            except NothingYet:
                if self._client_is_gone():
                    raise ClientGone from None
                if time.monotonic() - last_data >= self._idle_timeout:
                    raise
                yield silence.comment_if_due() if events.at_border else b""
                continue
            if not data:
                break
            if passed := events.feed(data):
                yield passed
                silence.last_sent = time.monotonic()
                if (b"data:" in passed and not (pings and _all_match(pings, passed))) or not events.at_border:
                    last_data = silence.last_sent
                    continue
            # Comments and pings are signs of life of OpenRouter's edge only: the model may have died long ago.
            if time.monotonic() - last_data >= self._idle_timeout:
                raise NothingYet
        may_end_so = self._exchange.delimited and (events.is_unread or not self._api.must_end)
        if not (may_end_so or events.done or events.refusal):
            raise ConnectionLost("the upstream closed the connection, which alone is no end")

    def plain(self, begin: bytes) -> Iterator[bytes]:
        """A long JSON text as it comes. What breaks off does so for the client too: half a JSON text is none."""
        # Usage stands at the end, or before all data: those of many embeddings are long.
        outcome, head, tail = "client_gone", begin[:USAGE_TAIL_BYTES], b""
        try:
            piece = begin
            while piece:
                tail = (tail + piece)[-USAGE_TAIL_BYTES:]
                yield piece
                piece = self._exchange.read(self._idle_timeout)
            if self._api.reads_tail and (usage := usage_block.in_tail(tail) or usage_block.in_tail(head)):
                self.usage = self._api.with_usage(None, usage)
            outcome = "complete"
        except (NothingYet, ConnectionLost) as error:
            outcome = "stalled" if isinstance(error, NothingYet) else "cut"
            raise ConnectionLost("the upstream's answer broke off") from None
        finally:
            self._ended(outcome)

    def unread(self, begin: bytes) -> Iterator[bytes]:
        """A body compressed although we asked for none: it goes on as it is, with its Content-Encoding."""
        outcome = "client_gone"
        try:
            piece = begin
            while piece:
                yield piece
                piece = self._exchange.read(self._idle_timeout)
            outcome = "complete"
        except (NothingYet, ConnectionLost) as error:
            outcome = "stalled" if isinstance(error, NothingYet) else "cut"
            raise ConnectionLost("the upstream's answer broke off") from None
        finally:
            self._ended(outcome)


def _all_match(pings: re.Pattern[bytes], passed: bytes) -> bool:
    return len(pings.findall(passed)) == passed.count(b"data:")


def broken(error: NothingYet | ConnectionLost) -> AppError:
    """What a client is told of an answer that did not come to its end."""
    if isinstance(error, NothingYet):
        return UpstreamTimeout("The upstream fell silent within its answer")
    return UpstreamFailed("The upstream's answer broke off")
