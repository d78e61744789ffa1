"""One attempt at a call: one key, one exchange, and what comes before the first content.

Until there is content nothing has to go to the client but signs of life, so everything can be tried again:

    sent ──> head ──┬─> stream   events are held until one has content
                    ├─> plain    held until it is whole and looked at, or too long for that
                    ├─> unread   sound, or compressed though we asked for none
                    └─> refusal  read to its end
    lost: no connection, or an answer that ended without content (NoAnswer)

All of it goes by the call's deadline: each step raises NothingYet when it is time to look up, and goes on where it was
when it is asked again. A plain answer that has begun is given the time of an idle one anew with each piece.
"""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime
from typing import Any

from formats import usage_block, videos
from formats.chat import Kind, ModelApi
from formats.event_stream import EventStream, events_in
from foundation import json_text
from foundation.deadline import Deadline, TimeIsUp
from foundation.errors import AppError, UpstreamFailed, UpstreamTimeout
from gateway.forms import Form, form_of_body, form_of_head, is_encoded
from pool.choice import PoolKey
from upstream.connection import ConnectFailed, ConnectionLost, NoFilesLeft
from upstream.disclosure import hide_account, hide_account_in, is_clean
from upstream.http import Exchange
from upstream.known_keys import Screen
from upstream.refusal import Refusal, seconds_to_wait
from upstream.refusal_body import object_in, reason_in

# A plain body up to this size is held until it is whole and looked at: if it breaks off, or is an error, the client's
# answer can still be chosen. A longer one passes as it comes.
MAX_PLAIN_LOOKED_AT = 1024 * 1024
MAX_REFUSAL_BYTES = 1024 * 1024
REFUSAL_SECONDS = 5.0
GENERATION_ID = re.compile(rb"gen-[A-Za-z0-9_-]{1,60}")
FIRST_ID = re.compile(rb'"id"\s*:\s*"([^"]*)"')  # those that follow may be the client's own words
MAX_ID_BYTES = 16 * 1024
# Those that may come down, in an answer's head or in an error of ours.
PASSED_HEADERS = ("content-type", "x-generation-id", "x-provider-name", "content-encoding")


class NoAnswer(Exception):
    """An attempt that ended without content and without a refusal.

    kind: `unreachable` (nothing was sent), `no-files` (likewise, by our own fault), `lost` (sent, but no head came),
    `cut`, `empty` or `page` (after the head).
    """

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind


