"""One try of a call: one key, one exchange, and what comes before the first content.

Until there is content nothing has to go to the client but signs of life, so everything can be tried again:

    sent ──> head ──┬─> stream   events are held until one has content
                    ├─> plain    held until it is whole and looked at, or too long for that
                    ├─> unread   compressed though we asked for none
                    └─> refusal  read to its end
    lost: no connection, or an answer that ended without content (NoAnswer)
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from enum import Enum
from functools import partial
from typing import Any

from formats import usage_block
from formats.chat import Kind, ModelApi
from formats.event_stream import EventStream, events_in
from foundation import json_text
from foundation.errors import UpstreamFailed
from gateway.relay import MAX_PLAIN_LOOKED_AT, broken
from pool.choice import PoolKey
from upstream.http import ConnectFailed, ConnectionLost, Exchange, NothingYet
from upstream.refusals import Refusal

MAX_REFUSAL_BYTES = 1024 * 1024
REFUSAL_SECONDS = 5.0
GENERATION_ID = re.compile(rb"gen-[A-Za-z0-9_-]{1,60}")
FIRST_ID = re.compile(rb'"id"\s*:\s*"([^"]*)"')  # those that follow may be the client's own words
MAX_ID_BYTES = 16 * 1024


class NoAnswer(Exception):
    """A try that ended without content and without a refusal.

    kind: `unreachable` (nothing was sent), `lost` (sent, but no head came), `cut`, `empty` or `page` (after the head).
    """

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind


class Form(Enum):
    """What kind of answer has come."""

    STREAM = "stream"
    PLAIN = "plain"
    UNREAD = "unread"
    REFUSAL = "refusal"


class UpstreamTry:
    """One try. Once `advance` has returned, the answer is known.

    exchange: once it was sent. form: the answer's, as soon as its head is here. held: its bytes so far, as the client
    may see them; the exchange has the rest, unless `is_whole`. refusal: OpenRouter's, by its status or in the place of
    content. events: reads the rest of a stream, if it is one. kind: in a word how it went, for the log; the caller sets
    it where it knows better.

    head_came: told once the head is here, before anything waits for the rest.
    """

    def __init__(
        self, api: ModelApi, key: PoolKey, idle_timeout: float, head_came: Callable[[UpstreamTry], None]
    ) -> None:
        self.api = api
        self.key = key
        self.form: Form | None = None
        self.held = b""
        self.is_whole = False
        self.refusal: Refusal | None = None
        self.usage: dict[str, Any] | None = None
        self.events: EventStream | None = None
        self.kind = "unfinished"
        self.begun = time.monotonic()
        self.known: float | None = None
        """When `advance` returned, in monotonic seconds."""
        self.has_content = False
        self._exchange: Exchange | None = None
        self._idle_timeout = idle_timeout
        self._head_came = head_came
        self._read: Callable[[float, float], None] | None = None
        self._read_until = 0.0
        self._blank_bytes = 0
        self._only_comments = True

    @property
    def exchange(self) -> Exchange:
        """The exchange. Raises RuntimeError if nothing was sent."""
        if self._exchange is None:
            raise RuntimeError("this try was not sent")
        return self._exchange

    @property
    def status(self) -> int | None:
        """OpenRouter's status, once it is here."""
        return (self._exchange and self._exchange.status) or None

    @property
    def generation_id(self) -> str | None:
        """OpenRouter's name for the answer: from its header, else out of its first bytes."""
        if self._exchange is None:
            return None
        if name := self._exchange.headers.get("x-generation-id"):
            return name
        found = FIRST_ID.search(self.held[:MAX_ID_BYTES])
        return found.group(1).decode("ascii") if found and GENERATION_ID.fullmatch(found.group(1)) else None

    def close(self) -> None:
        """End the exchange, if there is one; at once if its answer was not whole."""
        if self._exchange:
            self._exchange.close()

    @property
    def has_blank(self) -> bool:
        """True if there are signs of life to pass on: the answer may begin with them, and still be tried again."""
        return self._blank_bytes > 0

    def take_blank(self) -> bytes:
        """Comments or white space that OpenRouter sent before anything else, to be passed on now."""
        blank, self.held, self._blank_bytes = self.held[: self._blank_bytes], self.held[self._blank_bytes :], 0
        return blank

    def advance(self, send: Callable[[PoolKey], Exchange], until: float, until_if_blank: float) -> None:
        """Go on until the answer is known.

        Raises NothingYet when it is not by `until` (monotonic), or by `until_if_blank` if all that came of a plain body
        is white space; NoAnswer; AppError for a plain answer that began and can't be passed on.
        """
        try:
            if self._exchange is None:
                self.begun = time.monotonic()
                self._exchange = send(self.key)
            if self._read is None:
                self.exchange.wait_head(max(until - time.monotonic(), 0.001))
                self._head_came(self)
                self._read = self._reader(self.exchange)
            self._read(until, until_if_blank)
        except ConnectFailed as error:
            raise NoAnswer("unreachable", str(error)) from None
        except ConnectionLost as error:
            raise NoAnswer("cut" if self._read else "lost", str(error)) from None
        self.known = time.monotonic()

    def _reader(self, exchange: Exchange) -> Callable[[float, float], None]:
        content_type = exchange.headers.get("content-type", "").lower()
        if not 200 <= exchange.status < 300:
            self.form, self._read_until = Form.REFUSAL, time.monotonic() + REFUSAL_SECONDS
            return self._read_refusal
        if is_encoded(exchange):
            self.form = Form.UNREAD
            return self._read_encoded
        if content_type.startswith("text/event-stream"):
            self.form, self.events = Form.STREAM, EventStream(self.api)
            return partial(self._read_stream, self.events)
        if content_type.startswith("text/html"):
            raise NoAnswer("page", "the upstream answered with a web page")
        self.form = Form.PLAIN
        return self._read_plain

    def _piece(self, until: float) -> bytes:
        left = until - time.monotonic()
        if left <= 0:  # also while bytes keep coming that are no content
            raise NothingYet
        return self.exchange.read(left)

    # ── the four forms

    def _read_stream(self, events: EventStream, until: float, _until_if_blank: float) -> None:
        while not self.has_content and not self.refusal:
            data = self._piece(until)
            self._sort(events, events.feed(data) if data else events.finish())
            if not data and not self.has_content and not self.refusal:
                raise NoAnswer("empty", "the upstream's stream ended without content")

    def _sort(self, events: EventStream, passed: bytes) -> None:
        """Hold what may go to the client, and note whether content or an error is among it."""
        held = len(self.held)
        self.held += passed
        for event in events_in(passed):
            kind = self.api.kind_of(event)
            if kind is Kind.CONTENT:
                self.has_content = True
                return
            if kind is Kind.ERROR:
                self.refusal = events.refusal
                self.has_content = self.refusal is None  # written so that it was not noticed there: it is passed on
                return
            held += len(event)
            self._only_comments = self._only_comments and kind is Kind.COMMENT
            if self._only_comments:
                self._blank_bytes = held
        self.has_content = not events.at_border or len(self.held) > self.api.max_held_bytes  # no more can be held

    def _read_plain(self, until: float, until_if_blank: float) -> None:
        while True:
            try:
                piece = self._piece(self._plain_limit(until, until_if_blank))
            except (NothingYet, ConnectionLost) as error:
                stalled = isinstance(error, NothingYet)
                if not self.has_content or (stalled and time.monotonic() < self._read_until):
                    raise
                self.kind = "stalled" if stalled else "cut"
                # The answer had begun, so it was generated, and billed: another try would be billed too.
                raise broken(error) from None
            if not piece:
                break
            self.held += piece
            self._read_until = time.monotonic() + self._idle_timeout
            self.has_content = self.has_content or not self.held.isspace() or len(self.held) > self.api.max_held_bytes
            self._blank_bytes = 0 if self.has_content else len(self.held)
            if len(self.held) > MAX_PLAIN_LOOKED_AT:
                return
            if self.exchange.complete:  # nearly every answer comes in one piece
                break
        if not self.has_content:
            raise NoAnswer("empty", "the upstream's answer was empty")
        self.is_whole = True
        self._look_at_whole()

    def _plain_limit(self, until: float, until_if_blank: float) -> float:
        if self.has_content:
            return min(until, self._read_until)
        return until_if_blank if self.held else until

    def _look_at_whole(self) -> None:
        """Note what a whole plain body says; clean it if it holds an error."""
        has_error = b'"error"' in self.held
        try:
            payload = json_text.parse(self.held)
            if not isinstance(payload, dict):
                return
            if (usage := self.api.usage_in(payload)) is not None:
                self.usage = self.api.with_usage(None, usage_block.exact(self.held, usage))
            if has_error:
                self.refusal = self.api.refusal_in(payload)
                shown = self.api.told(payload)
                self.held = self.held if shown == payload else json_text.write(shown)
        except json_text.BadJson:
            if has_error:
                raise UpstreamFailed("The upstream reported an error that can't be passed on") from None
            if not self.exchange.delimited:  # its end was the connection's: what is no JSON text was cut
                self.kind = "cut"
                raise broken(ConnectionLost()) from None

    def _read_encoded(self, until: float, _until_if_blank: float) -> None:
        self.held = self._piece(until)
        if not self.held:
            raise NoAnswer("empty", "the upstream's answer was empty")
        self.has_content = True

    def _read_refusal(self, until: float, _until_if_blank: float) -> None:
        """A refusal with its body, if that is JSON and comes within seconds."""
        payload = None
        try:
            while len(self.held) <= MAX_REFUSAL_BYTES:
                piece = self._piece(min(until, self._read_until))
                if not piece:
                    payload = None if is_encoded(self.exchange) else json_text.parse(self.held)
                    break
                self.held += piece
        except NothingYet:
            if time.monotonic() < self._read_until:
                raise
        except (ConnectionLost, json_text.BadJson):
            pass
        payload = payload if isinstance(payload, dict) else None
        headers = self.exchange.headers
        reset = headers.get("x-ratelimit-reset")
        self.refusal = Refusal(self.exchange.status, payload, headers.get("retry-after"), self.held, reset)


def is_encoded(exchange: Exchange) -> bool:
    """True if the body is compressed."""
    return exchange.headers.get("content-encoding", "identity").lower() != "identity"
