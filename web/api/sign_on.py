"""Single sign-on: log in through GitHub, Linux.do or OpenID Connect; link and unlink such log-ins."""

from __future__ import annotations

import logging
from datetime import datetime
from typing import Annotated, Literal
from urllib.parse import urlencode

from flask import Blueprint, Response
from pydantic import BeforeValidator, ConfigDict, Field

from accounts.caller import Caller
from accounts.invitations import MAX_TEXT_CHARACTERS
from accounts.one_time_states import LIFE, OneTimeState, SessionOver
from accounts.sign_on.flow import BegunSignOn
from accounts.users import UserState
from foundation.errors import AppError, BadRequest, Forbidden
from foundation.logs import event
from web.api.auth import LoggedIn, SecondFactor, logged_in, origin, second_of, told_of
from web.cookies import Cookie
from web.http import answer, audit, services
from web.next_path import is_on_this_host
from web.operation import Body, Query, Shown, Who, operation

log = logging.getLogger("sign-on")
routes = Blueprint("sso_api", __name__, url_prefix="/api/auth/sso")

BROWSER = Cookie("sso")


def _check_next(value: object) -> str:
    if not isinstance(value, str) or not is_on_this_host(value):
        raise BadRequest("next must be a path on this host, like /dashboard, of at most 500 ASCII characters without #")
    return value


Next = Annotated[
    str,
    BeforeValidator(_check_next),
    Field(max_length=500, description="Path on this host where the browser ends up", examples=["/"]),
]


class Where(Query):
    """Where a log-in ends up."""

    next: Next = "/"
    invitation: str = Field(
        "", max_length=MAX_TEXT_CHARACTERS, description="The code of an invitation, for whoever has no account yet"
    )


class LinkTo(Body):
    """Where linking ends up."""

    next: Next = "/"


class ReturnedFromProvider(Query):
    """What a provider sends the browser back with; some add more."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    state: str = Field(min_length=1, max_length=200, examples=["tWq1nVYk0pJ8yQ0o3c4m5v6b7n8a9s0d1f2g3h4j5k6"])
    code: str = Field("", max_length=2048, description="Of the provider", examples=["a1b2c3"])
    error: str = Field("", max_length=200, description="Instead of a code", examples=["access_denied"])


class OneTimeCode(Body):
    """The code in the fragment that the browser ended up with."""

    code: str = Field(
        min_length=1,
        max_length=200,
        pattern=r"^[\x21-\x7e]+$",
        examples=["9vXk2mQ4yQ0o3c4m5v6b7n8a9s0d1f2g3h4j5k6tWq1"],
    )
    second_factor: SecondFactor = None


class ProviderShown(Shown):
    """A provider. url: where a browser begins a log-in."""

    name: str = Field(examples=["github"])
    title: str = Field(examples=["GitHub"])
    url: str = Field(examples=["/api/auth/sso/github"])


class Providers(Shown):
    """All of them."""

    items: list[ProviderShown]


class IdentityShown(Shown):
    """A log-in that is linked to your account. display_name: the one there."""

    provider: str = Field(examples=["github"])
    display_name: str | None = Field(examples=["Ann"])
    linked_at: datetime
    last_login: datetime | None


class Identities(Shown):
    """All of them."""

    items: list[IdentityShown]


class GoTo(Shown):
    """Where the browser has to go."""

    url: str = Field(examples=["https://github.com/login/oauth/authorize?client_id=..."])


class Unlinked(Shown):
    """A log-in is not linked any more."""

    message: Literal["Unlinked"]


@routes.get("")
@operation("List the providers one can log in through", Who.ANYBODY, answers={200: Providers})
def providers() -> Response:
    """Empty if the operator has configured none."""
    found = services().sign_on.providers
    items = [{"name": name, "title": one.title, "url": f"{routes.url_prefix}/{name}"} for name, one in found.items()]
    return answer({"items": items})


@routes.get("/links")
@operation("List the log-ins that are linked to your account", Who.USER, answers={200: Identities})
def links(caller: Caller) -> Response:
    """By the provider's name."""
    return answer({"items": [one.to_dict() for one in services().sign_on.identities.of(caller.user_id)]})


@routes.get("/<provider>")
@operation(
    "Log in through a provider", Who.ANYBODY, query=Where, answers={302: ()}, refusals=(404, 502), door="log-ins"
)
def begin(provider: str, query: Where) -> Response:
    """For a browser: sends it to the provider, with a cookie that the way back is bound to."""
    return send_there(provider, query.next, query.invitation)


@routes.get("/<provider>/callback")
@operation(
    "Come back from a provider",
    Who.ANYBODY,
    query=ReturnedFromProvider,
    answers={302: ()},
    refusals=(404,),
    door="sign-on steps",
)
def callback(provider: str, query: ReturnedFromProvider) -> Response:
    """For a browser: sends it to the page it came from, with `#sso=<code>` for POST /api/auth/sso/token.

    Or with `#sso_linked=<provider>`, or with `#sso_error=<type>`: `access_denied` if the owner said no there,
    `inactive_at_provider`, `not_allowed_at_provider`, `conflict`, `upstream_failed`, `authentication_error`; for
    somebody new `registration_closed`, `invitation_needed` or `invitation_refused`. A state that was not noted for this
    provider and this browser, has been used or is older than ten minutes is refused here.
    """
    return come_back(provider, query)


