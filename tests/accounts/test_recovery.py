"""New keys by a code or a link: what proves it is used up with the change, or not at all."""

from __future__ import annotations

import pyotp
import pytest

from accounts.audit_log import AuditLog
from accounts.recovery import Recovery
from accounts.recovery_codes import RecoveryCodes
from accounts.refused_log_ins import RefusedLogIns
from accounts.reset_links import ResetLinkRefused, ResetLinks
from accounts.second_factors import SecondFactorNeeded
from accounts.sessions import Origin, UserSessions
from accounts.users import AccountPending, Users, UserState, add_sso_account
from foundation.counts import Counts
from foundation.crypto import DerivedKeyHasher, Envelopes
from foundation.errors import BadRequest, Conflict, Forbidden, Unauthorized, UsernameTaken
from tests.conftest import ENCRYPTION_KEY
from tests.support.gateway import new_derived_key
from tests.support.second_factors import second_factors


class Counting(DerivedKeyHasher):
    """Counts what it hashes."""

    made = 0

    def hash(self, derived_key: str) -> str:
        self.made += 1
        return super().hash(derived_key)


@pytest.fixture
def house(db, clock):
    class House:
        users = Users(db, b"k" * 32, clock)
        sessions = UserSessions(db, clock, *[clock.now() - clock.now()] * 2, refresh_key=b"r" * 32)
        hasher = Counting(permits=1)
        codes, refused = RecoveryCodes(db, clock), RefusedLogIns(AuditLog(db, clock), Counts())
        second = second_factors(db, Envelopes([ENCRYPTION_KEY]), clock, codes, refused)
        recovery = Recovery(users, sessions, hasher, codes, ResetLinks(db, clock), refused, second)

        def new(self, name: str) -> int:
            return self.users.create(name, self.hasher.hash(new_derived_key()))

    made = House()
    made.clock = clock
    return made


def test_a_code_sets_a_key_once(house):
    ann, bob = house.new("ann"), house.new("bob")
    codes, before = house.recovery.codes.renew(ann), house.users.get(bob)
    key = new_derived_key()
    user = house.recovery.by_code("ann", codes[0].lower(), key, Origin())
    house.hasher.verify(house.users.get(ann).key_hash, key)
    assert user.id == ann
    with pytest.raises(Unauthorized):
        house.recovery.by_code("ann", codes[0], new_derived_key(), Origin())
    assert house.users.get(bob) == before


def test_whatever_is_wrong_costs_one_hash_and_has_one_answer(house):
    ann, bob = house.new("ann"), house.new("bob")
    mine, others = house.recovery.codes.renew(ann)[0], house.recovery.codes.renew(bob)[0]
    for name, code in (("ann", others), ("nobody", mine), ("bob", mine), ("ann", "")):
        made = house.hasher.made
        with pytest.raises(Unauthorized, match=r"^Invalid credentials$"):
            house.recovery.by_code(name, code, new_derived_key(), Origin())
        assert house.hasher.made == made + 1
    assert house.recovery.codes.left(ann)[0] == 10


def test_who_may_not_log_in_may_not_come_back_either_and_keeps_the_code(house):
    ann = house.new("ann")
    code, link = house.recovery.codes.renew(ann)[0], house.recovery.links.create(ann, "cli")[1]
    for state, error in ((UserState.DISABLED, Forbidden), (UserState.PENDING, AccountPending)):
        house.users.set_state(ann, state)
        with pytest.raises(error):
            house.recovery.by_code("ann", code, new_derived_key(), Origin())
        with pytest.raises(error):
            house.recovery.by_link(link, "ann", new_derived_key(), Origin())
    house.users.set_state(ann, UserState.ACTIVE)
    assert house.recovery.by_code("ann", code, new_derived_key(), Origin()).id == ann
    assert house.recovery.by_link(link, "ann", new_derived_key(), Origin())[0].id == ann


def test_a_code_or_a_link_is_no_second_factor(house):
    ann = house.new("ann")
    first, second = house.recovery.codes.renew(ann)[:2]
    link = house.recovery.links.create(ann, "cli")[1]
    app = pyotp.TOTP(house.second.begin(ann))
    house.second.confirm(ann, app.at(house.clock.time))
    before = house.users.get(ann)
    for recover in (
        lambda more: house.recovery.by_code("ann", first, new_derived_key(), Origin(), more),
        lambda more: house.recovery.by_link(link, "ann", new_derived_key(), Origin(), more),
    ):
        for given, error in (
            (None, SecondFactorNeeded),
            ("nothing", Unauthorized),
            (app.at(house.clock.time), Unauthorized),
        ):
            with pytest.raises(error):
                recover(given)
    assert house.users.get(ann) == before
    assert house.recovery.codes.left(ann)[0] == 10
    house.recovery.by_code("ann", first, new_derived_key(), Origin(), second)
    assert house.recovery.codes.left(ann)[0] == 8
    house.clock.advance(seconds=31)
    house.recovery.by_link(link, "ann", new_derived_key(), Origin(), app.at(house.clock.time))


def test_a_link_sets_a_key_under_the_accounts_own_name(house):
    ann = house.new("ann")
    house.new("bob")
    text = house.recovery.links.create(ann, "cli")[1]
    for name in ("bob", "nobody", "Ann"):
        with pytest.raises(BadRequest, match="not the username of the account"):
            house.recovery.by_link(text, name, new_derived_key(), Origin())
    key = new_derived_key()
    user, link = house.recovery.by_link(text, "ann", key, Origin())
    house.hasher.verify(house.users.get(ann).key_hash, key)
    assert (user.id, link.created_by) == (ann, "cli")
    with pytest.raises(ResetLinkRefused):
        house.recovery.by_link(text, "ann", new_derived_key(), Origin())


def test_an_account_that_a_provider_made_gets_a_name_and_a_key(db, house, clock):
    house.new("bob")
    ann = db.transact(lambda tx: add_sso_account(tx, clock.now(), {}))
    for taken in (
        lambda: house.recovery.first_key(house.users.get(ann), "bob", new_derived_key()),
        lambda: house.recovery.by_link(house.recovery.links.create(ann, "cli")[1], "bob", new_derived_key(), Origin()),
    ):
        with pytest.raises(UsernameTaken):
            taken()
    before, key = house.users.get(ann), new_derived_key()
    house.recovery.first_key(before, "ann", key)
    found = house.users.find("ann")
    assert found.id == ann
    house.hasher.verify(found.key_hash, key)
    with pytest.raises(Unauthorized):  # two at once: the later one has read the account as it was
        house.recovery.first_key(before, "other", new_derived_key())
    with pytest.raises(Conflict):
        house.recovery.first_key(found, "other", new_derived_key())
