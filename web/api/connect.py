"""Connecting one's own OpenRouter account, with an API key or by OpenRouter's OAuth flow (PKCE), which ends here.

    initiate ──> the browser goes to OpenRouter ──> callback_url?state=..&code=.. ──> callback ──> connected
                                                    (ours: the browser's GET)

OpenRouter documents no `state`, so that ours is part of the callback's URL. It is good for the session that began, and
in a browser, whose redirect has no bearer, for the cookie that it was given then. What somebody else's browser or
session brings is refused before OpenRouter hears of it: or an attacker's account would become the victim's.
"""

from __future__ import annotations

import html
import re
from datetime import datetime
from typing import Literal, NamedTuple
from urllib.parse import parse_qsl, urlencode, urlsplit

from flask import Blueprint, Response
from pydantic import ConfigDict, Field

from accounts.caller import Caller
from accounts.one_time_states import LIFE, OneTimeState, SessionOver
from accounts.sessions import hold
from config.checks import OPENROUTER_KEY
from foundation.crypto import new_token, same, sha256_hex
from foundation.errors import AppError, BadRequest, Conflict, Forbidden
from foundation.money import usd
from pool.connected import ConnectedAccount, Method
from upstream.openrouter.account_api import BEGIN_AGAIN
from upstream.openrouter.key_facts import KeyAccount
from web.cookies import Cookie
from web.http import answer, audit, services
from web.operation import Body, Query, Shown, Who, operation

routes = Blueprint("connect_api", __name__, url_prefix="/api/v1/openrouter")

PROVIDER = "openrouter"
CALLBACK = f"{routes.url_prefix}/oauth/callback"
BROWSER = Cookie("openrouter-connect")
KEYS_PAGE = "https://openrouter.ai/settings/keys"
# A redirect back to the program that began: on its own machine any port will do (RFC 8252 7.3).
LOCAL = re.compile(r"http://(localhost|127\.0\.0\.1)(:[0-9]{1,5})?")
MAX_URL, MAX_CODE = 500, 500
PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",  # the address has the code
    "X-Frame-Options": "DENY",
}


class NewAccountKey(Body):
    """A key of one's own account at OpenRouter."""

    api_key: str = Field(min_length=1, max_length=512, description="`sk-or-...`; a management key does not do")


class Begin(Body):
    """Where OpenRouter shall send the browser back to: by default to this gateway."""

    callback_url: str | None = Field(
        None, min_length=1, max_length=MAX_URL, examples=["http://localhost:3000/callback"]
    )


class Begun(Shown):
    """Where the browser has to go now."""

    authorization_url: str = Field(examples=["https://openrouter.ai/auth?callback_url=..."])
    state: str = Field(description="Comes back with the code, in the query of the callback")
    expires_in: int = Field(description="Seconds", examples=[600])


class ReturnedCode(Body):
    """What the callback was called with."""

    code: str = Field(min_length=1, max_length=MAX_CODE, pattern=r"^[!-~]+$")
    state: str = Field(min_length=1, max_length=200)


class ReturnedBrowser(Query):
    """The same in a browser; what else OpenRouter adds changes nothing."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    code: str = Field("", max_length=MAX_CODE, pattern=r"^[!-~]*$")
    state: str = Field("", max_length=200)


class AccountShown(Shown):
    """One's connection; amounts are of the key, in dollars, null for no limit or unknown.

    state: `none`; `active`; `resting` while OpenRouter refuses calls with it; `unusable`: connect it again.
    """

    connected: bool
    state: Literal["none", "active", "resting", "unusable"]
    method: Literal["key", "oauth"] | None
    label: str | None = Field(description="The first and last characters of the key", examples=["sk-or-...6e7"])
    connected_at: datetime | None
    checked_at: datetime | None = Field(description="When OpenRouter was asked for the rest")
    limit_usd: float | None = Field(examples=[20.0])
    remaining_usd: float | None = Field(examples=[12.5])
    usage_usd: float | None = Field(examples=[7.5])


class Disconnected(Shown):
    """No account is connected any more."""

    message: str


class Callback(NamedTuple):
    """Where the browser comes back. is_ours: to this gateway."""

    url: str
    is_ours: bool


# ── with a key


@routes.post("/auth/validate-key")
@operation(
    "Connect your OpenRouter account with a key",
    Who.USER,
    body=NewAccountKey,
    answers={200: AccountShown},
    refusals=(409, 502, 504),
    door="connections",
)
def validate_key(caller: Caller, body: NewAccountKey) -> Response:
    """OpenRouter is asked about the key, which is then stored encrypted, in the place of another connection."""
    return answer(shown(connect_with_key(caller, body)))


def connect_with_key(caller: Caller, body: NewAccountKey) -> ConnectedAccount:
    """Connect with a key. Raises BadRequest, Conflict, UpstreamFailed, UpstreamTimeout, Busy.

    Unauthorized if the session has ended meanwhile.
    """
    if not OPENROUTER_KEY.fullmatch(body.api_key):
        raise BadRequest(f"api_key must be an OpenRouter key, sk-or-v1-...; make one at {KEYS_PAGE}")
    told = services().accounts.api.describe(body.api_key)
    if told is None:
        raise BadRequest(f"OpenRouter does not accept this key: it may be deleted or disabled; see {KEYS_PAGE}")
    if told.is_management:
        raise BadRequest(f"This is a management key, which can't call models; make a plain one at {KEYS_PAGE}")
    return _connect(caller.user_id, caller.session_id, body.api_key, Method.KEY, told)


# ── by OAuth


@routes.post("/oauth/initiate")
@operation("Begin to connect by OpenRouter's log-in", Who.USER, body=Begin, answers={200: Begun}, door="connections")
def initiate(caller: Caller, body: Begin) -> Response:
    """Send the browser to `authorization_url`. It comes back with a code, for `POST /oauth/callback` by this session;
    to this gateway's own address, which is the default, with a cookie instead."""
    return begin(caller, body)


