"""Who may sign up: one rule, four modes."""

from __future__ import annotations

from datetime import timedelta

import pytest

from accounts.invitations import InvitationRefused, Invitations, InvitationTerms
from accounts.registration import (
    AccountStart,
    InvitationNeeded,
    Registration,
    RegistrationClosed,
    RegistrationMode,
)
from accounts.users import UserRole, Users, UserState
from db import Database, Transaction
from foundation.errors import Forbidden
from tests.support.movable_clock import MovableClock

PENDING = UserState.PENDING


class Given:
    """A rule, and the quotas that it has given."""

    def __init__(self, db: Database, clock: MovableClock, mode: str) -> None:
        self.invitations = Invitations(db, clock)
        self.users = Users(db, b"k" * 32, clock)
        self.quotas: dict[str, tuple[int, str | None]] = {}
        self.rule = Registration(RegistrationMode(mode), self.invitations, self._give)

    def _give(self, _tx: Transaction, subject: str, limit_nano: int, period: str | None) -> None:
        self.quotas[subject] = limit_nano, period

    def invited(self, **terms: object) -> str:
        return self.invitations.create(InvitationTerms(**terms), timedelta(days=1), "cli")[1]

    def outcome(self, text: str | None) -> type[Forbidden] | UserState:
        try:
            return self.rule.admit(text).state
        except Forbidden as refused:
            return type(refused)

    def enter(self, name: str, admission: AccountStart) -> int:
        return self.users.create(name, "x", admission.state, admission.role, admission.welcome)


@pytest.mark.parametrize(
    ("mode", "without", "invited", "unknown"),
    [
        ("closed", RegistrationClosed, RegistrationClosed, RegistrationClosed),
        ("invite", InvitationNeeded, UserState.ACTIVE, InvitationRefused),
        ("approval", PENDING, UserState.ACTIVE, InvitationRefused),
        ("open", UserState.ACTIVE, UserState.ACTIVE, InvitationRefused),
    ],
)
def test_who_gets_in(db, clock, mode, without, invited, unknown):
    given = Given(db, clock, mode)
    assert given.outcome(None) == given.outcome("") == without
    assert given.outcome(given.invited()) == invited
    assert given.outcome("inv_nothing") == unknown
    first = given.rule.admit(given.invitations.offer_first_operator())
    assert (first.state, first.role) == (UserState.ACTIVE, UserRole.ADMIN)


def test_an_account_begins_with_what_the_invitation_says(db, clock):
    given = Given(db, clock, "invite")
    rich = given.enter("rich", given.rule.admit(given.invited(limit_nano=7, period="day")))
    plain = given.enter("plain", given.rule.admit(given.invited(role=UserRole.ADMIN)))
    assert given.quotas == {f"user/{rich}": (7, "day")}
    given.users.reload()
    assert given.users.roles.keys() == {plain}


def test_who_waits_is_known_as_such_and_can_be_let_in(db, clock):
    given = Given(db, clock, "approval")
    waiting, other = (given.enter(name, given.rule.admit(None)) for name in ("a", "b"))
    given.users.reload()
    assert given.users.restricted == {waiting: PENDING, other: PENDING}
    given.users.set_state(waiting, UserState.ACTIVE)
    given.users.reload()
    assert given.users.restricted == {other: PENDING}
