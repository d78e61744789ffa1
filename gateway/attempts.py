"""The attempts at one call: which failures are tried again, with which key, after which pause.

Only before the first content, which is when an attempt's answer is known: afterwards the client has a part of one
answer, and no other can be joined to it. And never for the client's own faults, which the table in upstream/refusals.py
marks with Other.NONE.
"""

from __future__ import annotations

import logging
import random
import time
from typing import Any

from accounts.users import UpstreamChoice
from formats.chat import ModelApi
from foundation.deadline import Deadline
from foundation.errors import AppError, Busy, PaymentRequired, UpstreamFailed
from foundation.json_members import Text
from foundation.logs import event
from gateway.attempt import Attempt, NoAnswer
from gateway.destinations import Destination
from gateway.failures import Failure, of_refusal, of_silence
from gateway.forms import Form
from gateway.paces import FAILED_SECONDS, Pace
from gateway.reasons import reason_of
from pool.choice import PoolKey
from pool.dedicated import account_refusal, own_key_is_spent
from upstream.http import Exchange
from upstream.refusal import Refusal, asked_seconds
from upstream.refusals import Hits, Other, Row, classify

log = logging.getLogger("proxy")

MAX_TRIES = 3
PAUSE_SECONDS, MAX_PAUSE_SECONDS = 0.1, 1.0
# Servers that ask for a longer wait are not waited for: the client is told.
MAX_ASKED_SECONDS = 5.0


class Attempts:
    """The attempts at one call: gateway/outbound.py makes them, each with the key that is next here. Every key is told
    how it went, if that became known, and released once.

        next_key ──> begin ──┬─> note_success
           └─────────────────┴─ prepare_retry_...: there is another key, so that this one can end

    stream: whether a stream was asked for. deadline: the call's. begun: when the call began, monotonic. idle_timeout:
    of silence within an answer. free, sticky, owner: for `ApiKeyManager.pick`. most: tries. billed: how many before
    these may have been billed. pace: is told of each how soon it was answered.
    """

    def __init__(
        self,
        to: Destination,
        *,
        api: ModelApi,
        stream: bool,
        deadline: Deadline,
        idle_timeout: float,
        free: bool,
        sticky: str | None,
        owner: int | None,
        request_id: str,
        begun: float,
        most: int = MAX_TRIES,
        billed: int = 0,
        pace: Pace | None = None,
    ) -> None:
        self.current: Attempt | None = None
        self.log: list[dict[str, Any]] = []
        """Of each attempt that is over: key, status, kind, when it began, how long it took."""
        self._begun = begun
        self._api = api
        self._form = Form.STREAM if stream else Form.PLAIN
        self._to = to
        self._keys = to.keys
        self._deadline = deadline
        self._idle_timeout = idle_timeout
        self._free = free
        self._sticky = sticky
        self._owner = owner
        self._choice = None if owner is None else to.keys.choice_of(owner)  # one for all attempts at the call
        self._request_id = request_id
        self._tried: list[PoolKey] = []
        self._next: PoolKey | None = None
        self._most = most
        self._pace = pace
        self._is_waiting = False
        self.billed = billed
        """How many of the call's attempts may have been billed."""
        self._pause_until = 0.0
        to.retries.note_call(owner)

    def next_key(self) -> PoolKey:
        """The key for the next attempt. Raises AppError if there is none, or nobody there to send it to."""
        if self._next is None:
            self._to.reach.check()
            self._next = self._take(self._pick())
        return self._next

    def begin(self, exchange: Exchange) -> Attempt:
        """Make the next attempt by this exchange, with `next_key`."""
        key, self._next = self.next_key(), None
        self.current = Attempt(self._api, key, exchange, self._idle_timeout)
        if self._pace:
            self._pace.begin()
            self._is_waiting = True
        return self.current

    def pause(self) -> None:
        """The rest of a back-off. Raises NothingYet when it is time to look up, TimeIsUp."""
        while (left := self._pause_until - time.monotonic()) > 0:
            time.sleep(min(left, self._deadline.wait()))

    @property
    def has_blank(self) -> bool:
        """True if OpenRouter sent signs of life with which an answer may begin before it is known."""
        return self.current is not None and self.current.form is self._form and self.current.has_blank

    def take_blank(self) -> bytes:
        """Those signs of life, to be passed on now; b"" if there are none."""
        return self.current.take_blank() if self.current and self.has_blank else b""

    def note_success(self, attempt: Attempt) -> None:
        """The attempt has content: its answer is the call's."""
        attempt.kind = "answered"
        self._note_pace(_ms_of(attempt) / 1000)
        self._to.reach.note_answer()
        self._keys.note_success(attempt.key)

    def prepare_retry_without_answer(self, attempt: Attempt, failure: NoAnswer) -> bool:
        """True if another attempt is to be made."""
        attempt.kind = failure.kind
        fields = {"key": attempt.key.name, "kind": failure.kind, "reason": str(failure)}
        if failure.kind == "no-files":
            event(log, "no_files_left", logging.ERROR, request_id=self._request_id, **fields)
            return False
        if failure.kind != "empty":
            self._to.reach.note_failure()
        event(log, "upstream_unreachable", logging.WARNING, request_id=self._request_id, **fields)
        if self._api.is_job and failure.kind != "unreachable":
            return False  # it may have begun: a second one would cost dollars, and nobody could fetch the first
        return self._prepare_retry(Other.KEY, self._back_off(), any_key=True, may_be_billed=failure.kind == "lost")

    def prepare_retry_after_refusal(self, attempt: Attempt, refusal: Refusal) -> bool:
        """True if another attempt is to be made. Raises AppError if the call's answer is ours to word."""
        row = note_refusal(self._request_id, attempt.key, refusal)
        attempt.kind = row.name
        self._note_refusal(attempt.key, refusal, row)
        servers_fault = refusal.status >= 500 or refusal.status == 408
        if refusal.payload is not None:
            self._to.reach.note_answer()
        elif servers_fault:  # the edge answered in its place
            self._to.reach.note_failure()
        if row.other is Other.NONE or (servers_fault and self._api.is_job):
            return False
        pause_seconds = self._back_off() if servers_fault or refusal.status == 429 else 0.0
        if servers_fault:
            pause_seconds = max(pause_seconds, asked_seconds(refusal))
        if self._prepare_retry(row.other, pause_seconds, servers_fault, refusal.may_be_billed):
            return True
        told = row.answer(refusal) if row.answer and row.hits is Hits.KEY else None
        if isinstance(told, PaymentRequired) and self._choice is UpstreamChoice.DEDICATED_ONLY:
            raise own_key_is_spent()
        if attempt.key.is_connected and (ours := account_refusal(refusal, row)):
            raise ours
        return False

    def _note_refusal(self, key: PoolKey, refusal: Refusal, row: Row) -> None:
        """Tell the key, if it is about it: OpenRouter says 200 once it has checked key and account."""
        if refusal.is_late:
            self._keys.note_success(key)
        elif self._free or row.hits is not Hits.FREE_MODELS:
            self._keys.note_refusal(key, refusal, row)

    def ending_of(self, attempt: Attempt, sent: Text) -> dict[str, Any]:
        """How an attempt went that another one follows, for the log of requests. sent: the call's body."""
        facts = {"error_type": attempt.kind, "http_status": attempt.status, "total_ms": round(_ms_of(attempt))}
        return reason_of(attempt.refusal, sent) | facts

    def end(self) -> None:
        """The attempt is over: close its exchange, at once if it was not whole, and give the key back."""
        current, self.current = self.current, None
        if current is None:
            return
        current.close()
        if current.kind == "timeout" and current.status is None:
            self._to.reach.note_failure()
        self._keys.release(current.key)
        self._note_pace(max(_ms_of(current) / 1000, FAILED_SECONDS) if _has_failed(current) else None)
        times = {"after_ms": round((current.begun - self._begun) * 1000, 1), "ms": round(_ms_of(current), 1)}
        self.log.append({"key": current.key.name, "status": current.status, "kind": current.kind, **times})

    def _note_pace(self, seconds: float | None) -> None:
        """Tell it once for each attempt: an answer that began may still break off."""
        if self._pace and self._is_waiting:
            self._is_waiting = False
            self._pace.end(seconds)

    def close(self) -> None:
        """The call is over."""
        self.end()
        if self._next:  # and never used
            self._keys.release(self._next)
            self._next = None

    def _take(self, key: PoolKey) -> PoolKey:
        self._tried.append(key)
        return key

    def _pick(self, tried: tuple[PoolKey, ...] = (), other: Other = Other.KEY) -> PoolKey:
        return self._keys.pick(
            tried, other=other, free=self._free, sticky=self._sticky, owner=self._owner, choice=self._choice
        )

    def _back_off(self) -> float:
        return _pause_seconds(len(self._tried))

    def _prepare_retry(self, other: Other, pause_seconds: float, any_key: bool, may_be_billed: bool) -> bool:
        """Make ready for the next attempt, after a pause; False if there is no attempt, time or key left.

        pause_seconds: 0 if servers neither fail nor limit, so that retries are no load to be spared. any_key: the key
        was not at fault, so if there is no other, the same may do; a user's own is the first choice. may_be_billed:
        this attempt was, perhaps; a call can't be marked as the same, so there is one more attempt, not two.
        """
        is_last = self.billed > 0
        self.billed += may_be_billed
        if is_last or len(self._tried) >= self._most or pause_seconds >= min(self._deadline.left, MAX_ASKED_SECONDS):
            return False
        if self._to.reach.is_away or (pause_seconds and not self._to.retries.take(self._owner)):
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
        self._next = self._take(key)
        self._pause_until = time.monotonic() + pause_seconds
        return True


