"""The pages of signing up, logging in and out. The key is derived on them: no password is sent."""

from __future__ import annotations

import re
from urllib.parse import quote

from flask import Response, request

from auth import ACCESS_TOKEN
from web.api.sessions import ended
from web.http import check_caller, services
from web.pages.views import SESSION, Visitor, find_visitor, for_users, go_to, page_blueprint, show, with_session

routes = page_blueprint("session_pages")

# A path on this host. Browsers read `\\` as `/`, and skip tabs.
NEXT = re.compile(r"/(?!/)[!\"$-\[\]-~]{0,499}")


@routes.get("/")
def home() -> Response:
    """To where one begins."""
    return go_to("/dashboard" if find_visitor() else "/login")


@routes.get("/login")
def login() -> Response:
    """Log in."""
    if find_visitor():
        return go_to(_next())
    return show("login.html", next_path=_next(), providers=services().sign_on.providers)


@routes.get("/register")
def register() -> Response:
    """Sign up."""
    if find_visitor():
        return go_to("/dashboard")
    return show("register.html", next_path="/dashboard", providers=services().sign_on.providers)


@routes.post("/session")
def begin() -> Response:
    """Let a browser that has logged in at the API see its pages. Whose pages it saw before, that session ends."""
    caller, before = check_caller(ACCESS_TOKEN), find_visitor()
    response = with_session(Response(status=204), caller.user_id, caller.session_id)
    if before and before.caller.session_id != caller.session_id:
        ended(before.caller, before.caller.session_id)
    return response


@routes.post("/logout")
@for_users
def logout(visitor: Visitor) -> Response:
    """End the session, of pages and API alike. With `next`, the log-in after it leads there."""
    services().auth.logout(visitor.caller)
    response = go_to(f"/login?next={quote(_next())}" if "next" in request.args else "/login")
    SESSION.take(response)
    return response


def _next() -> str:
    """Where a log-in ends up."""
    wanted = request.args.get("next", "")
    return wanted if NEXT.fullmatch(wanted) else "/dashboard"
