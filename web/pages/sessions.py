"""The pages of signing up, logging in and out. The key is derived on them: no password is sent."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from flask import Response, request

from auth import ACCESS_TOKEN
from web.api.sessions import end_session
from web.api.step_up import Proven, prove
from web.http import check_caller, count_request, services
from web.next_path import is_on_this_host
from web.pages.forms import form_of, json_of
from web.pages.views import SESSION, Visitor, find_visitor, for_users, give_session, go_to, page_blueprint, show

routes = page_blueprint("session_pages")


@routes.get("/")
def home() -> Response:
    """To where one begins."""
    return go_to("/dashboard" if find_visitor() else "/login")


@routes.get("/login")
def login() -> Response:
    """Log in."""
    if find_visitor():
        return go_to(_next())
    return show("login.html", next_path=_next(), **_ways_in())


@routes.get("/register")
def register() -> Response:
    """Sign up."""
    if find_visitor():
        return go_to("/dashboard")
    return show("register.html", next_path="/dashboard", **_ways_in())


@routes.get("/recover")
def recover() -> Response:
    """Set a new password with a recovery code."""
    return show("recover.html", by_link=False, has_passkeys=services().passkeys.are_possible)


@routes.get("/reset")
def reset() -> Response:
    """Set a new password by an operator's link."""
    return show("recover.html", by_link=True, has_passkeys=services().passkeys.are_possible)


@routes.post("/session")
def begin() -> Response:
    """Let a browser that has logged in at the API see its pages. Whose pages it saw before, that session ends."""
    caller, before = check_caller(ACCESS_TOKEN), find_visitor()
    response = give_session(Response(status=204), caller.user_id, caller.session_id)
    if before and before.caller.session_id != caller.session_id:
        end_session(before.caller, before.caller.session_id)
    return response


@routes.post("/logout")
@for_users
def logout(visitor: Visitor) -> Response:
    """End the session, of pages and API alike. With `next`, the log-in after it leads there."""
    services().auth.logout(visitor.caller)
    response = go_to(f"/login?next={quote(_next())}" if "next" in request.args else "/login")
    SESSION.take(response)
    return response


@routes.get("/step-up")
@for_users
def step_up(visitor: Visitor) -> Response:
    """Prove again who one is, and back to what takes it."""
    proof = services().step_up.proof_of(visitor.user.id)
    return show("step_up.html", next_path=_next(), proof=proof, has_passkeys=services().passkeys.are_possible)


@routes.post("/step-up")
@for_users
def confirm(visitor: Visitor) -> Response:
    """Make the session fresh."""
    count_request("log-ins")
    if request.form.get("passkey"):
        given = form_of(Proven, passkey=None, second_factor=json_of("passkey"))
    else:
        given = form_of(Proven, passkey=None)
    prove(visitor.caller, given)
    return Response(status=204)


def _ways_in() -> dict[str, Any]:
    ways = {"providers": services().sign_on.providers, "mode": services().registration.mode.value}
    return ways | {"has_passkeys": services().passkeys.are_possible}


def _next() -> str:
    """Where a log-in ends up."""
    wanted = request.args.get("next", "")
    return wanted if is_on_this_host(wanted) else "/dashboard"
