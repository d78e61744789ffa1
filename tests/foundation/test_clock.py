"""The clock: aware UTC times, and seconds that agree with them and never go back."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

from foundation.clock import Clock


def test_now_is_aware_and_in_utc():
    now = Clock().now()
    assert now.tzinfo is UTC
    assert now.utcoffset() == timedelta(0)


def test_now_and_timestamp_tell_the_same_time():
    clock = Clock()
    before, now, after = clock.timestamp(), clock.now().timestamp(), clock.timestamp()
    assert before - 0.001 <= now <= after + 0.001
    assert abs(before - time.time()) < 60


def test_monotonic_seconds_never_go_back_and_pass_at_the_usual_pace():
    clock = Clock()
    begun = time.monotonic()
    seen = [clock.monotonic() for _ in range(1000)]
    assert seen == sorted(seen)
    assert begun <= seen[0] <= seen[-1] <= time.monotonic()


NOON = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


def test_until_it_is_told_another_it_is_the_hosts():
    clock = Clock(lambda: 7.0)
    assert (clock.timestamp(), clock.skew_seconds) == (7.0, 0.0)


def test_what_somebody_does_to_the_hosts_clock_moves_nothing():
    host = [NOON.timestamp()]
    clock = Clock(lambda: host[0])
    begun = clock.monotonic()
    clock.set_by(NOON, begun, begun)
    for hours in (26, -26):
        host[0] = NOON.timestamp() + hours * 3600
        assert timedelta() <= clock.now() - NOON <= timedelta(seconds=clock.monotonic() - begun, milliseconds=1)
        assert round(clock.skew_seconds / 3600) == hours


def test_it_is_moved_as_little_as_an_answer_permits():
    clock = Clock()

    def ahead_of_monotonic() -> float:
        return clock.timestamp() - clock.monotonic()

    start = clock.monotonic()
    clock.set_by(datetime.fromtimestamp(start + 1000, UTC), start, start)
    for told, asked_at, answered_at, now in (
        (1000.0, -30.0, 30.0, 1000.0),  # a slow answer tells nothing new
        (1002.0, -1.0, 1.0, 1001.0),
        (990.0, -1.0, 1.0, 991.0),
    ):
        clock.set_by(datetime.fromtimestamp(start + told, UTC), start + asked_at, start + answered_at)
        assert abs(ahead_of_monotonic() - now) < 0.01


def test_a_wrong_clock_is_told_once_and_once_that_it_is_right_again(caplog):
    host = [1000.0]
    clock = Clock(lambda: host[0])
    clock.set_by(datetime.fromtimestamp(1000.0, UTC), clock.monotonic(), clock.monotonic())
    for ahead, told in ((0, []), (60, ["clock_wrong"]), (90, []), (0, ["clock_right_again"]), (0, [])):
        caplog.clear()
        host[0] = 1000.0 + ahead
        clock.tell()
        assert [record.message.split()[0] for record in caplog.records] == told
        assert clock.is_right == (ahead == 0)
