"""Quotas in the database: whose they are, what sets them, and with what a new one begins."""

from __future__ import annotations

import threading

import pytest
import sqlalchemy as sa

from accounts.client_keys import ClientKeyRow, ClientKeys
from billing.quotas.terms import MAX_LIMIT_NANO
from db import Database
from foundation.errors import BadRequest
from foundation.money import MAX_NANO
from tables import revisions
from tests.support.database_plans import plans
from tests.support.movable_clock import MovableClock
from tests.support.quota_world import World, at, call_of, caller

pytestmark = pytest.mark.mysql


@pytest.fixture
def world(db: Database, clock: MovableClock) -> World:
    """Where each user may spend 1000 nano-dollars a month."""
    return World(db, clock, quota_usd=0.000001)


def test_users_have_the_default_until_they_get_a_quota_of_their_own(world):
    default = world.quotas.find("user/1")
    assert (default.id, default.is_default, default.terms.limit_nano, default.spent_nano) == (None, True, 1000, 0)
    assert default.resets_at == at("2026-12-01")
    own = world.quotas.set("user/1", 50, 40, "week", "reset")
    assert world.quotas.find("user/1") == own
    assert (own.is_default, own.terms.limit_nano, own.terms.soft_limit_nano, own.resets_at) == (
        False,
        50,
        40,
        at("2026-11-23"),
    )
    assert world.quotas.find("user/2").is_default
    assert world.quotas.reset("user/1").terms == default.terms
    assert world.quotas.find("user/1").is_default


def test_client_keys_have_no_default(world):
    assert world.quotas.find("key/1") is None
    world.quotas.set("key/1", 5, None, "day", "reset")
    assert world.quotas.find("key/1").terms.limit_nano == 5
    assert world.quotas.reset("key/1") is None
    assert world.quotas.find("key/1") is None


def test_without_default_nobody_has_a_quota(db, clock):
    quotas = World(db, clock).quotas
    assert quotas.find("user/1") is None
    assert quotas.reset("user/1") is None
    quotas.set("user/1", 5, None, "day", "reset")
    assert quotas.page(1, 10)[1] == 1
    assert quotas.reset("user/1") is None
    assert quotas.page(1, 10) == ([], 0)


def test_another_default_holds_for_everybody_who_has_none_of_their_own(world, db, clock):
    world.process().slices.reserve(caller(), 10)
    later = World(db, clock, quota_usd=0.000002, quota_period="day")
    assert later.quotas.find("user/1").terms.limit_nano == 2000
    process = later.process()
    process.slices.reserve(caller(), 1200)
    assert (later.row("user/1").limit_nano, later.row("user/1").period) == (2000, "day")
    later.check()


def test_who_has_spent_already_begins_with_that(world, clock):
    world.settle([call_of(world, 5, "2026-11-20T23:59:59"), call_of(world, 7, "2026-11-21T01:00:00")])
    world.settle([call_of(world, 11, "2026-10-31T23:59:59"), call_of(world, 1, user_id=2)])
    assert world.quotas.find("user/1").spent_nano == 12
    assert world.quotas.set("user/1", 50, None, "day", "reset").spent_nano == 7
    assert world.quotas.set("user/1", 50, None, "week", "reset").spent_nano == 12
    assert world.quotas.set("user/1", 50, None, "none", "reset").spent_nano == 23
    assert world.quotas.set("user/1", 240, None, "day", "steady").spent_nano == 0
    world.settle([call_of(world, 9, "2026-11-21T12:00:00")])
    world.quotas.set("user/1", 500, 3, "day", "steady")
    assert world.row("user/1").spent_nano == 9
    clock.advance(days=1)
    assert world.quotas.find("user/1").spent_nano == 0


@pytest.fixture
def key(world: World, clock: MovableClock) -> ClientKeyRow:
    """A client key that was made two months ago."""
    clock.advance(days=-60)
    made, _ = ClientKeys(world.db, clock, 9).create(None, {"name": "x"})
    clock.advance(days=60)
    return made


def test_a_client_key_begins_with_what_it_has_spent_and_its_neighbour_with_nothing(world, clock, key):
    other, _ = ClientKeys(world.db, clock, 9).create(key.user_id, {"name": "y"})
    days = "2026-10-31T23:59:59", "2026-11-01T00:00:00", "2026-11-21T01:00:00"
    world.settle(call_of(world, cost, day, key.user_id, key.id) for cost, day in zip((5, 7, 11), days, strict=True))
    world.settle([call_of(world, 100, days[1], key.user_id), call_of(world, 1000, days[1], key.user_id + 1)])
    assert world.quotas.set(f"key/{key.id}", 50, None, "month", "reset").spent_nano == 18
    assert world.quotas.set(f"key/{key.id}", 50, None, "none", "reset").spent_nano == 23
    assert world.quotas.set(f"key/{other.id}", 50, None, "month", "reset").spent_nano == 0


