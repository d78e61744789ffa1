"""Back into an account without its password, and a first password for an account that a provider made.

What is proved in the place of the password is used up in the transaction that sets the new key and ends all sessions.
"""

from __future__ import annotations

import logging

from accounts.recovery_codes import RecoveryCodes
from accounts.refused_log_ins import RefusedLogIns
from accounts.reset_links import ResetLink, ResetLinks
from accounts.second_factors import Second, SecondFactors
from accounts.sessions import Origin, UserSessions
from accounts.users import NO_KEY, User, Users, shut
from foundation.crypto import DerivedKeyHasher
from foundation.errors import BadRequest, Conflict, Unauthorized, UsernameTaken
from foundation.logs import event

log = logging.getLogger("auth")


class Recovery:
    """Sets keys. All methods return the user with the new key; the caller opens a session."""

    def __init__(
        self,
        users: Users,
        sessions: UserSessions,
        hasher: DerivedKeyHasher,
        codes: RecoveryCodes,
        links: ResetLinks,
        refused: RefusedLogIns,
        second_factors: SecondFactors,
    ) -> None:
        self.codes = codes
        self.links = links
        self._users = users
        self._sessions = sessions
        self._hasher = hasher
        self._refused = refused
        self._second_factors = second_factors

    def by_code(self, username: str, code: str, new_key: str, origin: Origin, second: Second = None) -> User:
        """Set a key with a recovery code. second: the account's second factor; the code itself is none.

        Raises Unauthorized, Forbidden, SecondFactorNeeded, TooManyRequests, Busy.

        An unknown user and a wrong code take the same steps: two look-ups, one Argon2 hash, one answer.
        """
        user = self._users.find(username)
        is_good = self.codes.is_good(user.id if user else None, code)
        key_hash = self._hasher.hash(new_key)
        if user is None or not is_good:
            self._refused.note("recovery_refused", user.id if user else None, origin)
            event(log, "recovery_refused")
            raise Unauthorized("Invalid credentials")
        if user.state.is_shut:
            raise shut(user.state)
        self._second_factors.check(user.id, second, origin)
        changed = self._users.set_derived_key(user, key_hash, lambda tx: self.codes.use(tx, user.id, code))
        return self._set(changed)

    def by_link(
        self, text: str, username: str, new_key: str, origin: Origin, second: Second = None
    ) -> tuple[User, ResetLink]:
        """Set a key with an operator's link. Raises ResetLinkRefused, BadRequest, UsernameTaken, Forbidden, Busy.

        username: what the key was derived with; the account's, or, if a provider made it, a free one.
        second: as by_code.
        """
        link = self.links.get_open(text)
        user = self._users.get(link.user_id)
        if user.state.is_shut:
            raise shut(user.state)
        name = self._name_for(user, username)
        self._second_factors.check(user.id, second, origin)
        key_hash = self._hasher.hash(new_key)
        changed = self._users.set_derived_key(user, key_hash, lambda tx: self.links.redeem(tx, link), name)
        return self._set(changed), link

    def first_key(self, user: User, username: str, new_key: str) -> User:
        """Give an account that a provider made a name and a key. Raises Conflict, UsernameTaken, Busy."""
        if user.key_hash != NO_KEY:
            raise Conflict("This account has a password: change it with the one up to now")
        name = self._name_for(user, username)
        return self._set(self._users.set_derived_key(user, self._hasher.hash(new_key), username=name))

    def _name_for(self, user: User, username: str) -> str | None:
        """The name that the account gets; None if it has it already."""
        found = self._users.find(username)
        if user.key_hash != NO_KEY:
            if found is None or found.id != user.id:
                raise BadRequest("This is not the username of the account; the new password would not open it")
            return None
        if found is not None:  # before the costly hash; the database decides
            raise UsernameTaken
        return username

    def _set(self, user: User) -> User:
        self._sessions.reload()  # here at once
        event(log, "key_changed", user_id=user.id)
        return user
