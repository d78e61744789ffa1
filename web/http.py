"""What all routes share: the services, JSON bodies, the one error shape, the headers of every answer."""

from __future__ import annotations

import logging
from typing import Any

import orjson
from flask import Flask, Response, current_app, g, request
from pydantic import SecretStr
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge

from accounts import operator_tokens
from accounts.audit_log import READ
from accounts.audit_sums import SumKind
from accounts.caller import Caller
from accounts.roles import SCOPES, Right, rights_of
from accounts.second_factors import SecondFactorRequired
from accounts.step_up import Act
from auth import ACCESS_TOKEN, Credentials
from billing.quotas.rate_limits import Door
from db import DatabaseError
from foundation import json_text
from foundation.crypto import same
from foundation.errors import (
    AppError,
    BadRequest,
    Busy,
    Forbidden,
    MethodNotAllowed,
    NotFound,
    PayloadTooLarge,
    ServiceFault,
    Unauthorized,
    UnsupportedMedia,
)
from foundation.logs import event
from services import Services
from serving.dialects import format_of_errors
from serving.door import COMMON_HEADERS, MAX_JSON_BYTES, REQUEST_ID, authorization
from serving.wrong_paths import nothing_at

log = logging.getLogger("http")
admin_log = logging.getLogger("admin")

DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE = 20, 100
MAX_PAGE = 1_000_000
NEEDS = {
    Right.READ: "This is for operators and auditors",
    Right.CHANGE: "This is for those who may change things, and you may only read",
    Right.APPOINT: "This says who may do what: an admin or ADMIN_TOKEN may, a token may not",
}


def services() -> Services:
    """The running application's services."""
    found: Services = current_app.extensions["services"]
    return found


def count_request(door: Door) -> None:
    """Count this request among those of its address at this door. Raises TooManyRequests."""
    services().rate_limits.check_address(door, services().addresses.of(request.environ))


def json_body() -> dict[str, Any]:
    """The request's JSON object. Raises UnsupportedMedia, PayloadTooLarge, BadRequest."""
    if request.mimetype != "application/json":
        raise UnsupportedMedia("Send JSON with the header Content-Type: application/json")
    try:
        body = orjson.loads(request.get_data())
        json_text.parse_unique(request.get_data())
    except orjson.JSONDecodeError:
        raise BadRequest(f"The body is {json_text.INVALID}") from None
    except json_text.BadJson as error:
        raise BadRequest(f"The body is {error}") from None
    if not isinstance(body, dict):
        raise BadRequest("The body must be a JSON object")
    return body


def authenticate(authorization: str | None, accepted: Credentials = ACCESS_TOKEN) -> Caller:
    """Whoever an Authorization header proves, at this request's address; it is enough that they may look."""
    addresses = services().addresses
    address = addresses.of(request.environ)
    caller = services().auth.authenticate(authorization, accepted, may_call=False, address=address)
    addresses.check(caller, request.environ)
    return caller


def check_caller(accepted: Credentials) -> Caller:
    """Who sent this request, with one of these kinds of credentials. Raises Unauthorized, Forbidden, TooManyRequests.

    A user who may not call may still look.
    """
    g.caller = caller = authenticate(authorization(request.environ), accepted)
    if caller.api_token:
        services().rate_limits.check_api_token(caller.api_token.id)
    return caller


def check_operator(right: Right) -> str:
    """Let only those in who have this right; returns who that is, for the log:
    `admin-token`, `token/<name>` or `user/<id>`.

    A person proves it with an access token: nothing that is handed on to programs counts. Who is no operator is counted
    by address, operators by themselves: strangers who guess keep nobody out. Raises TooManyRequests, Forbidden,
    Unauthorized.
    """
    try:
        _check_operators_address()
        operator, rights, g.caller = _operator(authorization(request.environ) or "")
    except (Unauthorized, Forbidden) as refused:
        count_request("admin requests")
        event(admin_log, "admin_refused", logging.WARNING)
        if isinstance(refused, Forbidden):
            raise
        raise Unauthorized(
            "This is for operators: send `Authorization: Bearer <token>` with ADMIN_TOKEN or an admin's access token"
        ) from None
    count_operator(operator)
    if right not in rights:
        event(admin_log, "admin_refused", logging.WARNING, operator=operator)
        raise Forbidden(NEEDS[right])
    g.operator, g.rights = operator, rights
    return operator


def check_scraper() -> None:
    """Let only who has METRICS_TOKEN in; others count by address. Raises NotFound, TooManyRequests, Unauthorized."""
    if not services().config.metrics_token:
        raise NotFound("There are no metrics here: METRICS_TOKEN is not set")
    if not _has(services().config.metrics_token, authorization(request.environ) or ""):
        count_request("admin requests")
        event(admin_log, "metrics_refused", logging.WARNING)
        raise Unauthorized("Send METRICS_TOKEN as `Authorization: Bearer <token>`")


def check_appoints() -> None:
    """For a change, by an operator who was let in, that says who else may do what. Raises Forbidden for a token."""
    if Right.APPOINT not in g.rights:
        raise Forbidden(NEEDS[Right.APPOINT])


