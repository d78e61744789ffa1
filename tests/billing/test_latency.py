"""What rows say of times and errors, and percentiles that are within 10 % of the rows' own."""

from __future__ import annotations

import math
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.latency import LAST, RATIO, SHORTEST_MS, CallTimes, bucket_of, times_of
from tests.support.usage_rows import row

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)


def times(**values) -> CallTimes:
    return times_of(row(1, NOON, **values))[0]


def test_an_answered_call_tells_its_times_and_how_fast_it_spoke():
    found = times(first_byte_ms=300, total_ms=900, completion_tokens=60)
    assert (found.calls, found.errors, found.output_tokens, found.output_ms) == (1, 0, 60, 600)
    assert found.counts == {f"f/{bucket_of(300)}": 1, f"w/{bucket_of(900)}": 1}
    assert found.tokens_per_second == 100.0


def test_an_answer_that_was_no_stream_is_as_fast_as_the_whole_call():
    assert times(is_stream=False, first_byte_ms=899, total_ms=900, completion_tokens=90).tokens_per_second == 100.0


@pytest.mark.parametrize(
    "values",
    [
        {"state": "pending", "completion_tokens": None},
        {"completion_tokens": 0},
        {"first_byte_ms": 900, "total_ms": 900},
        {"total_ms": None},
    ],
)
def test_without_tokens_or_time_nothing_is_said_of_speed(values):
    assert times(**values).tokens_per_second is None


@pytest.mark.parametrize("outcome", ["error", "refused", "failed", "broken", "cut", "stalled", "lost"])
def test_an_error_counts_by_its_kind_and_its_time_does_not(outcome):
    found = times(outcome=outcome, error_type="rate_limit_exceeded")
    assert (found.calls, found.errors, found.errors_by_kind) == (1, 1, {"rate_limit_exceeded": 1})
    assert (found.first_byte_ms(0.5), found.whole_ms(0.5), found.tokens_per_second) == (None, None, None)
    assert times(outcome=outcome).errors_by_kind == {outcome: 1}


def test_who_left_is_no_error_and_tells_no_time():
    found = times(outcome="client_gone")
    assert (found.calls, found.errors, found.counts) == (1, 0, {})


def test_a_call_counts_when_it_is_over_and_a_failed_try_for_its_key_before():
    failed = row(1, NOON, is_last=False, error_type="timeout", outcome=None)
    assert times_of(failed)[0] == CallTimes()
    assert times_of(None) == (CallTimes(), CallTimes())
    assert times_of(failed)[1].errors_by_kind == {"timeout": 1}
    assert times_of(row(1, NOON, is_last=False))[1] == CallTimes()
    assert times_of(row(1, NOON))[0] == times_of(row(1, NOON))[1]


def test_kinds_come_by_how_often_and_a_percentile_is_of_all_that_was_added():
    sums = CallTimes()
    for number in range(100):
        sums.add(times(total_ms=1000 if number < 95 else 60_000))
    for kind in ("a", "b", "b"):
        sums.add(times(outcome="error", error_type=kind))
    assert list(sums.errors_by_kind.items()) == [("b", 2), ("a", 1)]
    assert 0.9 < sums.whole_ms(0.95) / 1000 < 1.1
    assert 0.9 < sums.whole_ms(0.96) / 60_000 < 1.1
    sums.add(times(outcome="error", error_type="b"), -1)
    assert sums.errors_by_kind == {"a": 1, "b": 1}


@given(st.lists(st.integers(10, 7_200_000), min_size=1, max_size=60), st.sampled_from([0.5, 0.95, 0.99, 1.0]))
def test_a_percentile_is_wrong_by_less_than_a_tenth(all_ms, share):
    sums = CallTimes()
    for ms in all_ms:
        sums.add(times(total_ms=ms))
    exact = sorted(all_ms)[math.ceil(len(all_ms) * share) - 1]
    assert abs(sums.whole_ms(share) - exact) <= exact * (math.sqrt(RATIO) - 1) + 1


@pytest.mark.parametrize("ms", [0, 1, SHORTEST_MS])
def test_what_is_very_short_counts_together(ms):
    assert bucket_of(ms) == 0
    assert times(total_ms=ms).whole_ms(0.5) == SHORTEST_MS


def test_buckets_go_as_far_as_a_call_may():
    assert bucket_of(7_200_000) == LAST == bucket_of(10**9)
    assert [bucket_of(ms) for ms in (10.1, 12, 12.1)] == [1, 1, 2]
