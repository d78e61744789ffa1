"""The right to rotate: one leader at a time, no write by a former one, and only by the database's own deployment."""

from __future__ import annotations

import select
import subprocess
import sys
from datetime import timedelta

import pytest
import sqlalchemy as sa

from config.settings import Config
from db import Database, database_url
from foundation.crypto import Envelopes
from pool.keys import PoolKeys
from pool.life import PoolKeySource, PoolKeyState
from replicas.lease import LEASE, LeaseLost, RotationLease, RotationStatus, WrongDeployment, rotation_status
from tables import pool_keys, rotator
from tests.conftest import ENCRYPTION_KEY
from tests.support.gateway import ROOT, environment, in_processes
from tests.support.movable_clock import MovableClock

pytestmark = pytest.mark.mysql

TEXT = "sk-or-v1-" + "a" * 64


@pytest.fixture
def first(db: Database, clock: MovableClock) -> RotationLease:
    return RotationLease(db, clock, "deployment")


@pytest.fixture
def second(db: Database, clock: MovableClock) -> RotationLease:
    return RotationLease(db, clock, "deployment")


def kept(db: Database) -> sa.Row:
    with db.reading() as tx:
        return tx.execute(sa.select(rotator)).one()


def test_one_of_two_leads_until_it_releases(first, second):
    assert first.take()
    assert not second.take()
    first.release()
    assert second.take()
    assert not first.take()


def test_everybody_may_know_whether_somebody_rotates_and_how_long_nothing_is_deleted(db, first, clock):
    assert rotation_status(db, clock.now()) == RotationStatus(False, None)
    first.take()
    until = clock.now() + timedelta(days=1)
    first.hold_deletions(until)
    assert rotation_status(db, clock.now()) == RotationStatus(True, until)
    assert rotation_status(db, clock.now() + LEASE) == RotationStatus(False, until)
    first.release()
    assert rotation_status(db, clock.now()) == RotationStatus(False, until)


def test_a_lease_that_is_not_renewed_ends_by_itself(first, second, clock):
    first.take()
    clock.advance(seconds=LEASE.total_seconds() - 1)
    assert not second.take()
    clock.advance(seconds=1)
    assert second.take()


def test_a_lease_that_is_renewed_goes_on(first, second, clock):
    first.take()
    for _ in range(3):
        clock.advance(seconds=LEASE.total_seconds() - 1)
        first.renew()
    assert not second.take()


def test_every_write_of_the_leader_renews_its_lease(db, first, second, clock):
    keys = PoolKeys(db, Envelopes([ENCRYPTION_KEY]), clock, first.guard)
    first.take()
    clock.advance(seconds=LEASE.total_seconds() - 1)
    keys.intend("x", clock.now(), None, None)
    clock.advance(seconds=LEASE.total_seconds() - 1)
    assert not second.take()


def test_the_leader_may_take_it_again(first, second):
    assert first.take()
    assert first.take()
    assert not second.take()


def test_each_leader_has_a_higher_epoch(db, first, second):
    seen = []
    for lease in (first, second, first, first):
        assert lease.take()
        seen.append(kept(db).epoch)
        lease.release()
    assert seen == [1, 2, 3, 4]


def test_a_former_leader_can_neither_renew_nor_hold_nor_release(db, first, second, clock):
    first.take()
    clock.advance(seconds=LEASE.total_seconds())
    second.take()
    before = kept(db)
    with pytest.raises(LeaseLost):
        first.renew()
    with pytest.raises(LeaseLost):
        first.hold_deletions(clock.now())
    first.release()
    assert kept(db) == before
    second.renew()


def test_an_older_epoch_is_fenced_whoever_owned_it(db, first, clock):
    first.take()
    db.transact(lambda tx: tx.execute(rotator.update().values(epoch=rotator.c.epoch + 1)))
    with pytest.raises(LeaseLost):
        first.renew()


def test_who_never_led_may_not_write(db, first, clock):
    keys = PoolKeys(db, Envelopes([ENCRYPTION_KEY]), clock, first.guard)
    with pytest.raises(LeaseLost):
        keys.add(TEXT, "x", PoolKeySource.MINTED)
    assert keys.rows() == []


def test_no_write_of_a_former_leader_changes_anything(db, first, second, clock):
    envelopes = Envelopes([ENCRYPTION_KEY])
    keys = PoolKeys(db, envelopes, clock, first.guard)
    first.take()
    ids = {}
    for number, state in enumerate(("intent", "stored", "active", "draining")):
        ids[state] = keys.intend(f"gw/x/{state}", clock.now(), None, None)
        if state != "intent":
            keys.store(ids[state], f"sk-or-v1-{number:064x}")
        if state in {"active", "draining"}:
            keys.switch(ids[state], clock.now(), None)
    keys.drain(ids["draining"], clock.now())
    clock.advance(seconds=LEASE.total_seconds())
    second.take()
    rows, lease = keys.rows(), kept(db)
    writes = [
        lambda: keys.intend("another", clock.now(), None, None),
        lambda: keys.add(TEXT, "mine", PoolKeySource.OPERATOR),
        lambda: keys.take_in_unknown("unknown", "0" * 64),
        lambda: keys.store(ids["intent"], TEXT),
        lambda: keys.switch(ids["stored"], clock.now(), None),
        lambda: keys.drain(ids["active"], clock.now()),
        lambda: keys.move(ids["draining"], PoolKeyState.DISABLED),
        lambda: keys.move(ids["active"], PoolKeyState.QUARANTINED),
        lambda: keys.set_limits({ids["active"]: (1, 1)}),
        lambda: keys.ask_renewal("gw/x/active"),
        lambda: keys.set_enabled("gw/x/active", False),
        lambda: keys.drop_foreign("gw/ours/"),
    ]
    for write in writes:
        with pytest.raises(LeaseLost):
            write()
    assert (keys.rows(), kept(db)) == (rows, lease)


