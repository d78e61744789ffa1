"""One request upstream and its answer back: admit, try, begin, pass on, finish.

What goes up is the client's body, byte for byte, under headers built here from lists. What comes down is OpenRouter's
status and bytes under headers built from a list; only errors are cleaned of what identifies our account.

    admitted ──> attempted ──> begun ──> streaming | plain ──> finished
                 │  └─ again, with another key, until there is content (gateway/attempts.py)
                 └─ late: begun without an answer, after KEEPALIVE_SECONDS; still tried again until there is content

One deadline goes through all of it: until content comes it is the destination's time for the first byte, from then on
its idle time. Whatever waits comes back here twice a second, to look whether the client is still there.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from functools import partial

from billing.meter import AttemptResult, UsageMeter
from config.settings import Config
from formats.body import CallBody
from formats.chat import in_one_event
from formats.event_stream import KEEPALIVE
from formats.usage_block import tokens_used
from foundation.deadline import Deadline, NothingYet, TimeIsUp
from foundation.errors import AppError, ServerEnds, ServiceFault, UpstreamFailed, UpstreamTimeout
from foundation.logs import event
from foundation.money import usd
from gateway.aliases import Aliases
from gateway.answer import EVENT_STREAM, JSON, STREAM_HEADERS, ClosingBody, ProxyAnswer, headers_of
from gateway.attempt import Attempt, NoAnswer
from gateway.attempts import Attempts, in_our_words, note_refusal
from gateway.destinations import Destination, Destinations
from gateway.forms import Form
from gateway.latest_calls import LatestCalls
from gateway.reasons import reason_of
from gateway.relay import TICK_SECONDS, ClientGone, Relay, Silence
from gateway.request import ProxyRequest, model_to_log
from upstream.refusal import Refusal, retry_after
from upstream.refusals import classify

log = logging.getLogger("proxy")

# What nginx logs for a client that has closed its connection. Nobody reads it.
CLIENT_GONE_STATUS = 499


class OpenRouterProxy:
    """Forwards calls to OpenRouter with the pool's keys, or to another upstream."""

    def __init__(self, destinations: Destinations, aliases: Aliases, usage: UsageMeter, config: Config) -> None:
        self.destinations = destinations
        self.aliases = aliases
        self.usage = usage
        self.latest_calls = LatestCalls()
        self.keepalive = config.keepalive_seconds
        self.sticky_keys = config.sticky_keys

    def forward(self, request: ProxyRequest) -> ProxyAnswer:
        """Send one call upstream and answer with what comes back. Raises AppError for what we answer ourselves."""
        body = request.api.read(request.body.data)
        if key := request.caller.client_key:
            key.check_scope(request.api.name)
        body = self.aliases.resolve(body, request)
        to = self.destinations.choose(request.upstream, body.model)
        if key:
            key.check_upstream(to.name)
            key.check_model([*body.names, *body.others])
        call = _Call(self, request, body, to)
        try:
            return call.answer()
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

    def __init__(self, proxy: OpenRouterProxy, request: ProxyRequest, body: CallBody, to: Destination) -> None:
        self.proxy = proxy
        self.request = request
        self.api = request.api
        self.body = body
        self.to = to
        request.body.pieces = to.body_for(body, request.body.data)
        self.begun = time.monotonic()
        self.deadline = Deadline(to.first_byte_timeout)
        self.relay: Relay | None = None
        self.finished = False
        self.model_name = model_to_log(body.model, is_openrouters=to.upstream_id is None)
        self.prompt_bytes = request.body.size if body.prompt_bytes is None else body.prompt_bytes
        self.forecast = forecast = proxy.usage.forecasts.of(to.upstream_id, body, self.prompt_bytes, to.prices)
        self.meter = proxy.usage.call(
            request.request_id, request.caller, self.model_name, body.stream, forecast, body.asked_model
        )
        self.attempts = Attempts(
            to,
            api=request.api,
            stream=body.stream,
            deadline=self.deadline,
            free=body.model.endswith(":free"),
            sticky=request.sticky_text(proxy.sticky_keys, body),
            owner=request.caller.user_id,
            request_id=request.request_id,
        )

    def answer(self) -> ProxyAnswer:
        """Status, headers and body to give back, as soon as they are known. Raises AppError, ClientGone."""
        if not self.to.keys.is_connected(self.request.caller.user_id):
            self.meter.admit()  # else it is known only with the key who pays
        late_at = self.begun + self.proxy.keepalive
        while True:
            left = late_at - time.monotonic()
            self.deadline.look_up_in(left if 0 < left < TICK_SECONDS else TICK_SECONDS)
            try:
                return self._begin(self._wait())
            except NothingYet:
                self._check_client()
            # A stream begins after some silent seconds whatever OpenRouter will say, because some clients give up after
            # five. A plain answer's status can't be taken back: it begins only with white space that OpenRouter sent.
            if time.monotonic() >= late_at:
                if self.body.stream:
                    return ProxyAnswer(200, [*EVENT_STREAM, *STREAM_HEADERS], ClosingBody(self.finish, self._late()))
                if self.attempts.has_blank:
                    return ProxyAnswer(200, list(JSON), ClosingBody(self.finish, self._late()))

    def _check_client(self) -> None:
        if self.request.client_is_gone():
            raise ClientGone
        if self.request.server_ends():
            raise ServerEnds

    # ── attempted

    def _wait(self) -> Attempt:
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
                        self.request.body.let_go()  # no other try can need it
                        return attempt
                    if not attempts.prepare_retry_after_refusal(attempt, attempt.refusal):
                        return attempt
                self._check_client()
                self.meter.end_attempt(self._result(attempt), **attempts.ending_of(attempt, self.request.body.data))
                attempts.end()
        except TimeIsUp:
            if attempts.current:
                attempts.current.kind = "timeout"
            raise UpstreamTimeout("The upstream did not begin to answer in time") from None

    def _begin_attempt(self) -> Attempt:
        self.attempts.pause()
        key = self.attempts.next_key()
        pool_key_id = key.id if self.to.upstream_id is None else None
        self.meter.dispatch(pool_key_id, self.to.upstream_id, user_pays=key.is_connected)
        return self.attempts.begin(self.to.exchange(self.api, key, self.request.headers, self.request.body.pieces))

    def _advance(self, attempt: Attempt) -> None:
        if attempt.form is None:
            attempt.wait_head(self.deadline)
            if not attempt.exchange.complete:  # what is whole is noted with its cost
                # By its name its cost is asked for, should this process die before it is known.
                self.meter.note_answer(self._generation_id(attempt))
        attempt.wait_answer(self.deadline)

    def _generation_id(self, attempt: Attempt) -> str | None:
        """OpenRouter's name for the answer. Other upstreams' names mean nothing to anybody that could be asked."""
        return attempt.generation_id if self.to.upstream_id is None else None

    # ── begun, with an answer

    def _begin(self, known: Attempt) -> ProxyAnswer:
        exchange, refusal = known.exchange, known.refusal
        if refusal and known.form is Form.REFUSAL:
            return self._pass_refusal(refusal)
        is_turned = known.form is Form.PLAIN and self.body.stream
        headers = headers_of(exchange, is_stream=is_turned or known.form is Form.STREAM)
        if is_turned:
            return ProxyAnswer(exchange.status, headers, ClosingBody(self.finish, self._turned(known)))
        if known.is_whole:
            self._finish_whole(known)
            return ProxyAnswer(exchange.status, [*headers, ("Content-Length", str(len(known.held)))], (known.held,))
        if known.form in (Form.PLAIN, Form.UNREAD) and "content-length" in exchange.headers:
            # It is long or can't be read, and so is as long as it came; a cut is seen by its length.
            headers.append(("Content-Length", exchange.headers["content-length"]))
        return ProxyAnswer(exchange.status, headers, ClosingBody(self.finish, self._pieces(known)))

    def _pass_refusal(self, refusal: Refusal) -> ProxyAnswer:
        row = classify(refusal)
        if row.answer:
            raise row.answer(refusal)
        body = self.api.refusal_body(refusal, self.request.request_id)
        headers = [*JSON, ("Content-Length", str(len(body)))]
        if wait := retry_after(refusal):
            headers.append(("Retry-After", wait))
        self.finish("refused", refusal.status, refusal)
        return ProxyAnswer(refusal.status, headers, (body,))

    def _pieces(self, known: Attempt) -> Iterator[bytes]:
        """A body that is not whole yet, as it comes."""
        self.meter.note_answer(self._generation_id(known))  # if only its first bytes have told it
        self.relay = relay = Relay(
            known,
            model=self.body.model,
            deadline=self.deadline,
            idle_timeout=self.to.idle_timeout,
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
        yield self.attempts.take_blank() or KEEPALIVE
        while True:
            self.deadline.look_up_in(TICK_SECONDS)
            try:
                return self._wait()
            except NothingYet:
                self._check_client()
            if blank := self.attempts.take_blank():
                yield blank
                silence.last_sent = time.monotonic()
            else:
                # White space of ours in a plain answer would be one more thing that OpenRouter did not send.
                yield silence.comment_if_due(self.request.client_has_ended()) if self.body.stream else b""

    def _late_pieces(self, known: Attempt) -> Iterable[bytes]:
        if known.form is Form.UNREAD:
            raise UpstreamFailed("The upstream's answer is no text, and too late to be passed on as it is")
        if known.form is Form.PLAIN and self.body.stream:
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
        if self.body.stream:
            return (self.api.refusal_event(refusal, self.body.model),)
        return (self.api.refusal_body(refusal, self.request.request_id),)

    def _late_error(self, error: AppError, outcome: str) -> Iterable[bytes]:
        self.finish(outcome, error.status, error)
        if self.body.stream:
            return (self.api.error_event(error, None, self.body.model, 0),)
        return (self.api.error_body(error, self.request.request_id),)

    # ── finished

    def finish(self, outcome: str, status: int, error: AppError | Refusal | None = None) -> None:
        """End the exchange, at once if it was not whole; keep accounts, and log. Only the first call counts.

        error: what the client is told; None if all went well, or a stream tells it.
        """
        if self.finished:
            return
        self.finished = True
        last = self.attempts.current
        result = self._result(last) if last else None
        late = self.relay.refusal if self.relay else last and last.error
        reason = reason_of(error or late or None, self.request.body.data)
        self.attempts.close()
        self.request.body.let_go()
        self.proxy.latest_calls.note(outcome, self.attempts.log)
        if late and last and not last.refusal:  # after content: the key has done its work
            note_refusal(self.request.request_id, last.key, late)
        first_byte_ms = (last.known - self.begun) * 1000 if last and last.known is not None else None
        total_ms = (time.monotonic() - self.begun) * 1000
        cost_nano = self.meter.finish(
            result,
            http_status=status,
            outcome=outcome,
            first_byte_ms=None if first_byte_ms is None else round(first_byte_ms),
            total_ms=round(total_ms),
            **reason,
        )
        usage = (result and result.usage) or {}
        events = last.events.count if last and last.events else 0
        self.request.admission.release(tokens_used(usage, events))
        event(
            log,
            "proxied",
            request_id=self.request.request_id,
            user_id=self.request.caller.user_id,
            api=self.api.name,
            upstream=self.to.name,
            model=self.model_name or None,
            asked_model=self.body.asked_model,
            stream=self.body.stream,
            status=status,
            outcome=outcome,
            tries=self.attempts.log,
            key=last.key.name if last else None,
            first_byte_ms=None if first_byte_ms is None else round(first_byte_ms, 1),
            total_ms=round(total_ms, 1),
            prompt_tokens=usage.get("prompt_tokens"),
            completion_tokens=usage.get("completion_tokens"),
            cost_usd=usd(cost_nano),
        )

    def _result(self, attempt: Attempt) -> AttemptResult:
        """What an attempt means for its cost."""
        usage, events = attempt.usage, 0
        if attempt.events:
            usage, events = attempt.events.usage, attempt.events.count
        elif self.relay:
            usage = self.relay.usage
        prices, model = self.to.prices, self.body.model
        estimate: Callable[[], int | None] = int  # a refusal is free
        may_be_billed = attempt.refusal is not None and attempt.refusal.may_be_billed
        if attempt.refusal is None or may_be_billed:
            estimate = partial(prices.estimate_nano, model, self.prompt_bytes, events)
            if not self.api.is_text:  # of pictures and sound, how much came says nothing
                estimate = partial(int, self.forecast.reserved_nano)
        return AttemptResult(
            generation_id=self._generation_id(attempt),
            usage=usage,
            priced=partial(prices.priced_nano, model),
            is_final=self.to.upstream_id is not None and attempt.status is not None and not may_be_billed,
            streamed=attempt.events is not None,
            refused=attempt.form is Form.REFUSAL and not may_be_billed,
            sent=attempt.kind not in {"unreachable", "no-files"},
            estimate=estimate,
        )
