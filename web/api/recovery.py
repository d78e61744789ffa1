"""Back in without the password: recovery codes, links that operators make, and a password for who has none yet."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from flask import Blueprint, Response
from pydantic import BeforeValidator, Field

from accounts.caller import Caller
from accounts.recovery_codes import CODES, MAX_TYPED
from accounts.reset_links import MAX_TEXT_CHARACTERS
from accounts.roles import rights_of
from accounts.second_factors import PROVED
from accounts.sessions import UserSession
from accounts.step_up import Act
from auth import check_derived_key, check_strong_key, check_username
from web.api.auth import EXAMPLE_KEY, LoggedIn, SecondFactor, Tokens, count_log_in, logged_in, origin, second_of, tokens
from web.api.password import EXAMPLE, Email, Name, Password, confirmed
from web.http import answer, audit, check_appoints, check_fresh, services
from web.operation import Body, Shown, Who, operation

routes = Blueprint("recovery_api", __name__, url_prefix="/api/auth")

Method = Literal["key", "password"]
Username = Annotated[
    str, BeforeValidator(check_username), Field(min_length=1, max_length=255, examples=["ann@example.com"])
]
NewKey = Annotated[
    str,
    BeforeValidator(check_derived_key),
    Field(
        pattern="^[A-Za-z0-9_-]{64}$",
        description="Derived from the username and a new password",
        examples=[EXAMPLE_KEY],
    ),
]
Code = Annotated[
    str,
    Field(
        min_length=1,
        max_length=MAX_TYPED,
        description="One that was never used; case, spaces and dashes don't count",
        examples=["7G2KQ-M4XTB-0ZR8P-WVNE5"],
    ),
]
LinkText = Annotated[
    str,
    Field(
        min_length=1,
        max_length=MAX_TEXT_CHARACTERS,
        description="What stands behind the # of an operator's link",
        examples=["reset_abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG"],
    ),
]


class _OtherKey(Body):
    username: Username
    new_derived_key: NewKey
    second_factor: SecondFactor = None


class _OtherPassword(Body):
    email: Name
    new_password: Password = Field(description="As at the sign-up", examples=[EXAMPLE])
    new_password_confirm: Password
    second_factor: SecondFactor = None


class RecoveredKey(_OtherKey):
    """A new key in the place of a forgotten one."""

    recovery_code: Code


class RecoveredPassword(_OtherPassword):
    """A new password in the place of a forgotten one."""

    recovery_code: Code


class ResetKey(_OtherKey):
    """A new key, by an operator's link."""

    reset: LinkText


class ResetPassword(_OtherPassword):
    """A new password, by an operator's link."""

    reset: LinkText


class FirstKey(Body):
    """A name and a key for an account that a provider made."""

    username: Username
    derived_key: NewKey


class FirstPassword(Body):
    """A name and a password for an account that a provider made."""

    email: Email
    password: Password = Field(description="As at the sign-up", examples=[EXAMPLE])
    password_confirm: Password


class RecoveryCodesLeft(Shown):
    """How many codes there are."""

    left: int = Field(description="Codes that were never used", examples=[CODES])
    made_at: datetime | None = Field(description="null if there never were any")


class RecoveryCodesMade(Shown):
    """New codes, for this once: here are only their hashes."""

    codes: list[str] = Field(examples=[["7G2KQ-M4XTB-0ZR8P-WVNE5"]])


class ResetLinkMade(Shown):
    """A link, with its text for this once."""

    id: int = Field(examples=[1])
    user_id: int = Field(examples=[17])
    expires_at: datetime
    reset: str = Field(examples=["reset_abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG"])
    path: str = Field(
        description="Behind this gateway's address it is the link to send",
        examples=["/reset#reset=reset_abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG"],
    )


@routes.get("/recovery-codes")
@operation("Count your recovery codes", Who.USER, answers={200: RecoveryCodesLeft})
def codes_left(caller: Caller) -> Response:
    """How many of them are left. They themselves are shown once, when they are made."""
    return answer(codes_shown(caller.user_id))


@routes.post("/recovery-codes")
@operation("Make new recovery codes", Who.USER, answers={201: RecoveryCodesMade})
def make_codes(caller: Caller) -> Response:
    """Ten codes, each good once in the place of a forgotten password; those before are good no more.

    Takes a session that is not older than 15 minutes.
    """
    return answer({"codes": new_codes(caller)}, 201)


@routes.post("/recover")
@operation(
    "Set a new key with a recovery code",
    Who.ANYBODY,
    body=RecoveredKey,
    answers={200: LoggedIn},
    refusals=(401, 403),
    door="log-ins",
)
def recover(body: RecoveredKey) -> Response:
    """For a forgotten password: all sessions end, and the answer has the tokens of a new one.

    401 is the same for an unknown user and a wrong or used code. Client keys and API tokens stay.
    """
    count_log_in(body.username)
    check_strong_key(body.new_derived_key, "new_derived_key")
    return _recovered(body, body.username, body.new_derived_key, "key")


@routes.post("/recover-password")
@operation(
    "Set a new password with a recovery code",
    Who.ANYBODY,
    body=RecoveredPassword,
    answers={200: LoggedIn},
    refusals=(401, 403),
    door="log-ins",
)
def recover_password(body: RecoveredPassword) -> Response:
    """As /api/auth/recover, for clients that derive no key."""
    count_log_in(body.email)
    password = confirmed(body.email, body.new_password, body.new_password_confirm, "new_password")
    key = services().key_derivation.derive(body.email, password)
    return _recovered(body, body.email, key, "password")


