"""The operator's view of the daily checks: pages, newest first."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from billing import daily_check_rows
from billing.daily_check_rows import Check
from db import Database
from pool.life import PoolKeySource
from tests.support.gateway import ADMIN_TOKEN, Gateway, check_headers, refusal_of

TEXT = "sk-or-v1-" + "7c" * 32
FIRST = datetime(2026, 11, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def gateway_settings() -> dict[str, Any]:
    return {"OPENROUTER_API_KEYS": TEXT}


@pytest.fixture(scope="module")
def checked(administered: Gateway, database: Database) -> Gateway:
    """A gateway with one key and 25 days of checks."""
    for number in range(25):
        day = FIRST + timedelta(days=number)
        figures = {"our_nano": 10**9, "activity_nano": 3 * 10**9 if number else None}
        totals = {"our_total_nano": 10**9, "usage_nano": None, "checked_at": day + timedelta(hours=25)}
        made = Check(day=day, pool_key_id=1, name="", source=PoolKeySource.ENVIRONMENT, **figures, **totals)
        daily_check_rows.note(database, made, lambda _tx: None)
    return administered


def test_checks_are_shown_in_pages_newest_first(checked):
    answer = checked.get("/admin/usage-checks", ADMIN_TOKEN)
    assert answer.status_code == 200
    check_headers(answer)
    found = answer.json()
    assert {name: found[name] for name in ("total", "page", "page_size")} == {"total": 25, "page": 1, "page_size": 20}
    assert [item["day"] for item in found["items"]] == [f"2026-11-{day:02}" for day in range(25, 5, -1)]
    assert found["items"][0] == {
        "day": "2026-11-25",
        "key": found["items"][0]["key"],
        "source": "environment",
        "verdict": "used elsewhere too",
        "our_usd": 1.0,
        "activity_usd": 3.0,
        "difference_usd": 2.0,
        "our_total_usd": 1.0,
        "usage_usd": None,
        "total_difference_usd": None,
        "checked_at": "2026-11-26T01:00:00+00:00",
    }
    assert found["items"][0]["key"].startswith("env/")
    assert TEXT not in answer.text
    last = checked.get("/admin/usage-checks?page=5&page_size=6", ADMIN_TOKEN).json()
    assert [(item["day"], item["activity_usd"], item["verdict"]) for item in last["items"]] == [
        ("2026-11-01", None, "not known yet")
    ]
    assert checked.get("/admin/usage-checks?page=6&page_size=6", ADMIN_TOKEN).json()["items"] == []


@pytest.mark.parametrize(
    "query", ["page=0", "page=x", "page=1000001", "page_size=101", "page_size=-1", "page_size=1e1"]
)
def test_odd_pages_are_refused_with_what_is_meant(checked, query):
    refused = checked.get(f"/admin/usage-checks?{query}", ADMIN_TOKEN)
    assert refused.status_code == 400
    assert refusal_of(refused).startswith(query.partition("=")[0])
