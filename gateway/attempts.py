"""The tries of one call: which failures are tried again, with which key, after which pause, and for how long.

Only before the first content, which is when `UpstreamTry.advance` returns: afterwards the client has a part of one
answer, and no other can be joined to it. And never for the client's own faults, which the table in openrouter_errors
marks with Other.NONE.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from typing import Any

from accounts.users import UpstreamChoice
from formats.chat import ModelApi
from foundation.errors import AppError, UpstreamFailed, UpstreamTimeout
from foundation.logs import event
from gateway.attempt import Form, NoAnswer, UpstreamTry
from gateway.destinations import Keys
from pool.choice import PoolKey
from pool.dedicated import account_refusal, own_key_is_spent
from upstream.http import Exchange, NothingYet
from upstream.refusals import Hits, Lasts, Other, Refusal, Row, classify

log = logging.getLogger("proxy")

MAX_TRIES = 3
# A request that was sent and never answered may have been billed, and can't be marked as the same: one more, not two.
MAX_LOST = 2
PAUSE_SECONDS, MAX_PAUSE_SECONDS = 0.1, 1.0


class Tries:
    """The tries of one call. Every key picked is told how it went, if that became known, and released once.

    send: sends the call with a key. head_came: told of each try when its head is here. try_over: told of each try that
    is followed by another, before it is closed. stream: whether a stream was asked for. seconds: until the first
    content. free, sticky, owner: for `ApiKeyManager.pick`.
    """

    def __init__(
        self,
        keys: Keys,
        send: Callable[[PoolKey], Exchange],
        *,
        api: ModelApi,
        stream: bool,
        seconds: float,
        idle_timeout: float,
        free: bool,
        sticky: str | None,
        owner: int | None,
        request_id: str,
        client_is_gone: Callable[[], bool],
        head_came: Callable[[UpstreamTry], None],
        try_over: Callable[[UpstreamTry], None],
    ) -> None:
        self.current: UpstreamTry | None = None
        self.log: list[dict[str, Any]] = []
        """Of each try that is over: key, status, kind, ms."""
        self._api = api
        self._form = Form.STREAM if stream else Form.PLAIN
        self._keys = keys
        self._send = send
        self._deadline = time.monotonic() + seconds
        self._idle_timeout = idle_timeout
        self._free = free
        self._sticky = sticky
        self._owner = owner
        self._choice = None if owner is None else keys.choice_of(owner)  # one for all tries of the call
        self._request_id = request_id
        self._client_is_gone = client_is_gone
        self._head_came = head_came
        self._try_over = try_over
        self._tried: list[PoolKey] = []
        self._lost = 0
        self._pause_until = 0.0

    def wait(self, seconds: float, blank_seconds: float) -> UpstreamTry:
        """The try whose answer goes to the client: its first content is here, or it is the last refusal.

        Raises NothingYet after `seconds`, or after `blank_seconds` if a plain body is white space so far; AppError when
        the call has failed for good.
        """
        begun = time.monotonic()
        until, until_if_blank = begun + seconds, begun + blank_seconds
        while True:
            try:
                self._pause(until)
                current = self.current or self._start(self._pick())
                current.advance(self._send, until, until_if_blank)
            except NothingYet:
                self._check_deadline()
                raise
            except NoAnswer as failure:
                if not self._again_without_answer(current, failure):
                    raise _in_our_words(failure) from None
                continue
            if current.refusal is None:
                current.kind = "answered"
                self._keys.succeeded(current.key)
                return current
            if not self._again_after_refusal(current, current.refusal):
                return current

    @property
    def has_blank(self) -> bool:
        """True if OpenRouter sent signs of life with which an answer may begin before it is known."""
        return self.current is not None and self.current.form is self._form and self.current.has_blank

    def take_blank(self) -> bytes:
        """Those signs of life, to be passed on now; b"" if there are none."""
        return self.current.take_blank() if self.current and self.has_blank else b""

    def end(self) -> None:
        """The call is over: close the exchange, at once if it was not whole, and give the key back."""
        current, self.current = self.current, None
        if current is None:
            return
        current.close()
        self._keys.release(current.key)
        ms = round(((current.known or time.monotonic()) - current.begun) * 1000, 1)
        self.log.append({"key": current.key.name, "status": current.status, "kind": current.kind, "ms": ms})

    def _start(self, key: PoolKey) -> UpstreamTry:
        self._tried.append(key)
        self.current = UpstreamTry(self._api, key, self._idle_timeout, self._head_came)
        return self.current

    def _pick(self, tried: tuple[PoolKey, ...] = (), other: Other = Other.KEY) -> PoolKey:
        return self._keys.pick(
            tried, other=other, free=self._free, sticky=self._sticky, owner=self._owner, choice=self._choice
        )

    def _pause(self, until: float) -> None:
        """The rest of a back-off. Raises NothingYet if it is longer than the caller can wait."""
        while (now := time.monotonic()) < self._pause_until:
            if now >= until:
                raise NothingYet
            time.sleep(min(self._pause_until, until) - now)

    def _check_deadline(self) -> None:
        """Raises UpstreamTimeout if content should have come by now."""
        current = self.current
        if time.monotonic() < self._deadline or (current and current.has_content):
            return
        if current:
            current.kind = "timeout"
        raise UpstreamTimeout("The upstream did not begin to answer in time")

    def _again_without_answer(self, current: UpstreamTry, failure: NoAnswer) -> bool:
        current.kind = failure.kind
        fields = {"key": current.key.name, "kind": failure.kind, "reason": str(failure)}
        event(log, "upstream_unreachable", logging.WARNING, request_id=self._request_id, **fields)
        self._lost += failure.kind == "lost"
        return self._lost < MAX_LOST and self._again(Other.KEY, pause=True, any_key=True)

    def _again_after_refusal(self, current: UpstreamTry, refusal: Refusal) -> bool:
        row = note_refusal(self._request_id, current.key, refusal)
        current.kind = row.name
        self._keys.refused(current.key, refusal, row)
        if row.other is Other.NONE:
            return False
        servers_fault = refusal.status >= 500 or refusal.status == 408
        again = self._again(row.other, pause=servers_fault or refusal.status == 429, any_key=servers_fault)
        is_spent = row.hits is Hits.KEY and row.lasts in {Lasts.RESET, Lasts.RELOAD}
        if not again and is_spent and self._choice is UpstreamChoice.DEDICATED_ONLY:
            raise own_key_is_spent()
        if not again and current.key.is_connected and (told := account_refusal(refusal, row)):
            raise told
        return again

    def _again(self, other: Other, *, pause: bool, any_key: bool) -> bool:
        """End this try and make ready for the next one; False if there is no try, time, key or client left.

        any_key: the key was not at fault, so if there is no other, the same may do; a user's own is the first choice.
        """
        count = len(self._tried)
        pause_until = time.monotonic() + (_pause_seconds(count) if pause else 0.0)
        if count >= MAX_TRIES or pause_until >= self._deadline or self._client_is_gone():
            return False
        tried = tuple(key for key in self._tried if key.owner_id is None or not any_key)
        try:
            key = self._pick(tried, other)
        except AppError:
            if not any_key:
                return False
            try:
                key = self._pick()
            except AppError:
                return False
        if self.current:
            self._try_over(self.current)
        self.end()
        self._pause_until = pause_until
        self._start(key)
        return True


def note_refusal(request_id: str, key: PoolKey, refusal: Refusal) -> Row:
    """Log a refusal, and say what it means."""
    row = classify(refusal)
    fields = {"key": key.name, "kind": row.name, "status": refusal.status, "rest_seconds": row.rest_seconds}
    event(log, "upstream_refused", logging.WARNING, request_id=request_id, **fields)
    return row


def _pause_seconds(tries: int) -> float:
    """Full jitter: calls that failed together don't come back together."""
    return random.uniform(0, min(PAUSE_SECONDS * 2 ** (tries - 1), MAX_PAUSE_SECONDS))  # noqa: S311 - guards nothing


def _in_our_words(failure: NoAnswer) -> AppError:
    if failure.kind in {"unreachable", "lost"}:
        return UpstreamFailed("The upstream could not be reached; try again shortly")
    return UpstreamFailed("The upstream sent nothing usable in answer; try again shortly")
