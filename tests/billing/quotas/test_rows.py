"""Quotas in the database: their terms, and that settled money meets them exactly once, in the right window."""

from __future__ import annotations

import threading

import pytest
import sqlalchemy as sa

from billing.quotas.rows import MAX_LIMIT_NANO, Move, apply, check_amount
from billing.quotas.slices import Reservation
from db import Database
from foundation.errors import BadRequest
from foundation.money import MAX_NANO
from tables import quotas as table
from tables import revisions
from tests.support.movable_clock import MovableClock
from tests.support.quota_world import Call, World, at, caller


@pytest.fixture
def world(db: Database, clock: MovableClock) -> World:
    """Where each user may spend 1000 nano-dollars a month."""
    return World(db, clock, quota_usd=0.000001)


def call_of(world: World, cost: int, when: str = "2026-11-21", user_id: int = 1, key_id: int | None = None) -> Call:
    """A call that nothing was reserved for."""
    return Call(caller(user_id, key_id), Reservation(0, None, None), at(when), "p", cost)


# ── settled money


def test_costs_go_to_the_quotas_of_user_and_key_and_to_nobody_elses(world):
    for subject in ("user/1", "user/2", "key/7", "key/8"):
        world.quotas.set(subject, 1000, None, "month", "reset")
    world.settle([call_of(world, 5), call_of(world, 7, key_id=7), call_of(world, 11, user_id=2, key_id=8)])
    assert {name: world.row(name).spent_nano for name in ("user/1", "user/2", "key/7", "key/8")} == {
        "user/1": 12,
        "user/2": 11,
        "key/7": 7,
        "key/8": 11,
    }
    world.check()


def test_a_cost_lands_in_the_window_in_which_its_call_began(world, clock):
    world.quotas.set("user/1", 1000, None, "day", "reset")
    begun = call_of(world, 5, "2026-11-21T23:59:59.999999")
    after = call_of(world, 7, "2026-11-22T00:00:00")
    world.settle([after])
    assert (world.row("user/1").window_start, world.row("user/1").spent_nano) == (at("2026-11-22"), 7)
    world.settle([begun])
    assert world.row("user/1").spent_nano == 7
    world.check()


def test_costs_of_two_windows_in_one_transaction_leave_those_of_the_newer(world):
    world.quotas.set("user/1", 1000, None, "day", "reset")
    world.settle([call_of(world, 7, "2026-11-22"), call_of(world, 5, "2026-11-21"), call_of(world, 1, "2026-11-22")])
    assert world.row("user/1").spent_nano == 8


def test_an_open_call_of_the_old_window_stays_reserved_in_the_new_one(world, clock):
    process = world.process()
    call = process.begin(400)
    process.drain()
    clock.advance(days=10)
    process.beat()
    assert process.begin(600)
    assert world.quotas.find("user/1").remaining_nano == 0
    process.end(call, 400)
    process.drain()
    assert (world.row("user/1").spent_nano, world.row("user/1").reserved_nano) == (0, 600)
    world.check()


def test_steadily_recovering_money_decays_up_to_the_next_call(world):
    world.quotas.set("user/1", 2400, None, "day", "steady")
    world.settle([call_of(world, 2400, "2026-11-21T12:00:00")])
    world.settle([call_of(world, 50, "2026-11-21T18:00:00")])
    assert world.row("user/1").spent_nano == 1850


def of_slice(world: World, nano: int) -> tuple[str, int]:
    """A process with a slice of so much of user/1."""
    process = world.process()
    process.slices.give_back(process.slices.reserve(caller(), nano), nano)
    return process.id, world.row("user/1").id


@pytest.mark.parametrize(
    ("move", "slice_nano", "reserved_nano"),
    [
        (Move(opened=60), 40, 100),
        (Move(opened=160), 0, 160),  # more than the slice has: the rest is reserved beyond it
        (Move(through=60), 40, 40),
        (Move(through=160), 0, 0),
        (Move(opened=60, back=20), 60, 120),
    ],
)
def test_a_move_changes_slice_and_reserved_together(world, move, slice_nano, reserved_nano):
    slice_ = of_slice(world, 100)
    world.db.transact(lambda tx: apply(tx, {slice_: move}, []))
    assert world.rows_of_slices() == {slice_: slice_nano}
    assert world.row("user/1").reserved_nano == reserved_nano


