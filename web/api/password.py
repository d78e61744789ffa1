"""Sign up, log in and change the password with the password itself, for clients that can't derive a key.

It is the same account as with the derived key: all that the server does with a password is to derive that key.
"""

from __future__ import annotations

import re
from typing import Annotated

from flask import Blueprint, Response
from pydantic import BeforeValidator, Field, SecretStr

from accounts.caller import Caller
from accounts.password_policy import check_new_password
from auth import check_username
from foundation.errors import BadRequest
from web.api.auth import (
    Invitation,
    LoggedIn,
    Registered,
    SecondFactor,
    Tokens,
    count_log_in,
    log_in,
    origin,
    second_of,
    sign_up,
    tokens,
)
from web.api.sessions import RevokesAll, note_new_key
from web.http import answer, services
from web.operation import Body, Query, Shown, Who, operation

routes = Blueprint("password_api", __name__, url_prefix="/api/auth")

EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s.]+")  # what nobody writes by mistake; that it is read is not asked for
EXAMPLE = "Tr4in-to-Nowhere"

# A text whose characters don't show where the body is printed; not longer than anybody types or keeps.
Password = Annotated[SecretStr, Field(min_length=1, max_length=1024, examples=[EXAMPLE])]


def _username(email: object) -> str:
    return check_username(email, "email")


def _email(email: object) -> str:
    username = _username(email)
    if not EMAIL.fullmatch(username):
        raise BadRequest("email must be an e-mail address, as ann@example.com")
    return username


# A username in its stricter form, for a new account; and one that there is, in either form.
Email = Annotated[
    str,
    BeforeValidator(_email),
    Field(
        min_length=1,
        max_length=255,
        description="The username, letter by letter; kept as a keyed hash only, so no mail is ever sent",
        examples=["ann@example.com"],
    ),
]
Name = Annotated[
    str,
    BeforeValidator(_username),
    Field(min_length=1, max_length=255, description="As at the sign-up, in either form", examples=["ann@example.com"]),
]


class NewPerson(Body):
    """Who signs up."""

    email: Email
    password: Password = Field(
        description="At least 12 characters, among them upper and lower case, a digit and something else; without what "
        "stands before the @"
    )
    password_confirm: Password
    invitation: Invitation = None


class PasswordCredentials(Body):
    """Who logs in."""

    email: Name
    password: Password
    second_factor: SecondFactor = None


class NewPassword(Body):
    """A change of the password."""

    email: Name
    password: Password
    new_password: Password = Field(description="As at the sign-up", examples=[EXAMPLE[::-1]])
    new_password_confirm: Password = Field(examples=[EXAMPLE[::-1]])
    revoke_all: RevokesAll = False


class NameQuery(Query):
    """Which name."""

    username: Annotated[str, BeforeValidator(check_username)] = Field(
        min_length=1, max_length=255, examples=["ann@example.com"]
    )


class Availability(Shown):
    """Whether somebody can sign up with this name."""

    available: bool


@routes.post("/register")
@operation(
    "Sign up with a password",
    Who.ANYBODY,
    body=NewPerson,
    answers={201: Registered},
    refusals=(403,),
    door="registrations",
)
def register(body: NewPerson) -> Response:
    """Make an account. The password is not stored, only a hash of the key that is derived from it.

    400 for a name that is taken, and for a weak password with all that it lacks; 403 as POST /register, which keeps the
    password on your device.
    """
    admission = services().registration.admit(body.invitation)
    password = confirmed(body.email, body.password, body.password_confirm, "password")
    return sign_up(body.email, services().key_derivation.derive(body.email, password), "password", admission)


@routes.post("/login")
@operation(
    "Log in with a password",
    Who.ANYBODY,
    body=PasswordCredentials,
    answers={200: LoggedIn},
    refusals=(401, 403),
    door="log-ins",
)
def login(body: PasswordCredentials) -> Response:
    """Exchange the password for tokens. 401 is the same for an unknown user and a wrong password.

    403 of the type `second_factor_needed`: the password was right, and the account wants a second factor too.
    """
    count_log_in(body.email)
    return log_in(body.email, derived(body.email, body.password), "password", second_of(body))


@routes.post("/change-password")
@operation("Change your password", Who.USER, body=NewPassword, answers={200: Tokens}, refusals=(401,), door="log-ins")
def change_password(caller: Caller, body: NewPassword) -> Response:
    """All sessions end; the answer has the tokens of a new one. With `revoke_all` client keys and API tokens end too.

    401 is the same for a wrong password and for an address that is not this account's.
    """
    count_log_in(body.email)
    new = confirmed(body.email, body.new_password, body.new_password_confirm, "new_password")
    key, new_key = derived(body.email, body.password), services().key_derivation.derive(body.email, new)
    session, token = services().auth.change_derived_key(
        caller, key, new_key, origin("password"), body.email, body.revoke_all
    )
    note_new_key("password_changed", caller.user_id, body.revoke_all)
    return answer(tokens(session, token))


@routes.get("/check-username")
@operation(
    "Ask whether a username is free", Who.ANYBODY, query=NameQuery, answers={200: Availability}, door="username checks"
)
def check(query: NameQuery) -> Response:
    """It tells who has an account, as signing up does: so few questions a minute are answered."""
    return answer({"available": not services().users.exists(query.username)})


def derived(email: str, password: SecretStr) -> str:
    """The key that a password becomes."""
    return services().key_derivation.derive(email, password.get_secret_value())


def confirmed(email: str, password: SecretStr, again: SecretStr, field: str) -> str:
    """A new password that was meant. Raises BadRequest."""
    text = password.get_secret_value()
    check_new_password(text, email, field)
    if text != again.get_secret_value():
        raise BadRequest(f"{field}_confirm must be the same text as {field}")
    return text
