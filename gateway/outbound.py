"""A call's way up: attempts at its route, each written down before it goes out and accounted for when it is over.

admit ──> wait ──> finish
          ├─ raises NothingYet when it is time to look up, and goes on where it was when it is asked again
          └─ falls back to the next route that the operator's rule names, until there is content
"""

from __future__ import annotations

import time
from typing import Any

import msgspec

from billing.meter import UsageMeter
from foundation.deadline import Deadline, TimeIsUp
from foundation.errors import AppError, UpstreamTimeout
from gateway.attempt import Attempt, NoAnswer
from gateway.attempts import MAX_TRIES, Attempts, in_our_words, note_refusal
from gateway.failures import Failure, of_no_key, of_refusal, of_silence
from gateway.reasons import reason_of
from gateway.relay import Relay
from gateway.request import ProxyRequest
from gateway.route import Route
from gateway.router import Router, note_skipped
from upstream.refusal import Refusal

MAX_TRIES_OF_CALL = 6


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
    """One call on its way up. deadline: the call's. sticky: for `ApiKeyManager.pick`. route: the one that it is on.
    fell_back: after which failure it came there; None on its first route."""

    def __init__(
        self,
        request: ProxyRequest,
        route: Route,
        usage: UsageMeter,
        deadline: Deadline,
        sticky: str | None,
        router: Router,
    ) -> None:
        self.route = route
        self.fell_back: Failure | None = None
        self._request = request
        self._router = router
        self._left: list[dict[str, Any]] = []  # the tries at routes that it left
        self.begun = time.monotonic()
        body = route.body
        self._meter = usage.call(
            request.request_id, request.caller, route.model_name, body.stream, route.forecast, body.asked_model
        )
        self._deadline = deadline
        self._sticky = sticky
        self.attempts = self._attempts_at(route)

    def _attempts_at(self, route: Route, most: int = MAX_TRIES, billed: int = 0) -> Attempts:
        request = self._request
        return Attempts(
            route.to,
            api=request.api,
            stream=route.body.stream,
            deadline=self._deadline,
            idle_timeout=route.idle_timeout,
            free=route.body.model.endswith(":free"),
            sticky=self._sticky,
            owner=request.caller.user_id,
            request_id=request.request_id,
            begun=self.begun,
            most=most,
            billed=billed,
            pace=route.pace,
        )

    @property
    def tries(self) -> list[dict[str, Any]]:
        """Of each try that is over: key, status, kind, after_ms, ms; model and upstream if another route followed."""
        return self._left + self.attempts.log

    def admit(self) -> None:
        """Reserve what the call may cost, unless it is known only with the key who pays. Raises AppError."""
        if not self.route.to.keys.is_connected(self._request.caller.user_id):
            self._meter.admit()

    def wait(self) -> Attempt:
        """The attempt whose answer goes to the client: its first content is here, or it is the last refusal.

        Raises NothingYet when it is time to look up; AppError when the call has failed for good; ClientGone.
        """
        try:
            while True:
                attempt = self.attempts.current or self._begin_attempt()
                attempts = self.attempts
                try:
                    self._advance(attempt)
                except NoAnswer as failure:
                    if attempts.prepare_retry_without_answer(attempt, failure):
                        self._end_attempt(attempt)
                    elif not self._fall_back(of_silence(failure.kind)):
                        raise in_our_words(failure) from None
                else:
                    if attempt.refusal is None:
                        attempts.note_success(attempt)
                        self._request.body.let_go()  # no other try can need it
                        return attempt
                    if attempts.prepare_retry_after_refusal(attempt, attempt.refusal):
                        self._end_attempt(attempt)
                    elif not self._fall_back(of_refusal(attempt.refusal)):
                        return attempt
        except TimeIsUp:
            if self.attempts.current:
                self.attempts.current.kind = "timeout"
            raise UpstreamTimeout("The upstream did not begin to answer in time") from None

    def _end_attempt(self, attempt: Attempt) -> None:
        """Another one follows at the same route."""
        self._request.check_client()
        result = self.route.result_of(attempt)
        self._meter.end_attempt(result, **self.attempts.ending_of(attempt, self._request.body.data))
        self.attempts.end()

    def _begin_attempt(self) -> Attempt:
        self.attempts.pause()
        try:
            key = self.attempts.next_key()
        except AppError as error:
            if not self._fall_back(of_no_key(error)):
                raise
            key = self.attempts.next_key()
        route = self.route
        pool_key_id = key.id if route.to.upstream_id is None else None
        self._meter.dispatch(pool_key_id, route.to.upstream_id, user_pays=key.is_connected)
        exchange = route.to.exchange(route.api, key, self._request.headers, self._request.body.pieces)
        return self.attempts.begin(exchange)

    def _fall_back(self, failure: Failure | None) -> bool:
        """True if the call goes on by another route: there is a key, and its cost is reserved.

        Not for jobs, of which nobody could tell that none was started, and not once two tries may have been billed.
        """
        before, request = self.attempts, self._request
        most = MAX_TRIES_OF_CALL - len(self.tries) - (before.current is not None)
        if failure is None or not self.route.fallbacks or request.api.is_job or before.billed > 1 or most < 1:
            return False
        request.check_client()
        for route in self._router.after(request, self.route, failure):
            attempts = self._attempts_at(route, min(MAX_TRIES, most), before.billed)
            try:
                self._turn_to(route, user_pays=attempts.next_key().is_connected)
            except AppError as error:
                attempts.close()
                note_skipped(request, route.model_name, error)
                continue
            before.close()
            where = {"model": self.route.model_name, "upstream": self.route.to.name}
            self._left += [one | where for one in before.log]
            self.route, self.attempts, self.fell_back = route, attempts, failure
            return True
        return False

    def _turn_to(self, route: Route, user_pays: bool) -> None:
        ending: dict[str, Any] = {}
        if attempt := self.attempts.current:
            ending = self.attempts.ending_of(attempt, self._request.body.data)
            ending["result"] = self.route.result_of(attempt)
        self._meter.turn_to(route.model_name, route.body.asked_model, route.forecast, user_pays, **ending)

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