def test_what_comes_back_goes_to_the_slice_if_there_is_one_and_else_to_the_quota(world):
    process_id, quota_id = of_slice(world, 100)
    world.db.transact(lambda tx: apply(tx, {(process_id, quota_id): Move(opened=100)}, []))
    world.db.transact(lambda tx: apply(tx, {(process_id, quota_id): Move(closed=60, back=20)}, []))
    assert (world.rows_of_slices()[process_id, quota_id], world.row("user/1").reserved_nano) == (20, 60)
    process = world.process()
    process.slices.return_slices_of([process_id])
    world.db.transact(lambda tx: apply(tx, {(process_id, quota_id): Move(closed=40, back=40)}, []))
    assert (world.rows_of_slices(), world.row("user/1").reserved_nano) == ({}, 0)


def test_a_row_that_something_else_than_the_journal_closes_gives_all_back_to_the_quota(world):
    process = world.process()
    call = process.begin(500)
    process.drain()
    call.cost = 100
    world.settle([call], from_journal=False)
    row = world.row("user/1")
    assert (row.spent_nano, row.reserved_nano) == (100, 0)
    world.check()


def test_who_has_no_quota_costs_no_row(world):
    world.settle([call_of(world, 5)])
    with world.db.reading() as tx:
        assert tx.execute(sa.select(table)).all() == []


def test_transactions_of_many_processes_over_the_same_quotas_lose_nothing(world):
    subjects = [f"user/{number}" for number in range(1, 6)]
    for subject in subjects:
        world.quotas.set(subject, 10**9, None, "month", "reset")

    def settle(turn: int) -> None:
        for number in range(10):
            users = range(1, 6) if (turn + number) % 2 else range(5, 0, -1)
            calls = [call_of(world, 1, user_id=user_id) for user_id in users]
            world.db.transact(
                lambda tx, calls=calls: apply(tx, {}, [(c.subjects()[0], c.created_at, 1) for c in calls])
            )

    threads = [threading.Thread(target=settle, args=(turn,)) for turn in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [world.row(subject).spent_nano for subject in subjects] == [40] * 5


# ── terms


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
    process.slices.reserve(caller(), 1990)
    assert (later.row("user/1").limit_nano, later.row("user/1").period) == (2000, "day")
    later.check()


def test_who_has_spent_already_begins_with_that(world, clock):
    world.settle([call_of(world, 5, "2026-11-20T23:59:59"), call_of(world, 7, "2026-11-21T01:00:00", key_id=7)])
    world.settle([call_of(world, 11, "2026-10-31T23:59:59"), call_of(world, 1, user_id=2)])
    assert world.quotas.find("user/1").spent_nano == 12
    assert world.quotas.set("user/1", 50, None, "day", "reset").spent_nano == 7
    assert world.quotas.set("user/1", 50, None, "week", "reset").spent_nano == 12
    assert world.quotas.set("user/1", 50, None, "none", "reset").spent_nano == 23
    assert world.quotas.set("key/7", 50, None, "month", "reset").spent_nano == 7
    assert world.quotas.set("user/1", 240, None, "day", "steady").spent_nano == 0
    world.settle([call_of(world, 9, "2026-11-21T12:00:00")])
    world.quotas.set("user/1", 500, 3, "day", "steady")
    assert world.row("user/1").spent_nano == 9
    clock.advance(days=1)
    assert world.quotas.find("user/1").spent_nano == 0


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


@pytest.mark.parametrize(
    "dollars", [-1, -1e-9, "NaN", float("nan"), 1e30, "1e999999999", "x", "", True, [], {}, 1e9 + 1]
)
def test_what_is_no_amount_is_refused(dollars):
    with pytest.raises(BadRequest, match="limit_usd must be an amount"):
        check_amount("limit_usd", dollars)


@pytest.mark.parametrize(
    ("dollars", "amount"),
    [(None, None), (0, 0), (2.5, 2_500_000_000), ("0.1", 10**8), ("0.12345678949", 123_456_789), (1e9, 10**18)],
)
def test_amounts_are_exact_to_the_nano_dollar(dollars, amount):
    assert check_amount("limit_usd", dollars) == amount


def test_a_quota_is_shown_in_dollars(world):
    world.quotas.set("user/1", 10**9, 4, "day", "reset")
    process = world.process()
    process.end(process.begin(500), 5)
    process.drain()
    assert world.quotas.find("user/1").to_dict() == {
        "limit_usd": 1.0,
        "soft_limit_usd": 4e-9,
        "spent_usd": 5e-9,
        "reserved_usd": 495e-9,
        "remaining_usd": 0.9999995,
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