def test_a_write_that_fails_keeps_neither_itself_nor_the_renewal(db, first, clock):
    keys = PoolKeys(db, Envelopes([ENCRYPTION_KEY]), clock, first.guard)
    first.take()
    keys.take_in_unknown("x", "0" * 64)
    until = kept(db).lease_until
    clock.advance(seconds=1)
    with pytest.raises(Exception, match="x"):
        keys.take_in_unknown("x", "1" * 64)
    assert kept(db).lease_until == until


# ── whose database it is


def test_the_first_deployment_to_rotate_owns_the_database(db, first, clock):
    other = RotationLease(db, clock, "another")
    assert kept(db).deployment_hash is None
    first.take()
    first.release()
    for attempt in (other.take, other.check_deployment):
        with pytest.raises(WrongDeployment, match="--claim"):
            attempt()
    first.check_deployment()
    assert first.take()


def test_the_wrong_deployment_changes_nothing(db, first, clock):
    first.take()
    clock.advance(seconds=LEASE.total_seconds())
    before = kept(db)
    with pytest.raises(WrongDeployment):
        RotationLease(db, clock, "another").take()
    assert kept(db) == before
    first.renew()


def test_the_id_of_a_deployment_is_not_in_the_database(db, first):
    """Who copies the database must not get it with the copy."""
    first.take()
    assert "deployment" not in str(kept(db)._asdict().values())


def test_claiming_makes_it_this_deployments_own(db, first, clock):
    first.take()
    first.release()
    other = RotationLease(db, clock, "another")
    assert other.take(claim=True)
    other.release()
    with pytest.raises(WrongDeployment):
        first.take()
    assert other.take()


def test_claiming_waits_for_the_leader_and_then_fences_it(db, first, clock):
    first.take()
    other = RotationLease(db, clock, "another")
    before = kept(db)
    assert not other.take(claim=True)
    assert kept(db) == before
    clock.advance(seconds=LEASE.total_seconds())
    assert other.take(claim=True)
    with pytest.raises(LeaseLost):
        first.renew()


# ── what one leader leaves for the next


def test_a_hold_on_deletions_outlives_its_leader(first, second, clock):
    assert first.deletions_held_until() is None
    first.take()
    until = clock.now() + timedelta(hours=24)
    first.hold_deletions(until)
    first.release()
    second.take()
    assert second.deletions_held_until() == until


# ── in real processes


LEADER = """
import sys
from foundation.clock import Clock
from config.settings import Config
from foundation.crypto import Envelopes
from db import Database, database_url
from pool.keys import PoolKeys
from replicas.lease import LeaseLost, RotationLease
db = Database(database_url(Config(database_url=sys.argv[1])))
db.is_current()
lease = RotationLease(db, Clock(), "deployment")
"""


def test_of_processes_that_begin_together_one_leads(db, empty_database_url):
    printed = in_processes(3, LEADER, "print(lease.take())", empty_database_url)
    assert sorted(printed) == ["False\n"] * 2 + ["True\n"]
    assert kept(db).epoch == 1


def test_of_deployments_that_begin_together_on_a_new_database_one_owns_it(db, empty_database_url):
    prepare = LEADER.replace('"deployment"', "str(__import__('os').getpid())")
    race = """
try:
    if lease.take():
        lease.release()
        lease.check_deployment()
        print("mine")
    else:
        print("busy")
except Exception as error:
    print(type(error).__name__)
"""
    printed = [text.strip() for text in in_processes(3, prepare, race, empty_database_url)]
    assert printed.count("mine") == 1
    assert set(printed) <= {"mine", "busy", "WrongDeployment"}


SLEEPER = (
    LEADER
    + f"""
keys = PoolKeys(db, Envelopes(["{ENCRYPTION_KEY}"]), Clock(), lease.guard)
assert lease.take()
row_id = keys.intend("gw/x/y", Clock().now(), None, None)
print("leading", flush=True)
sys.stdin.readline()  # it sleeps
try:
    keys.store(row_id, "{TEXT}")
except LeaseLost:
    print("fenced")
"""
)


@pytest.mark.parametrize("overtaken", [True, False])
def test_a_process_that_slept_through_the_end_of_its_lease_writes_nothing_once_another_leads(
    db, empty_database_url, overtaken
):
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    command = [sys.executable, "-c", SLEEPER, empty_database_url]
    with subprocess.Popen(command, cwd=ROOT, env=environment(), text=True, **pipes) as process:
        assert select.select([process.stdout], [], [], 30)[0]
        assert process.stdout.readline() == "leading\n", process.stderr.read()
        if overtaken:
            late = MovableClock()
            late.time = kept(db).lease_until
            assert RotationLease(db, late, "deployment").take()
        before = kept(db)
        printed, complaints = process.communicate("wake up\n", timeout=60)
    assert (process.returncode, complaints) == (0, "")
    with db.reading() as tx:
        state = tx.execute(sa.select(pool_keys.c.state)).scalar_one()
    assert (printed, state) == (("fenced\n", "intent") if overtaken else ("", "stored"))
    assert (kept(db) == before) is overtaken


def test_a_second_database_connection_sees_the_lease(db, empty_database_url, first, clock):
    other = Database(database_url(Config(database_url=empty_database_url)))
    first.take()
    assert not RotationLease(other, clock, "deployment").take()
    other.close()
