"""One request upstream and its answer back: admit, pick, send, retry, stream.

What goes up is the client's body, byte for byte, under headers built here from lists. What comes down is OpenRouter's
status and bytes under headers built from a list; only errors are cleaned of what identifies our account.

    admitted ──> sent ──> answered ──> streaming | plain ──> finished
                  └─ once more with another key, while the client has nothing yet
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import json_text
from answer_relay import TICK_SECONDS, AnswerRelay, Silence
from api_key_manager import ApiKeyManager, PoolKey
from config import Config
from errors import AppError, ServiceFault, UpstreamFailed, UpstreamTimeout
from event_stream import KEEPALIVE, error_event, refusal_event
from logs import event
from openrouter_errors import Other, Refusal, Row, classify, clean
from proxy_request import ProxyRequest, read_body
from upstream_http import ConnectFailed, ConnectionLost, Exchange, NothingYet, UpstreamHttp

log = logging.getLogger("proxy")

PATH = "/chat/completions"
MAX_TRIES = 2
MAX_REFUSAL_BYTES = 1024 * 1024
REFUSAL_SECONDS = 5.0

# OpenRouter's headers that come down. Retry-After goes with refusals only.
RETURNED = {"content-type": "Content-Type", "x-generation-id": "X-Generation-Id", "x-provider-name": "X-Provider-Name"}
RETURNED |= {"content-encoding": "Content-Encoding"}
STREAM_HEADERS = [("Cache-Control", "no-cache"), ("X-Accel-Buffering", "no")]
# What is logged as a model: OpenRouter's names all have a slash, which keys, tokens and most other texts have not.
MODEL_NAME = re.compile(r"[A-Za-z0-9@~._-]{1,80}/[A-Za-z0-9._:/?&=+-]{1,160}")

Headers = list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class ProxyAnswer:
    """What goes back. The body's iterator must be closed, whole or not: that ends the exchange upstream."""

    status: int
    headers: Headers
    body: Iterable[bytes]


class OpenRouterProxy:
    """Forwards calls over the pool's keys."""

    def __init__(self, pool: ApiKeyManager, upstream: UpstreamHttp, config: Config) -> None:
        self.pool = pool
        self.upstream = upstream
        self.first_byte_timeout = config.upstream_first_byte_timeout_seconds
        self.idle_timeout = config.upstream_idle_timeout_seconds
        self.keepalive = config.keepalive_seconds
        lines = {
            "Content-Type": "application/json",
            "Accept": "*/*",
            "Accept-Encoding": "identity",
            "User-Agent": "openrouter-proxy",
            "HTTP-Referer": config.app_hostname,
            "X-Title": config.app_title,
            "X-OpenRouter-Title": config.app_title,
        }
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        self.head = upstream.request_line("POST", PATH) + head.encode("ascii")

    def forward(self, request: ProxyRequest) -> ProxyAnswer:
        """Send one call upstream and answer with what comes back. Raises AppError for what we answer ourselves."""
        model, streaming = read_body(request.body)
        call = _Call(self, request, model, streaming)
        try:
            return call.answer()
        except AppError as error:
            call.finish("failed", error.status)
            raise
        except BaseException:
            call.finish("broken", 500)
            raise