def check_fresh(act: Act) -> None:
    """Let whoever was let in do this only from a fresh session. Raises SessionNotFresh.

    A token that operators hand to programs, and ADMIN_TOKEN, have no session: they are the proof.
    """
    caller: Caller | None = g.caller
    if caller:
        services().step_up.check(caller.user_id, caller.session_id, act)


def note_read(what: str, user_id: int | None) -> None:
    """Count that this request's operator reads something of a person, None for everybody, for the audit log."""
    services().reads.count(SumKind(g.operator, READ, ("what", what), user_id))


def count_operator(operator: str) -> None:
    """Count a request of an operator, whatever its address. Raises TooManyRequests."""
    services().rate_limits.check_address("admin requests", operator)


def _operator(sent: str) -> tuple[str, frozenset[Right], Caller | None]:
    """Who works as operator by this header, what they may do, and with which session, if that is a person's."""
    if _has(services().config.admin_token, sent):
        return "admin-token", frozenset(Right), None
    given = sent.partition(" ")[2]
    if given.startswith(operator_tokens.PREFIX):
        return *_by_operator_token(given), None
    caller = authenticate(sent)
    rights = rights_of(services().users.roles.get(caller.user_id))
    if not rights:
        raise Forbidden("This is for operators, and this account is no active admin")
    check_second_factor(caller.user_id)
    return f"user/{caller.user_id}", rights, caller


def rights_here(user_id: int) -> frozenset[Right]:
    """What a person may do as an operator: nothing from an address that ADMIN_ADDRESSES leaves out."""
    is_let_in = services().addresses.is_for_operators(request.environ)
    return rights_of(services().users.roles.get(user_id)) if is_let_in else frozenset()


def _check_operators_address() -> None:
    addresses = services().addresses
    if not addresses.is_for_operators(request.environ):
        address = addresses.exact(request.environ)
        raise Forbidden(f"Operators don't work from {address} (ADMIN_ADDRESSES)")


def _has(token: SecretStr | None, sent: str) -> bool:
    """True if an Authorization header has this token; nobody has one that is not set, or empty."""
    text = token.get_secret_value() if token else ""
    scheme, _, given = sent.partition(" ")
    return bool(text) and scheme.lower() == "bearer" and same(given, text)


def _by_operator_token(given: str) -> tuple[str, frozenset[Right]]:
    if not services().auth.is_informed:
        raise Busy("Operator tokens can't be looked up at present; try again shortly", retry_after_seconds=5)
    found = services().operator_tokens.live.find(given)
    if found is None:
        raise Unauthorized("The operator token is unknown, revoked or expired")
    return found.actor, SCOPES[found.scope]


def check_second_factor(user_id: int) -> None:
    """Let only who has a second factor work as operator, where the setting says so. Raises SecondFactorRequired."""
    is_required = services().config.operator_second_factor == "required"
    if is_required and not services().second_factors.is_set_up(user_id):
        raise SecondFactorRequired


def audit(actor: str, action: str, subject: str, user_id: int | None = None, **details: Any) -> None:
    """Write down and log a change that this request has made. user_id: whom it concerns."""
    address = services().addresses.of(request.environ)
    request_id = request.environ.get(REQUEST_ID)
    services().audit.record(actor, action, subject, user_id, address, request_id, **details)
    event(admin_log, action, actor=actor, subject=subject, **details)


def answer(body: dict[str, Any], status: int = 200) -> Response:
    """A JSON answer."""
    return Response(orjson.dumps(body), status, mimetype="application/json")


def register(app: Flask) -> None:
    """Add the error handlers and the common headers."""
    app.config["MAX_CONTENT_LENGTH"] = MAX_JSON_BYTES
    app.register_error_handler(Exception, lambda error: refusal(app_error(error)))
    app.after_request(_common_headers)


def refusal(error: AppError) -> Response:
    """An error as JSON, in the form that this client reads."""
    body = format_of_errors(request.environ).error_body(error, request.environ.get(REQUEST_ID, ""))
    response = Response(body, error.status, mimetype="application/json")
    response.headers.update(error.headers)
    return response


def app_error(error: Exception) -> AppError:
    """What a client is told of whatever was raised; what is our fault is logged."""
    if isinstance(error, AppError):
        return error
    if isinstance(error, DatabaseError):
        log.error("database_error", extra={"fields": {"error": type(error).__name__}})
        return Busy("The database can't be reached; try again shortly", retry_after_seconds=5)
    if isinstance(error, HTTPException) and (error.code or 500) < 500:
        return _refused_by_werkzeug(error)
    log.error("unexpected_error", exc_info=error)
    return ServiceFault()


def _refused_by_werkzeug(error: HTTPException) -> AppError:
    if error.code == 404:
        return nothing_at(request.path)
    if error.code == 405:
        allowed = ", ".join(sorted(getattr(error, "valid_methods", None) or ()))
        return MethodNotAllowed(f"This path takes {allowed} only", {"Allow": allowed})
    if isinstance(error, RequestEntityTooLarge):
        return PayloadTooLarge(f"The body may have at most {MAX_JSON_BYTES} bytes")
    return BadRequest(error.description or "The request is malformed")


def _common_headers(response: Response) -> Response:
    for name in format_of_errors(request.environ).request_id_headers:
        response.headers[name] = request.environ.get(REQUEST_ID, "")
    for name, value in COMMON_HEADERS:
        response.headers.setdefault(name, value)
    return response
