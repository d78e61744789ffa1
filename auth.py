"""Who is calling: register, log in, issue and verify tokens.

Who calls sends a key derived from the password; the server hashes that key again. A password that is sent itself never
gets here: accounts/key_derivation.py has made a key of it.
Access tokens are JSON web tokens (HS256) with one issuer and one decoder; verification raises, it never returns False.
Their `kid` says which of the accepted keys has signed them, so that the key can be changed while people are logged in.
Client keys and API tokens are known by their prefix and looked up in memory by their hash.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any, NoReturn

from accounts import api_tokens, client_keys
from accounts.api_tokens import ApiToken
from accounts.caller import Caller, Credential
from accounts.client_keys import ClientKey
from accounts.everything import revoke_all_of
from accounts.refused_log_ins import RefusedLogIns
from accounts.registration import PLAIN_START, AccountStart
from accounts.second_factors import PROVED, Second, SecondFactors
from accounts.sessions import UNKNOWN, Origin, UserSession, UserSessions
from accounts.teams import Teams
from accounts.users import User, Users, UserState, shut
from foundation.clock import Clock
from foundation.crypto import DerivedKeyHasher, WrongDerivedKey, new_id, sha256_hex
from foundation.errors import BadRequest, Busy, Forbidden, Unauthorized, UsernameTaken
from foundation.logs import event
from vault.hashed import HashedSecrets

log = logging.getLogger("auth")

ISSUER = "openrouter-proxy"
AUDIENCE = "openrouter-proxy-api"
REQUIRED_CLAIMS = ["iss", "aud", "sub", "sid", "jti", "iat", "exp", "token_use"]
OPTIONS = {"require": REQUIRED_CLAIMS, "enforce_minimum_key_length": True, "verify_exp": False, "verify_iat": False}
CLOCK_SKEW_SECONDS = 30
MAX_TOKEN_CHARACTERS = 4096
CACHED_TOKENS = 100_000
# As we write them. Decoders skip what is not base64: a token would have any number of texts, each remembered by itself.
COMPACT = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")

USERNAME_MAX_CHARACTERS = 255
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
DERIVED_KEY = re.compile(r"[A-Za-z0-9_-]{64}")
# 64 random base64url characters have about 40 different ones, fewer than 20 once in 10^12; hex digits have 16.
MIN_DIFFERENT_CHARACTERS = 20
HOW_TO_DERIVE = "send base64url(Argon2id(...)) cut to 64 characters, as GET /api/auth/kdf describes"


Credentials = frozenset[Credential]
ACCESS_TOKEN = frozenset({Credential.ACCESS_TOKEN})
PAGE_TOKEN = frozenset({Credential.PAGE_TOKEN})
FOR_CALLS = frozenset({Credential.ACCESS_TOKEN, Credential.CLIENT_KEY, Credential.CALL_TOKEN})
FOR_READING = frozenset({Credential.ACCESS_TOKEN, Credential.API_TOKEN})
GIVEN_OUT = (Credential.ACCESS_TOKEN, Credential.CLIENT_KEY, Credential.API_TOKEN)
# A session's tokens, by their `token_use`.
TOKEN_USES = {"access": Credential.ACCESS_TOKEN, "page": Credential.PAGE_TOKEN, "call": Credential.CALL_TOKEN}


class SigningKeys:
    """The keys of access tokens, by an id that tells nothing of them: the first signs, all verify."""

    def __init__(self, keys: Sequence[str]) -> None:
        by_id = {sha256_hex(f"signing-key {key}")[:8]: key for key in keys}
        self.newest_id, self.newest = next(iter(by_id.items()))
        self._by_id = by_id

    def of(self, token: str) -> str | None:
        """The key that a token says it was signed with; None if there is no such key, or it does not say."""
        import jwt  # with all of its cryptography, which commands need not load

        try:
            key_id = jwt.get_unverified_header(token).get("kid")
        except (jwt.InvalidTokenError, ValueError, RecursionError):
            return None
        return self._by_id.get(key_id) if isinstance(key_id, str) else None


class Auth:
    """Accounts at the door."""

    def __init__(
        self,
        users: Users,
        sessions: UserSessions,
        hasher: DerivedKeyHasher,
        signing_keys: SigningKeys,
        clock: Clock,
        client_keys: HashedSecrets[ClientKey],
        api_tokens: HashedSecrets[ApiToken],
        refused: RefusedLogIns,
        second_factors: SecondFactors,
        teams: Teams,
    ) -> None:
        self._client_keys = client_keys
        self._api_tokens = api_tokens
        self.refused = refused
        self._second_factors = second_factors
        self._teams = teams
        self._users = users
        self._sessions = sessions
        self._hasher = hasher
        self._signing_keys = signing_keys
        self.access_life = sessions.access_life
        self._clock = clock
        self._verified: dict[str, Caller] = {}
        self.is_informed = True
        """False in a process that has not yet read from the database who may not call any more."""
        self.trusts_uninformed = False
        """Whether a signature is enough then; who has logged out or was disabled since is let in too."""

    def register(self, username: object, derived_key: object, admission: AccountStart = PLAIN_START) -> int:
        """Create an account and return its id. Raises BadRequest with the reason, UsernameTaken, Busy.

        admission: what it begins with, as accounts/registration.py has let it in; InvitationRefused if that is used up.
        """
        name, key = check_username(username), check_derived_key(derived_key)
        check_strong_key(key)
        if self._users.exists(name):  # before the costly hash; create() below decides
            raise UsernameTaken
        key_hash = self._hasher.hash(key)
        return self._users.create(name, key_hash, admission.state, admission.role, admission.welcome)

    def login(
        self, username: object, derived_key: object, origin: Origin = UNKNOWN, second: Second = None
    ) -> tuple[UserSession, str]:
        """Open a session; returns it with an access token. Raises Unauthorized, Forbidden, BadRequest, Busy.

        An unknown user and a wrong key take the same steps: one look-up, one Argon2 hash, one answer.
        """
        name, key = check_username(username), check_login_key(derived_key)
        user = self._users.find(name)
        try:
            self._hasher.verify(user.key_hash if user else None, key)
        except WrongDerivedKey:
            self.refused.note("login_failed", user.id if user else None, origin)
            event(log, "login_failed")
            raise Unauthorized("Invalid credentials") from None
        assert user is not None  # noqa: S101 - nobody's hash never verifies
        new_hash = self._hasher.hash(key) if self._hasher.is_outdated(user.key_hash) else None
        return self.let_in(user, origin, new_hash, second)

    def let_in(
        self, user: User, origin: Origin, new_hash: str | None = None, second: object = None
    ) -> tuple[UserSession, str]:
        """Open a session for somebody who has proved to be the owner of this account, as it was when it was read.

        new_hash: of the same key, made with today's parameters. second: the second factor, or PROVED. Raises Forbidden;
        SecondFactorNeeded; TooManyRequests; Unauthorized if that is wrong, or the account has got another key since.
        """
        if user.state.is_shut:  # said to nobody but the owner
            self.refused.note("login_refused", user.id, origin)
            event(log, "login_refused", user_id=user.id, state=user.state)
            raise shut(user.state)
        self._second_factors.check(user.id, second, origin)
        session = self._sessions.start(user.id, origin, lambda tx: self._users.note_log_in(tx, user, new_hash))
        self.refused.count(origin, "succeeded")
        event(log, "login_succeeded", user_id=user.id)
        return session, self._access_token(session)

    def refresh(self, token: object) -> tuple[UserSession, str]:
        """Exchange a refresh token. Raises Unauthorized, Forbidden, BadRequest."""
        if not isinstance(token, str) or not 1 <= len(token) <= 200 or not token.isascii():
            raise BadRequest("refresh_token must be the text that /login returned")
        session = self._sessions.refresh(token)
        user = self._users.find_by_id(session.user_id)
        if user is None or user.state.is_shut:
            raise shut(user.state if user else UserState.DISABLED)
        return session, self._access_token(session)

    def change_derived_key(
        self,
        caller: Caller,
        key: str,
        new_derived_key: str,
        origin: Origin,
        username: str | None = None,
        revokes_all: bool = False,
    ) -> tuple[UserSession, str]:
        """Put a new derived key in the place of a user's, which ends all sessions; returns a new one with its token.

        username: what the new key was derived with, if that is known. revokes_all: client keys and API tokens end too.
        Raises Unauthorized if it is not the caller's,
        in the same words and time as if `derived_key` is wrong; BadRequest if the new key is weak; Busy.
        """
        check_strong_key(new_derived_key, "new_derived_key")
        user = self._users.find_by_id(caller.user_id) if username is None else self._users.find(username)
        try:
            self._hasher.verify(user.key_hash if user and user.id == caller.user_id else None, key)
        except WrongDerivedKey:
            self.refused.note("key_change_refused", caller.user_id, origin)
            event(log, "key_change_refused", user_id=caller.user_id)
            raise Unauthorized("Invalid credentials") from None
        assert user is not None  # noqa: S101 - nobody's hash never verifies
        new_hash, now = self._hasher.hash(new_derived_key), self._clock.now()
        changed = self._users.set_derived_key(
            user, new_hash, lambda tx: revoke_all_of(tx, user.id, now) if revokes_all else None
        )
        for copy in (self._sessions, *((self._client_keys, self._api_tokens) if revokes_all else ())):
            copy.reload()  # here at once
        event(log, "key_changed", user_id=user.id)
        return self.let_in(changed, origin, second=PROVED)

    def issue_page_token(self, user_id: int, session_id: str) -> str:
        """What pages alone take; the session goes on with it, as with a refresh. Raises Unauthorized."""
        self._sessions.extend(session_id)
        return self._issue(user_id, session_id, "page", self.access_life)

    def issue_call_token(self, caller: Caller, life: timedelta) -> str:
        """What model calls alone take, for so long at most: it never outlives the caller's own token."""
        left = timedelta(seconds=int(caller.expires_at - self._clock.timestamp()))
        return self._issue(caller.user_id, caller.session_id, "call", min(life, left))

    def logout(self, caller: Caller) -> None:
        """End the caller's session; its tokens are refused everywhere within two seconds."""
        self._sessions.end(caller.session_id)
        self._sessions.reload()  # here at once
        event(log, "logout", user_id=caller.user_id)

    def authenticate(
        self,
        authorization: str | None,
        accepted: Credentials = ACCESS_TOKEN,
        may_call: bool = True,
        address: str = "",
    ) -> Caller:
        """The caller whom an Authorization header proves. Raises Unauthorized; Busy if that can't be known now.

        Forbidden is raised if the user may not call, or for a credential that is right but not accepted here;
        TooManyRequests if this address has shown too many tokens of sessions that do not exist.
        may_call: False for what a silenced user may still do.
        """
        caller = self._caller(_bearer(authorization))
        state = self._users.restricted.get(caller.user_id)
        if state and state.is_shut:  # first: that has ended the session too, and to log in again would not help
            raise shut(state)
        if caller.session_id and self.is_informed:
            self._sessions.known.check(caller.session_id, caller.user_id, address)
        if state and may_call:
            raise Forbidden("This account may not make calls at present")
        if caller.credential not in accepted:
            kinds = " or ".join(
                f"an {kind}" if kind[0] in "aA" else f"a {kind}" for kind in GIVEN_OUT if kind in accepted
            )
            raise Forbidden(f"This takes {kinds}; what was sent is of another kind ({caller.credential})")
        team = self._teams.of_user.get(caller.user_id)
        return caller if team is None else replace(caller, team=team)

    def _caller(self, token: str) -> Caller:
        """Who holds this token, by its kind. Raises Unauthorized, Busy."""
        if not self.is_informed and (
            not self.trusts_uninformed or token.startswith((client_keys.PREFIX, api_tokens.PREFIX))
        ):
            raise Busy("Accounts can't be looked up at present; try again shortly", retry_after_seconds=5)
        if token.startswith(client_keys.PREFIX):
            if key := self._client_keys.find(token):
                if key.team_id:
                    self._teams.check_key(key.team_id, key.user_id)
                return Caller(key.user_id, "", key.expires_at, client_key=key)
            raise Unauthorized("The client key is unknown, revoked or expired")
        if token.startswith(api_tokens.PREFIX):
            if api_token := self._api_tokens.find(token):
                return Caller(api_token.user_id, "", api_token.expires_at, api_token=api_token)
            raise Unauthorized("The API token is unknown, revoked or expired")
        caller = self._verified.get(token) or self._verify(token)
        if caller.expires_at <= self._clock.timestamp():
            raise Unauthorized("The token has expired; log in again")
        return caller

    def _access_token(self, session: UserSession) -> str:
        return self._issue(session.user_id, session.id, "access", self.access_life)

    def _issue(self, user_id: int, session_id: str, use: str, life: timedelta) -> str:
        now = int(self._clock.timestamp())
        claims: dict[str, Any] = {"iss": ISSUER, "aud": AUDIENCE, "sub": str(user_id), "sid": session_id}
        claims |= {"jti": new_id(), "iat": now, "exp": now + int(life.total_seconds()), "token_use": use}
        import jwt

        keys = self._signing_keys
        return jwt.encode(claims, keys.newest, "HS256", {"kid": keys.newest_id})

    def _verify(self, token: str) -> Caller:
        key = self._signing_keys.of(token) if COMPACT.fullmatch(token) else None
        if key is None:
            _refuse_token()
        import jwt

        try:
            claims = jwt.decode(
                token,
                key,
                algorithms=["HS256"],
                issuer=ISSUER,
                audience=AUDIENCE,
                # Times are compared below, with this program's clock and with whole numbers only.
                options=OPTIONS,  # type: ignore[arg-type]
            )
        except (jwt.InvalidTokenError, TypeError, ValueError, OverflowError, RecursionError):
            _refuse_token()
        issued_at, expires_at, now = claims["iat"], claims["exp"], self._clock.timestamp()
        if type(issued_at) is not int or type(expires_at) is not int or issued_at > now + CLOCK_SKEW_SECONDS:
            _refuse_token()
        use = claims["token_use"]
        if not isinstance(use, str) or use not in TOKEN_USES:
            _refuse_token()
        if expires_at - issued_at > self.access_life.total_seconds():
            _refuse_token()
        if expires_at <= now:
            raise Unauthorized("The token has expired; log in again")
        user_id, session_id = claims["sub"], claims["sid"]
        if not isinstance(session_id, str) or not re.fullmatch(r"[0-9]{1,18}", user_id):
            _refuse_token()
        caller = Caller(int(user_id), session_id, float(expires_at), session_token=TOKEN_USES[use])
        if len(self._verified) >= CACHED_TOKENS:
            self._verified.clear()  # simpler than an order of use, and as good: a token costs 25 µs to verify anew
        self._verified[token] = caller
        return caller