class _Call:
    """One call on its way; the methods are its states."""

    def __init__(self, proxy: OpenRouterProxy, request: ProxyRequest, model: str, streaming: bool) -> None:
        self.proxy = proxy
        self.request = request
        self.model = model
        self.streaming = streaming
        self.begun = time.monotonic()
        self.first_byte_seconds: float | None = None
        self.tried: list[PoolKey] = []
        self.next_key: PoolKey | None = None
        self.exchange: Exchange | None = None
        self.relay: AnswerRelay | None = None
        self.finished = False

    # ── sent: with one key, then perhaps with another

    def wait(self, seconds: float) -> tuple[Exchange, Refusal | None]:
        """The exchange that has an answer, and the answer if it is a refusal to pass on.

        Raises NothingYet after `seconds`; AppError when the call has failed for good.
        """
        until = time.monotonic() + seconds
        while True:
            try:
                exchange = self.exchange or self._send()
                exchange.wait_head(max(until - time.monotonic(), 0.001))
            except NothingYet:
                if time.monotonic() - self.begun >= self.proxy.first_byte_timeout:
                    raise UpstreamTimeout("OpenRouter did not begin to answer in time") from None
                raise
            except (ConnectFailed, ConnectionLost) as error:
                fields = {"request_id": self.request.request_id, "reason": str(error)}
                event(log, "upstream_unreachable", logging.WARNING, **fields)
                if not self._take_other_key(or_the_same=True):
                    raise UpstreamFailed("OpenRouter could not be reached; try again shortly") from None
                continue
            if 200 <= exchange.status < 300:
                self.first_byte_seconds = time.monotonic() - self.begun
                return exchange, None
            if (refusal := self._judge_refusal(exchange)) is not None:
                return exchange, refusal

    def _send(self) -> Exchange:
        if self.next_key is None:
            self.next_key = self.proxy.pool.pick()
        key, self.next_key = self.next_key, None
        self.tried.append(key)
        head = b"%s%s%s" % (self.proxy.head, key.authorization, self.request.headers)
        self.exchange = self.proxy.upstream.send(head, self.request.body)
        return self.exchange

    def _take_other_key(self, or_the_same: bool = False) -> bool:
        """End this try and make ready for the next one; False if there is no try or no key left."""
        if len(self.tried) >= MAX_TRIES:
            return False
        try:
            self.next_key = self.proxy.pool.pick(self.tried)
        except AppError:
            if not or_the_same:
                return False
            self.next_key = self.tried[-1]
        self._drop_exchange()
        return True

    def _judge_refusal(self, exchange: Exchange) -> Refusal | None:
        """The refusal to pass on, or None if another key is to be tried. Raises AppError to answer in our words."""
        refusal = _read_refusal(exchange)
        row, answer = self._note_refusal(refusal)
        if row.other is not Other.NONE and self._take_other_key():
            return None
        if answer:
            raise answer
        return refusal

    def _note_refusal(self, refusal: Refusal) -> tuple[Row, AppError | None]:
        """What a refusal means, and our words for it if it is not passed on. Lets its key rest if that is due."""
        row, key = classify(refusal), self.tried[-1]
        answer = row.answer(refusal) if row.answer else None
        fields = {"key": key.name, "kind": row.name, "status": refusal.status, "rest_seconds": row.rest_seconds}
        event(log, "upstream_refused", logging.WARNING, request_id=self.request.request_id, **fields)
        self.proxy.pool.refused(key, refusal, row)
        return row, answer

    def _drop_exchange(self) -> None:
        if self.exchange:
            self.exchange.close()
            self.exchange = None

    # ── answered

    def answer(self) -> ProxyAnswer:
        """Status, headers and body to give back, as soon as they are known."""
        if not self.streaming:
            return self._answer_with(*self._wait_plain())
        try:
            return self._answer_with(*self.wait(min(self.proxy.keepalive, self.proxy.first_byte_timeout)))
        except NothingYet:
            # Some clients give up after five silent seconds: begin the answer, and say how it went in the stream.
            return ProxyAnswer(
                200, [("Content-Type", "text/event-stream"), *STREAM_HEADERS], _Body(self, self._late_stream())
            )

    def _wait_plain(self) -> tuple[Exchange, Refusal | None]:
        try:
            return self.wait(self.proxy.first_byte_timeout)
        except NothingYet:
            raise UpstreamTimeout("OpenRouter did not begin to answer in time") from None

    def _answer_with(self, exchange: Exchange, refusal: Refusal | None) -> ProxyAnswer:
        if refusal:
            return self._pass_refusal(refusal)
        headers = [(name, exchange.headers[field]) for field, name in RETURNED.items() if field in exchange.headers]
        relay = self._relay(exchange)
        if _is_encoded(exchange):
            return ProxyAnswer(exchange.status, headers, _Body(self, relay.unread()))
        if _is_stream(exchange):
            return ProxyAnswer(exchange.status, headers + STREAM_HEADERS, _Body(self, relay.stream()))
        body, is_whole = relay.whole()
        if is_whole:
            self.finish("error" if relay.refusal else "complete", exchange.status)
            return ProxyAnswer(exchange.status, [*headers, ("Content-Length", str(len(body)))], (body,))
        if body.strip() and "content-length" in exchange.headers:  # long, and so unchanged: a cut is seen by its length
            headers.append(("Content-Length", exchange.headers["content-length"]))
        return ProxyAnswer(exchange.status, headers, _Body(self, relay.plain(body)))

    def _relay(self, exchange: Exchange) -> AnswerRelay:
        self.relay = AnswerRelay(
            exchange,
            model=self.model,
            idle_timeout=self.proxy.idle_timeout,
            keepalive=self.proxy.keepalive,
            client_is_gone=self.request.client_is_gone,
            ended=lambda outcome: self.finish(outcome, exchange.status),
        )
        return self.relay

    def _pass_refusal(self, refusal: Refusal) -> ProxyAnswer:
        payload = refusal.payload or {}
        cleaned = clean(payload)
        body = refusal.body if cleaned == payload else json_text.write(cleaned)
        headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
        if refusal.retry_after and re.fullmatch(r"[0-9]{1,6}", refusal.retry_after):
            headers.append(("Retry-After", refusal.retry_after))
        self.finish("refused", refusal.status)
        return ProxyAnswer(refusal.status, headers, (body,))

    def _late_stream(self) -> Iterator[bytes]:
        """A stream whose head went to the client before OpenRouter's came: how it went is said in the stream."""
        silence, status = Silence(self.proxy.keepalive), 200
        try:
            yield KEEPALIVE
            while True:
                try:
                    exchange, refusal = self.wait(TICK_SECONDS)
                    break
                except NothingYet:
                    if self.request.client_is_gone():
                        return
                    yield silence.comment_if_due()
            if refusal:
                status = refusal.status
                self.finish("refused", status)
                yield refusal_event(refusal, self.model)
            elif _is_stream(exchange) and not _is_encoded(exchange):
                yield from self._relay(exchange).stream()
            else:
                raise UpstreamFailed("OpenRouter did not answer with a stream")
        except AppError as error:
            status = error.status
            self.finish("failed", status)
            yield error_event(error, model=self.model)
        except Exception:
            log.exception("unexpected_error")
            status = 500
            self.finish("broken", status)
            yield error_event(ServiceFault(), model=self.model)
        finally:
            self.finish("client_gone", status)

    # ── finished

    def finish(self, outcome: str, status: int) -> None:
        """End the exchange upstream, at once if it was not whole, and log the request. Only the first call counts."""
        if self.finished:
            return
        self.finished = True
        self._drop_exchange()
        if self.relay and self.relay.refusal:
            self._note_refusal(self.relay.refusal)
        usage = (self.relay and self.relay.usage) or {}
        first_byte = self.first_byte_seconds
        event(
            log,
            "proxied",
            request_id=self.request.request_id,
            user_id=self.request.caller.user_id,
            model=self.model if MODEL_NAME.fullmatch(self.model) else None,
            stream=self.streaming,
            status=status,
            outcome=outcome,
            tries=len(self.tried),
            key=self.tried[-1].name if self.tried else None,
            first_byte_ms=None if first_byte is None else round(first_byte * 1000, 1),
            total_ms=round((time.monotonic() - self.begun) * 1000, 1),
            prompt_tokens=usage.get("prompt_tokens"),
            completion_tokens=usage.get("completion_tokens"),
            cost_usd=usage.get("cost"),
        )