def note_refusal(request_id: str, key: PoolKey, refusal: Refusal) -> Row:
    """Log a refusal, and say what it means."""
    row = classify(refusal)
    fields = {"key": key.name, "kind": row.name, "status": refusal.status, "rest_seconds": row.rest_seconds}
    event(log, "upstream_refused", logging.WARNING, request_id=request_id, **fields)
    return row


def _has_failed(attempt: Attempt) -> bool:
    """True if the upstream is at fault for an attempt without an answer, and not its client."""
    if attempt.refusal:
        return of_refusal(attempt.refusal) in {Failure.AWAY, Failure.RATE_LIMITED}
    return attempt.kind != "unfinished" and of_silence(attempt.kind) is not None


def _ms_of(attempt: Attempt) -> float:
    return ((attempt.known or time.monotonic()) - attempt.begun) * 1000


def _pause_seconds(tries: int) -> float:
    """Full jitter: calls that failed together don't come back together."""
    return random.uniform(0, min(PAUSE_SECONDS * 2 ** (tries - 1), MAX_PAUSE_SECONDS))  # noqa: S311 - guards nothing


def in_our_words(failure: NoAnswer) -> AppError:
    """What a client is told when no attempt was answered."""
    if failure.kind == "no-files":
        return Busy("The service has as many connections open as it may; try again shortly")
    if failure.kind in {"unreachable", "lost"}:
        return UpstreamFailed("The upstream could not be reached; try again shortly")
    return UpstreamFailed("The upstream sent nothing usable in answer; try again shortly")
