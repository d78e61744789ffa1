"""One request upstream and its answer back: admit, try, begin, pass on, finish.

What goes up is the client's body, byte for byte, under headers built here from lists. What comes down is OpenRouter's
status and bytes under headers built from a list; only errors are cleaned of what identifies our account.

    admitted ──> attempted ──> begun ──> streaming | plain ──> finished
                 │  ├─ again, with another key, until there is content (gateway/attempts.py)
                 │  └─ by another route, if the operator's rule names one (gateway/router.py)
                 └─ late: begun without an answer, after KEEPALIVE_SECONDS; still tried again until there is content

One deadline goes through all of it: until content comes it is the route's time for the first byte, from then on its
idle time. Whatever waits comes back here twice a second, to look whether the client is still there.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any

from billing.meter import UsageMeter
from billing.records import CACHED
from config.settings import Config
from formats.chat import in_one_event
from formats.event_stream import KEEPALIVE
from formats.usage_block import tokens_used
from foundation.deadline import Deadline, NothingYet
from foundation.errors import AppError, ServiceFault, UpstreamFailed
from foundation.logs import event
from foundation.money import usd
from gateway.answer import EVENT_STREAM, JSON, STREAM_HEADERS, ClosingBody, Headers, ProxyAnswer, headers_of
from gateway.attempt import Attempt
from gateway.destinations import Destinations
from gateway.forms import Form
from gateway.latest_calls import LatestCalls
from gateway.outbound import Finished, Outbound
from gateway.relay import TICK_SECONDS, Relay, Silence
from gateway.request import ClientGone, ProxyRequest
from gateway.response_cache import ResponseCache
from gateway.route import Route
from gateway.router import Router
from upstream.refusal import Refusal, retry_after
from upstream.refusals import classify

log = logging.getLogger("proxy")

# What nginx logs for a client that has closed its connection. Nobody reads it.
CLIENT_GONE_STATUS = 499

EndedCall = tuple[int, str, dict[str, Any]]
"""When it ended, in nanoseconds since 1970; the client's traceparent; what the log says of it."""


class OpenRouterProxy:
    """Forwards calls to OpenRouter with the pool's keys, or to another upstream."""

    def __init__(
        self,
        destinations: Destinations,
        router: Router,
        usage: UsageMeter,
        config: Config,
        wait_for_ledger: Callable[[], object] = bool,
    ) -> None:
        """wait_for_ledger: until what was noted of calls can be read, but not for long."""
        self.destinations = destinations
        self.router = router
        self.usage = usage
        self.wait_for_ledger = wait_for_ledger
        self.latest_calls = LatestCalls()
        self.cache = ResponseCache(config)
        self.ended: deque[EndedCall] | None = None
        """Calls that are over, for traces; None if there are none."""
        self.keepalive = config.keepalive_seconds
        self.sticky_keys = config.sticky_keys

    def forward(self, request: ProxyRequest) -> ProxyAnswer:
        """Send one call upstream and answer with what comes back. Raises AppError for what we answer ourselves."""
        route = self.router.first(request)
        call, repeat = _Call(self, request, route), self.cache.repeat_of(request, route)
        try:
            if repeat is None:
                return call.answer()
            if again := repeat.find():
                call.finish(CACHED, again.status)
                return again
            return repeat.recorded(call.answer(), lambda: call.may_be_kept)
        except AppError as error:
            call.finish("failed", error.status, error)
            error.is_noted = True
            raise
        except ClientGone:
            call.finish("client_gone", CLIENT_GONE_STATUS)
            return ProxyAnswer(CLIENT_GONE_STATUS, [("Content-Length", "0"), ("Connection", "close")], ())
        except BaseException:
            call.finish("broken", 500)
            raise


