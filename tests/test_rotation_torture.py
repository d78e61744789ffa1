"""Whole rotations in processes that die at every point: the invariants hold. `make torture` runs the whole space."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mariadb import DatabaseServer
from tests.rotation_torture.schedules import CALLS, FAULTS, STEPS, Schedule, all_schedules, killed, others
from tests.rotation_torture.workers import memory_folder
from tests.rotation_torture.world import Place

CHUNKS, WANTED = 20, 300


def spread(schedules: list[Schedule], count: int) -> list[Schedule]:
    """So many of them, evenly from all over."""
    return [schedules[index * len(schedules) // count] for index in range(count)]


SAMPLE = [*spread(list(others()), WANTED // 3), *spread(list(killed()), WANTED - WANTED // 3)]


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


@pytest.mark.parametrize("database", ["sqlite", "mariadb"])
def test_a_kill_is_a_kill(place, database):
    """And what the dead process left undone takes more steps to finish."""
    world = place.run(Schedule(database, kills=(40, 50)))
    assert (world.kills, world.invariants.violations) == (2, [])
    assert world.shared.point > place.run(Schedule(database)).shared.point


def test_the_sample_has_schedules_of_every_kind():
    assert len(SAMPLE) == len(set(SAMPLE)) >= WANTED
    kinds = Counter(part.partition("=")[0] for schedule in SAMPLE for part in schedule.address.split("/"))
    assert {"sqlite", "mariadb", "kills", "lost", "holder", "fault", "two", "stop", "cut", "restore"} <= set(kinds)
    faults = [schedule.fault.split(":") for schedule in SAMPLE if schedule.fault]
    assert {scenario for scenario, *_ in faults} == set(FAULTS)
    assert {call for _, call, *_ in faults} == set(CALLS)


def test_an_address_is_a_schedule():
    for schedule in all_schedules():
        assert Schedule.parse(schedule.address) == schedule