@routes.post("/reset")
@operation(
    "Set a new key by an operator's link",
    Who.ANYBODY,
    body=ResetKey,
    answers={200: LoggedIn},
    refusals=(401, 403),
    door="log-ins",
)
def reset(body: ResetKey) -> Response:
    """The link is good once and for an hour. All sessions end, and the answer has the tokens of a new one.

    `username` is the account's; one that a provider made, and that has none yet, gets it. 403 of the type
    `reset_link_refused` for a link that is unknown, used or over.
    """
    check_strong_key(body.new_derived_key, "new_derived_key")
    return _reset(body, body.username, body.new_derived_key, "key")


@routes.post("/reset-password")
@operation(
    "Set a new password by an operator's link",
    Who.ANYBODY,
    body=ResetPassword,
    answers={200: LoggedIn},
    refusals=(401, 403),
    door="log-ins",
)
def reset_password(body: ResetPassword) -> Response:
    """As /api/auth/reset, for clients that derive no key."""
    password = confirmed(body.email, body.new_password, body.new_password_confirm, "new_password")
    return _reset(body, body.email, services().key_derivation.derive(body.email, password), "password")


@routes.post("/set-key")
@operation("Set a first key", Who.USER, body=FirstKey, answers={200: Tokens}, refusals=(409,), door="log-ins")
def set_key(caller: Caller, body: FirstKey) -> Response:
    """For an account that came in through a provider alone: from now on it also opens by a username and a key.

    Takes a session that is not older than 15 minutes; all sessions end, and the answer has the tokens of a new one.
    409 for an account that has a key.
    """
    return answer(tokens(*set_first_key(caller, body)))


@routes.post("/set-password")
@operation("Set a first password", Who.USER, body=FirstPassword, answers={200: Tokens}, refusals=(409,), door="log-ins")
def set_password(caller: Caller, body: FirstPassword) -> Response:
    """As /api/auth/set-key, for clients that derive no key."""
    password = confirmed(body.email, body.password, body.password_confirm, "password")
    key = services().key_derivation.derive(body.email, password)
    return answer(tokens(*_set_first_key(caller, body.email, key, "password")))


# ── for the pages too


def codes_shown(user_id: int) -> dict[str, Any]:
    """How many recovery codes somebody has left."""
    left, made_at = services().recovery.codes.left(user_id)
    return {"left": left, "made_at": made_at and made_at.isoformat(timespec="seconds")}


def new_codes(caller: Caller) -> list[str]:
    """Ten new codes. Raises SessionNotFresh."""
    check_fresh(Act.MAKE_RECOVERY_CODES)
    codes = services().recovery.codes.renew(caller.user_id)
    audit(f"user/{caller.user_id}", "recovery_codes_made", f"user/{caller.user_id}", caller.user_id)
    return codes


def set_first_key(caller: Caller, body: FirstKey) -> tuple[UserSession, str]:
    """Give an account a name and a key; returns its new session. Raises SessionNotFresh, Conflict, UsernameTaken."""
    check_strong_key(body.derived_key)
    return _set_first_key(caller, body.username, body.derived_key, "key")


def make_reset_link(operator: str, user_id: int) -> dict[str, Any]:
    """A link for an account, with its text. Raises NotFound, Conflict; Forbidden for a token and an admin.

    A token could else become an admin by it.
    """
    check_fresh(Act.MAKE_RESET_LINK)
    user = services().users.find_by_id(user_id)
    if user and rights_of(user.role):
        check_appoints()
    link, text = services().recovery.links.create(user_id, operator)
    audit(operator, "reset_link_made", f"user/{user_id}", user_id)
    shown: dict[str, Any] = {"id": link.id, "user_id": user_id, "reset": text, "path": path_of(text)}
    return shown | {"expires_at": link.expires_at.isoformat(timespec="seconds")}


def path_of(text: str) -> str:
    """Where somebody sets a new password by a link: behind the #, so that its text gets into no log."""
    return f"/reset#reset={text}"


def _recovered(body: RecoveredKey | RecoveredPassword, username: str, key: str, method: Method) -> Response:
    user = services().recovery.by_code(username, body.recovery_code, key, origin(method), second_of(body))
    audit(f"user/{user.id}", "recovered", f"user/{user.id}", user.id, method=method)
    return logged_in(user, method)


def _reset(body: ResetKey | ResetPassword, username: str, key: str, method: Method) -> Response:
    user, link = services().recovery.by_link(body.reset, username, key, origin(method), second_of(body))
    audit(f"user/{user.id}", "reset_link_used", f"user/{user.id}", user.id, method=method, made_by=link.created_by)
    return logged_in(user, method, by_link=link.id)


def _set_first_key(caller: Caller, username: str, key: str, method: str) -> tuple[UserSession, str]:
    check_fresh(Act.SET_PASSWORD)
    user = services().recovery.first_key(services().users.get(caller.user_id), username, key)
    audit(f"user/{user.id}", "password_set", f"user/{user.id}", user.id, method=method)
    return services().auth.let_in(user, origin(method), second=PROVED)
