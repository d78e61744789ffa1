"""Second factors: codes of an app, each once; a wait after wrong ones; the secret sealed to its account."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pyotp
import pytest
import sqlalchemy as sa

from accounts.audit_log import AuditLog
from accounts.recovery_codes import RecoveryCodes
from accounts.refused_log_ins import RefusedLogIns
from accounts.second_factors import PROVED, SecondFactorNeeded
from accounts.sessions import Origin
from accounts.users import Users
from foundation.counts import Counts
from foundation.crypto import Envelopes, SealBroken
from foundation.errors import AppError, Conflict, NotFound, TooManyRequests, Unauthorized
from tables import totp_secrets as table
from tests.conftest import ENCRYPTION_KEY
from tests.support.second_factors import second_factors


@pytest.fixture
def codes(db, clock):
    return RecoveryCodes(db, clock)


@pytest.fixture
def factors(db, clock, codes):
    return second_factors(db, Envelopes([ENCRYPTION_KEY]), clock, codes, RefusedLogIns(AuditLog(db, clock), Counts()))


@pytest.fixture
def people(db, clock):
    users = Users(db, b"k" * 32, clock)
    return [users.create(name, "x") for name in ("ann", "bob")]


@pytest.fixture
def app(factors, people, clock):
    """Ann's, confirmed a while ago."""
    made = pyotp.TOTP(factors.begin(people[0]))
    factors.confirm(people[0], made.at(clock.time))
    clock.advance(minutes=5)
    return made


def is_let_in(factors, user_id, given) -> bool:
    try:
        factors.check(user_id, given, Origin())
    except AppError:
        return False
    return True


def test_a_secret_is_of_no_effect_until_it_is_confirmed(factors, people, clock):
    ann = people[0]
    first, second = pyotp.TOTP(factors.begin(ann)), pyotp.TOTP(factors.begin(ann))
    assert factors.set_up_at(ann) is None
    factors.check(ann, None, Origin())
    with pytest.raises(Unauthorized):
        factors.confirm(ann, first.at(clock.time))
    factors.confirm(ann, second.at(clock.time))
    assert factors.set_up_at(ann) == clock.now()
    with pytest.raises(Conflict):
        factors.begin(ann)
    assert factors.holders(people) == {ann}
    with pytest.raises(NotFound):
        factors.confirm(people[1], "123456")


def test_a_code_is_good_once_near_its_time_and_for_its_account_alone(factors, people, clock, app):
    ann, bob = people
    others = pyotp.TOTP(factors.begin(bob))
    for given in (None, "", " "):
        with pytest.raises(SecondFactorNeeded):
            factors.check(ann, given, Origin())
    factors.check(ann, PROVED, Origin())
    factors.check(bob, None, Origin())  # his is not confirmed
    now = clock.time.timestamp()
    for wrong in (others.at(now), app.at(now - 60), app.at(now + 60), "12345", "a" * 64, "１２３４５６"):
        assert not is_let_in(factors, ann, wrong)
        factors._db.transact(lambda tx: tx.execute(table.update().values(failures=0)))
    assert is_let_in(factors, ann, f"{app.at(now)[:3]} {app.at(now)[3:]}")
    assert not is_let_in(factors, ann, app.at(now))
    assert not is_let_in(factors, ann, app.at(now - 30))  # nor one from before it
    assert is_let_in(factors, ann, app.at(now + 30))


def test_of_many_at_once_with_one_code_one_is_let_in(factors, people, clock, app):
    code = app.at(clock.time)
    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(lambda _: is_let_in(factors, people[0], code), range(4))) == 1


def test_who_guesses_waits_and_the_right_code_with_them(factors, people, clock, app):
    ann = people[0]
    for _ in range(5):
        with pytest.raises(Unauthorized):
            factors.check(ann, "000000", Origin())
    for wait in (60, 120, 240):
        with pytest.raises(TooManyRequests) as told:
            factors.check(ann, app.at(clock.time), Origin())
        assert abs(int(told.value.headers["Retry-After"]) - wait) <= 1
        clock.advance(seconds=wait + 1)
        with pytest.raises(Unauthorized):
            factors.check(ann, "000000", Origin())
    clock.advance(hours=1, seconds=1)
    factors.check(ann, app.at(clock.time), Origin())
    with pytest.raises(Unauthorized):  # and counts from nothing again
        factors.check(ann, "000000", Origin())


def test_a_recovery_code_takes_its_place_once_while_others_wait(factors, codes, people, app):
    ann, bob = people
    mine, others = codes.renew(ann), codes.renew(bob)
    for _ in range(6):
        assert not is_let_in(factors, ann, "000000")
    assert not is_let_in(factors, ann, others[0])
    assert is_let_in(factors, ann, mine[0].lower())
    assert not is_let_in(factors, ann, mine[0])


def test_a_secret_opens_in_its_own_row_alone(db, factors, people, clock, app):
    ann, bob = people
    secret = factors.begin(bob)
    with db.reading() as tx:
        sealed = dict(tx.execute(sa.select(table.c.user_id, table.c.secret_encrypted)).all())
    assert secret not in str(sealed)
    assert app.secret not in str(sealed)
    moved = table.update().where(table.c.user_id == ann).values(secret_encrypted=sealed[bob])
    db.transact(lambda tx: tx.execute(moved))
    with pytest.raises(SealBroken):
        factors.check(ann, pyotp.TOTP(secret).at(clock.time), Origin())


def test_it_can_be_removed(factors, people, app):
    factors.remove(people[0])
    factors.check(people[0], None, Origin())
    with pytest.raises(NotFound):
        factors.remove(people[0])
