"""How times of a query are read; what is refused is in test_usage_api.py."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from web.usage_query import LogFilter

DAY_22 = datetime(2026, 11, 22, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "start", "end"),
    [
        ("2026-11-22", DAY_22, DAY_22.replace(day=23)),
        ("2026-11-22T00:00Z", DAY_22, DAY_22),
        ("2026-11-22T13", DAY_22.replace(hour=13), DAY_22.replace(hour=13)),
        ("2026-11-22T13:00", DAY_22.replace(hour=13), DAY_22.replace(hour=13)),
        ("2026-11-22T13:00:00Z", DAY_22.replace(hour=13), DAY_22.replace(hour=13)),
    ],
)
def test_the_end_of_a_day_is_the_beginning_of_the_next(text, start, end):
    assert LogFilter.model_validate({"start": text}).usage_of(1).start == start
    assert LogFilter.model_validate({"end": text}).usage_of(1).end == end
