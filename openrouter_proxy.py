"""One request upstream and its answer back: admit, pick, send, retry, stream.

What goes up is the client's body, byte for byte, under headers built here from lists. What comes down is OpenRouter's
status and bytes under headers built from a list; only errors are cleaned of what identifies our account.

    admitted ──> sent ──> answered ──> streaming | plain ──> finished
                  └─ once more with another key, while the client has nothing yet
"""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import orjson

from api_key_manager import ApiKeyManager, PoolKey
from config import Config
from errors import AppError, UpstreamFailed, UpstreamTimeout
from event_stream import KEEPALIVE, EventStream, error_event, refusal_event
from logs import event
from openrouter_errors import Refusal, classify, clean
from proxy_request import ProxyRequest, read_body
from upstream_http import ConnectFailed, ConnectionLost, Exchange, NothingYet, UpstreamHttp

log = logging.getLogger("proxy")

PATH = "/chat/completions"
MAX_TRIES = 2
# How often a silent stream looks whether its client is still there.
TICK_SECONDS = 0.5
MAX_REFUSAL_BYTES = 1024 * 1024
REFUSAL_SECONDS = 5.0
# A plain body up to this size is looked at before it goes on; a longer one can't be an error, and passes as it comes.
MAX_PLAIN_LOOKED_AT = 64 * 1024
USAGE_TAIL_BYTES = 16 * 1024

