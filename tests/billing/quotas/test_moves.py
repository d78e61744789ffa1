"""What moves in quotas' rows: settled money meets them exactly once, in the right window, and so do slices."""

from __future__ import annotations

import threading

import pytest
import sqlalchemy as sa

from billing import rollups
from billing.quotas.moves import Move, apply, take
from billing.quotas.rows import Quota
from billing.rollups import Bucket, UsageSums
from db import Database, Transaction
from tables import quotas as table
from tests.support.movable_clock import MovableClock
from tests.support.quota_world import World, at, call_of, caller

NOON = at("2026-11-21T12:00:00")

pytestmark = pytest.mark.mysql


@pytest.fixture
def world(db: Database, clock: MovableClock) -> World:
    """Where each user may spend 1000 nano-dollars a month."""
    return World(db, clock, quota_usd=0.000001)


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
    process, quota_id = world.process(), world.quotas.open("user/1").id
    world.db.transact(lambda tx: take(tx, process.id, quota_id, world.clock.now(), lambda left: nano))
    return process.id, quota_id


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


def test_who_has_no_quota_has_a_row_that_holds_nobody_back(db, clock):
    """Where costs and a new quota meet: nobody else sees it."""
    world = World(db, clock)
    world.settle([call_of(world, 5)])
    world.settle([call_of(world, 6, key_id=3)])
    with world.db.reading() as tx:
        rows = {row.subject: row for row in tx.execute(sa.select(table))}
    assert {subject: row.spent_nano for subject, row in rows.items()} == {"user/1": 11, "key/3": 6}
    assert all(row.is_default and row.limit_nano is None for row in rows.values())
    assert (world.quotas.find("user/1"), world.quotas.own(), world.quotas.page(1, 10)) == (None, {}, ([], 0))
    world.process().begin(10**12, caller(1))  # nothing is reserved
    world.check()


@pytest.mark.parametrize("known", [False, True], ids=["with its first cost", "with a later one"])
def test_a_quota_that_is_set_while_a_cost_is_written_counts_it(world, known):
    """The ledger's transaction is open when somebody sets a quota, who waits for it."""
    if known:
        world.settle([call_of(world, 100, user_id=user_id) for user_id in (1, 2)])
    done: list[Quota] = []
    setter = threading.Thread(target=lambda: done.append(world.quotas.set("user/1", 10**9, None, "month", "reset")))

    def write(tx: Transaction) -> None:
        apply(tx, {}, [("user/1", NOON, 7)])
        rollups.add(tx, {Bucket(1, None, None, "m", NOON): UsageSums(cost_nano=7)})
        if setter.ident is None:
            setter.start()
        setter.join(0.2)  # it can't come to its end, however long one waits
        assert not done

    world.db.transact(write)
    setter.join()
    world.settle([call_of(world, 11), call_of(world, 1, user_id=2)])
    assert world.row("user/1").spent_nano == 18 + 100 * known
    assert world.row("user/2").spent_nano == 1 + 100 * known


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
