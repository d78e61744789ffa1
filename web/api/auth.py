"""Sign up, log in, refresh, log out, and the parameters of key derivation."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal, Protocol

from flask import Blueprint, Response, request
from pydantic import BeforeValidator, Field

from accounts.caller import Caller
from accounts.invitations import MAX_TEXT_CHARACTERS
from accounts.registration import AccountStart
from accounts.second_factors import MAX_TYPED, PROVED, Second
from accounts.sessions import Origin, TokenReused, UserSession
from accounts.users import User, UserRole, UserState
from auth import check_derived_key, check_login_key, check_username
from web.api.webauthn import PasskeyAnswer, proof_of
from web.http import answer, audit, services
from web.operation import Body, Shown, Who, operation

routes = Blueprint("auth_api", __name__)

EXAMPLE_KEY = "PZ3yM0c5kq-7XhVtB1nLrJd8uWg_EoA2fSxIvT9mQ4jYbHpKzCe6RwNlUaOs5iDG"
EXAMPLE_TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl"


# Of a sign-up, in either form.
Invitation = Annotated[
    str | None,
    Field(
        max_length=MAX_TEXT_CHARACTERS,
        description="The code of an invitation, which stands behind the # of its link; where REGISTRATION asks for one",
        examples=["inv_abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG"],
    ),
]


# Of a log-in, in any form.
SecondFactor = Annotated[
    Annotated[str, Field(max_length=MAX_TYPED)] | PasskeyAnswer | None,
    Field(
        description="The code that your app shows now, a recovery code, or what your passkey has signed of a challenge "
        "of POST /api/auth/passkeys/log-in/challenge; where a log-in was refused with `second_factor_needed`",
        examples=["492039"],
    ),
]


class _Account(Body):
    username: Annotated[str, BeforeValidator(check_username)] = Field(
        min_length=1,
        max_length=255,
        description="Kept as a keyed hash only; without space at its begin and end, without control characters",
        examples=["ann@example.com"],
    )


class NewAccount(_Account):
    """Who signs up."""

    derived_key: Annotated[str, BeforeValidator(check_derived_key)] = Field(
        pattern="^[A-Za-z0-9_-]{64}$",
        description="base64url(Argon2id(password, salt)) cut to 64 characters, as GET /api/auth/kdf describes; never a "
        "password",
        examples=[EXAMPLE_KEY],
    )
    invitation: Invitation = None


class Credentials(_Account):
    """Who logs in."""

    derived_key: Annotated[str, BeforeValidator(check_login_key)] = Field(
        min_length=1, max_length=512, description="As it was sent to /register", examples=[EXAMPLE_KEY]
    )
    second_factor: SecondFactor = None


class RefreshToken(Body):
    """What a log-in or the last refresh returned."""

    refresh_token: str = Field(
        min_length=1, max_length=200, pattern=r"^[\x00-\x7f]+$", examples=["b3BhcXVlLXJlZnJlc2gtdG9rZW4"]
    )


class Registered(Shown):
    """An account was made."""

    message: Literal["User registered successfully"]
    state: Literal["pending"] = Field("pending", description="Only if an operator has to let the account in first")


class LoggedOut(Shown):
    """A session has ended."""

    message: Literal["Logged out"]


class LoggedInUser(Shown):
    """Who has logged in."""

    id: int = Field(examples=[1])
    username: None = Field(description="Stored as a hash only, so it can't be told")
    display_name: str | None = Field(examples=["Ann"])
    avatar_url: str | None = Field(description="A picture, from the provider that one has logged in with")
    trust_level: int = Field(description="0 to 4, as Linux.do or the operator says", examples=[0])
    is_active: bool
    is_silenced: bool = Field(description="May look, and not call")
    role: UserRole


class Tokens(Shown):
    """The tokens of a session. expires_in: seconds for which access_token holds."""

    access_token: str = Field(examples=[EXAMPLE_TOKEN])
    refresh_token: str = Field(description="Works once", examples=["b3BhcXVlLXJlZnJlc2gtdG9rZW4"])
    token_type: Literal["Bearer"]
    expires_in: int = Field(description="Seconds for which access_token holds", examples=[86400])
    user: LoggedInUser


class Notice(Shown):
    """What the owner of an account has to know. used_at: null if nobody has used the link."""

    type: Literal["reset_link"] = Field(description="An operator has made a link by which a password can be set")
    at: datetime
    used_at: datetime | None


class LoggedIn(Tokens):
    """A session's tokens."""

    message: Literal["Login successful"]
    token: str = Field(description="The same as access_token", examples=[EXAMPLE_TOKEN])
    notices: list[Notice] = Field([], description="Only if there is something to tell, and only once")


class Salt(Shown):
    """How the salt is made: BLAKE2b(password[:6] + username + domain)."""

    algorithm: Literal["blake2b"]
    digest_bytes: int = Field(examples=[16])
    password_prefix_characters: int = Field(examples=[6])


class KeyDerivation(Shown):
    """How a client derives its key."""

    algorithm: Literal["argon2id"]
    time_cost: int = Field(examples=[2])
    memory_kib: int = Field(examples=[1953])
    parallelism: int = Field(examples=[1])
    hash_len: int = Field(description="Bytes", examples=[64])
    salt: Salt
    encoding: Literal["base64url"]
    length: int = Field(description="Characters of the encoded hash that are sent", examples=[64])
    domain: str = Field(examples=["openrouter-proxy-access-key-v1"])


