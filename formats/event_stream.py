"""Reads server-sent events as they pass: usage, errors, end; in bounded memory.

Whole events go through, byte for byte; an event cut across network chunks is held until its end is here. That costs
nothing (upstreams send whole events) and it means that between two calls of `feed` the client is always at an event's
border: a comment or an error of our own can be put there without splitting anything.
"""

from __future__ import annotations

import re
from typing import Any

from formats import usage_block
from formats.chat import ModelApi, data_of, is_done
from foundation import json_text
from foundation.errors import UpstreamFailed
from upstream.disclosure import hide_account_in, is_clean
from upstream.refusal import Refusal

EVENT_ENDS = (b"\n\n", b"\n\r\n", b"\r\r")
BLANK_LINE = re.compile(rb"\r\n\r\n|\n\n|\n\r\n|\r\r")
LINE_ENDS = re.compile(rb"[\r\n]{1,3}\Z")
KEEPALIVE = b": keep-alive\n\n"
# A longer event than is held else may be an error all the same, if this is in it: it is held up to this size and read.
MAX_LOOKED_AT = 1024 * 1024
NO_REASONS = (b'"finish_reason":null', b'"finish_reason": null')


def events_in(data: bytes) -> list[bytes]:
    """Whole events, one by one."""
    ends = [border.end() for border in BLANK_LINE.finditer(data)]
    return [data[a:b] for a, b in zip([0, *ends], [*ends, len(data)], strict=True) if b > a]


class EventStream:
    """One answer's events. After the end: `usage` and the first `refusal` if events held them, `done` if the event came
    that ends a stream of this format, `finished` if a choice said why it ended.

    `at_border` is False only within an event that is too long to be held.
    """

    def __init__(self, api: ModelApi) -> None:
        self.usage: dict[str, Any] | None = None
        self.refusal: Refusal | None = None
        self.done = self.finished = False
        self.count = 0
        """Data events so far, more or less: about as many as there were tokens."""
        self.at_border = True
        self.is_unread = False
        """True if an event was too long to be read: it may have been the last one."""
        self._api = api
        self._end_mark = api.end_mark
        self._held = bytearray()

    def feed(self, data: bytes) -> bytes:
        """Take a network chunk; return what may go on to the client now, possibly nothing."""
        if not self._held and self.at_border and data.endswith(b"\n\n"):
            return self._look(data)  # nearly every chunk of a well-behaved upstream
        searched = max(0, len(self._held) - 3)
        self._held += data
        ready = b""
        if not self.at_border:
            ready, searched = self._rest_of_long_event(searched), 0
        if not self.at_border:
            return ready
        if cut := self._last_border(searched):
            ready += self._look(bytes(self._held[:cut]))
            del self._held[:cut]
        return ready + self._overflow()

    def finish(self) -> bytes:
        """The upstream has ended: what was still held, an event without its blank line."""
        rest, self._held = bytes(self._held), bytearray()
        if self.at_border:
            return self._look(rest)
        return rest

    def _last_border(self, searched: int) -> int:
        """Where the last whole event in `_held` ends, or 0."""
        held = self._held
        return max((at + len(mark) for mark in EVENT_ENDS if (at := held.rfind(mark, searched)) >= 0), default=0)

    def _rest_of_long_event(self, searched: int) -> bytes:
        border = BLANK_LINE.search(self._held, searched)
        if border:
            cut, self.at_border = border.end(), True
        else:
            # Line ends stay: the next chunk may make a blank line of them.
            tail = LINE_ENDS.search(self._held)
            cut = tail.start() if tail else len(self._held)
        rest = bytes(self._held[:cut])
        del self._held[:cut]
        return rest

    def _overflow(self) -> bytes:
        held = len(self._held)
        if held <= self._api.max_held_bytes or (held <= MAX_LOOKED_AT and b'"error"' in self._held):
            return b""
        self.at_border, self.is_unread = False, True
        return self._rest_of_long_event(0)

    def _look(self, events: bytes) -> bytes:
        """Note what whole events say; return them, cleaned where they hold an error."""
        self.count += events.count(b"data:")
        if not self._may_matter(events):
            return events
        return b"".join(map(self._look_at_one, events_in(events)))

    def _may_matter(self, events: bytes) -> bool:
        """True if these have to be read. What they hold is decided by that alone, not by the words looked for here."""
        if b'"usage"' in events or b'"error"' in events or self._end_mark in events:
            return True
        reasons = events.count(self._api.reason_mark) if self._api.has_reasons else 0
        return reasons > 0 and reasons != sum(map(events.count, NO_REASONS))

    def _look_at_one(self, event: bytes) -> bytes:
        data = data_of(event) if self._may_matter(event) else None
        if data is None:
            return event
        if is_done(data):
            self.done = self.done or self._api.has_reasons
            return event
        try:
            payload = json_text.parse(data)
        except json_text.BadJson:  # an error perhaps, but no client can read it as one
            return hide_account_in(event)
        return self._look_at_payload(event, payload) if isinstance(payload, dict) else event

    def _look_at_payload(self, event: bytes, payload: dict[str, Any]) -> bytes:
        api = self._api
        self.done = self.done or api.is_end(payload)
        self.finished = self.finished or api.is_finished(payload)
        if (usage := api.usage_in(payload)) is not None:
            self.usage = api.with_usage(self.usage, usage_block.to_the_nano(event, usage))
        refusal = api.refusal_in(payload)
        if refusal is None:
            return event
        self.refusal = self.refusal or refusal
        try:
            shown = api.told(payload)
            return event if shown == payload and is_clean(event) else api.event(shown)
        except json_text.BadJson:
            return self._in_our_words()

    def _in_our_words(self) -> bytes:
        failure = UpstreamFailed("The upstream reported an error that can't be passed on")
        self.refusal = self.refusal or Refusal(failure.status, None, is_late=True)
        return self._api.error_event(failure, None, "", self.count)
