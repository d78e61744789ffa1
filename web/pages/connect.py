"""The page on which people connect their OpenRouter account, with a key or in a pop-up, and choose which keys carry
their calls."""

from __future__ import annotations

from flask import Response, request

from config.checks import OPENROUTER_KEY
from web.api import connect as connect_api
from web.api.connect import KEYS_PAGE, Begin, NewAccountKey, ask_again, begin
from web.api.connect import shown as shown_account
from web.api.upstreams import NewChoice, set_choice
from web.api.upstreams import shown as shown_upstream
from web.http import count_request, services
from web.pages.forms import form_of
from web.pages.views import Visitor, for_users, page_blueprint, show

routes = page_blueprint("connect_pages", "/connect")


@routes.get("")
@for_users
def page(visitor: Visitor) -> Response:
    """All of it."""
    return _show("connect.html", visitor)


@routes.get("/status")
@for_users
def status(visitor: Visitor) -> Response:
    """The part that changes. While a pop-up is open the page asks for it over and over: OpenRouter is not asked."""
    return _show("connect_status.html", visitor, is_new="is_back" in request.args)


@routes.post("/key")
@for_users
def connect_with_key(visitor: Visitor) -> Response:
    """Connect with a key."""
    count_request("connections")
    connect_api.connect_with_key(visitor.caller, form_of(NewAccountKey))
    return _show("connect_status.html", visitor, is_new=True)


@routes.post("/oauth")
@for_users
def begin_in_browser(visitor: Visitor) -> Response:
    """Where the pop-up has to go, as the API says it."""
    count_request("connections")
    return begin(visitor.caller, Begin(callback_url=None))


@routes.post("/check")
@for_users
def check(visitor: Visitor) -> Response:
    """Ask OpenRouter what is left."""
    count_request("connections")
    ask_again(visitor.user.id)
    return _show("connect_status.html", visitor)


@routes.put("/upstream")
@for_users
def choose(visitor: Visitor) -> Response:
    """Choose which keys carry one's calls."""
    set_choice(visitor.user.id, form_of(NewChoice))
    return _show("connect_status.html", visitor)


@routes.delete("")
@for_users
def disconnect(visitor: Visitor) -> Response:
    """Delete the account's key here."""
    connect_api.disconnect(visitor.user.id)
    return _show("connect_status.html", visitor)


def _show(template: str, visitor: Visitor, is_new: bool = False) -> Response:
    account = shown_account(services().accounts.find(visitor.user.id))
    return show(
        template,
        account=account,
        upstream=shown_upstream(visitor.user.id),
        gives_keys=services().config.dedicated_keys != "off",
        has_way_back=bool(services().config.public_url),
        key_pattern=OPENROUTER_KEY.pattern,
        keys_page=KEYS_PAGE,
        is_new=is_new and account["connected"],
    )