class _Call:
    """One call on its way; the methods are its states."""

    def __init__(self, proxy: OpenRouterProxy, request: ProxyRequest, route: Route) -> None:
        self.proxy = proxy
        self.request = request
        self.api = request.api
        self.stream = route.body.stream
        self.deadline = Deadline(route.first_byte_timeout)
        self.outbound = Outbound(
            request, route, proxy.usage, self.deadline, request.sticky_text(proxy.sticky_keys, route.body), proxy.router
        )
        self.relay: Relay | None = None
        self.finished = False
        self.may_be_kept = False
        """True for one that was answered well and as a whole, at a cost that is known."""

    def answer(self) -> ProxyAnswer:
        """Status, headers and body to give back, as soon as they are known. Raises AppError, ClientGone."""
        self.outbound.admit()
        late_at = self.outbound.begun + self.proxy.keepalive
        while True:
            left = late_at - time.monotonic()
            self.deadline.look_up_in(left if 0 < left < TICK_SECONDS else TICK_SECONDS)
            try:
                return self._begin(self.outbound.wait())
            except NothingYet:
                self.request.check_client()
            # A stream begins after some silent seconds whatever OpenRouter will say, because some clients give up after
            # five. A plain answer's status can't be taken back: it begins only with white space that OpenRouter sent.
            if time.monotonic() >= late_at:
                if self.stream:
                    return ProxyAnswer(200, [*EVENT_STREAM, *STREAM_HEADERS], ClosingBody(self.finish, self._late()))
                if self.outbound.attempts.has_blank:
                    return ProxyAnswer(200, list(JSON), ClosingBody(self.finish, self._late()))

    # ── begun, with an answer

    def _begin(self, known: Attempt) -> ProxyAnswer:
        exchange, refusal = known.exchange, known.refusal
        if refusal and known.form is Form.REFUSAL:
            return self._pass_refusal(refusal)
        is_turned = known.form is Form.PLAIN and self.stream
        headers = headers_of(exchange, is_stream=is_turned or known.form is Form.STREAM) + self._fallback_header()
        if is_turned:
            return ProxyAnswer(exchange.status, headers, ClosingBody(self.finish, self._turned(known)))
        if known.is_whole:
            self._finish_whole(known)
            return ProxyAnswer(exchange.status, [*headers, ("Content-Length", str(len(known.held)))], (known.held,))
        if known.form in (Form.PLAIN, Form.UNREAD) and "content-length" in exchange.headers:
            # It is long or can't be read, and so is as long as it came; a cut is seen by its length.
            headers.append(("Content-Length", exchange.headers["content-length"]))
        return ProxyAnswer(exchange.status, headers, ClosingBody(self.finish, self._pieces(known)))

    def _fallback_header(self) -> Headers:
        """Who answers in the place of whom was asked, and after which failure; none of a call on its first route."""
        outbound = self.outbound
        if outbound.fell_back is None:
            return []
        model, upstream = outbound.route.body.model, outbound.route.to.name
        return [("X-Fallback", f"{model}; upstream={upstream}; after={outbound.fell_back}")]

    def _pass_refusal(self, refusal: Refusal) -> ProxyAnswer:
        row = classify(refusal)
        if row.answer:
            raise row.answer(refusal)
        body = self.api.refusal_body(refusal, self.request.request_id)
        headers = [*JSON, ("Content-Length", str(len(body))), *self._fallback_header()]
        if wait := retry_after(refusal):
            headers.append(("Retry-After", wait))
        self.finish("refused", refusal.status, refusal)
        return ProxyAnswer(refusal.status, headers, (body,))

    def _pieces(self, known: Attempt) -> Iterator[bytes]:
        """A body that is not whole yet, as it comes."""
        self.outbound.note_answer(known)  # if only its first bytes have told it
        self.relay = relay = Relay(
            known,
            model=self.outbound.route.body.model,
            deadline=self.deadline,
            idle_timeout=self.outbound.route.idle_timeout,
            keepalive=self.proxy.keepalive,
            client_is_gone=self.request.client_is_gone,
            client_has_ended=self.request.client_has_ended,
            server_ends=self.request.server_ends,
        )
        try:
            yield from relay.pieces()
        finally:
            self.finish(relay.outcome, known.exchange.status)
        if rest := relay.last_words():
            yield rest

    # ── begun without an answer

    def _late(self) -> Iterator[bytes]:
        """A body whose head went to the client before there was an answer: how it went is said in the body.

        Its head has no X-Generation-Id: another try would have another one.
        """
        try:
            known = yield from self._bridge()
            rest = self._late_pieces(known)
        except ClientGone:
            return
        except AppError as error:
            rest = self._late_error(error, "failed")
        except Exception:
            log.exception("unexpected_error")
            rest = self._late_error(ServiceFault(), "broken")
        yield from rest

    def _bridge(self) -> Generator[bytes, None, Attempt]:
        """Signs of life, OpenRouter's or ours, until the answer is known; that is returned."""
        silence = Silence(self.proxy.keepalive)
        yield self.outbound.attempts.take_blank() or KEEPALIVE
        while True:
            self.deadline.look_up_in(TICK_SECONDS)
            try:
                return self.outbound.wait()
            except NothingYet:
                self.request.check_client()
            if blank := self.outbound.attempts.take_blank():
                yield blank
                silence.last_sent = time.monotonic()
            else:
                # White space of ours in a plain answer would be one more thing that OpenRouter did not send.
                yield silence.comment_if_due(self.request.client_has_ended()) if self.stream else b""

    def _late_pieces(self, known: Attempt) -> Iterable[bytes]:
        if known.form is Form.UNREAD:
            raise UpstreamFailed("The upstream's answer is no text, and too late to be passed on as it is")
        if known.form is Form.PLAIN and self.stream:
            return self._turned(known)
        if known.refusal and known.form is not Form.STREAM:
            return self._late_refusal(known.refusal)
        if known.is_whole:
            self._finish_whole(known)
            return (known.held,)
        return self._pieces(known)

    def _turned(self, known: Attempt) -> Iterator[bytes]:
        """A plain answer as the stream that was asked for: it was billed, so it passes, be it quick or late."""
        if known.refusal:
            yield from self._late_refusal(known.refusal)
        elif known.is_whole:
            self._finish_whole(known)
            yield self.api.as_events(known.held)
        else:
            yield from in_one_event(self._pieces(known))

    def _finish_whole(self, known: Attempt) -> None:
        error = known.refusal or known.error
        self.finish("error" if error else "complete", known.exchange.status, error)

    def _late_refusal(self, refusal: Refusal) -> Iterable[bytes]:
        row = classify(refusal)
        if row.answer:
            return self._late_error(row.answer(refusal), "refused")
        self.finish("refused", refusal.status, refusal)
        if self.stream:
            return (self.api.refusal_event(refusal, self.outbound.route.body.model),)
        return (self.api.refusal_body(refusal, self.request.request_id),)

    def _late_error(self, error: AppError, outcome: str) -> Iterable[bytes]:
        self.finish(outcome, error.status, error)
        if self.stream:
            return (self.api.error_event(error, None, self.outbound.route.body.model, 0),)
        return (self.api.error_body(error, self.request.request_id),)

    # ── finished

    def finish(self, outcome: str, status: int, error: AppError | Refusal | None = None) -> None:
        """End the exchange, at once if it was not whole; keep accounts, and log. Only the first call counts.

        error: what the client is told; None if all went well, or a stream tells it.
        """
        if self.finished:
            return
        self.finished = True
        outbound, request = self.outbound, self.request
        ending = outbound.finish(outcome, status, error, self.relay)
        is_first_choice = outbound.fell_back is None  # a fallback answers while the first choice fails, and no longer
        self.may_be_kept = outcome == "complete" and is_first_choice and ending.cost_nano is not None
        if self.api.is_job and outcome == "complete":  # whoever has its id may ask for it at once, and any process
            self.proxy.wait_for_ledger()
        self.proxy.latest_calls.note(outcome, outbound.tries)
        request.admission.release(tokens_used(ending.usage, ending.events))
        facts = self._facts(outcome, status, ending)
        event(log, "proxied", **facts)
        if self.proxy.ended is not None:
            self.proxy.ended.append((time.time_ns(), request.traceparent, facts))

    def _facts(self, outcome: str, status: int, ending: Finished) -> dict[str, Any]:
        """What the log and traces say of the call."""
        outbound, route = self.outbound, self.outbound.route
        return {
            "request_id": self.request.request_id,
            "user_id": self.request.caller.user_id,
            "api": self.api.name,
            "upstream": route.to.name,
            "model": route.model_name or None,
            "asked_model": route.body.asked_model,
            "stream": self.stream,
            "status": status,
            "outcome": outcome,
            "tries": outbound.tries,
            "key": ending.key,
            "first_byte_ms": None if ending.first_byte_ms is None else round(ending.first_byte_ms, 1),
            "total_ms": round(ending.total_ms, 1),
            "prompt_tokens": ending.usage.get("prompt_tokens"),
            "completion_tokens": ending.usage.get("completion_tokens"),
            "cost_usd": usd(ending.cost_nano),
        }