def begin(caller: Caller, body: Begin) -> Response:
    """Where to send the browser, and what this gateway has to know of it. Raises BadRequest."""
    callback = _callback(body.callback_url)
    verifier, cookie = new_token(), new_token()
    secrets = {"verifier": verifier, "cookie_hash": sha256_hex(cookie)}
    noted = OneTimeState(secrets, caller.user_id, caller.session_id, None)
    state = services().one_time_states.begin(PROVIDER, caller.session_id, noted)
    joint = "&" if "?" in callback.url else "?"
    url = services().accounts.api.authorization_url(f"{callback.url}{joint}{urlencode({'state': state})}", verifier)
    begun = answer({"authorization_url": url, "state": state, "expires_in": int(LIFE.total_seconds())})
    if callback.is_ours:
        BROWSER.give(begun, f"{caller.session_id}.{cookie}", LIFE)
    return begun


@routes.post("/oauth/callback")
@operation(
    "Connect with the code of OpenRouter's log-in",
    Who.USER,
    body=ReturnedCode,
    answers={200: AccountShown},
    refusals=(409, 502, 504),
    door="connections",
)
def callback(caller: Caller, body: ReturnedCode) -> Response:
    """By the session that began. A state and a code work once: after any refusal, begin again."""
    noted = _consume(caller.session_id, body.state)
    return answer(shown(_redeem(caller.user_id, caller.session_id, noted, body.code)))


@routes.get("/oauth/callback")
@operation(
    "Come back from OpenRouter's log-in",
    Who.ANYBODY,
    query=ReturnedBrowser,
    answers=dict.fromkeys((200, 401, 403, 409, 502, 504), ("text/html",)),
    door="connections",
)
def callback_of_browser(query: ReturnedBrowser) -> Response:
    """Where OpenRouter sends the browser that began. A page says whether the account is connected, or what to do."""
    session_id, _, cookie = BROWSER.read().partition(".")
    try:
        if not query.code:
            raise Forbidden(f"OpenRouter gave no code: the connection was not approved; {BEGIN_AGAIN}")
        noted = _consume(session_id, query.state)
        if not same(noted.secrets["cookie_hash"], sha256_hex(cookie)):
            raise _not_yours()
        user = services().users.find_by_id(noted.user_id) if noted.user_id else None
        if user is None or user.state.is_shut:
            raise _not_yours()
        _redeem(user.id, session_id, noted, query.code)
    except AppError as error:
        if error.status not in {401, 403, 409, 502, 504}:
            raise
        return _page(error.status, "Not connected", error.message)
    page = _page(200, "Connected", "Your OpenRouter account is connected. You can close this window.")
    BROWSER.take(page)
    return page


def _callback(asked: str | None) -> Callback:
    """Raises BadRequest unless the browser may be sent there."""
    config = services().config
    ours = f"{config.public_url}{CALLBACK}" if config.public_url else None
    if asked is None and ours is None:
        raise BadRequest("callback_url is needed: PUBLIC_URL, from which a default would be made, is not set here")
    url = asked or ours or ""
    begin = url.partition("?")[0]
    origin = "/".join(begin.split("/")[:3])
    is_known = bool(config.public_url) and origin == config.public_url
    is_local = not config.production and LOCAL.fullmatch(origin)
    # Beyond these characters browsers and servers disagree where a host ends.
    if not (is_known or is_local) or not re.fullmatch(r"[A-Za-z0-9:/?&=%+.,~_\[\]-]+", url):
        accepted = [config.public_url] if config.public_url else []
        accepted += [] if config.production else ["http://localhost:<port>", "http://127.0.0.1:<port>"]
        raise BadRequest(f"callback_url must begin with {' or '.join(accepted) or 'PUBLIC_URL, which is not set here'}")
    if {"state", "code"} & {name for name, _ in parse_qsl(urlsplit(url).query, keep_blank_values=True)}:
        raise BadRequest("callback_url must have no `state` and no `code` in its query: they are added")
    return Callback(url, begin == ours)


