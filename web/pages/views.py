"""What all pages share: who looks at them, by a cookie; requests of other sites refused; the language; the policy.

Pages know their visitor by a token in a cookie that no script reads. It is good for pages alone, and pages take no
Authorization header. What changes anything takes, beside the cookie, a token that only this session's pages show.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import wraps
from typing import Any
from urllib.parse import quote, urlsplit

from flask import Blueprint, Flask, Response, g, render_template, request

from accounts.caller import Caller
from accounts.roles import Right
from accounts.step_up import SessionNotFresh
from accounts.users import User
from auth import PAGE_TOKEN
from db import DatabaseError
from foundation.crypto import same
from foundation.errors import Forbidden, NotFound, Unauthorized
from foundation.logs import event
from pool.names import short_name
from serving.door import REQUEST_ID
from web.cookies import Cookie
from web.http import (
    admin_log,
    app_error,
    authenticate,
    check_second_factor,
    count_request,
    refusal,
    rights_here,
    services,
)
from web.operation import MAX_ID
from web.pages.forms import by_field
from web.pages.static_files import asset
from web.words import LANGUAGES, translate

View = Callable[..., Response]

SESSION, LANGUAGE, THEME = Cookie("session"), "lang", "theme"
RENEW_AFTER = timedelta(minutes=30)
POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; img-src 'self' data: https:; "
    "font-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)


@dataclass(frozen=True)
class Visitor:
    """Who looks at a page. csrf_token: what its forms have to send back."""

    caller: Caller
    user: User
    csrf_token: str

    @property
    def rights(self) -> frozenset[Right]:
        """What this visitor may do where operators work; nothing, for most."""
        return rights_here(self.user.id)


def register(app: Flask) -> None:
    """Give the templates what they work with, and people a page for what goes wrong at any address."""
    app.jinja_env.globals["asset"] = asset
    app.jinja_env.filters |= {"dollars": _dollars, "count": _count, "short_name": short_name}
    app.register_error_handler(Exception, _refused)


def _dollars(amount: float | None) -> str:
    """Small amounts to the digit that counts: most calls cost fractions of a cent."""
    if amount is None:
        return "–"
    digits = 2 if amount == 0 or abs(amount) >= 1 else 4 if abs(amount) >= 0.001 else 7
    return f"{'-' if amount < 0 else ''}${abs(amount):,.{digits}f}"


def _count(number: int) -> str:
    return f"{number:,}"


def page_blueprint(name: str, prefix: str = "") -> Blueprint:
    """A family of pages."""
    blueprint = Blueprint(name, f"web.pages.{name}", url_prefix=prefix or None)
    blueprint.before_request(_count_strangers)
    blueprint.before_request(_refuse_other_sites)
    blueprint.after_request(_finish)
    blueprint.register_error_handler(Exception, _error_page)
    return blueprint


def find_visitor() -> Visitor | None:
    """Who has sent this request; None for nobody who is logged in. Raises Busy while that can't be known."""
    if "visitor" not in g:
        g.visitor = _read_visitor()
    found: Visitor | None = g.visitor
    return found


def _read_visitor() -> Visitor | None:
    caller = find_caller()
    user = services().users.find_by_id(caller.user_id) if caller else None
    if caller is None or user is None:
        return None
    return Visitor(caller, user, services().sessions.csrf_token(caller.session_id))


def find_caller() -> Caller | None:
    """Whose session the cookie is of, told from memory. Raises Busy."""
    try:
        return authenticate(f"Bearer {SESSION.read()}", PAGE_TOKEN)
    except (Unauthorized, Forbidden):
        return None


def give_session(response: Response, user_id: int, session_id: str) -> Response:
    """Let the browser that gets this answer see the pages of a session. Raises Unauthorized if that is over."""
    token = services().auth.issue_page_token(user_id, session_id)
    SESSION.give(response, token, services().auth.access_life)
    return response


def for_users(view: View) -> View:
    """Let only those in who are logged in; the view gets them as `visitor`. Others are sent to the log-in."""

    @wraps(view)
    def run(**path: Any) -> Response:
        visitor = find_visitor()
        if visitor and any(isinstance(part, int) and part > MAX_ID for part in path.values()):
            raise NotFound("There is nothing at this path")
        if visitor is None:
            return _to("/login")
        g.caller = visitor.caller
        return view(visitor=visitor, **path)

    return run


def for_those_with(right: Right, view: View) -> View:
    """The same for those who have this right. Raises Forbidden for other users."""

    @wraps(view)
    def run(visitor: Visitor, **path: Any) -> Response:
        if right not in visitor.rights:
            event(admin_log, "admin_refused", logging.WARNING)
            raise Forbidden("You may only read here" if visitor.rights else "This page is for operators")
        check_second_factor(visitor.user.id)
        return view(visitor=visitor, **path)

    return for_users(run)