class Attempt:
    """One attempt. Once `wait_answer` has returned, the answer is known.

    exchange: once it was sent. form: the answer's, by its head, then by its first bytes. held: its bytes so far, as the
    client may see them; the exchange has the rest, unless `is_whole`. refusal: OpenRouter's, by its status or in the
    place of content. error: one beside content, with which the answer passes. events: reads the rest of a stream, if it
    is one. job_id: of the job that it started. kind: in a word how it went, for the log; the caller sets it where it
    knows better.
    """

    def __init__(self, api: ModelApi, key: PoolKey, exchange: Exchange, idle_timeout: float) -> None:
        self.api = api
        self.key = key
        self.exchange = exchange
        self.form: Form | None = None
        self.held = b""
        self.is_whole = False
        self.refusal: Refusal | None = None
        self.error: Refusal | None = None
        self.usage: dict[str, Any] | None = None
        self.job_id: str | None = None
        self.events: EventStream | None = None
        self.kind = "unfinished"
        self.begun = time.monotonic()
        self.known: float | None = None
        """When the answer was known, in monotonic seconds."""
        self.has_content = False
        self._idle_timeout = idle_timeout
        self._refusal_deadline: Deadline | None = None
        self._screen = Screen()
        self._blank_bytes = 0
        self._only_comments = True
        self._has_begun = False

    @property
    def status(self) -> int | None:
        """OpenRouter's status, once it is here."""
        return self.exchange.status or None

    @property
    def generation_id(self) -> str | None:
        """OpenRouter's name for the answer: from its header, else out of its first bytes."""
        if name := self.exchange.headers.get("x-generation-id"):
            return name
        found = FIRST_ID.search(self.held[:MAX_ID_BYTES])
        return found.group(1).decode("ascii") if found and GENERATION_ID.fullmatch(found.group(1)) else None

    @property
    def told_usage(self) -> dict[str, Any] | None:
        """The usage block of its answer, once it has come."""
        return self.events.usage if self.events else self.usage

    @property
    def event_count(self) -> int:
        """How many events of its stream have come."""
        return self.events.count if self.events else 0

    def close(self) -> None:
        """End the exchange; at once if its answer was not whole."""
        self.exchange.close()

    @property
    def has_blank(self) -> bool:
        """True if there are signs of life to pass on: the answer may begin with them, and still be tried again."""
        return self._blank_bytes > 0

    def take_blank(self) -> bytes:
        """Comments or white space that OpenRouter sent before anything else, to be passed on now."""
        blank, self.held, self._blank_bytes = self.held[: self._blank_bytes], self.held[self._blank_bytes :], 0
        return blank

    def wait_head(self, deadline: Deadline) -> None:
        """Send the call, and learn the answer's form. Raises NothingYet, TimeIsUp, NoAnswer."""
        try:
            self.exchange.wait_head(deadline)
        except NoFilesLeft as error:
            raise NoAnswer("no-files", str(error)) from None
        except ConnectFailed as error:
            raise NoAnswer("unreachable", str(error)) from None
        except ConnectionLost as error:
            raise NoAnswer("lost", str(error)) from None
        headers = self.exchange.headers
        passed = {name: headers[name] for name in PASSED_HEADERS if name in headers}
        text = "\n".join(passed.values())  # looked through at once; no header has a line's end, and no secret hides one
        if (shown := hide_account(text)) != text:
            headers |= zip(passed, shown.split("\n"), strict=True)
        self.form = form_of_head(self.exchange)

    def read(self, deadline: Deadline) -> bytes:
        """The body's next bytes, without the keys that we know; b"" at its end. Raises as the exchange does."""
        exchange = self.exchange
        while data := exchange.read(deadline):
            if shown := self._screen.feed(data, exchange.complete):
                return shown
        return self._screen.feed(b"", True)

    def wait_answer(self, deadline: Deadline) -> None:
        """Go on from the head until the answer is known.

        Raises NothingYet, TimeIsUp, NoAnswer; AppError for a plain answer that began and can't be passed on.
        """
        try:
            if self.form is Form.REFUSAL:
                self._read_refusal(deadline)
            elif self.form is Form.UNREAD:
                self._read_encoded(deadline)
            else:
                if not self._has_begun:
                    self._read_beginning(deadline)
                if self.events:
                    self._read_stream(self.events, deadline)
                else:
                    self._read_plain(deadline)
        except ConnectionLost as error:
            raise NoAnswer("cut", str(error)) from None
        if self.api.is_job and not self.job_id and not self.refusal:  # nobody could ask for it
            raise UpstreamFailed("The upstream did not say the name of the job that it started")
        self.known = time.monotonic()

    # ── the four forms

    def _read_beginning(self, deadline: Deadline) -> None:
        """White space, until the body shows what it is."""
        told = self.form or Form.PLAIN
        while (form := form_of_body(self.held, told)) is None and len(self.held) <= self.api.max_held_bytes:
            piece = self.read(deadline)
            if not piece:
                break
            self.held += piece
            self._blank_bytes = len(self.held) if self.held.isspace() else 0
        if form is Form.PAGE:
            raise NoAnswer("page", "the upstream answered with a web page")
        self.form, self._has_begun = form or told, True
        if self.form is Form.STREAM:
            self.events = EventStream(self.api)
            begun, self.held, self._blank_bytes = self.held, b"", 0
            self._sort(self.events, self.events.feed(begun))
        elif (self.held and not self.held.isspace()) or len(self.held) > self.api.max_held_bytes:
            self.has_content, self._blank_bytes = True, 0
            deadline.renew(self._idle_timeout)

    def _read_stream(self, events: EventStream, deadline: Deadline) -> None:
        while not self.has_content and not self.refusal:
            data = self.read(deadline)
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

    def _read_plain(self, deadline: Deadline) -> None:
        while not self.exchange.complete:  # nearly every answer came in one piece
            if len(self.held) > MAX_PLAIN_LOOKED_AT:
                return
            try:
                piece = self.read(deadline)
            except (TimeIsUp, ConnectionLost) as error:
                if not self.has_content:
                    raise
                self.kind = "stalled" if isinstance(error, TimeIsUp) else "cut"
                # The answer had begun, so it was generated, and billed: another attempt would be billed too.
                raise broken(error) from None
            self.held += piece
            if piece:
                deadline.renew(self._idle_timeout)
        if not self.has_content:
            raise NoAnswer("empty", "the upstream's answer was empty")
        self.is_whole = len(self.held) <= MAX_PLAIN_LOOKED_AT
        if self.is_whole:
            self._look_at_whole()

    def _look_at_whole(self) -> None:
        """Note what a whole plain body says; clean it if it holds an error."""
        try:
            payload = json_text.parse(self.held)
            if isinstance(payload, dict):
                self._look_at_payload(payload)
        except json_text.BadJson:
            if not self.exchange.delimited:  # its end was the connection's: what is no JSON text was cut
                self.kind = "cut"
                raise broken(ConnectionLost()) from None
            if b'"error"' in self.held:  # damaged, but perhaps readable to people
                self.held = hide_account_in(self.held)

    def _look_at_payload(self, payload: dict[str, Any]) -> None:
        if (usage := self.api.usage_in(payload)) is not None:
            self.usage = self.api.with_usage(None, usage_block.to_the_nano(self.held, usage))
        if self.api.is_job and (job_id := videos.job_id_in(payload)):
            self.job_id, self.held = job_id, videos.shown(payload, job_id)
            return
        found = self.api.refusal_in(payload)
        if found is None:
            return
        if self.api.kind_of_payload(payload) is Kind.ERROR:
            self.refusal = found
        else:
            self.error = found
        try:
            shown = self.api.told(payload)
            self.held = self.held if shown == payload and is_clean(self.held) else json_text.write(shown)
        except json_text.BadJson:
            raise UpstreamFailed("The upstream reported an error that can't be passed on") from None

    def _read_encoded(self, deadline: Deadline) -> None:
        self.held = self.read(deadline)
        if not self.held:
            raise NoAnswer("empty", "the upstream's answer was empty")
        self.has_content = True

    def _read_refusal(self, deadline: Deadline) -> None:
        """A refusal with its body, as far as that comes within seconds."""
        self._refusal_deadline = self._refusal_deadline or deadline.within(REFUSAL_SECONDS)
        is_whole = False
        try:
            while len(self.held) <= MAX_REFUSAL_BYTES and not is_whole:
                piece = self.read(self._refusal_deadline)
                self.held += piece
                is_whole = not piece
        except (TimeIsUp, ConnectionLost):
            pass
        status, headers = self.exchange.status, self.exchange.headers
        payload, body, reason = None, self.held, ""
        if is_whole and not is_encoded(self.exchange):
            payload, body = object_in(status, self.held)
            reason = "" if payload else reason_in(self.held)
        wait = seconds_to_wait(headers.get("retry-after"), datetime.now(UTC))
        reset = headers.get("x-ratelimit-reset")
        self.refusal = Refusal(status, payload, wait, body, reset, reason=reason)


def broken(error: TimeIsUp | ConnectionLost) -> AppError:
    """What a client is told of an answer that did not come to its end."""
    if isinstance(error, TimeIsUp):
        return UpstreamTimeout("The upstream fell silent within its answer")
    return UpstreamFailed("The upstream's answer broke off")
