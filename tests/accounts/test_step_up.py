"""Fresh sessions: for some minutes after the log-in or another proof, which only the account's owner can give."""

from __future__ import annotations

from datetime import timedelta

import pyotp
import pytest

from accounts.audit_log import AuditLog
from accounts.caller import Caller
from accounts.recovery_codes import RecoveryCodes
from accounts.refused_log_ins import RefusedLogIns
from accounts.sessions import UNKNOWN, UserSessions
from accounts.step_up import Act, Proof, SessionNotFresh, StepUp
from accounts.users import NO_KEY, Users
from foundation.counts import Counts
from foundation.crypto import DerivedKeyHasher, Envelopes
from foundation.errors import AppError, BadRequest, Unauthorized
from tests.conftest import ENCRYPTION_KEY
from tests.support.gateway import new_derived_key
from tests.support.second_factors import second_factors

KEY, OTHER_KEY = new_derived_key(), new_derived_key()


class People:
    """Ann and Bob, who have keys, Cyd, who came in through a provider, and what proves who they are."""

    def __init__(self, db, clock):
        self.clock, hasher = clock, DerivedKeyHasher(4)
        refused = RefusedLogIns(AuditLog(db, clock), Counts())
        codes = RecoveryCodes(db, clock)
        self.factors = second_factors(db, Envelopes([ENCRYPTION_KEY]), clock, codes, refused)
        users = Users(db, b"k" * 32, clock)
        self.sessions = UserSessions(db, clock, timedelta(hours=24), timedelta(days=7), b"r" * 32)
        self.step_up = StepUp(users, self.sessions, hasher, self.factors, refused)
        made = {"ann": hasher.hash(KEY), "bob": hasher.hash(OTHER_KEY), "cyd": NO_KEY}
        ids = [users.create(name, key_hash) for name, key_hash in made.items()]
        self.ann, self.bob, self.cyd = (Caller(one, self.sessions.start(one).id, 0.0) for one in ids)

    def is_fresh(self, caller):
        return self.step_up.is_fresh(caller.user_id, caller.session_id)

    def prove(self, caller, key=None, second=None):
        self.step_up.prove(caller, UNKNOWN, key, second)

    def app_of(self, caller):
        app = pyotp.TOTP(self.factors.begin(caller.user_id))
        self.factors.confirm(caller.user_id, app.at(self.clock.time))
        return app


@pytest.fixture
def people(db, clock):
    return People(db, clock)


@pytest.mark.mysql
def test_a_session_is_fresh_after_its_begin_and_after_each_proof_alone(people, clock):
    other = Caller(people.ann.user_id, people.sessions.start(people.ann.user_id).id, 0.0)
    clock.advance(minutes=14)
    people.step_up.check(people.ann.user_id, people.ann.session_id, Act.DELETE_ACCOUNT)
    clock.advance(minutes=1)
    with pytest.raises(SessionNotFresh, match=r"To delete your account, prove first .* `derived_key` to POST"):
        people.step_up.check(people.ann.user_id, people.ann.session_id, Act.DELETE_ACCOUNT)
    people.prove(people.ann, KEY)
    assert [people.is_fresh(one) for one in (people.ann, other, people.bob)] == [True, False, False]
    clock.advance(minutes=15)
    assert not people.is_fresh(people.ann)


def test_neither_a_refresh_nor_looking_at_pages_makes_it_fresh(people, clock):
    session = people.sessions.start(people.ann.user_id)
    clock.advance(minutes=15)
    people.sessions.refresh(session.refresh_token)
    people.sessions.extend(session.id)
    assert not people.step_up.is_fresh(people.ann.user_id, session.id)


def test_what_proves_it_is_what_the_account_has(people, clock):
    app = people.app_of(people.bob)
    wanted = [people.step_up.proof_of(one.user_id) for one in (people.ann, people.bob, people.cyd)]
    assert wanted == [Proof.KEY, Proof.SECOND_FACTOR, Proof.LOG_IN]
    clock.advance(minutes=20)
    code = app.at(clock.time)
    refused = [
        (people.ann, {}),
        (people.ann, {"second": code}),
        (people.ann, {"key": OTHER_KEY}),  # somebody else's
        (people.bob, {"key": OTHER_KEY}),  # the right one: the account has more than that
        (people.bob, {"second": ""}),
        (people.bob, {"second": "000000"}),
        (people.cyd, {"key": KEY}),
        (people.cyd, {"second": code}),
    ]
    for caller, given in refused:
        with pytest.raises((BadRequest, Unauthorized)):
            people.prove(caller, **given)
    assert not any(people.is_fresh(one) for one in (people.ann, people.bob, people.cyd))
    people.prove(people.bob, second=code)
    assert [people.is_fresh(one) for one in (people.ann, people.bob)] == [False, True]
    with pytest.raises(Unauthorized):
        people.prove(people.bob, second=code)  # once


def test_neither_a_session_that_has_ended_nor_somebody_elses_becomes_fresh(people, clock):
    clock.advance(minutes=20)
    with pytest.raises(Unauthorized):
        people.prove(Caller(people.ann.user_id, people.bob.session_id, 0.0), KEY)
    people.sessions.end(people.ann.session_id)
    with pytest.raises(AppError):
        people.prove(people.ann, KEY)
    assert not people.is_fresh(people.ann)
    assert not people.is_fresh(people.bob)
