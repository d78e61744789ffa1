"""A call's way up: attempts at its route, each written down before it goes out and accounted for when it is over.

admit ──> wait ──> finish
          └─ raises NothingYet when it is time to look up, and goes on where it was when it is asked again
"""

from __future__ import annotations

import time
from typing import Any

import msgspec

from billing.meter import UsageMeter
from foundation.deadline import Deadline, TimeIsUp
from foundation.errors import AppError, UpstreamTimeout
from gateway.attempt import Attempt, NoAnswer
from gateway.attempts import Attempts, in_our_words, note_refusal
from gateway.reasons import reason_of
from gateway.relay import Relay
from gateway.request import ProxyRequest
from gateway.route import Route
from upstream.refusal import Refusal


class Finished(msgspec.Struct, frozen=True):
    """How a call ended. key: of its last attempt, by name. usage: what that told. events: of its stream. cost_nano:
    None if it is not known by now."""

    key: str | None
    first_byte_ms: float | None
    total_ms: float
    usage: dict[str, Any]
    events: int
    cost_nano: int | None


class Outbound:
    """One call on its way up. deadline: the call's. sticky: for `ApiKeyManager.pick`."""

    def __init__(
        self, request: ProxyRequest, route: Route, usage: UsageMeter, deadline: Deadline, sticky: str | None
    ) -> None:
        self.route = route
        self._request = request
        self.begun = time.monotonic()
        body = route.body
        self._meter = usage.call(
            request.request_id, request.caller, route.model_name, body.stream, route.forecast, body.asked_model
        )
        self._deadline = deadline
        self.attempts = Attempts(
            route.to,
            api=request.api,
            stream=body.stream,
            deadline=deadline,
            idle_timeout=route.idle_timeout,
            free=body.model.endswith(":free"),
            sticky=sticky,
            owner=request.caller.user_id,
            request_id=request.request_id,
        )

    def admit(self) -> None:
        """Reserve what the call may cost, unless it is known only with the key who pays. Raises AppError."""
        if not self.route.to.keys.is_connected(self._request.caller.user_id):
            self._meter.admit()

    def wait(self) -> Attempt:
        """The attempt whose answer goes to the client: its first content is here, or it is the last refusal.

        Raises NothingYet when it is time to look up; AppError when the call has failed for good; ClientGone.
        """
        attempts = self.attempts
        try:
            while True:
                attempt = attempts.current or self._begin_attempt()
                try:
                    self._advance(attempt)
                except NoAnswer as failure:
                    if not attempts.prepare_retry_without_answer(attempt, failure):
                        raise in_our_words(failure) from None
                else:
                    if attempt.refusal is None:
                        attempts.note_success(attempt)
                        self._request.body.let_go()  # no other try can need it
                        return attempt
                    if not attempts.prepare_retry_after_refusal(attempt, attempt.refusal):
                        return attempt
                self._request.check_client()
                result = self.route.result_of(attempt)
                self._meter.end_attempt(result, **attempts.ending_of(attempt, self._request.body.data))
                attempts.end()
        except TimeIsUp:
            if attempts.current:
                attempts.current.kind = "timeout"
            raise UpstreamTimeout("The upstream did not begin to answer in time") from None

    def _begin_attempt(self) -> Attempt:
        route, attempts = self.route, self.attempts
        attempts.pause()
        key = attempts.next_key()
        pool_key_id = key.id if route.to.upstream_id is None else None
        self._meter.dispatch(pool_key_id, route.to.upstream_id, user_pays=key.is_connected)
        return attempts.begin(route.to.exchange(route.api, key, self._request.headers, self._request.body.pieces))

    def _advance(self, attempt: Attempt) -> None:
        if attempt.form is None:
            attempt.wait_head(self._deadline)
            if not attempt.exchange.complete:  # what is whole is noted with its cost
                # By its name its cost is asked for, should this process die before it is known.
                self.note_answer(attempt)
        attempt.wait_answer(self._deadline)

    def note_answer(self, attempt: Attempt) -> None:
        """Write down OpenRouter's name for the answer, as soon as it is known."""
        self._meter.note_answer(self.route.generation_id(attempt))

    def finish(self, outcome: str, status: int, error: AppError | Refusal | None, relay: Relay | None) -> Finished:
        """End the exchange, at once if it was not whole, and keep accounts. error: what the client is told."""
        attempts, last = self.attempts, self.attempts.current
        if relay and last and not last.events:
            last.usage = relay.usage
        result = self.route.result_of(last) if last else None
        late = relay.refusal if relay else last and last.error
        reason = reason_of(error or late or None, self._request.body.data)
        attempts.close()
        self._request.body.let_go()
        if late and last and not last.refusal:  # after content: the key has done its work
            note_refusal(self._request.request_id, last.key, late)
        first_byte_ms = (last.known - self.begun) * 1000 if last and last.known is not None else None
        total_ms = (time.monotonic() - self.begun) * 1000
        cost_nano = self._meter.finish(
            result,
            http_status=status,
            outcome=outcome,
            first_byte_ms=None if first_byte_ms is None else round(first_byte_ms),
            total_ms=round(total_ms),
            **reason,
        )
        usage = (result and result.usage) or {}
        events = last.event_count if last else 0
        return Finished(last.key.name if last else None, first_byte_ms, total_ms, usage, events, cost_nano)