@routes.get("/api/auth/kdf")
@operation("Parameters of key derivation", Who.ANYBODY, answers={200: KeyDerivation})
def kdf() -> Response:
    """How a client derives its key: salt = BLAKE2b(password[:6] + username + domain)."""
    return answer(services().key_derivation.parameters)


@routes.post("/register")
@operation("Sign up", Who.ANYBODY, body=NewAccount, answers={201: Registered}, refusals=(403,), door="registrations")
def register(body: NewAccount) -> Response:
    """Make an account. 400 for a name that is taken, too; 403 where nobody, or nobody without an invitation, may."""
    admission = services().registration.admit(body.invitation)
    return sign_up(body.username, body.derived_key, "key", admission)


@routes.post("/login")
@operation("Log in", Who.ANYBODY, body=Credentials, answers={200: LoggedIn}, refusals=(401, 403), door="log-ins")
def login(body: Credentials) -> Response:
    """Exchange the derived key for tokens. 401 is the same for an unknown user, a wrong key and a wrong second factor.

    403 of the type `second_factor_needed`: the key was right, and the account wants a second factor too.
    """
    count_log_in(body.username)
    return log_in(body.username, body.derived_key, "key", second_of(body))


@routes.post("/api/auth/refresh")
@operation(
    "Refresh tokens", Who.ANYBODY, body=RefreshToken, answers={200: Tokens}, refusals=(401, 403), door="refreshes"
)
def refresh(body: RefreshToken) -> Response:
    """Exchange a refresh token for new tokens; the old one is used up.

    For ten seconds it gives the same new one again, to a client that did not get the answer. An older one has been
    stolen, or its successor was: the whole session ends.
    """
    try:
        session, token = services().auth.refresh(body.refresh_token)
    except TokenReused as reused:
        services().sessions.reload()
        audit("nobody", "refresh_token_reused", f"session/{reused.session_id}", reused.user_id)
        raise
    return answer(tokens(session, token))


@routes.post("/api/auth/logout")
@operation("Log out", Who.USER, answers={200: LoggedOut})
def logout(caller: Caller) -> Response:
    """End the session of the access token: its tokens are refused everywhere within two seconds."""
    services().auth.logout(caller)
    return answer({"message": "Logged out"})


def sign_up(username: str, derived_key: str, method: str, admission: AccountStart) -> Response:
    """The answer to who signs up. method: `key` or `password`. Raises BadRequest, UsernameTaken, Busy, Forbidden."""
    user_id = services().auth.register(username, derived_key, admission)
    if admission.role is not UserRole.USER:
        services().users.reload()  # here at once
    audit(f"user/{user_id}", "registered", f"user/{user_id}", user_id, method=method, **told_of(admission))
    more = {"state": "pending"} if admission.state is UserState.PENDING else {}
    return answer({"message": "User registered successfully"} | more, 201)


def told_of(admission: AccountStart) -> dict[str, object]:
    """What the audit log is told of how an account was let in; nothing of what is usual."""
    told: dict[str, object] = {"invitation": admission.invitation_id} if admission.invitation_id else {}
    told |= {"role": admission.role.value} if admission.role is not UserRole.USER else {}
    return told | ({"state": admission.state.value} if admission.state is UserState.PENDING else {})


def count_log_in(username: str) -> None:
    """Count an attempt at this account, before any Argon2 hash is spent on it. Raises TooManyRequests."""
    services().rate_limits.check_account(services().users.name_hash(username))


def log_in(username: str, derived_key: str, method: str, second: Second) -> Response:
    """The answer to who logs in. method: `key` or `password`. Raises Unauthorized, Forbidden, Busy."""
    return _logged_in(*services().auth.login(username, derived_key, origin(method), second), method)


class _HasSecondFactor(Protocol):
    @property
    def second_factor(self) -> str | PasskeyAnswer | None: ...


def second_of(body: _HasSecondFactor) -> Second:
    """The second factor that came with a log-in."""
    given = body.second_factor
    return proof_of(given) if isinstance(given, PasskeyAnswer) else given


def logged_in(user: User, method: str, by_link: int = 0) -> Response:
    """The answer to who has proved to be this account's owner, by a second factor too. by_link: what proved it.

    Raises Unauthorized, Forbidden.
    """
    return _logged_in(*services().auth.let_in(user, origin(method), second=PROVED), method, by_link)


def _logged_in(session: UserSession, token: str, method: str, by_link: int = 0) -> Response:
    audit(f"user/{session.user_id}", "logged_in", f"session/{session.id}", session.user_id, method=method)
    untold = [link.notice() for link in services().recovery.links.tell(session.user_id, but=by_link)]
    told = {"message": "Login successful", "token": token} | ({"notices": untold} if untold else {})
    return answer(told | tokens(session, token))


def origin(method: str) -> Origin:
    """Where this log-in comes from."""
    return Origin(method, services().addresses.of(request.environ), _printable(request.headers.get("User-Agent", "")))


def _printable(text: str) -> str:
    return "".join(character for character in text if character.isprintable())


def tokens(session: UserSession, token: str) -> dict[str, object]:
    """A session's tokens, as clients get them. Raises NotFound if the account has gone meanwhile."""
    return {
        "access_token": token,
        "refresh_token": session.refresh_token,
        "token_type": "Bearer",
        "expires_in": int(services().auth.access_life.total_seconds()),
        "user": services().users.get(session.user_id).account(),
    }
