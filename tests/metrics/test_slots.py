"""Files of counts: one for each process at a time, continued by the next, read by all, and never in anybody's way."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from foundation.counts import Counts
from metrics.slots import Slots, Snapshot
from tests.support.gateway import ROOT

CALLS, THREADS = ("calls", "a/b", "complete"), ("threads",)
A_PROCESS = """
import sys
from pathlib import Path
from foundation.counts import Counts
from metrics.slots import Slots, Snapshot
slots, counts = Slots(Path(sys.argv[1])), Counts()
slots.take(counts)
counts.add("calls", "a/b", "complete")
slots.write(Snapshot(counts.copy(), {("threads",): 7.0}))
print("written", flush=True)
sys.stdin.read()
"""


def taken(folder, calls=0):
    """A slot of this process, in which so many calls are counted in addition to what is there."""
    slots, counts = Slots(folder), Counts()
    slots.take(counts)
    for _ in range(calls):
        counts.add(*CALLS)
    slots.write(Snapshot(counts.copy(), {THREADS: 5.0}))
    return slots


def another(folder):
    process = subprocess.Popen(
        [sys.executable, "-c", A_PROCESS, str(folder)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout.readline() == b"written\n"
    return process


def test_each_process_has_a_slot_and_sees_those_of_the_others(tmp_path):
    one, two = taken(tmp_path / "metrics", 3), taken(tmp_path / "metrics", 4)
    [seen_by_one], [seen_by_two] = one.others(), two.others()
    assert seen_by_one == Snapshot({CALLS: [4]}, {THREADS: 5})
    assert seen_by_two == Snapshot({CALLS: [3]}, {THREADS: 5})
    assert (tmp_path / "metrics").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_what_a_dead_process_has_counted_stays_and_how_it_was_does_not(tmp_path, number):
    me = taken(tmp_path, 1)
    process = another(tmp_path)
    [alive] = me.others()
    assert alive == Snapshot({CALLS: [1]}, {THREADS: 7})
    process.send_signal(number)
    process.wait()
    [dead] = me.others()
    assert dead == Snapshot({CALLS: [1]}, {})
    successor = another(tmp_path)  # takes the free slot, and goes on from there
    [found] = me.others()
    assert found == Snapshot({CALLS: [2]}, {THREADS: 7})
    successor.kill()
    successor.wait()


@pytest.mark.parametrize(
    "damage", [b"", b"\xff", b"[]", b"{}", b'{"buckets": [1], "counted": [[["calls"], [9]]], "gauges": []}']
)
def test_a_damaged_file_or_one_with_other_buckets_counts_as_nothing(tmp_path, damage):
    (tmp_path / "0.json").write_bytes(damage)
    slots, counts = Slots(tmp_path), Counts()
    slots.take(counts)
    assert counts.copy() == {}
    counts.add(*CALLS)
    slots.write(Snapshot(counts.copy(), {}))
    (tmp_path / "1.lock").touch()
    (tmp_path / "1.json").write_bytes(damage)
    assert list(slots.others()) == [Snapshot({}, {})]


def test_a_disk_that_takes_nothing_is_told_of_once_and_again_after_it_was_well(tmp_path, caplog):
    slots = taken(tmp_path)
    blocked = tmp_path / "0.new"
    for _ in range(2):
        blocked.mkdir()
        for _ in range(3):
            slots.write(Snapshot({CALLS: [9]}, {}))
        blocked.rmdir()
        slots.write(Snapshot({CALLS: [10]}, {}))
    assert [record.message for record in caplog.records] == ["metrics_unwritable"] * 2
    assert [one.counted for one in Slots(tmp_path).others()] == [{CALLS: [10]}]


def test_without_a_slot_nothing_is_written(tmp_path):
    Slots(tmp_path).write(Snapshot({CALLS: [1]}, {}))
    assert list(tmp_path.iterdir()) == []
