"""Proving again who one is: what keeps or gives away an account, or the whole service, takes a session that is fresh.

A session is fresh for some minutes after its log-in, or after its owner has proved in it who they are: by a second
factor, by the key if the account has none, and where a provider is the only way in by logging in again. Whoever has
got hold of an access token, or finds an open browser, can do neither.
"""

from __future__ import annotations

import logging
from datetime import timedelta
from enum import StrEnum

from accounts.caller import Caller
from accounts.refused_log_ins import RefusedLogIns
from accounts.second_factors import Second, SecondFactors
from accounts.sessions import Origin, UserSessions
from accounts.users import NO_KEY, Users
from foundation.crypto import DerivedKeyHasher, WrongDerivedKey
from foundation.errors import BadRequest, Forbidden, Unauthorized
from foundation.logs import event

log = logging.getLogger("auth")

FRESH = timedelta(minutes=15)


class Act(StrEnum):
    """What takes a fresh session, in the words of the refusal: the table that the API and the pages go by."""

    ADD_PASSKEY = "add a passkey"
    REMOVE_PASSKEY = "remove a passkey"
    SET_UP_APP = "set up a second factor"
    REMOVE_APP = "remove the second factor"
    MAKE_RECOVERY_CODES = "make new recovery codes"
    SET_PASSWORD = "set a password"
    LINK_LOG_IN = "link another log-in"
    DELETE_ACCOUNT = "delete your account"
    MAKE_LASTING_KEY = "make a key or token that works for more than a year"
    # Of those who work as operators; a token and ADMIN_TOKEN have no session, and need none.
    CHANGE_ROLE = "change a role"
    MAKE_OPERATOR_TOKEN = "make an operator token"
    MAKE_RESET_LINK = "make a link that sets a password"
    REMOVE_OTHERS_FACTORS = "remove somebody's second factors"
    DELETE_OTHERS_ACCOUNT = "delete an account"
    DELETE_TEAM = "delete a team"
    SET_UPSTREAM_KEY = "set an upstream's key"
    LIFT_QUOTA = "take a quota away"


class Proof(StrEnum):
    """What an account proves itself by, in the words of a refusal."""

    SECOND_FACTOR = "send `second_factor` to POST /api/auth/step-up"
    KEY = "send `derived_key` to POST /api/auth/step-up, or `email` and `password` to POST /api/auth/step-up-password"
    LOG_IN = "log in again"


class SessionNotFresh(Forbidden):
    """What is asked for takes a proof that is not older than FRESH."""

    type = "fresh_session_needed"

    def __init__(self, act: Act, proof: Proof) -> None:
        super().__init__(f"To {act}, prove first that it is you: {proof}. The last proof is older than 15 minutes")


class StepUp:
    """The rule: which sessions are fresh, and what makes them so."""

    def __init__(
        self,
        users: Users,
        sessions: UserSessions,
        hasher: DerivedKeyHasher,
        second_factors: SecondFactors,
        refused: RefusedLogIns,
    ) -> None:
        self._users = users
        self._sessions = sessions
        self._hasher = hasher
        self._second_factors = second_factors
        self._refused = refused

    def is_fresh(self, user_id: int, session_id: str) -> bool:
        """True if this session of a user's goes on, and its owner has proved in it lately who they are."""
        return self._sessions.was_proved(user_id, session_id, FRESH)

    def check(self, user_id: int, session_id: str, act: Act) -> None:
        """Let only a fresh session do this. Raises SessionNotFresh."""
        if not self.is_fresh(user_id, session_id):
            raise SessionNotFresh(act, self.proof_of(user_id))

    def proof_of(self, user_id: int) -> Proof:
        """What this account has to prove itself by."""
        if self._second_factors.is_set_up(user_id):
            return Proof.SECOND_FACTOR
        return Proof.LOG_IN if self._users.get(user_id).key_hash == NO_KEY else Proof.KEY

    def prove(self, caller: Caller, origin: Origin, derived_key: str | None, second: Second) -> None:
        """Make a session fresh, by what the account has.

        Raises BadRequest if that was not sent; Unauthorized if it is wrong, or the session has ended; TooManyRequests.
        """
        user_id, proof = caller.user_id, self.proof_of(caller.user_id)
        if proof is Proof.SECOND_FACTOR and second:
            self._second_factors.prove(user_id, second, origin)
        elif proof is Proof.KEY and derived_key:
            self._check_key(user_id, derived_key, origin)
        else:
            raise BadRequest(f"This account proves itself otherwise: {proof}")
        self._sessions.note_proof(user_id, caller.session_id)
        event(log, "stepped_up", user_id=user_id)

    def _check_key(self, user_id: int, derived_key: str, origin: Origin) -> None:
        try:
            self._hasher.verify(self._users.get(user_id).key_hash, derived_key)
        except WrongDerivedKey:
            self._refused.note("step_up_refused", user_id, origin)
            event(log, "step_up_refused", user_id=user_id)
            raise Unauthorized("Invalid credentials") from None
