"""How fast calls are answered: percentiles by whom, within the time that is asked for, and a key's last error."""

from __future__ import annotations

from datetime import timedelta

import pytest

from billing.reports.latency import MOST_ITEMS, Last, LatencyBy, Span, read_keys_health, read_latency
from tables import pool_keys, upstreams, usage_ledger
from tests.support.usage_rows import NOON, row, store

HOUR, DAY = timedelta(hours=1), timedelta(days=1)


def read(db, by: str, last: str = "day"):
    return read_latency(db, LatencyBy(by), Span.of(Last(last), NOON + timedelta(minutes=5)))


def names(found) -> list[tuple[str | None, int]]:
    return [(item.name, item.sums.calls) for item in found.items]


@pytest.fixture
def calls(db):
    """A fast model and a slow one, a model of another upstream, and a refusal of no known model."""
    rows = [row(n, NOON, model="openai/fast", first_byte_ms=100, total_ms=500, pool_key_id=1) for n in range(20)]
    rows += [
        row(n, NOON - HOUR, model="openai/slow", first_byte_ms=8000, total_ms=30_000, pool_key_id=2)
        for n in range(30, 35)
    ]
    rows.append(row(40, NOON, model="local", pool_key_id=None, upstream_id=9))
    refused = {"outcome": "refused", "error_type": "invalid_request", "attempt": 0}
    rows.append(row(50, NOON, model="", pool_key_id=None, state="void", cost_nano=None, **refused))
    store(db, rows)
    return rows


def test_models_tell_their_own_percentiles_and_errors(db, calls):
    found = read(db, "model")
    assert names(found) == [("openai/fast", 20), ("openai/slow", 5), (None, 1), ("local", 1)]
    fast, slow, nameless, _ = found.items
    assert 90 < fast.sums.first_byte_ms(0.99) < 110 and 27_000 < slow.sums.whole_ms(0.5) < 33_000
    assert nameless.sums.errors_by_kind == {"invalid_request": 1}
    assert (found.totals.calls, found.totals.errors, found.is_whole) == (27, 1, True)


def test_providers_and_upstreams_add_up_their_own(db, calls):
    assert names(read(db, "provider")) == [("openai", 25), (None, 2)]
    assert names(read(db, "upstream")) == [("openrouter", 25), ("#9", 1)]
    db.transact(lambda tx: tx.execute(upstreams.insert().values(**upstream(9, "ollama"))))
    assert names(read(db, "upstream"))[1] == ("ollama", 1)


def test_pool_keys_have_their_names(db, calls):
    assert names(read(db, "pool_key")) == [("#1", 20), ("#2", 5)]
    db.transact(lambda tx: tx.execute(pool_keys.insert().values(**key(1, "gw/one"))))
    assert names(read(db, "pool_key"))[0] == ("gw/one", 20)


@pytest.mark.parametrize(
    ("ago", "seen_in"),
    [
        (timedelta(), {"hour", "day", "7d", "30d"}),
        (HOUR, {"hour", "day", "7d", "30d"}),
        (2 * HOUR, {"day", "7d", "30d"}),
        (24 * HOUR, {"day", "7d", "30d"}),
        (25 * HOUR, {"7d", "30d"}),
        (6 * DAY, {"7d", "30d"}),
        (7 * DAY, {"30d"}),
        (29 * DAY, {"30d"}),
        (30 * DAY, set()),
    ],
)
def test_a_call_is_seen_as_far_back_as_was_asked(db, ago, seen_in):
    store(db, [row(1, NOON - ago)])
    assert {last.value for last in Last if read(db, "model", last.value).items} == seen_in


def test_points_are_of_each_hour_or_day_and_those_of_the_last_hour_of_the_day(db):
    store(db, [row(1, NOON), row(2, NOON - 5 * HOUR), row(3, NOON - 5 * HOUR, outcome="error"), row(4, NOON - 2 * DAY)])
    [item] = read(db, "model", "hour").items
    assert (item.sums.calls, [one.calls for one in item.points]) == (1, [0] * 19 + [2] + [0] * 4 + [1])
    [item] = read(db, "model", "7d").items
    assert (item.sums.calls, [one.calls for one in item.points]) == (4, [0, 0, 0, 0, 1, 0, 3])


def test_of_more_than_are_listed_those_with_most_calls_are(db):
    rows = [row(n, NOON, model=f"a/{n % (MOST_ITEMS + 1)}") for n in range(2 * MOST_ITEMS + 1)]
    store(db, rows)
    found = read(db, "model")
    assert (len(found.items), found.is_whole, found.totals.calls) == (MOST_ITEMS, False, 2 * MOST_ITEMS + 1)
    assert {item.sums.calls for item in found.items} == {2}


def test_nothing_has_no_times(db):
    found = read(db, "model").to_dict()
    assert (found["items"], found["totals"]["first_byte_ms"]) == ([], {"p50": None, "p95": None, "p99": None})


def test_a_key_tells_its_newest_error_and_another_key_has_none(db):
    failed = {"is_last": False, "outcome": None, "error_type": "timeout", "http_status": None, "error_message": None}
    told = {"outcome": "error", "error_type": "rate_limit_exceeded", "http_status": 429, "error_message": "Too fast"}
    store(
        db,
        [
            row(1, NOON - 3 * HOUR, **failed),
            row(2, NOON - 2 * HOUR, **told),
            row(3, NOON),
            row(4, NOON, pool_key_id=2),
            row(5, NOON - 2 * DAY, pool_key_id=2, **told),
        ],
    )
    found = read_keys_health(db, [1, 2, 3], NOON)
    error = found[1].last_error
    assert (error.message, error.http_status, error.at) == ("Too fast", 429, NOON - 2 * HOUR)
    assert (found[1].hour.calls, found[1].day.calls, found[1].day.errors) == (1, 3, 2)
    assert (found[2].last_error, found[2].day.calls, found[3].day.calls) == (None, 1, 0)
    db.transact(lambda tx: tx.execute(usage_ledger.delete()))
    assert read_keys_health(db, [1], NOON)[1].last_error is None


def key(number: int, name: str) -> dict:
    return {
        "id": number,
        "name": name,
        "state": "active",
        "source": "minted",
        "enabled": True,
        "created_at": NOON,
        "updated_at": NOON,
        "use_count": 0,
    }


def upstream(number: int, name: str) -> dict:
    return {
        "id": number,
        "name": name,
        "base_url": "http://127.0.0.1",
        "connect_timeout_seconds": 1,
        "timeout_seconds": 1,
        "idle_timeout_seconds": 1,
        "is_default": False,
        "is_active": True,
        "model_prefixes": "{}",
        "prices": "{}",
        "created_at": NOON,
        "updated_at": NOON,
    }
