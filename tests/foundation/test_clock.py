"""The clock: aware UTC times, and seconds that agree with them and never go back."""

from __future__ import annotations

import time
from datetime import UTC, timedelta

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