# OpenRouter's headers that come down. Retry-After goes with refusals only.
RETURNED = {"content-type": "Content-Type", "x-generation-id": "X-Generation-Id", "x-provider-name": "X-Provider-Name"}
RETURNED |= {"content-encoding": "Content-Encoding"}
STREAM_HEADERS = [("Cache-Control", "no-cache"), ("X-Accel-Buffering", "no")]
MODEL_NAME = re.compile(r"[A-Za-z0-9@~._:/?&=+-]{1,160}")

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
        self.usage: dict[str, Any] | None = None
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
        row, key = classify(refusal), self.tried[-1]
        answer = row.answer(refusal) if row.answer else None
        fields = {"key": key.name, "kind": row.name, "status": refusal.status, "rest_seconds": row.rest_seconds}
        event(log, "upstream_refused", logging.WARNING, request_id=self.request.request_id, **fields)
        if row.rest_seconds:
            self.proxy.pool.rest(key, row.rest_seconds, answer.status if answer else refusal.status)
        if row.other_key and self._take_other_key():
            return None
        if answer:
            raise answer
        return refusal

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
                200, [("Content-Type", "text/event-stream"), *STREAM_HEADERS], _Relay(self, self._late_stream())
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
        if exchange.headers.get("content-encoding", "identity") != "identity":
            return ProxyAnswer(exchange.status, headers, _Relay(self, self._unread_body(exchange)))
        if exchange.headers.get("content-type", "").startswith("text/event-stream"):
            return ProxyAnswer(exchange.status, headers + STREAM_HEADERS, _Relay(self, self._stream(exchange)))
        if exchange.complete:  # a small answer that came in one piece, which most are
            body = self._look_at_plain(exchange.read(0.001))
            self.finish("complete", exchange.status)
            return ProxyAnswer(exchange.status, [*headers, ("Content-Length", str(len(body)))], (body,))
        return ProxyAnswer(exchange.status, headers, _Relay(self, self._plain_body(exchange)))

    def _pass_refusal(self, refusal: Refusal) -> ProxyAnswer:
        payload = refusal.payload or {}
        cleaned = clean(payload)
        body = refusal.body if cleaned == payload else orjson.dumps(cleaned)
        headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
        if refusal.retry_after and re.fullmatch(r"[0-9]{1,6}", refusal.retry_after):
            headers.append(("Retry-After", refusal.retry_after))
        self.finish("refused", refusal.status)
        return ProxyAnswer(refusal.status, headers, (body,))

    # ── streaming

    def _late_stream(self) -> Iterator[bytes]:
        status = 200
        try:
            yield KEEPALIVE
            last_sent = time.monotonic()
            while True:
                try:
                    exchange, refusal = self.wait(TICK_SECONDS)
                    break
                except NothingYet:
                    if self.request.client_is_gone():
                        return
                    quiet = time.monotonic() - last_sent
                    yield KEEPALIVE if quiet >= self.proxy.keepalive else b""
                    last_sent = time.monotonic() if quiet >= self.proxy.keepalive else last_sent
            if refusal:
                status = refusal.status
                yield refusal_event(clean(refusal.payload or {}), self.model)
                self.finish("refused", status)
            elif exchange.headers.get("content-type", "").startswith("text/event-stream"):
                yield from self._stream(exchange)
            else:
                raise UpstreamFailed("OpenRouter did not answer with a stream")
        except AppError as error:
            status = error.status
            self.finish("failed", status)
            yield error_event(error, model=self.model)
        finally:
            self.finish("client_gone", status)

    def _stream(self, exchange: Exchange) -> Iterator[bytes]:
        events = EventStream()
        outcome: str = "client_gone"
        failure: AppError | None = None
        last_data = last_sent = time.monotonic()
        try:
            while True:
                try:
                    data = exchange.read(TICK_SECONDS)
                except NothingYet:
                    now = time.monotonic()
                    if self.request.client_is_gone():
                        return
                    if now - last_data >= self.proxy.idle_timeout:
                        outcome, failure = "stalled", UpstreamTimeout("OpenRouter fell silent within its answer")
                        break
                    keepalive = events.at_border and now - last_sent >= self.proxy.keepalive
                    last_sent = now if keepalive else last_sent
                    yield KEEPALIVE if keepalive else b""  # writing is how some servers notice that the client has gone
                    continue
                if not data:
                    outcome = "complete"
                    break
                last_data = time.monotonic()
                if passed := events.feed(data):
                    yield passed
                    last_sent = last_data
        except ConnectionLost:
            outcome, failure = "cut", UpstreamFailed("OpenRouter's answer broke off")
        finally:
            self.usage = events.usage
            self.finish("error" if events.error and outcome == "complete" else outcome, exchange.status)
        if failure:
            generation = exchange.headers.get("x-generation-id")
            yield (b"" if events.at_border else b"\n\n") + error_event(failure, generation, self.model)
        elif rest := events.finish():
            yield rest

    # ── plain

    def _plain_body(self, exchange: Exchange) -> Iterator[bytes]:
        """White space passes at once (OpenRouter's sign of life); an error is cleaned; the rest goes on as it comes."""
        outcome, held, tail, passing = "client_gone", b"", b"", False
        try:
            while piece := exchange.read(self.proxy.idle_timeout):
                held += piece
                if passing or not held.strip() or len(held) > MAX_PLAIN_LOOKED_AT:
                    passing = passing or bool(held.strip())
                    tail = (tail + held)[-USAGE_TAIL_BYTES:] if passing else b""
                    ready, held = held, b""
                    yield ready
            outcome = "complete"
            if held:
                held = self._look_at_plain(held)
            else:
                self.usage = _usage_in(tail)
        except NothingYet:
            outcome = "stalled"
            raise ConnectionLost("the upstream fell silent within its answer") from None
        except ConnectionLost:
            outcome = "cut"
            raise  # the server breaks the connection off: the client must not take a part for the whole
        finally:
            self.finish(outcome, exchange.status)
        if held:
            yield held

    def _look_at_plain(self, body: bytes) -> bytes:
        try:
            payload = orjson.loads(body)
        except orjson.JSONDecodeError:
            return body
        if not isinstance(payload, dict):
            return body
        self.usage = payload.get("usage") if isinstance(payload.get("usage"), dict) else None
        if b'"error"' not in body:
            return body
        cleaned = clean(payload)
        return body if cleaned == payload else orjson.dumps(cleaned)

    def _unread_body(self, exchange: Exchange) -> Iterator[bytes]:
        """A body compressed although we asked for none: it goes on as it is, with its Content-Encoding."""
        outcome = "client_gone"
        try:
            while piece := exchange.read(self.proxy.idle_timeout):
                yield piece
            outcome = "complete"
        except (NothingYet, ConnectionLost):
            outcome = "cut"
            raise
        finally:
            self.finish(outcome, exchange.status)

    # ── finished

    def finish(self, outcome: str, status: int) -> None:
        """End the exchange upstream, at once if it was not whole, and log the request. Only the first call counts."""
        if self.finished:
            return
        self.finished = True
        self._drop_exchange()
        usage = self.usage or {}
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


class _Relay:
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


def _read_refusal(exchange: Exchange) -> Refusal:
    """A refusal with its body, if that is JSON and comes within seconds."""
    body = b""
    try:
        while (piece := exchange.read(REFUSAL_SECONDS)) and len(body) <= MAX_REFUSAL_BYTES:
            body += piece
        payload = orjson.loads(body.strip()) if "content-encoding" not in exchange.headers else None
    except (NothingYet, ConnectionLost, orjson.JSONDecodeError):
        payload = None
    payload = payload if isinstance(payload, dict) else None
    return Refusal(exchange.status, payload, exchange.headers.get("retry-after"), body)


def _usage_in(tail: bytes) -> dict[str, Any] | None:
    """The usage object in the last bytes of a long JSON body."""
    at = tail.rfind(b'"usage"')
    start = tail.find(b"{", at)
    if at < 0 or start < 0:
        return None
    try:
        usage, _end = json.JSONDecoder().raw_decode(tail[start:].decode("utf-8", "replace"))
    except ValueError:
        return None
    return usage if isinstance(usage, dict) else None
