"""Invitations: each is good for one account, until it is used, revoked or over."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import sqlalchemy as sa

from accounts.invitations import InvitationRefused, Invitations, InvitationTerms
from accounts.users import UserRole, Users, UserState
from db import Database
from foundation.errors import BadRequest, Conflict, NotFound
from tables import invitations as table
from tests.support.movable_clock import MovableClock

DAY = timedelta(days=1)
TERMS = InvitationTerms(UserRole.USER, 5 * 10**9, "week", "Ann")


@pytest.fixture
def invitations(db: Database, clock: MovableClock) -> Invitations:
    return Invitations(db, clock)


@pytest.fixture
def users(db: Database, clock: MovableClock) -> Users:
    return Users(db, b"k" * 32, clock)


def sign_up(users: Users, invitations: Invitations, text: str, name: str) -> int:
    found = invitations.get_open(text)
    return users.create(name, "x", role=found.role, welcome=lambda tx, user_id: invitations.redeem(tx, found, user_id))


def test_a_link_is_good_for_one_account_and_says_whose(db, users, invitations, clock):
    made, text = invitations.create(TERMS, DAY, "user/1")
    assert (made.note, made.role, made.limit_nano, made.period) == ("Ann", UserRole.USER, 5 * 10**9, "week")
    other = invitations.create(TERMS, DAY, "user/1")[1]
    user_id = sign_up(users, invitations, text, "ann")
    with pytest.raises(InvitationRefused):
        sign_up(users, invitations, text, "bob")
    assert users.find("bob") is None
    [unused, used], total = invitations.page(1, 10)
    assert (used.used_by, used.state(clock.now()), unused.state(clock.now()), total) == (user_id, "used", "open", 2)
    with db.reading() as tx:
        assert text not in str(tx.execute(sa.select(table)).all())
    assert sign_up(users, invitations, other, "bob")


def test_of_many_at_once_one_gets_in(users, invitations):
    text = invitations.create(TERMS, DAY, "user/1")[1]
    found = invitations.get_open(text)  # all have looked before one is in

    def race(number: int) -> bool:
        try:
            users.create(f"u{number}", "x", welcome=lambda tx, user_id: invitations.redeem(tx, found, user_id))
        except InvitationRefused:
            return False
        return True

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(race, range(8))).count(True) == 1
    assert [users.exists(f"u{number}") for number in range(8)].count(True) == 1


def test_what_is_over_revoked_or_unknown_is_refused(users, invitations, clock):
    late, revoked, fine = (invitations.create(TERMS, life, "user/1") for life in (DAY, 3 * DAY, 3 * DAY))
    invitations.revoke(revoked[0].id)
    clock.advance(days=1)
    for text in (late[1], revoked[1], "inv_unknown", "", "\u00e9"):
        with pytest.raises(InvitationRefused):
            invitations.get_open(text)
    sign_up(users, invitations, fine[1], "ann")
    with pytest.raises(Conflict, match="was used"):
        invitations.revoke(fine[0].id)
    with pytest.raises(NotFound):
        invitations.revoke(10**9)
    states = [one.state(clock.now()) for one in invitations.page(1, 10)[0]]
    assert states == ["used", "revoked", "expired"]


def test_a_note_is_what_people_can_read(invitations):
    with pytest.raises(BadRequest):
        invitations.create(InvitationTerms(note="a\nb"), DAY, "user/1")


# ── the first operator


def test_there_is_a_first_operator_once(users, invitations, clock):
    first, again = invitations.offer_first_operator(), invitations.offer_first_operator()
    assert first
    assert again
    admin = sign_up(users, invitations, first, "ann")
    users.reload()
    assert users.roles == {admin: UserRole.ADMIN}
    with pytest.raises(InvitationRefused):
        sign_up(users, invitations, again, "bob")
    assert invitations.offer_first_operator() is None
    users.set_state(admin, UserState.DISABLED)  # nobody is operator now, and who has read an old log gets in for a day
    clock.advance(days=1)
    with pytest.raises(InvitationRefused):
        sign_up(users, invitations, again, "bob")
    assert invitations.offer_first_operator()
    assert [one.used_by for one in invitations.page(1, 10)[0]] == [None, admin]


def test_of_two_first_operators_at_once_one_gets_in(users, invitations):
    found = [invitations.get_open(invitations.offer_first_operator() or "") for _ in range(4)]

    def race(number: int) -> bool:
        one = found[number]
        try:
            users.create(
                f"u{number}", "x", role=one.role, welcome=lambda tx, user_id: invitations.redeem(tx, one, user_id)
            )
        except InvitationRefused:
            return False
        return True

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(race, range(4))).count(True) == 1
