"""The data plane's door: a plain WSGI callable in front of Flask, for the paths that carry model calls.

It holds no rules of its own, it translates between `environ` and openrouter_proxy. Flask costs about 80 µs a request,
twice the rest of the path together, and so answers only what is not a model call.
"""

from __future__ import annotations

import logging
import random
import re
import time
from collections.abc import Callable, Iterable
from functools import partial
from http import HTTPStatus
from io import BytesIO
from typing import Any

from accounts.caller import Caller
from auth import FOR_CALLS
from billing.quotas.rate_limits import Admission
from config.settings import LANE_THREADS
from formats.chat import ModelApi
from formats.registry import CHAT, MESSAGES, MODEL_APIS
from formats.token_counts import COUNT_TOKENS, estimated_tokens
from foundation import json_text
from foundation.errors import (
    AppError,
    BadRequest,
    MethodNotAllowed,
    ServiceFault,
    UpgradeRefused,
)
from foundation.logs import request_id as current_request_id
from gateway.answer import JSON, Headers, ProxyAnswer
from gateway.bodies import BodyBudget, HeldBody
from gateway.reasons import reason_of
from gateway.request import ProxyRequest, asked_timeout, forwarded_headers
from services import Services
from serving import ending
from serving.client_watch import ClientWatch
from serving.cross_origin import CrossOrigin
from serving.dialects import format_of_errors
from serving.framing import check_framing
from serving.lanes import Lane, Place
from serving.listeners import limit_unread
from serving.request_body import read_body
from serving.slow_bodies import SlowBodies
from serving.wrong_paths import nothing_at

log = logging.getLogger("proxy")

METHODS = "OPTIONS, POST"
# The paths of model calls, letter by letter; each takes POST only. What goes up is built from the format's own path.
PATHS: dict[str, ModelApi] = {
    f"{base}{path}": api for base in ("/v1", "/api/v1") for api in MODEL_APIS for path in (api.path, *api.aliases)
}
PATHS |= {f"{base}{COUNT_TOKENS.path}": COUNT_TOKENS for base in ("/v1", "/api/v1")}
PATHS |= {"/api/proxy/openrouter": CHAT, "/api/plugin-api/chat/completions": CHAT}
MAX_JSON_BYTES = 64 * 1024  # the bodies of all other paths are names, keys and settings
MAX_JSON_SECONDS = 10.0
HEALTH = {"/api/health", "/livez", "/readyz"}  # answered from memory, by the threads that no lane has
WAYS_IN = "login register refresh sso/token github/callback passkeys/log-in passkeys/log-in/challenge"
WAYS_IN += " recover recover-password reset reset-password"
LOG_INS = {"/login", "/register"} | {f"/api/auth/{name}" for name in WAYS_IN.split()}
FILM = re.compile(r"/(?:api/)?v1/videos/[^/]+/content")
REQUEST_ID = "openrouter_proxy.request_id"
STATUS_LINES = {status.value: f"{status.value} {status.phrase}" for status in HTTPStatus}
COMMON_HEADERS = [("X-Content-Type-Options", "nosniff"), ("Cache-Control", "no-store")]

Environ = dict[str, Any]
StartResponse = Callable[[str, Headers], object]
WsgiApp = Callable[[Environ, Any], Iterable[bytes]]


def new_request_id(at: float) -> str:
    """48 bits of milliseconds and 80 random bits as 32 hex characters: sorts by time, as a ULID does."""
    return f"{int(at * 1000):012x}{random.getrandbits(80):020x}"