def _refuse_token() -> NoReturn:
    raise Unauthorized(
        "The token is not valid here; send the one that /login returned as `Authorization: Bearer <token>`"
    )


def _bearer(authorization: str | None) -> str:
    if not authorization:
        raise Unauthorized("Send a token as `Authorization: Bearer <token>`; /login returns one")
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() != "bearer" or not token or len(token) > MAX_TOKEN_CHARACTERS or not token.isascii():
        _refuse_token()
    return token


def check_username(username: object, field: str = "username") -> str:
    """A usable username. field: what it is called where it was sent. Raises BadRequest."""
    if not isinstance(username, str) or not 1 <= len(username) <= USERNAME_MAX_CHARACTERS:
        raise BadRequest(f"{field} must be a text of 1 to {USERNAME_MAX_CHARACTERS} characters")
    if username != username.strip() or CONTROL.search(username):
        raise BadRequest(f"{field} must not begin or end with a space or hold control characters")
    return username


def check_login_key(derived_key: object) -> str:
    """A text that can be compared with a registered key, right or wrong. Raises BadRequest."""
    if not isinstance(derived_key, str) or not 1 <= len(derived_key) <= 512:
        raise BadRequest(f"derived_key must be a text of 64 characters; {HOW_TO_DERIVE}")
    if derived_key.startswith("$argon2"):
        raise BadRequest(
            "derived_key is Argon2's encoded text, which cut to 64 characters holds the salt and 66 bits of hash; "
            + HOW_TO_DERIVE
        )
    if not derived_key.isascii():
        raise BadRequest(f"derived_key must hold only A-Z a-z 0-9 - _; {HOW_TO_DERIVE}")
    return derived_key


def check_derived_key(derived_key: object) -> str:
    """A key in the form that clients derive. Raises BadRequest with what is wrong."""
    key = check_login_key(derived_key)
    if len(key) < 64:
        raise BadRequest(f"derived_key has {len(key)} characters, which looks truncated; {HOW_TO_DERIVE}")
    if not DERIVED_KEY.fullmatch(key):
        raise BadRequest(f"derived_key must be exactly 64 characters of A-Z a-z 0-9 - _; {HOW_TO_DERIVE}")
    return key


def check_strong_key(derived_key: str, field: str = "derived_key") -> None:
    """Refuse a key that was not derived. Raises BadRequest."""
    if len(set(derived_key)) < MIN_DIFFERENT_CHARACTERS:
        raise BadRequest(f"{field} is weak: it looks like a pattern or hex digits; {HOW_TO_DERIVE}")
