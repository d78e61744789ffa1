"""Your passkeys, and logging in with one: alone, or as the second factor of any other log-in."""

from __future__ import annotations

from datetime import datetime
from functools import partial
from typing import Annotated, Any, Literal

from flask import Blueprint, Response
from pydantic import AfterValidator, Field

from accounts.caller import Caller
from accounts.labels import check_printable
from accounts.passkeys import LIFE
from accounts.step_up import Act
from foundation.errors import Conflict
from web.api.auth import LoggedIn, logged_in, origin
from web.api.second_factors import is_required_of
from web.api.webauthn import BROWSER, CreationOptions, PasskeyAnswer, PasskeyMade, RequestOptions, proof_of
from web.http import answer, audit, check_fresh, services
from web.operation import Body, Shown, Who, operation

routes = Blueprint("passkey_api", __name__, url_prefix="/api/auth/passkeys")


MAX_NAME_CHARACTERS = 64


class NewPasskey(Body):
    """A passkey that a device has just made."""

    name: Annotated[
        str,
        Field(min_length=1, max_length=MAX_NAME_CHARACTERS),
        AfterValidator(partial(check_printable, most=MAX_NAME_CHARACTERS)),
    ] = Field(description="By which you know the device again", examples=["Ann's phone"])
    credential: PasskeyMade


class PasskeyLogIn(Body):
    """Who logs in with a passkey alone."""

    credential: PasskeyAnswer


class PasskeyShown(Shown):
    """One of your passkeys."""

    id: int = Field(examples=[1])
    name: str = Field(examples=["Ann's phone"])
    created_at: datetime
    last_used: datetime | None


class PasskeysShown(Shown):
    """All of them. are_possible: whether this gateway has an address at which browsers have passkeys."""

    items: list[PasskeyShown]
    are_possible: bool


class PasskeyRemoved(Shown):
    """It opens nothing any more."""

    message: Literal["Passkey removed"]


@routes.get("")
@operation("List your passkeys", Who.USER, answers={200: PasskeysShown})
def list_all(caller: Caller) -> Response:
    """The oldest first."""
    return answer(passkeys_shown(caller.user_id))


@routes.post("/challenge")
@operation("Begin a passkey", Who.USER, answers={200: CreationOptions}, refusals=(404, 409))
def begin(caller: Caller) -> Response:
    """Options for `navigator.credentials.create()`, good once, for five minutes and in this session.

    Takes a session that is not older than 15 minutes. 404 where PUBLIC_URL is no address at which browsers have
    passkeys; 409 if you have ten.
    """
    return answer(begin_passkey(caller))


@routes.post("")
@operation("Register a passkey", Who.USER, body=NewPasskey, answers={201: PasskeyShown}, refusals=(404, 409))
def add(caller: Caller, body: NewPasskey) -> Response:
    """From now on it opens the account alone, and every other log-in takes a second factor. The device must have
    verified who you are. Sessions, client keys and API tokens stay."""
    return answer(add_passkey(caller, body), 201)


@routes.delete("/<int:passkey_id>")
@operation("Remove a passkey", Who.USER, answers={200: PasskeyRemoved}, refusals=(404, 409))
def remove(caller: Caller, passkey_id: int) -> Response:
    """Takes a session that is not older than 15 minutes; 409 for the last second factor of an operator who has to have
    one."""
    remove_passkey(caller, passkey_id)
    return answer({"message": "Passkey removed"})


@routes.post("/log-in/challenge")
@operation("Ask for a challenge", Who.ANYBODY, answers={200: RequestOptions}, refusals=(404,), door="sign-on steps")
def begin_log_in() -> Response:
    """Options for `navigator.credentials.get()`, good once, for five minutes and in this browser, which gets a cookie.

    They are the same for everybody, and name no account.
    """
    options, browser = services().passkeys.begin_proof()
    response = answer(options)
    BROWSER.give(response, browser, LIFE)
    return response


@routes.post("/log-in")
@operation(
    "Log in with a passkey",
    Who.ANYBODY,
    body=PasskeyLogIn,
    answers={200: LoggedIn},
    refusals=(401, 403, 404),
    door="log-ins",
)
def log_in(body: PasskeyLogIn) -> Response:
    """Exchange what a passkey has signed for tokens, without name and password; no other factor is asked for.

    401 is the same for an unknown passkey and a wrong signature; 400 for a challenge that was not asked for by this
    browser, was used or is too old.
    """
    user_id = services().passkeys.enter(proof_of(body.credential), origin("passkey"))
    response = logged_in(services().users.get(user_id), "passkey")
    BROWSER.take(response)
    return response


# ── for the pages too


def passkeys_shown(user_id: int) -> dict[str, Any]:
    """Somebody's passkeys, as they are answered."""
    passkeys = services().passkeys
    return {"items": [one.to_dict() for one in passkeys.of(user_id)], "are_possible": passkeys.are_possible}


def begin_passkey(caller: Caller) -> dict[str, Any]:
    """What a browser makes a passkey from. Raises SessionNotFresh, NotFound, Conflict."""
    check_fresh(Act.ADD_PASSKEY)
    return services().passkeys.begin(caller.user_id, caller.session_id)


def add_passkey(caller: Caller, body: NewPasskey) -> dict[str, Any]:
    """Keep what a device has made. Raises NotFound, BadRequest, Conflict, Unauthorized."""
    made = services().passkeys.add(caller.user_id, caller.session_id, body.name, body.credential.model_dump())
    audit(f"user/{caller.user_id}", "passkey_added", f"passkey/{made.id}", caller.user_id, name=made.name)
    return made.to_dict()


def remove_passkey(caller: Caller, passkey_id: int) -> None:
    """Take one of somebody's own away. Raises SessionNotFresh, Conflict, NotFound."""
    check_fresh(Act.REMOVE_PASSKEY)
    others = [one for one in services().passkeys.of(caller.user_id) if one.id != passkey_id]
    if is_required_of(caller.user_id) and not others and services().second_factors.set_up_at(caller.user_id) is None:
        raise Conflict("Operators need a second factor here: set up another one first")
    name = services().passkeys.remove(caller.user_id, passkey_id)
    audit(f"user/{caller.user_id}", "passkey_removed", f"passkey/{passkey_id}", caller.user_id, name=name)
