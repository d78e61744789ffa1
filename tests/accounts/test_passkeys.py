"""Passkeys: made in a session, used alone or as a second factor; a challenge is good once, for who asked for it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import sqlalchemy as sa

from accounts.audit_log import AuditLog
from accounts.one_time_states import OneTimeStates
from accounts.passkeys import MAX_PASSKEYS, PasskeyProof, Passkeys
from accounts.refused_log_ins import RefusedLogIns
from accounts.relying_party import find_relying_party
from accounts.sessions import UNKNOWN, UserSessions
from accounts.users import Users
from foundation.counts import Counts
from foundation.errors import AppError, BadRequest, Conflict, NotFound, Unauthorized
from tables import passkeys as table
from tests.support.authenticator import Authenticator

ORIGIN = "https://gateway.test"


@pytest.fixture
def refused(db, clock):
    return RefusedLogIns(AuditLog(db, clock), Counts())


@pytest.fixture
def states(db, clock, envelopes):
    return OneTimeStates(db, envelopes, clock)


@pytest.fixture
def passkeys(db, clock, states, refused):
    return Passkeys(db, clock, states, find_relying_party(ORIGIN), refused)


@pytest.fixture
def sessions(db, clock):
    return UserSessions(db, clock, timedelta(hours=24), timedelta(days=7), b"r" * 32)


@pytest.fixture
def people(db, clock):
    users = Users(db, b"k" * 32, clock)
    return [users.create(name, "x") for name in ("ann", "bob")]


@pytest.fixture
def ann(people, sessions):
    return people[0], sessions.start(people[0]).id


@pytest.fixture
def bob(people, sessions):
    return people[1], sessions.start(people[1]).id


def added(passkeys, who, name="phone", device=None) -> Authenticator:
    device = device or Authenticator(ORIGIN)
    passkeys.add(*who, name, device.make(passkeys.begin(*who)))
    return device


def proof(passkeys, device, **changed) -> PasskeyProof:
    options, browser = passkeys.begin_proof()
    return PasskeyProof(browser, device.sign(options, **changed))


def test_each_opens_the_account_of_its_owner_alone(passkeys, clock, ann, bob):
    anns, bobs = added(passkeys, ann), added(passkeys, bob, "bob's")
    clock.advance(minutes=1)
    assert passkeys.enter(proof(passkeys, anns), UNKNOWN) == ann[0]
    assert passkeys.enter(proof(passkeys, bobs), UNKNOWN) == bob[0]
    [shown] = passkeys.of(ann[0])
    assert (shown.name, shown.last_used) == ("phone", clock.now())
    assert passkeys.holders([ann[0], bob[0], 99]) == {ann[0], bob[0]}


def test_as_a_second_factor_it_is_good_for_its_owner_alone(passkeys, ann, bob):
    anns, bobs = added(passkeys, ann), added(passkeys, bob)
    passkeys.check(ann[0], proof(passkeys, anns))
    with pytest.raises(Unauthorized):
        passkeys.check(ann[0], proof(passkeys, bobs))
    passkeys.check(bob[0], proof(passkeys, bobs))


def test_an_answer_is_good_once(passkeys, ann):
    device = added(passkeys, ann)
    given = proof(passkeys, device)
    assert passkeys.enter(given, UNKNOWN) == ann[0]
    with pytest.raises(BadRequest):
        passkeys.enter(given, UNKNOWN)


def test_of_many_at_once_with_one_answer_one_is_let_in(passkeys, ann):
    given = proof(passkeys, added(passkeys, ann))

    def is_let_in(_: int) -> bool:
        try:
            passkeys.enter(given, UNKNOWN)
        except AppError:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(is_let_in, range(4))) == 1


def test_a_challenge_is_of_one_browser_and_of_minutes(passkeys, clock, ann):
    device = added(passkeys, ann)
    given = proof(passkeys, device)
    with pytest.raises(BadRequest):
        passkeys.enter(PasskeyProof("another browser", given.credential), UNKNOWN)
    with pytest.raises(BadRequest):  # and it is used up
        passkeys.enter(given, UNKNOWN)
    late = proof(passkeys, device)
    clock.advance(minutes=5, seconds=1)
    with pytest.raises(BadRequest):
        passkeys.enter(late, UNKNOWN)


def test_a_challenge_to_make_one_is_none_to_log_in_and_the_other_way_round(passkeys, ann):
    device, (user_id, session_id) = added(passkeys, ann), ann
    options = passkeys.begin(user_id, session_id)
    as_request = {"challenge": options["challenge"], "rpId": options["rp"]["id"]}
    with pytest.raises(BadRequest):
        passkeys.enter(PasskeyProof(session_id, device.sign(as_request)), UNKNOWN)
    request, browser = passkeys.begin_proof()
    as_creation = options | {"challenge": request["challenge"]}
    with pytest.raises(BadRequest):
        passkeys.add(user_id, browser, "x", Authenticator(ORIGIN).make(as_creation))
    assert len(passkeys.of(user_id)) == 1


def test_one_is_made_in_the_session_that_began_and_only_while_that_lives(passkeys, sessions, ann, bob):
    device = Authenticator(ORIGIN)
    made = device.make(passkeys.begin(*ann))
    with pytest.raises(BadRequest):
        passkeys.add(*bob, "stolen", made)
    made = device.make(passkeys.begin(*ann))
    sessions.end(ann[1])
    with pytest.raises(Unauthorized):
        passkeys.add(*ann, "late", made)
    assert passkeys.of(ann[0]) == passkeys.of(bob[0]) == []


@pytest.mark.parametrize("spoil", ["count", "handle", "unknown", "origin", "unverified"])
def test_a_wrong_answer_is_refused_in_one_way_and_the_right_one_is_still_good(passkeys, refused, ann, bob, spoil):
    device, bobs = added(passkeys, ann), added(passkeys, bob)
    passkeys.enter(proof(passkeys, device), UNKNOWN)
    wrong = Authenticator(ORIGIN, count=device.count, handle=device.handle, key=device.key, id=device.id)
    if spoil == "count":
        wrong.count -= 1  # a copy of the device that was used less
    elif spoil == "handle":
        wrong.handle = bobs.handle
    elif spoil == "unknown":
        wrong.id = b"nobody's"
    elif spoil == "origin":
        wrong.origin = "https://evil.test"
    else:
        wrong.flags = 1
    with pytest.raises(Unauthorized) as told:
        passkeys.enter(proof(passkeys, wrong), UNKNOWN)
    assert told.value.message == "Invalid credentials"
    device.count = wrong.count
    assert passkeys.enter(proof(passkeys, device), UNKNOWN) == ann[0]
    assert passkeys.enter(proof(passkeys, bobs), UNKNOWN) == bob[0]


def test_what_is_refused_is_counted_for_whose_it_is(db, clock, passkeys, refused, ann):
    device = added(passkeys, ann)
    device.flags = 1
    with pytest.raises(Unauthorized):
        passkeys.enter(proof(passkeys, device), UNKNOWN)
    refused.sums.write(True)
    found, _ = AuditLog(db, clock).page(1, 10, user_id=ann[0])
    assert [entry.action for entry in found] == ["passkey_refused"]


def test_one_device_has_one_for_each_account_and_no_account_too_many(passkeys, ann, bob):
    device = added(passkeys, ann)
    options = passkeys.begin(*ann)
    assert [one["id"] for one in options["excludeCredentials"]] == [device.make(options)["id"]]
    with pytest.raises(Conflict):
        passkeys.add(*ann, "again", device.make(options))
    others = device.make(passkeys.begin(*bob))  # what a device never does: another's credential
    with pytest.raises(Conflict):
        passkeys.add(*bob, "taken over", others)
    for number in range(MAX_PASSKEYS - 1):
        added(passkeys, ann, str(number))
    with pytest.raises(Conflict):
        passkeys.begin(*ann)
    added(passkeys, bob)
    assert len(passkeys.of(ann[0])) == MAX_PASSKEYS


def test_all_of_an_account_have_one_handle_that_tells_nothing_of_it(db, passkeys, ann, bob):
    handles = {added(passkeys, ann).handle for _ in range(2)}
    assert len(handles) == 1
    assert added(passkeys, bob).handle not in handles
    assert min(map(len, handles)) >= 43


def test_one_that_is_removed_opens_nothing_and_nobody_removes_anothers(db, passkeys, ann, bob):
    device, other = added(passkeys, ann), added(passkeys, ann, "laptop")
    first, second = passkeys.of(ann[0])
    with pytest.raises(NotFound):
        passkeys.remove(bob[0], first.id)
    assert passkeys.remove(ann[0], first.id) == "phone"
    with pytest.raises(NotFound):
        passkeys.remove(ann[0], first.id)
    with pytest.raises(Unauthorized):
        passkeys.enter(proof(passkeys, device), UNKNOWN)
    assert passkeys.enter(proof(passkeys, other), UNKNOWN) == ann[0]
    assert [one.id for one in passkeys.of(ann[0])] == [second.id]
    assert (passkeys.remove_all(ann[0]), passkeys.remove_all(ann[0])) == (1, 0)
    with db.reading() as tx:
        assert tx.scalar(sa.select(sa.func.count()).select_from(table)) == 0


def test_where_browsers_have_none_nothing_is_begun(db, clock, states, refused, ann):
    without = Passkeys(db, clock, states, None, refused)
    assert not without.are_possible
    for begin in (lambda: without.begin(*ann), without.begin_proof):
        with pytest.raises(NotFound, match="PUBLIC_URL"):
            begin()
