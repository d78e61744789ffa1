"""Your second factor: the codes of an app, beside the password or the log-in elsewhere. Passkeys are another one."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from flask import Blueprint, Response
from pydantic import Field

from accounts.caller import Caller
from accounts.step_up import Act
from foundation.errors import Conflict
from web.http import answer, audit, check_appoints, check_fresh, services
from web.operation import Body, Shown, Who, operation

routes = Blueprint("second_factor_api", __name__, url_prefix="/api/auth/second-factor")

ISSUER = "OpenRouter Proxy"


class AppCode(Body):
    """What the app shows."""

    code: Annotated[str, Field(min_length=1, max_length=20, examples=["492039"])]


class SecondFactorShown(Shown):
    """Whether there is one."""

    set_up_at: datetime | None = Field(description="null without an app")
    is_required: bool = Field(description="Whether you can work as an operator only with one")


class NewSecret(Shown):
    """What an app makes codes with, for this once."""

    secret: str = Field(description="Base 32, for SHA-1, 6 digits and 30 seconds", examples=["JBSWY3DPEHPK3PXP"])
    uri: str = Field(description="The same for apps that take a link", examples=["otpauth://totp/..."])


class SecondFactorChanged(Shown):
    """It is set up, or gone."""

    message: Literal["Second factor set up", "Second factor removed"]


@routes.get("")
@operation("Show your second factor", Who.USER, answers={200: SecondFactorShown})
def show(caller: Caller) -> Response:
    """Whether the account has one, and since when."""
    return answer(second_factor_shown(caller.user_id))


@routes.post("")
@operation("Begin a second factor", Who.USER, answers={201: NewSecret}, refusals=(409,))
def begin(caller: Caller) -> Response:
    """A secret for an app that shows one-time codes. Of no effect until it is confirmed by one of them.

    Takes a session that is not older than 15 minutes; 409 if there is a second factor.
    """
    return answer(begin_second_factor(caller), 201)


@routes.post("/confirm")
@operation(
    "Confirm your second factor",
    Who.USER,
    body=AppCode,
    answers={200: SecondFactorChanged},
    refusals=(401, 404),
    door="log-ins",
)
def confirm(caller: Caller, body: AppCode) -> Response:
    """From now on each log-in takes a code too. Each code is good once. Sessions, client keys and API tokens stay."""
    confirm_second_factor(caller, body.code)
    return answer({"message": "Second factor set up"})


@routes.delete("")
@operation("Remove your second factor", Who.USER, answers={200: SecondFactorChanged}, refusals=(404, 409))
def remove(caller: Caller) -> Response:
    """Takes a session that is not older than 15 minutes; 409 for an operator who has to have one, and no passkey."""
    remove_second_factor(caller)
    return answer({"message": "Second factor removed"})


# ── for the pages too


def is_required_of(user_id: int) -> bool:
    """True for who works as operator or auditor, where these have to have one."""
    return services().config.operator_second_factor == "required" and user_id in services().users.roles


def second_factor_shown(user_id: int) -> dict[str, Any]:
    """Whether somebody has a second factor, as it is answered."""
    at = services().second_factors.set_up_at(user_id)
    return {"set_up_at": at and at.isoformat(timespec="seconds"), "is_required": is_required_of(user_id)}


def begin_second_factor(caller: Caller) -> dict[str, str]:
    """A new secret. Raises SessionNotFresh, Conflict."""
    check_fresh(Act.SET_UP_APP)
    secret = services().second_factors.begin(caller.user_id)
    label = f"{ISSUER}:account-{caller.user_id}".replace(" ", "%20")
    return {"secret": secret, "uri": f"otpauth://totp/{label}?secret={secret}&issuer={ISSUER.replace(' ', '%20')}"}


def confirm_second_factor(caller: Caller, code: str) -> None:
    """Put it in force. Raises NotFound, Unauthorized, TooManyRequests."""
    services().second_factors.confirm(caller.user_id, code.replace(" ", ""))
    audit(f"user/{caller.user_id}", "second_factor_set_up", f"user/{caller.user_id}", caller.user_id)


def remove_second_factor(caller: Caller) -> None:
    """Take one's own away. Raises SessionNotFresh, Conflict, NotFound."""
    check_fresh(Act.REMOVE_APP)
    if is_required_of(caller.user_id) and not services().passkeys.of(caller.user_id):
        raise Conflict("Operators need a second factor here")
    services().second_factors.remove(caller.user_id)
    audit(f"user/{caller.user_id}", "second_factor_removed", f"user/{caller.user_id}", caller.user_id)


def remove_users_second_factor(operator: str, user_id: int) -> None:
    """Take somebody's app and passkeys away, who has lost them.

    Raises NotFound; Forbidden for a token, if they work as operator.
    """
    check_fresh(Act.REMOVE_OTHERS_FACTORS)
    if user_id in services().users.roles:
        check_appoints()
    services().second_factors.remove_all(user_id)
    audit(operator, "second_factor_removed", f"user/{user_id}", user_id)
