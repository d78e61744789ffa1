"""What was sent for nothing: counted by the day on which its request came, known and unknown costs apart."""

from __future__ import annotations

from datetime import timedelta

from billing.reports.lost_tries import lost_tries
from tests.support.usage_rows import NOON, row, store

DAY = timedelta(days=1)
TODAY = NOON.replace(hour=0)


def test_tries_that_brought_nobody_an_answer_are_counted_by_day(db):
    unknown = {"state": "unknown", "cost_nano": None, "estimate_nano": 5_000_000}
    rows = [
        row(1, NOON),
        row(2, NOON, is_last=False, **unknown),
        row(2, NOON, attempt=2),
        row(3, NOON, is_last=False, cost_nano=7_000_000),
        row(3, NOON, attempt=2, **unknown),
        row(4, NOON, is_last=False, state="void", cost_nano=None),
        row(4, NOON, attempt=2),
        row(5, NOON, attempt=0, state="void", cost_nano=None),
        row(6, NOON - DAY, **unknown),
        row(7, NOON - 9 * DAY, **unknown),
    ]
    store(db, rows)
    today, yesterday = lost_tries(db, TODAY - 3 * DAY, TODAY + DAY)
    assert today == {"day": "2026-11-21", "tries": 3, "unknown": 2, "at_most_usd": 0.01, "known_usd": 0.007}
    assert yesterday == {"day": "2026-11-20", "tries": 1, "unknown": 1, "at_most_usd": 0.005, "known_usd": 0}
