"""One call's time, on a clock that tests move."""

import pytest

from foundation import deadline
from foundation.deadline import Deadline, NothingYet, TimeIsUp


class Now:
    def __init__(self) -> None:
        self.seconds = 100.0

    def monotonic(self) -> float:
        return self.seconds


@pytest.fixture
def now(monkeypatch) -> Now:
    clock = Now()
    monkeypatch.setattr(deadline, "time", clock)
    return clock


def test_waiting_is_for_what_is_left_and_ends_with_it(now):
    time = Deadline(3)
    assert (time.wait(), time.left, time.is_over) == (3, 3, False)
    now.seconds += 2.5
    assert time.wait() == 0.5
    now.seconds += 0.5
    assert (time.left, time.is_over) == (0, True)
    with pytest.raises(TimeIsUp):
        time.wait()
    now.seconds += 1
    assert time.left == 0


def test_looking_up_interrupts_and_the_time_goes_on(now):
    time = Deadline(3)
    time.look_up_in(1)
    assert time.wait() == 1
    now.seconds += 1
    with pytest.raises(NothingYet):
        time.wait()
    time.look_up_in(1)
    assert time.wait() == 1
    now.seconds += 2  # both are due: the time counts
    with pytest.raises(TimeIsUp):
        time.wait()


def test_a_step_ends_with_its_own_time_or_with_the_calls(now):
    time = Deadline(3)
    short, long = time.within(1), time.within(10)
    assert (short.wait(), long.wait()) == (1, 3)
    now.seconds += 1
    with pytest.raises(TimeIsUp):
        short.wait()
    assert not time.is_over


def test_a_step_looks_up_with_the_call(now):
    time = Deadline(9)
    step = time.within(5).within(4)
    time.look_up_in(1)
    assert step.wait() == 1
    now.seconds += 1
    with pytest.raises(NothingYet):
        step.wait()


def test_progress_renews_the_time(now):
    time = Deadline(1)
    now.seconds += 1
    time.renew(2)
    assert time.wait() == 2