class ProxyDoor:
    """Answers the model-call paths itself and hands everything else to Flask."""

    def __init__(self, flask_wsgi: WsgiApp, services: Services) -> None:
        self._flask_wsgi = flask_wsgi
        self._services = services
        self._clock = services.clock
        self._budget = BodyBudget(services.config.body_budget_bytes)
        self._max_body_bytes = min(services.config.max_body_bytes, self._budget.largest)
        self._slow_bodies = SlowBodies()
        self._max_timeout_seconds = services.config.max_timeout_seconds
        self._body_seconds = services.config.client_body_timeout_seconds
        self._calls = Lane(services.config.server_threads, services.config.server_threads)
        self._log_ins = Lane(LANE_THREADS, LANE_THREADS // 2)
        self._others = Lane(LANE_THREADS, LANE_THREADS // 2)
        lanes = {"calls": self._calls, "log-ins": self._log_ins, "others": self._others}
        services.metrics.gauges.lanes = {name: lane.taken for name, lane in lanes.items()}
        self._origins = CrossOrigin(services.config.cors_allowed_origins)
        ending.delay_by(services.config.drain_delay_seconds)
        self._server_ends = partial(ending.is_here, services.config.drain_seconds)

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        request_id = environ[REQUEST_ID] = new_request_id(self._clock.timestamp())
        current_request_id.set(request_id)
        api = PATHS.get(environ["PATH_INFO"])
        for_errors = api or format_of_errors(environ)
        for_origin = self._origins.headers(environ)
        headers: Headers = [(name, request_id) for name in for_errors.request_id_headers]
        headers += COMMON_HEADERS + for_origin
        try:
            check_framing(environ)
            if not self._services.started:
                self._start()
            if allowed := self._origins.preflight(environ):
                answer = allowed
            elif api is None:
                return self._ask_flask(environ, _with_headers(start_response, [*for_origin, *_farewell()]))
            elif environ["REQUEST_METHOD"] == "OPTIONS":
                answer = ProxyAnswer(200, [("Allow", METHODS), ("Content-Length", "0")], ())
            else:
                answer = self._call(api, environ, request_id, headers)
        except AppError as error:
            if api and not error.is_noted:
                self._services.refused_calls.note_stranger(self._services.addresses.of(environ), reason_of(error))
            answer = _error_answer(error, for_errors, request_id)
        except Exception:
            log.exception("unexpected_error")
            answer = _error_answer(ServiceFault(), for_errors, request_id)
        status = STATUS_LINES.get(answer.status) or f"{answer.status} Unknown"
        try:
            start_response(status, [*answer.headers, *headers, *_farewell()])
        except BaseException:
            _close(answer.body)  # the server won't, and the call would never be over
            raise
        return answer.body

    def _start(self) -> None:
        """In the process that serves: threads do not survive a fork."""
        limit_unread(self._services.config.client_unread_timeout_seconds)
        self._services.start()

    def _ask_flask(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """What is no model call. Raises NotFound, Busy, and what a body is refused with."""
        path = environ["PATH_INFO"]
        if path.startswith("//"):  # Werkzeug would take them for one
            raise nothing_at(path)
        if path in HEALTH:
            _set_body(environ, b"")
            return self._flask_wsgi(environ, start_response)
        is_film = FILM.fullmatch(path) is not None
        if is_film:  # on its way for minutes, as answers of models are
            place = self._calls.enter("")
        else:
            lane = self._log_ins if path in LOG_INS else self._others
            place = lane.enter(self._services.addresses.of(environ))
        try:
            if is_film:  # takes no body, and a stranger's must not keep a call's place
                _set_body(environ, b"")
            elif environ.get("CONTENT_LENGTH") or "HTTP_TRANSFER_ENCODING" in environ:
                seconds = min(MAX_JSON_SECONDS, self._body_seconds)
                place.body = self._slow_bodies.expect(environ, seconds)
                _set_body(environ, self._slow_bodies.take(place.body, lambda: read_body(environ, MAX_JSON_BYTES)))
            return place.held(self._flask_wsgi(environ, start_response))
        except BaseException:
            place.leave()
            raise

    def _call(self, api: ModelApi, environ: Environ, request_id: str, headers: Headers) -> ProxyAnswer:
        """A model call, in its lane."""
        place = self._calls.enter("")
        try:
            answer = self._answer(api, environ, request_id, headers, place)
        except BaseException:
            place.leave()
            raise
        return ProxyAnswer(answer.status, answer.headers, place.held(answer.body))

    def _answer(
        self, api: ModelApi, environ: Environ, request_id: str, more_headers: Headers, place: Place
    ) -> ProxyAnswer:
        """more_headers: those of every answer to this call, refusals too; what the caller's limits are joins them."""
        if environ.get("HTTP_UPGRADE", "").lower() == "websocket":
            raise UpgradeRefused("There are no WebSockets here: send this call as a POST, with `stream` for events")
        if environ["REQUEST_METHOD"] != "POST":
            raise MethodNotAllowed("This path takes POST only", {"Allow": METHODS})
        # Who calls comes first: a stranger's body is not even read.
        address = self._services.addresses.of(environ)
        caller = self._services.auth.authenticate(authorization(environ), FOR_CALLS, address=address)
        body = self._budget.open(caller.user_id)
        try:
            self._services.addresses.check(caller, environ)
            return self._carry(api, environ, request_id, caller, address, body, more_headers, place)
        except BaseException as error:
            if isinstance(error, AppError) and not error.is_noted:
                reason = reason_of(error, body.data or None)
                self._services.refused_calls.note(request_id, caller, error.status, reason)
                error.is_noted = True
            body.let_go()
            raise

    def _carry(
        self,
        api: ModelApi,
        environ: Environ,
        request_id: str,
        caller: Caller,
        address: str,
        body: HeldBody,
        more_headers: Headers,
        place: Place,
    ) -> ProxyAnswer:
        """Read the body, which the caller of this lets go if it fails, and answer the call."""
        entered = time.monotonic()
        admission = self._services.rate_limits.admit(caller, address)
        more_headers += admission.headers
        more_headers += self._services.quota_slices.headers(caller)
        try:
            headers, timeout = forwarded_headers(api, environ), asked_timeout(environ, self._max_timeout_seconds)
            place.body = self._slow_bodies.expect(environ, self._body_seconds)
            read = partial(read_body, environ, self._max_body_bytes, body.take)
            body.fill(self._slow_bodies.take(place.body, read))
            if api is COUNT_TOKENS:
                return _counted(body, caller, admission)
            upstream, watch = environ.get("HTTP_X_UPSTREAM", ""), ClientWatch(environ, entered)
            request = ProxyRequest(
                api,
                request_id,
                caller,
                body,
                headers,
                watch.is_gone,
                admission,
                upstream,
                timeout,
                watch.has_ended,
                self._server_ends,
                environ.get("HTTP_CACHE_CONTROL", ""),
                environ.get("HTTP_TRACEPARENT", ""),
            )
            answer = self._services.proxy.forward(request)
            watch.note_answer()
            return answer
        except BaseException:
            admission.release(None)
            raise


def _with_headers(start_response: StartResponse, more: Headers) -> StartResponse:
    if not more:
        return start_response
    return lambda status, headers: start_response(status, [*headers, *more])


def _farewell() -> Headers:
    """Once the end is announced no connection is kept: the next request goes to whoever is ready."""
    return [("Connection", "close")] if ending.is_announced() else []


def _set_body(environ: Environ, body: bytes | bytearray) -> None:
    environ["wsgi.input"] = BytesIO(body)
    environ["CONTENT_LENGTH"] = str(len(body))
    environ.pop("HTTP_TRANSFER_ENCODING", None)


def _counted(body: HeldBody, caller: Caller, admission: Admission) -> ProxyAnswer:
    """How many tokens a prompt has: nobody is asked, and nothing is billed. Raises BadRequest, Forbidden."""
    if caller.client_key:
        caller.client_key.check_scope(MESSAGES.name)
    text = json_text.write({"input_tokens": estimated_tokens(body.data)})
    body.let_go()
    admission.release(0)
    return ProxyAnswer(200, [*JSON, ("Content-Length", str(len(text)))], (text,))


def _close(body: Iterable[bytes]) -> None:
    if close := getattr(body, "close", None):
        close()


def authorization(environ: Environ) -> str | None:
    """The Authorization header, or what `x-api-key` says in its place. Raises BadRequest if they differ."""
    sent: str | None = environ.get("HTTP_AUTHORIZATION")
    if not (key := environ.get("HTTP_X_API_KEY")):
        return sent
    if sent and sent.partition(" ")[2] != key:
        raise BadRequest("Authorization and x-api-key hold different credentials; send one of them")
    return sent or f"Bearer {key}"


def _error_answer(error: AppError, api: ModelApi, request_id: str) -> ProxyAnswer:
    body = api.error_body(error, request_id)
    headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body))), *error.headers.items()]
    return ProxyAnswer(error.status, headers, (body,))