def show(template: str, status: int = 200, **values: Any) -> Response:
    """A page, or a part of one, of this template."""
    language, theme = _language(), request.cookies.get(THEME)
    shared = {
        "visitor": find_visitor(),
        "language": language,
        "languages": LANGUAGES,
        "theme": theme if theme in {"dark", "light"} else "auto",
        "t": lambda text, **parts: translate(text, language, **parts),
    }
    return Response(render_template(template, **shared, **values), status, mimetype="text/html")


def own_address() -> str:
    """This gateway's address without a path, as its visitor has to write it."""
    return services().config.public_url or request.host_url.rstrip("/")


def go_to(path: str) -> Response:
    """Have the browser go to another address; elsewhere only for parts: forms may lead to this host alone (POLICY)."""
    if _is_part():
        return Response(status=204, headers={"HX-Redirect": path})
    return Response(status=303, headers={"Location": path})


def _is_part() -> bool:
    """True if the request wants a part of the page, to put it in its place."""
    return request.headers.get("HX-Request") == "true" and request.headers.get("HX-History-Restore-Request") != "true"


def _to(path: str) -> Response:
    """To a page that leads back to the one that is looked at."""
    if _is_part():  # a part alone is no page: back to the one that asked for it
        wanted = urlsplit(request.headers.get("HX-Current-URL", "")).path
    else:
        wanted = request.path if request.method == "GET" else ""
    return go_to(f"{path}?next={quote(wanted or '/dashboard')}")


def _language() -> str:
    chosen = request.cookies.get(LANGUAGE)
    # Not Werkzeug's best match: of `zh-CN, en;q=0.5` that is English.
    wanted = (tag.partition("-")[0].lower() for tag in request.accept_languages.values())
    return chosen if chosen in LANGUAGES else next((tag for tag in wanted if tag in LANGUAGES), "en")


def _refuse_other_sites() -> None:
    """Raises Forbidden for a change that another site's page, or a script that reads no page of ours, has sent."""
    if request.method in {"GET", "HEAD", "OPTIONS"}:
        return
    site = request.headers.get("Sec-Fetch-Site")
    origin = request.headers.get("Origin")
    is_ours = site == "same-origin" if site else not origin or urlsplit(origin).netloc == request.host
    if not is_ours:
        raise Forbidden("This was sent by a page of another site")
    if request.headers.get("Authorization", "").startswith("Bearer "):  # only scripts send that, and only to their host
        return
    visitor = find_visitor()
    sent = request.headers.get("X-CSRF-Token") or request.form.get("csrf_token", "")
    if visitor and not same(sent, visitor.csrf_token):
        raise Forbidden("This page is out of date: load it again")


def _count_strangers() -> None:
    """Raises TooManyRequests. Who has logged in may look at as many pages as they may ask the API for answers."""
    if not find_visitor():
        count_request("pages")


def _finish(response: Response) -> Response:
    """The headers of every page, and a fresh cookie for a visitor who stays."""
    response.headers["Content-Security-Policy"] = POLICY
    response.headers["X-Frame-Options"] = "DENY"
    response.headers["Referrer-Policy"] = "same-origin"
    response.headers["Vary"] = "Cookie, HX-Request, Accept-Language"
    visitor = g.get("visitor")
    if response.mimetype == "text/event-stream" or g.get("asked_by_itself"):
        return response  # what a page asks for by itself keeps nobody logged in
    if visitor and not response.headers.get("Set-Cookie"):
        left = visitor.caller.expires_at - services().clock.timestamp()
        if services().auth.access_life.total_seconds() - left > RENEW_AFTER.total_seconds():
            try:
                give_session(response, visitor.user.id, visitor.caller.session_id)
            except (Unauthorized, DatabaseError):
                pass  # its time is over, or can't be made longer now: this page, at least, is there
    return response


def _error_page(error: Exception) -> Response:
    """What went wrong, on a page. number: by which operators find it in their log."""
    if isinstance(error, SessionNotFresh):
        return _to("/step-up")
    fault = app_error(error)
    g.setdefault("visitor", None)  # if it is that which can't be known
    number = request.environ.get(REQUEST_ID, "") if fault.status >= 500 else ""
    response = show("error.html", fault.status, error=fault, by_field=by_field(fault), number=number)
    response.headers.update(fault.headers)
    return response


def _refused(error: Exception) -> Response:
    """Programs get JSON; browsers that go to an address, which ask for HTML before all else, a page."""
    if request.accept_mimetypes.best_match(["application/json", "text/html"]) == "text/html":
        return _finish(_error_page(error))
    return refusal(app_error(error))
