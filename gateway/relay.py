"""A body on its way from OpenRouter to the client, once it has content: a stream's events, a long JSON text, or bytes
unread.

Whoever relays iterates `pieces` to the end or closes it, reads here how it went, and passes the last words on.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator, Iterator
from typing import Any

from formats import usage_block
from formats.chat import ModelApi
from formats.event_stream import KEEPALIVE, EventStream
from foundation.deadline import Deadline, NothingYet, TimeIsUp
from foundation.errors import AppError, ServerEnds, ServiceFault
from gateway.attempt import Attempt, broken
from gateway.forms import Form
from gateway.request import ClientGone, never
from upstream.connection import ConnectionLost
from upstream.refusal import Refusal

log = logging.getLogger("proxy")

# How often whoever waits for the upstream looks whether the client is still there.
TICK_SECONDS = 0.5
USAGE_TAIL_BYTES = 16 * 1024


class Silence:
    """When a client that hears nothing is due a comment: some give up after five silent seconds."""

    def __init__(self, keepalive_seconds: float) -> None:
        self._keepalive_seconds = keepalive_seconds
        self.last_sent = time.monotonic()

    def comment_if_due(self, at_once: bool = False) -> bytes:
        """A comment, or b"": writing even nothing is how some servers notice that the client has gone."""
        now = time.monotonic()
        if now - self.last_sent < self._keepalive_seconds and not at_once:
            return b""
        self.last_sent = now
        return KEEPALIVE


class Relay:
    """The body of one answer, from its first content on. deadline: the call's, renewed whenever there is progress.

    Once `pieces` has ended, in whatever way: outcome, in a word (complete, error, cut, stalled, broken, client_gone);
    usage and refusal, if OpenRouter sent them.
    """

    def __init__(
        self,
        attempt: Attempt,
        *,
        model: str,
        deadline: Deadline,
        idle_timeout: float,
        keepalive: float,
        client_is_gone: Callable[[], bool],
        client_has_ended: Callable[[], bool],
        server_ends: Callable[[], bool] = never,
    ) -> None:
        self.outcome = "client_gone"
        self.usage: dict[str, Any] | None = None
        self.refusal: Refusal | None = None
        self._attempt = attempt
        self._exchange = attempt.exchange
        self._api: ModelApi = attempt.api
        self._model = model
        self._deadline = deadline
        self._idle_timeout = idle_timeout
        self._keepalive = keepalive
        self._client_is_gone = client_is_gone
        self._client_has_ended = client_has_ended
        self._server_ends = server_ends
        self._failure: AppError | None = None

    def pieces(self) -> Iterator[bytes]:
        """The body as it comes. What breaks off does so for the client too, but for a stream, which gets last words.

        Raises ConnectionLost.
        """
        self._deadline.renew(self._idle_timeout)
        if self._attempt.events:
            return self._stream(self._attempt.events)
        return self._plain() if self._attempt.form is Form.PLAIN else self._unread()

    def last_words(self) -> bytes:
        """What follows the pieces of a stream that somebody listens to: its rest, or an error event if it broke off."""
        events = self._attempt.events
        if not events or self.outcome == "client_gone":
            return b""
        if not self._failure or events.done:
            return events.finish()
        generation = self._exchange.headers.get("x-generation-id")
        error = self._api.error_event(self._failure, generation, self._model, events.count)
        return error if events.at_border else b"\n\n" + error

    # ── the three forms

    def _stream(self, events: EventStream) -> Iterator[bytes]:
        """Events as they come, and comments of ours while none do."""
        try:
            yield self._attempt.held
            yield from self._events(events)
            self.outcome = "error" if events.refusal else "complete"
        except ClientGone:
            return
        except ServerEnds as error:
            self.outcome, self._failure = "cut", error
        except (TimeIsUp, ConnectionLost) as error:
            if events.done:  # nothing is missing but the end of the framing
                self.outcome = "error" if events.refusal else "complete"
            else:
                self.outcome, self._failure = _outcome_of(error), broken(error)
        except Exception:
            log.exception("unexpected_error")
            self.outcome, self._failure = "broken", ServiceFault()
        finally:
            self.usage, self.refusal = events.usage, events.refusal

    def _events(self, events: EventStream) -> Iterator[bytes]:
        """Until the upstream's end. Raises ConnectionLost, ClientGone, ServerEnds; TimeIsUp after too long without
        data."""
        silence, api, deadline = Silence(self._keepalive), self._api, self._deadline
        while True:
            if self._server_ends():
                raise ServerEnds
            deadline.look_up_in(TICK_SECONDS)
            try:
                data = self._attempt.read(deadline)
            except NothingYet:
                has_ended = self._check_client(can_ask=events.at_border)
                yield silence.comment_if_due(has_ended) if events.at_border else b""
                continue
            if not data:
                break
            if passed := events.feed(data):
                yield passed
                silence.last_sent = time.monotonic()
                # Comments and pings are signs of life of OpenRouter's edge only: the model may have died long ago.
                if not events.at_border or not api.are_signs_of_life(passed):
                    deadline.renew(self._idle_timeout)
        rest = events.finish()  # an event without its blank line may be the end
        may_end_so = self._exchange.delimited and (events.is_unread or events.finished)
        if not (may_end_so or events.done or events.refusal):
            raise ConnectionLost("the upstream closed the connection, which alone is no end")
        if rest:
            yield rest

    def _check_client(self, can_ask: bool) -> bool:
        """True if it takes a comment to know whether the client is still there. Raises ClientGone.

        can_ask: a comment may be sent now. Where none may, a client that sends no more has most likely gone.
        """
        has_gone, has_ended = self._client_is_gone(), self._client_has_ended()
        if has_gone or (has_ended and not can_ask):
            raise ClientGone
        return has_ended

    def _plain(self) -> Iterator[bytes]:
        """A long JSON text. Its usage stands at the end, or before all data: those of many embeddings are long."""
        head, tail = self._attempt.held[:USAGE_TAIL_BYTES], b""
        for piece in self._unread():
            tail = (tail + piece)[-USAGE_TAIL_BYTES:]
            yield piece
        if self._api.reads_tail and (usage := usage_block.in_tail(tail) or usage_block.in_tail(head)):
            self.usage = self._api.with_usage(None, usage)

    def _unread(self) -> Iterator[bytes]:
        """Bytes as they are. Those compressed although we asked for none go on with their Content-Encoding."""
        try:
            piece = self._attempt.held
            while piece:
                yield piece
                piece = yield from self._next_piece()
            self.outcome = "complete"
        except ClientGone:
            return
        except (TimeIsUp, ConnectionLost) as error:
            self.outcome = _outcome_of(error)
            raise ConnectionLost("the upstream's answer broke off") from None

    def _next_piece(self) -> Generator[bytes, None, bytes]:
        """The next piece, b"" at the end; nothing is written meanwhile, by which some servers notice a client's end."""
        self._deadline.renew(self._idle_timeout)
        while not self._server_ends():
            self._deadline.look_up_in(TICK_SECONDS)
            try:
                return self._attempt.read(self._deadline)
            except NothingYet:
                self._check_client(can_ask=False)
                yield b""
        raise ConnectionLost("the server ends, and waits no longer")


def _outcome_of(error: TimeIsUp | ConnectionLost) -> str:
    return "stalled" if isinstance(error, TimeIsUp) else "cut"
