"""Statistics: the sums of the rows, by whatever they are asked for, and only of those who ask."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from billing.reports.statistics import UsageFilter, UsageStats, find_pool_key
from foundation.clock import Clock
from foundation.crypto import Envelopes
from pool.keys import PoolKeys
from pool.life import PoolKeySource
from tests.conftest import ENCRYPTION_KEY
from tests.support.usage_rows import MODELS, NOON, random_rows, row, store

DAY = timedelta(days=1)
MIDNIGHT = NOON.replace(hour=0)


@pytest.fixture
def stats(db, clock) -> UsageStats:
    return UsageStats(db, clock)


def expected(rows: list[dict[str, Any]], for_user: bool = True) -> dict[str, Any]:
    """The obvious way to add up rows. for_user: without what tries cost that another one followed."""
    last = [one for one in rows if one["is_last"]]
    billed = [one for one in rows if one["state"] in {"settled", "estimated"}]
    cost = sum(one["cost_nano"] for one in billed if one["is_last"] or not for_user)
    return {
        "requests": len(last),
        "errors": sum(one["outcome"] not in {"complete", "client_gone"} for one in last),
        "prompt_tokens": sum(one["prompt_tokens"] or 0 for one in billed),
        "completion_tokens": sum(one["completion_tokens"] or 0 for one in billed),
        "cost_nano": cost,
        "unknown": sum(one["state"] == "unknown" for one in rows),
        "cost_usd": cost / 10**9,
    }


def grouped(rows: list[dict[str, Any]], label: str, of: Any, for_user: bool = True) -> dict[Any, Any]:
    names = {of(one) for one in rows}
    return {name: {label: name} | expected([one for one in rows if of(one) == name], for_user) for name in names}


def by(items: list[dict[str, Any]], label: str) -> dict[Any, Any]:
    assert [item["cost_nano"] for item in items] == sorted((item["cost_nano"] for item in items), reverse=True)
    return {item[label]: item for item in items}


@pytest.mark.parametrize("user_id", [None, 1, 3])
def test_a_summary_is_the_sum_of_the_rows(db, stats, user_id):
    rows = random_rows(11, 400, 40)
    store(db, rows)
    first, end = MIDNIGHT - 20 * DAY, MIDNIGHT
    mine = [one for one in rows if user_id in {None, one["user_id"]} and first <= one["created_at"] < end]
    found = stats.summary(UsageFilter(user_id, start=first, end=end), for_operator=True)
    assert (found["start_date"], found["end_date"]) == ("2026-11-01", "2026-11-20")
    assert found["totals"] == expected(mine, bool(user_id))
    assert by(found["by_model"], "model") == grouped(mine, "model", lambda one: one["model"], bool(user_id))
    days = grouped(mine, "date", lambda one: one["created_at"].date().isoformat(), bool(user_id))
    assert found["by_day"] == [days[day] for day in sorted(days)]
    if user_id:
        keys = grouped(mine, "client_key_id", lambda one: one["client_key_id"])
        assert by(found["by_client_key"], "client_key_id") == keys
    else:
        assert "by_client_key" not in found


def test_what_was_spent_is_told_of_this_day_week_and_month(db, stats, clock):
    today = clock.now().replace(hour=0, minute=0, second=0, microsecond=0)
    monday, first = today - today.weekday() * DAY, today.replace(day=1)
    moments = [today, today - DAY, monday, monday - DAY, first, first - DAY]
    costs = {moment: 10**at for at, moment in enumerate(dict.fromkeys(moments))}
    rows = [row(at, moment, user_id=5, cost_nano=nano) for at, (moment, nano) in enumerate(costs.items())]
    rows[0] |= {"client_key_id": 9}
    store(db, [*rows, row(90, today, user_id=6, cost_nano=10**9)])

    def since(start):
        return sum(nano for moment, nano in costs.items() if moment >= start)

    assert stats.spent_nano(5, None) == {
        "usage": sum(costs.values()),
        "usage_daily": since(today),
        "usage_weekly": since(monday),
        "usage_monthly": since(first),
    }
    assert set(stats.spent_nano(5, 9).values()) == {costs[today]}
    assert set(stats.spent_nano(7, None).values()) == {0}


def test_the_last_thirty_days_are_shown_unless_asked_otherwise(db, stats):
    store(db, [row(number, MIDNIGHT - number * DAY) for number in range(40)])
    found = stats.summary(UsageFilter(1))
    assert (found["start_date"], found["end_date"]) == ("2026-10-23", "2026-11-21")
    assert found["totals"]["requests"] == 30
    assert len(found["by_day"]) == 30


def test_nothing_is_shown_as_nothing(stats):
    found = stats.summary(UsageFilter(1))
    assert found["totals"] == expected([])
    assert [found[name] for name in ("by_model", "by_day", "by_client_key")] == [[], [], []]
    assert stats.client_keys(UsageFilter(1)) == []
    assert stats.days_and_models(UsageFilter(1), 1, 20) == ([], 0)


def test_pool_keys_are_named_for_operators_alone(db, stats):
    store(db, [row(1, NOON, pool_key_id=1), row(2, NOON, pool_key_id=77), row(3, NOON, pool_key_id=None)])
    keys = PoolKeys(db, Envelopes([ENCRYPTION_KEY]), Clock())
    keys.add("sk-or-v1-" + "a1b2" * 16, "env/x", PoolKeySource.OPERATOR)
    assert "by_pool_key" not in stats.summary(UsageFilter())
    named = stats.summary(UsageFilter(), for_operator=True)["by_pool_key"]
    assert sorted(str(one["pool_key"]) for one in named) == ["None", "None", "env/x"]
    assert (find_pool_key(db, "env/x"), find_pool_key(db, "env/y")) == (1, None)


def test_usage_by_day_and_model_comes_in_pages_newest_day_first(db, stats):
    rows = random_rows(12, 300, 12)
    store(db, rows)
    mine = [one for one in rows if one["user_id"] == 2]
    groups = grouped(mine, "x", lambda one: (one["created_at"].date().isoformat(), one["model"]))
    order = sorted(groups, key=lambda key: key[1])
    order.sort(key=lambda key: key[0], reverse=True)
    shown = []
    for page in range(1, 30):
        items, total = stats.days_and_models(UsageFilter(2), page, 4)
        assert total == len(groups)
        shown += items
    assert [(item["date"], item["model"]) for item in shown] == order
    assert [item["cost_nano"] for item in shown] == [groups[key]["cost_nano"] for key in order]


def test_calls_without_a_client_key_are_one_entry(db, stats):
    store(db, [row(1, NOON), row(2, NOON, client_key_id=7, cost_nano=5), row(3, NOON, user_id=2, client_key_id=8)])
    assert [(one["client_key_id"], one["requests"]) for one in stats.client_keys(UsageFilter(1))] == [(None, 1), (7, 1)]
    assert [one["model"] for one in stats.summary(UsageFilter(1, client_key_id=7))["by_model"]] == [MODELS[0]]