def _consume(session_id: str, state: str) -> OneTimeState:
    """What was noted when this session began. Raises Forbidden, whatever is wrong."""
    try:
        return services().one_time_states.consume(PROVIDER, session_id, state)
    except (BadRequest, SessionOver):
        raise _not_yours() from None


def _not_yours() -> Forbidden:
    return Forbidden(
        "This connection was not begun in this session or browser, has been used, or took more than ten minutes; "
        + BEGIN_AGAIN
    )


def _redeem(user_id: int, session_id: str, noted: OneTimeState, code: str) -> ConnectedAccount:
    """Connect the account of a code. Raises Forbidden, Conflict, UpstreamFailed, UpstreamTimeout, Busy.

    Unauthorized if the session has ended meanwhile.
    """
    api = services().accounts.api
    text = api.exchange(code, noted.secrets["verifier"])
    try:
        told = api.describe(text)
    except AppError:  # the code is used up: without what the key tells, it is still the user's
        told = None
    return _connect(user_id, session_id, text, Method.OAUTH, told)


# ── whichever way


@routes.get("/status")
@operation("Whether your OpenRouter account is connected", Who.USER, answers={200: AccountShown})
def status(caller: Caller) -> Response:
    """As last known; OpenRouter is not asked."""
    return answer(shown(services().accounts.find(caller.user_id)))


@routes.get("/user-info")
@operation(
    "What your OpenRouter account has left",
    Who.USER,
    answers={200: AccountShown},
    refusals=(404, 409, 502, 504),
    door="connections",
)
def user_info(caller: Caller) -> Response:
    """OpenRouter is asked now. 409 if it does not accept the key any more."""
    ask_again(caller.user_id)
    return answer(shown(services().accounts.find(caller.user_id)))


def ask_again(user_id: int) -> None:
    """Note what OpenRouter says of an account now. Raises NotFound, Conflict, UpstreamFailed, UpstreamTimeout, Busy."""
    account = services().accounts.get(user_id)
    text = services().accounts.key_text(account)
    told = services().accounts.api.describe(text) if text else None
    if told is None:
        raise Conflict("OpenRouter does not accept your connected key any more: connect your account again")
    services().accounts.note(account, told)


@routes.post("/logout")
@operation("Disconnect your OpenRouter account", Who.USER, answers={200: Disconnected})
def logout(caller: Caller) -> Response:
    """Its key is deleted here, and used nowhere after two seconds. At OpenRouter it lives on until you delete it."""
    disconnect(caller.user_id)
    return answer({"message": f"Disconnected. At OpenRouter the key lives on until you delete it at {KEYS_PAGE}"})


def disconnect(user_id: int) -> None:
    """Delete the key of an account, if one is connected."""
    if services().accounts.disconnect(user_id):
        audit(f"user/{user_id}", "openrouter_disconnected", f"openrouter-account/{user_id}", user_id)


def _connect(user_id: int, session_id: str, text: str, method: Method, told: KeyAccount | None) -> ConnectedAccount:
    account = services().accounts.connect(user_id, text, method, told, lambda tx: hold(tx, session_id, user_id))
    audit(f"user/{user_id}", "openrouter_connected", f"openrouter-account/{user_id}", user_id, method=method.value)
    return account


def shown(account: ConnectedAccount | None) -> dict[str, object]:
    """A connection, or that there is none, as JSON."""
    if account is None:
        fields = AccountShown.model_fields
        return dict.fromkeys(fields) | {"connected": False, "state": "none"}
    row = services().pool_keys.dedicated([account.user_id]).get(account.user_id)
    state = "active"
    if row is None or row.id != account.pool_key_id or services().accounts.key_text(account) is None:
        state = "unusable"
    elif services().pool.own_key_rests(row.id, account.user_id):
        state = "resting"
    return {
        "connected": True,
        "state": state,
        "method": account.method.value,
        "label": account.label,
        "connected_at": account.connected_at,
        "checked_at": account.checked_at,
        "limit_usd": usd(account.limit_nano),
        "remaining_usd": usd(account.remaining_nano),
        "usage_usd": usd(account.usage_nano),
    }


# ── in a browser


def _page(status: int, title: str, message: str) -> Response:
    text = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><h1>{title}</h1>'
        f"<p>{html.escape(message)}</p>"
    )
    return Response(text, status, mimetype="text/html", headers=PAGE_HEADERS)
