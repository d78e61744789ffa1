"""Background work outlives its faults, and ends when it is told to."""

import threading

from db import DatabaseError
from foundation.errors import ServiceFault
from replicas.repeating import repeat


def test_work_is_repeated_until_it_is_told_to_stop_whatever_happens_in_it(caplog):
    stopping = threading.Event()
    faults = [DatabaseError("away"), ServiceFault(), ValueError("odd")]
    rounds = []

    def work():
        rounds.append(len(rounds))
        if faults:
            raise faults.pop()
        stopping.set()

    repeat(work, 0.001, stopping)
    assert rounds == [0, 1, 2, 3]
    assert [record.message for record in caplog.records] == ["background_fault"] * 2  # the database's is told elsewhere


def test_work_does_not_begin_once_it_was_told_to_stop():
    stopping = threading.Event()
    stopping.set()
    repeat(lambda: 1 / 0, 0.001, stopping)