class _Body:
    """A body whose closing ends the call, even if no byte of it was ever asked for (a generator's would not)."""

    __slots__ = ("_call", "_pieces")

    def __init__(self, call: _Call, pieces: Iterator[bytes]) -> None:
        self._call = call
        self._pieces = pieces

    def __iter__(self) -> Iterator[bytes]:
        return self._pieces

    def close(self) -> None:
        self._pieces.close()  # type: ignore[attr-defined]
        self._call.finish("client_gone", 0)


def _is_encoded(exchange: Exchange) -> bool:
    return exchange.headers.get("content-encoding", "identity").lower() != "identity"


def _is_stream(exchange: Exchange) -> bool:
    return exchange.headers.get("content-type", "").lower().startswith("text/event-stream")


def _read_refusal(exchange: Exchange) -> Refusal:
    """A refusal with its body, if that is JSON and comes within seconds."""
    body, until, payload = b"", time.monotonic() + REFUSAL_SECONDS, None
    try:
        while (left := until - time.monotonic()) > 0 and len(body) <= MAX_REFUSAL_BYTES:
            piece = exchange.read(left)
            body += piece
            if not piece:
                payload = None if _is_encoded(exchange) else json_text.parse(body)
                break
    except (NothingYet, ConnectionLost, json_text.BadJson):
        pass
    payload = payload if isinstance(payload, dict) else None
    return Refusal(exchange.status, payload, exchange.headers.get("retry-after"), body)
