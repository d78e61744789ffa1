"""The p50 and p95 of those who are compared: their own alone, by day or hour, and beside the time before."""

from __future__ import annotations

from datetime import timedelta

import pytest

from billing.reports.shares import read_shares
from billing.reports.shares_asked import By, Metric, SharesAsked
from tests.support.usage_rows import NOON, row, store

TODAY = NOON.replace(hour=0)
DAY = timedelta(days=1)
FAST, SLOW = {"total_ms": 500}, {"total_ms": 30_000}


def asked(by: str, metric: str = "p95", user_id: int | None = None, days: int = 1) -> SharesAsked:
    return SharesAsked(By(by), Metric(metric), TODAY + DAY - days * DAY, TODAY + DAY, user_id)


def near(ms: int | None, exact: int) -> bool:
    return ms is not None and abs(ms - exact) <= exact * 0.1


@pytest.fixture
def calls(db):
    """Of user 1 many fast calls, of user 2 two slow ones of another model, by another upstream and with a key."""
    store(db, [row(n, NOON, user_id=1, model="openai/fast", **FAST) for n in range(9)])
    slow = {"user_id": 2, "client_key_id": 7, "model": "x-ai/slow", "pool_key_id": None, "upstream_id": 3}
    store(db, [row(n, NOON, **slow, **SLOW) for n in (20, 21)])
    store(db, [row(30, NOON - DAY, user_id=1, model="openai/fast", total_ms=2000)])


@pytest.mark.parametrize(
    ("by", "slow", "fast"),
    [
        ("user", "2", "1"),
        ("model", "x-ai/slow", "openai/fast"),
        ("provider", "x-ai", "openai"),
        ("upstream", "#3", "openrouter"),
    ],
)
def test_the_slowest_comes_first_beside_what_it_took_before(db, calls, by, slow, fast):
    found = read_shares(db, asked(by)).to_dict()
    assert [item["name"] for item in found["items"]] == [slow, fast]
    first, second = found["items"]
    assert near(first["p95_ms"], 30_000) and near(first["p50_ms"], 30_000) and near(second["p95_ms"], 500)
    assert first["before"]["p95_ms"] is None and near(second["before"]["p95_ms"], 2000)
    assert near(found["totals"]["p95_ms"], 30_000) and near(found["totals"]["p50_ms"], 500)
    assert near(found["before"]["p95_ms"], 2000)
    assert found["totals"]["requests"] == 11
    assert near(max(found["series"][0]["amounts"]), 30_000)
    assert set(found["others"]) == {0}


def test_client_keys_tell_theirs_and_calls_without_one_nothing(db, calls):
    keyed, keyless = read_shares(db, asked("key")).items
    assert near(keyed.now.to_dict()["p95_ms"], 30_000)
    assert (keyless.name, keyless.now.to_dict()["p95_ms"], keyless.now.sums.requests) == (None, None, 9)


def test_one_user_sees_nothing_of_anothers_times(db, calls):
    store(db, [row(40, NOON, user_id=2, model="openai/fast", total_ms=60_000)])
    store(db, [row(41, NOON, user_id=21, model="openai/fast", total_ms=60_000)])  # 2 is the begin of 21
    for by, name in (("model", "openai/fast"), ("provider", "openai"), ("key", None)):
        own = read_shares(db, asked(by, user_id=1)).to_dict()
        assert [item["name"] for item in own["items"]] == [name]
        assert near(own["totals"]["p95_ms"], 500)
        if by != "key":
            assert near(own["items"][0]["p95_ms"], 500)
    both = read_shares(db, asked("provider", user_id=2)).to_dict()
    assert [item["name"] for item in both["items"]] == ["openai", "x-ai"]


def test_other_metrics_read_no_times(db, calls):
    found = read_shares(db, asked("model", "cost")).to_dict()
    assert {item["p95_ms"] for item in [*found["items"], found["totals"], found["before"]]} == {None}


def test_a_provider_adds_up_its_models(db, calls):
    store(db, [row(n, NOON, model="openai/slower", **SLOW) for n in range(50, 60)])
    found = {item.name: item.now.to_dict() for item in read_shares(db, asked("provider", "p50")).items}
    assert near(found["openai"]["p50_ms"], 30_000)
    assert found["openai"]["requests"] == 19


def test_what_was_not_answered_comes_last(db):
    store(db, [row(n, NOON, model="a/broken", outcome="error") for n in range(5)])
    store(db, [row(9, NOON, model="a/fine")])
    assert [item.name for item in read_shares(db, asked("model")).items] == ["a/fine", "a/broken"]
