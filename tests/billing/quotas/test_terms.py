"""Windows and recovery: where periods begin and end, and that money recovers neither too fast nor too slowly."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.quotas.terms import BEGINNING, STEADY, QuotaTerms, check_amount, dollars
from foundation.errors import BadRequest
from tests.support.quota_world import at
from tests.support.rows import each_row

moments = st.integers(0, 2**31).map(lambda seconds: datetime.fromtimestamp(seconds, UTC))
periods = st.sampled_from(["day", "week", "month"])


def terms(period: str = "month", recovery: str = "reset", limit: int = 1000) -> QuotaTerms:
    return QuotaTerms(limit, None, period, recovery)


@each_row(
    ("period", "moment", "start", "end"),
    [
        ("day", "2026-11-21T00:00:00", "2026-11-21", "2026-11-22"),
        ("day", "2026-11-21T23:59:59.999999", "2026-11-21", "2026-11-22"),
        ("week", "2026-11-21T12:00:00", "2026-11-16", "2026-11-23"),
        ("week", "2026-11-16T00:00:00", "2026-11-16", "2026-11-23"),
        ("week", "2026-11-22T23:59:59.999999", "2026-11-16", "2026-11-23"),
        ("month", "2026-11-30T23:59:59", "2026-11-01", "2026-12-01"),
        ("month", "2026-12-31T12:00:00", "2026-12-01", "2027-01-01"),
        ("month", "2028-02-29T12:00:00", "2028-02-01", "2028-03-01"),
        ("month", "2026-02-01T00:00:00", "2026-02-01", "2026-03-01"),
    ],
)
def test_periods_begin_and_end_in_utc_and_weeks_on_monday(period, moment, start, end):
    window = terms(period).window_of(at(moment))
    assert window == at(start)
    assert terms(period).resets_at(window) == at(end)


def test_a_moment_elsewhere_counts_by_its_time_in_utc():
    tokyo = datetime.fromisoformat("2026-12-01T08:59:59+09:00")
    assert terms("month").window_of(tokyo) == at("2026-11-01")


def test_what_has_no_period_or_recovers_steadily_never_resets():
    assert terms("none").window_of(at("2026-11-21")) == BEGINNING
    assert terms("none").resets_at(BEGINNING) is None
    assert terms("none").rolled(BEGINNING, 7, at("2039-01-01")) == (BEGINNING, 7)
    assert terms("day", "steady").resets_at(at("2026-11-21")) is None


@given(periods, moments)
def test_every_moment_is_in_exactly_one_window(period, moment):
    start = terms(period).window_of(moment)
    end = terms(period).resets_at(start)
    assert start <= moment < end
    assert terms(period).window_of(start) == start
    assert terms(period).window_of(end) == end
    assert terms(period).window_of(end - timedelta(microseconds=1)) == start


def test_a_new_window_starts_at_zero_and_an_older_moment_changes_nothing():
    november, december = at("2026-11-01"), at("2026-12-01")
    assert terms().rolled(november, 7, at("2026-11-30T23:59:59.999999")) == (november, 7)
    assert terms().rolled(november, 7, december) == (december, 0)
    assert terms().rolled(december, 7, at("2026-11-30")) == (december, 7)
    assert terms().counted(november, 7, at("2026-11-02"), 5) == (november, 12)
    assert terms().counted(november, 7, december, 5) == (december, 5)
    assert terms().counted(december, 7, at("2026-11-30T23:59:59.999999"), 5) == (december, 7)


@pytest.mark.parametrize(("period", "days"), [("day", 1), ("week", 7), ("month", 30)])
def test_what_recovers_steadily_recovers_the_limit_in_each_period(period, days):
    steady, start = terms(period, "steady", limit=1000), at("2026-11-21")
    assert steady.rolled(start, 1000, start + timedelta(days=days / 2))[1] == 500
    assert steady.rolled(start, 1000, start + timedelta(days=days)) == (start + timedelta(days=days), 0)
    assert steady.rolled(start, 1500, start + timedelta(days=days))[1] == 500
    assert steady.rolled(start, 1000, start - timedelta(days=1)) == (start, 1000)


def test_a_limit_of_nothing_never_recovers():
    assert terms("day", "steady", limit=0).rolled(BEGINNING, 5, at("2026-11-21"))[1] == 5


@given(
    periods,
    st.integers(1, 10**18),
    st.integers(0, 10**18),
    st.lists(st.integers(0, 10**10), max_size=20),
)
def test_many_small_steps_recover_as_much_as_a_large_one(period, limit, spent, microseconds):
    """But for what the last step leaves below a nano-dollar, and never more."""
    steady, now = terms(period, "steady", limit), at("2026-11-21")
    step_by_step = at_once = (now, spent)
    for step in microseconds:
        now += timedelta(microseconds=step)
        step_by_step = steady.rolled(*step_by_step, now)
    at_once = steady.rolled(*at_once, now)
    assert 0 <= step_by_step[1] - at_once[1] <= limit // (STEADY[period] // timedelta(microseconds=1)) * 20 + 20
    assert step_by_step[0] <= now


def test_a_steady_quota_counts_late_costs_in_full_until_they_would_have_recovered():
    steady, now = terms("day", "steady"), at("2026-11-21T12:00:00")
    assert steady.counted(now, 7, now - timedelta(hours=1), 5) == (now, 12)
    assert steady.counted(now, 7, now - timedelta(days=1), 5) == (now, 12)
    assert steady.counted(now, 7, now - timedelta(days=1, microseconds=1), 5) == (now, 7)
    assert steady.counted(now, 500, now + timedelta(hours=12), 5)[1] == 5


def test_earlier_costs_are_replayed():
    now = at("2026-11-21T12:00:00")
    costs = [(at("2026-11-21T01:00:00"), 3), (at("2026-11-21T11:00:00"), 4)]
    assert terms("day").replayed(costs, now) == (at("2026-11-21"), 7)
    assert terms("day", "steady", limit=2400).replayed([(now - timedelta(hours=3), 1000)], now)[1] == 700
    assert terms("none").since(now) == BEGINNING


@pytest.mark.parametrize(
    ("nano", "text"), [(0, "0"), (1, "0.000000001"), (10**9, "1"), (1_500_000_000, "1.5"), (10**18, "1000000000")]
)
def test_dollars_are_written_with_the_digits_they_need(nano, text):
    assert dollars(nano) == text


def test_people_are_told_the_limit_with_its_period():
    assert str(terms("week", limit=5 * 10**9)) == "$5 per week"
    assert str(terms("none", limit=5 * 10**9)) == "$5"
    assert str(QuotaTerms(None, 5, "month", "reset")) == "no limit per month"


@each_row("dollars", [-1, -1e-9, "NaN", float("nan"), 1e30, "1e999999999", "x", "", True, [], {}, 1e9 + 1])
def test_what_is_no_amount_is_refused(dollars):
    with pytest.raises(BadRequest, match="limit_usd must be an amount"):
        check_amount("limit_usd", dollars)


@pytest.mark.parametrize(
    ("dollars", "amount"),
    [(None, None), (0, 0), (2.5, 2_500_000_000), ("0.1", 10**8), ("0.12345678949", 123_456_789), (1e9, 10**18)],
)
def test_amounts_are_exact_to_the_nano_dollar(dollars, amount):
    assert check_amount("limit_usd", dollars) == amount
