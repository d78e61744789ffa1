"""Single sign-on by other names of its paths, which programs that were made for earlier gateways use."""

from __future__ import annotations

from flask import Blueprint, Response
from pydantic import Field

from web.api.auth import LoggedIn
from web.api.sign_on import OneTimeCode, ReturnedFromProvider, Where, come_back, redeem, send_there
from web.http import services
from web.operation import Who, operation

routes = Blueprint("sso_names_api", __name__, url_prefix="/api/auth")


class WhereThrough(Where):
    """Through which provider, and where a log-in ends up."""

    provider: str = Field("", max_length=24, description="May be left out if there is one only", examples=["github"])


@routes.get("/sso/initiate")
@operation(
    "Log in through a provider that the query names",
    Who.ANYBODY,
    query=WhereThrough,
    answers={302: ()},
    refusals=(404, 502),
    door="log-ins",
)
def initiate(query: WhereThrough) -> Response:
    """For a browser, as GET /api/auth/sso/{provider}."""
    return send_there(services().sign_on.provider_name(query.provider), query.next)


@routes.get("/sso/callback")
@operation(
    "Come back from the provider that one has gone to",
    Who.ANYBODY,
    query=ReturnedFromProvider,
    answers={302: ()},
    refusals=(404,),
    door="sign-on steps",
)
def callback(query: ReturnedFromProvider) -> Response:
    """For a browser, as GET /api/auth/sso/{provider}/callback, which is what providers are told."""
    return come_back(services().sign_on.provider_of(query.state), query)


@routes.get("/github/login")
@operation("Log in through GitHub", Who.ANYBODY, query=Where, answers={302: ()}, refusals=(404, 502), door="log-ins")
def github_login(query: Where) -> Response:
    """For a browser, as GET /api/auth/sso/github."""
    return send_there("github", query.next)


@routes.post("/github/callback")
@operation(
    "Get the tokens of a log-in through GitHub",
    Who.ANYBODY,
    body=OneTimeCode,
    answers={200: LoggedIn},
    refusals=(401, 403),
    door="sign-on steps",
)
def github_callback(body: OneTimeCode) -> Response:
    """As POST /api/auth/sso/token: `code` is the one in the fragment, not GitHub's, which never leaves the gateway."""
    return redeem(body)
