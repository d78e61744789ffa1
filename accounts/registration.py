"""Who may sign up, and what their account begins with: one rule for keys, passwords and providers.

    closed     nobody new
    invite     whoever has an invitation, or stands on a provider's allow-list
    approval   anybody, and an operator lets them in; with an invitation, or on such a list, at once
    open       anybody

The link of the first operator is good in each of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from accounts.invitations import Invitation, InvitationRefused, Invitations
from accounts.users import UserRole, UserState
from db import Transaction
from foundation.errors import Forbidden

GiveQuota = Callable[[Transaction, str, int, str | None], None]
"""Gives a subject a quota of so many nano-dollars for each period."""


class RegistrationMode(StrEnum):
    """Who may sign up."""

    CLOSED = "closed"
    INVITE = "invite"
    APPROVAL = "approval"
    OPEN = "open"


class RegistrationClosed(Forbidden):
    """Nobody new is let in."""

    type = "registration_closed"

    def __init__(self) -> None:
        super().__init__("Registration is closed here: ask whoever runs this service")


class InvitationNeeded(Forbidden):
    """Only whoever was invited is let in."""

    type = "invitation_needed"

    def __init__(self) -> None:
        super().__init__(
            "Registration takes an invitation here: open the link that you were sent, or send its code as `invitation`"
        )


@dataclass(frozen=True)
class AccountStart:
    """What a new account begins with. welcome: done with its id, in the transaction that makes it; may raise.

    invitation_id: of the invitation that has let it in.
    """

    state: UserState = UserState.ACTIVE
    role: UserRole = UserRole.USER
    welcome: Callable[[Transaction, int], object] = lambda _tx, _user_id: None
    invitation_id: int | None = None


PLAIN_START = AccountStart()


class Registration:
    """The rule."""

    def __init__(self, mode: RegistrationMode, invitations: Invitations, give_quota: GiveQuota) -> None:
        self.mode = mode
        self.invitations = invitations
        self._give_quota = give_quota

    def admit(self, invitation: str | None) -> AccountStart:
        """Let somebody sign up. Raises RegistrationClosed, InvitationNeeded, InvitationRefused."""
        if invitation:
            return self._invited(invitation)
        if self.mode is RegistrationMode.CLOSED:
            raise RegistrationClosed
        if self.mode is RegistrationMode.OPEN:
            return PLAIN_START
        if self.mode is RegistrationMode.APPROVAL:
            return AccountStart(UserState.PENDING)
        raise InvitationNeeded

    def _invited(self, text: str) -> AccountStart:
        try:
            found = self.invitations.get_open(text)
        except InvitationRefused:
            if self.mode is RegistrationMode.CLOSED:
                raise RegistrationClosed from None
            raise
        if self.mode is RegistrationMode.CLOSED and not found.is_first:
            raise RegistrationClosed
        return AccountStart(
            role=found.role, welcome=lambda tx, user_id: self._welcome(tx, found, user_id), invitation_id=found.id
        )

    def _welcome(self, tx: Transaction, invitation: Invitation, user_id: int) -> None:
        self.invitations.redeem(tx, invitation, user_id)
        if invitation.limit_nano is not None:
            self._give_quota(tx, f"user/{user_id}", invitation.limit_nano, invitation.period)
