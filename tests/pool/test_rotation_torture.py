"""Whole rotations in processes that die at every point: the invariants hold. `make torture` runs the whole space."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tables import pool_keys
from tests.rotation_torture.schedules import (
    CALLS,
    DEDICATED_STEPS,
    FAULTS,
    STEPS,
    Schedule,
    all_schedules,
    killed,
    others,
    with_dedicated,
)
from tests.rotation_torture.workers import memory_folder
from tests.rotation_torture.world import COMES, PREFIX, STAYS, Place
from tests.support.mariadb import DatabaseServer

CHUNKS, WANTED = 12, 36


def spread(schedules: list[Schedule], count: int) -> list[Schedule]:
    """So many of them, evenly from all over."""
    return [schedules[index * len(schedules) // count] for index in range(count)]


SAMPLE = [*spread(list(others()), 23), *spread(list(with_dedicated()), 8), *spread(list(killed()), WANTED - 31)]


@pytest.fixture(scope="session")
def place(mariadb: DatabaseServer) -> Iterator[Place]:
    with tempfile.TemporaryDirectory(prefix="rotation-torture-", dir=memory_folder()) as folder:
        place = Place(Path(folder), mariadb.new_database)
        yield place
        place.close()


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_whatever_happens_the_pool_stays_full_and_no_key_is_lost_or_cut_off(place, chunk):
    violated = {}
    for schedule in SAMPLE[chunk::CHUNKS]:
        if violations := place.run(schedule).invariants.violations:
            violated[f"python -m tests.rotation_torture --schedule {schedule.address}"] = violations
    assert violated == {}


def test_every_point_of_an_undisturbed_rotation_is_in_the_space(place):
    points = place.run(Schedule()).shared.point
    assert 100 < points <= STEPS
    assert {schedule.kills[0] for schedule in killed() if len(schedule.kills) == 1} >= set(range(1, points + 1))
    points = place.run(Schedule(dedicated=True)).shared.point
    assert DEDICATED_STEPS - 40 < points <= DEDICATED_STEPS
    single = [schedule for schedule in with_dedicated() if len(schedule.kills) == 1 and schedule.holder == "none"]
    assert {schedule.kills[0] for schedule in single} >= set(range(1, points + 1))


@pytest.mark.parametrize("database", ["sqlite", "mariadb"])
def test_a_kill_is_a_kill(place, database):
    """And what the dead process left undone takes more steps to finish."""
    world = place.run(Schedule(database, kills=(40, 50)))
    assert (world.kills, world.invariants.violations) == (2, [])
    assert world.shared.point > place.run(Schedule(database)).shared.point


def test_what_a_schedule_tells_does_happen(place):
    restored = place.run(Schedule(restore="full:deleted")).invariants
    assert restored.restored_at is not None
    assert len(restored.unknown) == 5
    place.run(Schedule("mariadb", cut="after:7"))
    assert b"Lost connection" in place.shared.error
    assert place.run(Schedule(stop="21:100")).shared.stop_at == 0
    assert b"another process rotates now" in place.shared.error
    assert place.run(Schedule(holder="stream")).invariants.held_hash


def delete_a_key(world, row):
    world.stand_in.call("DELETE", f"/api/v1/keys/{row.api_key_hash}", key=world.account.management_key)


def make_a_key(world, _row):
    world.stand_in.control("POST", "keys", account=world.account.id, name=PREFIX + "f" * 32)
    world.shared.now += 600


def change_a_key_of_others(world, _row):
    [other, *_] = world.sample().others
    body = {"disabled": True}
    world.stand_in.call("PATCH", f"/api/v1/keys/{other}", body, key=world.account.management_key)


def change_the_row(**values):
    return lambda world, row: world.db.transact(
        lambda tx: tx.execute(pool_keys.update().where(pool_keys.c.id == row.id).values(**values))
    )


def write_the_text(world, row):
    text = world.invariants.envelopes.open("api_keys", "api_key", row.id, row.api_key)
    change_the_row(account_id=text.removeprefix("sk-or-v1-"))(world, row)


@pytest.mark.parametrize(
    ("damage", "reported"),
    [
        (delete_a_key, {"I1", "I2", "I8", "I10"}),
        (make_a_key, {"I1"}),
        (change_a_key_of_others, {"I5"}),
        (change_the_row(state="stored"), {"I2", "I6"}),
        (change_the_row(state="deleted"), {"I1", "I2", "I6"}),
        (change_the_row(api_key="gAAAA"), {"I4"}),
        (write_the_text, {"I9"}),
    ],
    ids=["no key", "a key too many", "others", "back", "not emptied", "damaged", "in clear"],
)
def test_whoever_breaks_an_invariant_is_reported(place, damage, reported):
    world = place.run(Schedule())
    row = min(world.sample().usable(), key=lambda row: row.id)
    damage(world, row)
    for _ in range(3):
        at = world.look(complete=True)
    world.invariants.look_at_rest(at, world.bytes_of_database(), 0, 0)
    assert {violation.split()[0] for violation in world.invariants.violations} == reported


def give_to_another(world, row):
    change_the_row(owner_id=COMES)(world, row)


def take_away(world, row):
    change_the_row(enabled=False)(world, row)


@pytest.mark.parametrize("damage", [give_to_another, take_away], ids=["another's", "none"])
def test_a_users_key_that_goes_to_another_or_is_missing_is_reported(place, damage):
    world = place.run(Schedule(dedicated=True))
    assert world.invariants.violations == []
    assert {STAYS, COMES} == {row.owner_id for row in world.sample().rows.values() if row.state == "active"} - {None}
    damage(world, world.sample().own(STAYS)[0])
    world.look(complete=True)
    assert {violation.split()[0] for violation in world.invariants.violations} == {"I12"}
    picked = {None: {row.id for row in world.sample().own(COMES)}}
    world.invariants.violations.clear()
    world.invariants.look_at_picks(world.sample(), picked | {owner: {1} for owner in (STAYS, COMES)})
    assert any("another's key" in violation for violation in world.invariants.violations)


def test_the_sample_has_schedules_of_every_kind():
    assert len(SAMPLE) == len(set(SAMPLE)) >= WANTED
    kinds = Counter(part.partition("=")[0] for schedule in SAMPLE for part in schedule.address.split("/"))
    assert {"sqlite", "mariadb", "kills", "lost", "holder", "fault", "two", "stop", "cut", "restore"} <= set(kinds)
    assert kinds["dedicated"] >= WANTED // 5
    faults = [schedule.fault.split(":") for schedule in SAMPLE if schedule.fault]
    assert {scenario for scenario, *_ in faults} == set(FAULTS)
    assert {call for _, call, *_ in faults} == set(CALLS)


def test_an_address_is_a_schedule():
    for schedule in all_schedules():
        assert Schedule.parse(schedule.address) == schedule