def send_there(provider: str, next_path: str, invitation: str = "") -> Response:
    """The answer that sends a browser to a provider. Raises NotFound, ProviderFailed."""
    begun = services().sign_on.begin(provider, next_path, invitation)
    return give_cookie(_redirect(begun.url), begun)


def come_back(provider: str, query: ReturnedFromProvider) -> Response:
    """The answer to a browser that comes back from a provider. Raises NotFound, BadRequest."""
    browser = BROWSER.read()
    try:
        noted = services().sign_on.consume(provider, browser, query.state)
    except SessionOver as over:
        return _back(provider, over.next_path, over)
    try:
        fragment = _arrive(provider, noted, query, browser)
    except AppError as error:
        return _back(provider, noted.next_path, error)
    return _redirect(f"{services().config.public_url}{noted.next_path}#{urlencode(fragment)}")


def _back(provider: str, next_path: str | None, error: AppError) -> Response:
    event(log, "sign_on_refused", provider=provider, reason=error.type)
    return _redirect(f"{services().config.public_url}{next_path}#{urlencode({'sso_error': error.type})}")


def _arrive(provider: str, noted: OneTimeState, query: ReturnedFromProvider, browser: str) -> dict[str, str]:
    """Log in, or link; returns what the page is told."""
    if query.error or not query.code:
        raise _Declined("The provider sent no code")
    if noted.user_id is not None:
        user_id = services().sign_on.link(provider, noted, query.code)
        audit(f"user/{user_id}", "identity_linked", f"identity/{provider}", user_id)
        return {"sso_linked": provider}
    code, entered = services().sign_on.log_in(provider, noted, query.code, browser)
    user_id, subject = entered.user_id, f"user/{entered.user_id}"
    if entered.is_new:
        audit(subject, "registered", subject, user_id, method=provider, **told_of(entered.admission))
    if entered.is_silenced:
        audit(f"identity/{provider}", "user_changed", subject, user_id, state=UserState.SILENCED.value)
    return {"sso": code}


@routes.post("/token")
@operation(
    "Get the tokens of a log-in through a provider",
    Who.ANYBODY,
    body=OneTimeCode,
    answers={200: LoggedIn},
    refusals=(401, 403),
    door="sign-on steps",
)
def token(body: OneTimeCode) -> Response:
    """Exchange the code that the browser came back with: once, within five minutes, and from the same browser.

    403 of the type `second_factor_needed`: send the code once more, with `second_factor`.
    """
    return redeem(body)


def redeem(body: OneTimeCode) -> Response:
    """The answer with the tokens of a log-in. Raises BadRequest, Forbidden, Unauthorized."""

    def check(user_id: int) -> None:
        services().second_factors.check(user_id, second_of(body), origin("sso"))

    user_id, provider = services().sign_on.redeem(BROWSER.read(), body.code, check)
    told = logged_in(services().users.get(user_id), provider)
    BROWSER.take(told)
    return told


@routes.post("/<provider>/link")
@operation(
    "Link a provider to your account",
    Who.USER,
    body=LinkTo,
    answers={200: GoTo},
    refusals=(404, 502),
    door="log-ins",
)
def link(caller: Caller, provider: str, body: LinkTo) -> Response:
    """For a page: send the browser to the URL. Takes a session that is not older than 15 minutes."""
    begun = services().sign_on.begin_link(provider, caller.user_id, caller.session_id, body.next)
    return give_cookie(answer({"url": begun.url}), begun)


@routes.delete("/<provider>")
@operation("Unlink a provider from your account", Who.USER, answers={200: Unlinked}, refusals=(404, 409))
def unlink(caller: Caller, provider: str) -> Response:
    """An account without a key of its own keeps at least one. Sessions go on; they end by themselves or in the list."""
    unlink_identity(caller.user_id, provider)
    return answer({"message": "Unlinked"})


class _Declined(Forbidden):
    type = "access_denied"


def _redirect(url: str) -> Response:
    return Response(status=302, headers={"Location": url, "Referrer-Policy": "no-referrer"})


# ── for the pages too


def unlink_identity(user_id: int, provider: str) -> None:
    """Take a log-in from a user's account. Raises NotFound, Conflict."""
    services().sign_on.identities.unlink(user_id, provider)
    audit(f"user/{user_id}", "identity_unlinked", f"identity/{provider}", user_id)


def give_cookie(response: Response, begun: BegunSignOn) -> Response:
    """The answer that sends a browser to a provider, with the cookie by which it is known when it comes back."""
    BROWSER.give(response, begun.browser, LIFE)
    return response
