"""What may be asked of who spent what: how fine its times are."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from billing.reports.shares_asked import By, Metric, SharesAsked

END = datetime(2026, 11, 22, tzinfo=UTC)


@pytest.mark.parametrize(
    ("by", "metric", "user_id", "days", "period", "times"),
    [
        ("user", "cost", None, 2, "h", 48),
        ("user", "cost", None, 3, "d", 3),
        ("user", "p95", None, 2, "d", 2),
        ("key", "p50", None, 1, "d", 1),
        ("model", "p95", None, 1, "h", 24),
        ("upstream", "p50", None, 2, "h", 48),
        ("model", "p95", 7, 1, "d", 1),
        ("model", "errors", 7, 1, "h", 24),
    ],
)
def test_up_to_two_days_are_told_by_the_hour_unless_only_days_are_known(by, metric, user_id, days, period, times):
    asked = SharesAsked(By(by), Metric(metric), END - timedelta(days=days), END, user_id)
    assert (asked.period, len(asked.times), len(asked.times_before)) == (period, times, times)
    assert (asked.times[0], asked.times_before[0]) == (asked.start, asked.start - timedelta(days=days))
