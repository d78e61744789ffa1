"""Leases in the database: they come back from the dead and from the silent, and nobody uses what was taken from them."""

from __future__ import annotations

import pytest

from billing.quotas.leases import RECLAIM, TRUST
from billing.quotas.slices import UNLIMITED
from db import Database
from foundation.errors import Busy
from tests.billing.quotas.test_slices import admitted
from tests.support.movable_clock import MovableClock
from tests.support.quota_world import World, caller


@pytest.fixture
def world(db: Database, clock: MovableClock) -> World:
    """Where each user may spend 1000 nano-dollars a month."""
    return World(db, clock, quota_usd=0.000001)


def test_the_slices_of_the_dead_return_and_their_open_calls_stay_reserved(world):
    dead, process = world.process(), world.process()
    dead.slices.give_back(dead.slices.reserve(caller(), 300), 300)
    dead.begin(200)
    dead.drain()
    assert world.row("user/1").reserved_nano == 300
    process.slices.return_slices_of([dead.id])
    assert world.row("user/1").reserved_nano == 200
    assert admitted(process, 800)
    world.check()


@pytest.mark.parametrize("has_left", [False, True])
def test_the_slices_of_a_process_that_reports_no_more_are_reclaimed(world, clock, has_left):
    silent, process = world.process(), world.process()
    silent.slices.give_back(silent.slices.reserve(caller(), 300), 300)
    if has_left:
        silent.row.leave()
    else:
        clock.advance(seconds=RECLAIM.total_seconds())
        process.beat()
        assert process.slices.reclaim_expired() == 0
        clock.advance(seconds=1)
    assert process.slices.reclaim_expired() == 1
    assert world.rows_of_slices() == {}
    assert world.row("user/1").reserved_nano == 0


def test_a_process_that_can_not_report_admits_nobody_with_a_quota_before_its_slices_are_taken(world, clock):
    world.quotas.set("user/2", None, None, "month", "reset")
    silent, process = world.process(), world.process()
    held = silent.slices.reserve(caller(), 300)
    silent.slices.give_back(held, 200)
    clock.advance(seconds=TRUST.total_seconds() - 1)
    silent.slices.give_back(silent.slices.reserve(caller(), 100), 100)
    clock.advance(seconds=1)
    assert TRUST < RECLAIM
    with pytest.raises(Busy):
        silent.slices.reserve(caller(), 100)
    assert silent.slices.reserve(caller(2), 100) is UNLIMITED
    clock.advance(minutes=2)
    process.beat()
    assert process.slices.reclaim_expired() == 1
    assert admitted(process, 1000)
    silent.slices.give_back(held, 100)
    silent.beat()
    assert not admitted(silent, 1)
    world.check()