def test_a_client_keys_budget_reads_no_sums_but_its_users(world, key):
    """The ledger waits meanwhile: with a million sums of others, a scan would take seconds."""
    world.settle(call_of(world, 1, f"2026-11-{1 + n % 20:02}", key.user_id + n % 50, n) for n in range(1, 500))
    if world.db.kind == "mysql":
        world.db.transact(lambda tx: tx.exec_driver_sql("ANALYZE TABLE usage_rollups").all())
    for subject in (f"key/{key.id}", f"user/{key.user_id}"):
        [(statement, [step, *_])] = [
            found
            for found in plans(world.db, world.quotas.set, subject, 50, None, "month", "reset")
            if "usage_rollups" in found[0]
        ]
        if world.db.kind == "mysql":
            assert (step["type"], step["key"]) == ("range", "PRIMARY"), (statement, step)
        else:
            assert "(period=? AND user_id=? AND start>?)" in step["detail"], (statement, step)


def test_a_cost_that_is_settled_while_its_quota_is_set_counts_once(world):
    """Whichever of the two comes first: the one waits for the other."""
    for number in range(1, 16):
        both = threading.Barrier(2)

        def settle(number: int = number, both: threading.Barrier = both) -> None:
            both.wait()
            world.settle([call_of(world, 5, user_id=number)])

        thread = threading.Thread(target=settle)
        thread.start()
        both.wait()
        world.quotas.set(f"user/{number}", 50, None, "day", "reset")
        thread.join()
        assert world.row(f"user/{number}").spent_nano == 5


def test_a_first_call_does_not_undo_a_quota_that_is_being_set(world):
    for number in range(1, 16):
        both = threading.Barrier(2)

        def open_it(number: int = number, both: threading.Barrier = both) -> None:
            both.wait()
            world.quotas.open(f"user/{number}")

        thread = threading.Thread(target=open_it)
        thread.start()
        both.wait()
        world.quotas.set(f"user/{number}", 50, None, "day", "reset")
        thread.join()
        row = world.row(f"user/{number}")
        assert (row.is_default, row.limit_nano) == (False, 50)


def test_a_change_tells_every_process(world):
    def revision() -> int:
        with world.db.reading() as tx:
            return tx.scalar(sa.select(revisions.c.value).where(revisions.c.name == "quotas"))

    before = revision()
    world.quotas.set("user/1", 5, None, "day", "reset")
    assert revision() == before + 1
    world.quotas.reset("user/1")
    assert revision() == before + 2
    world.process().slices.reserve(caller(2), 5)  # the first call of somebody with the default is nobody's business
    assert revision() == before + 2


def test_pages_are_newest_first_and_hold_the_default_of_those_who_have_called(world):
    world.quotas.set("user/5", 5, None, "day", "reset")
    world.process().slices.reserve(caller(2), 5)
    world.quotas.set("key/9", 5, None, "day", "reset")
    shown, total = world.quotas.page(1, 2)
    assert ([quota.subject for quota in shown], total) == (["key/9", "user/2"], 3)
    assert [quota.subject for quota in world.quotas.page(2, 2)[0]] == ["user/5"]
    assert world.quotas.page(3, 2)[0] == []


@pytest.mark.parametrize(
    "terms",
    [
        (-1, None, "day", "reset"),
        (None, -1, "day", "reset"),
        (MAX_LIMIT_NANO + 1, None, "day", "reset"),
        (MAX_NANO, None, "day", "reset"),
        (5, 6, "day", "reset"),
        (5, None, "year", "reset"),
        (5, None, None, "reset"),
        (5, None, ["day"], "reset"),
        (5, None, "day", "never"),
        (5, None, "none", "steady"),
        (None, 5, "day", "steady"),
    ],
)
def test_terms_that_make_no_sense_are_refused_and_change_nothing(world, terms):
    before = world.quotas.set("user/1", 5, None, "day", "reset")
    with pytest.raises(BadRequest):
        world.quotas.set("user/1", *terms)
    assert world.quotas.find("user/1") == before


@pytest.mark.parametrize(
    "subject", ["", "user", "user/", "user/0", "user/01", "user/-1", "group/1", "user/1 ", "USER/1"]
)
def test_what_is_no_subject_is_refused(world, subject):
    for ask in (world.quotas.find, world.quotas.reset, lambda name: world.quotas.set(name, 1, None, "day", "reset")):
        with pytest.raises(BadRequest, match="user/<id>"):
            ask(subject)


def test_a_quota_is_shown_in_dollars(world):
    world.quotas.set("user/1", 10**9, 4, "day", "reset")
    process = world.process()
    process.end(process.begin(500), 5)
    process.drain()
    assert world.quotas.find("user/1").to_dict() == {
        "limit_usd": 1.0,
        "soft_limit_usd": 4e-9,
        "spent_usd": 5e-9,
        "reserved_usd": 31_995e-9,  # a slice of 64 such calls, less what the first has cost
        "remaining_usd": 0.999968,
        "period": "day",
        "recovery": "reset",
        "resets_at": "2026-11-22T00:00:00+00:00",
        "soft_limit_passed": True,
    }


def test_several_quotas_are_found_at_once_and_who_has_none_is_left_out(world):
    world.quotas.set("user/1", 10**9, None, "day", "reset")
    world.quotas.set("key/2", 2 * 10**9, None, "day", "reset")
    subjects = ["user/1", "key/2", "key/3"]
    found = world.quotas.find_all(subjects)
    assert found == {subject: quota for subject in subjects if (quota := world.quotas.find(subject))}
    assert {"user/1", "key/2"} <= set(found)
    assert "key/3" not in found
    assert world.quotas.find_all([]) == {}
