"""Proving again who one is, in one's session: what is dangerous takes that to be not older than 15 minutes."""

from __future__ import annotations

from typing import Annotated, Literal

from flask import Blueprint, Response
from pydantic import BeforeValidator, Field

from accounts.caller import Caller
from accounts.second_factors import Second
from auth import check_login_key
from web.api.auth import EXAMPLE_KEY, SecondFactor, count_log_in, origin, second_of
from web.api.password import Name, Password, derived
from web.http import answer, audit, services
from web.operation import Body, Shown, Who, operation

routes = Blueprint("step_up_api", __name__, url_prefix="/api/auth")


class Proven(Body):
    """A second factor; for an account without one the derived key."""

    derived_key: Annotated[str, BeforeValidator(check_login_key)] | None = Field(
        None, min_length=1, max_length=512, description="As at the log-in", examples=[EXAMPLE_KEY]
    )
    second_factor: SecondFactor = None


class ProvenByPassword(Body):
    """The password, of an account without a second factor."""

    email: Name
    password: Password


class SteppedUp(Shown):
    """The session is as fresh as a new one."""

    message: Literal["The session is fresh"]


@routes.post("/step-up")
@operation("Prove again who you are", Who.USER, body=Proven, answers={200: SteppedUp}, refusals=(401,), door="log-ins")
def step_up(caller: Caller, body: Proven) -> Response:
    """For 15 minutes this session may do what was refused with `fresh_session_needed`; its tokens stay the same.

    Send `second_factor` if the account has one, else `derived_key`. 400 says which; an account without either, which
    a provider has made, logs in again.
    """
    prove(caller, body)
    return answer({"message": "The session is fresh"})


@routes.post("/step-up-password")
@operation(
    "Prove again who you are with your password",
    Who.USER,
    body=ProvenByPassword,
    answers={200: SteppedUp},
    refusals=(401,),
    door="log-ins",
)
def step_up_with_password(caller: Caller, body: ProvenByPassword) -> Response:
    """As /api/auth/step-up, for clients that derive no key. 401 is the same for another account's address."""
    count_log_in(body.email)
    _prove(caller, "password", derived(body.email, body.password), None)
    return answer({"message": "The session is fresh"})


# ── for the pages too


def prove(caller: Caller, body: Proven) -> None:
    """Make a session fresh. Raises BadRequest, Unauthorized, TooManyRequests."""
    services().rate_limits.check_account(f"user/{caller.user_id}")  # as for a change of the key
    _prove(caller, "key", body.derived_key, second_of(body))


def _prove(caller: Caller, method: str, derived_key: str | None, second: Second) -> None:
    services().step_up.prove(caller, origin(method), derived_key, second)
    audit(f"user/{caller.user_id}", "stepped_up", f"session/{caller.session_id}", caller.user_id)
