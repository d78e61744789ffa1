"""Everybody's usage, for operators."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from foundation.clock import Clock
from foundation.crypto import Envelopes
from pool.keys import PoolKeys
from pool.life import PoolKeySource
from tests.conftest import ENCRYPTION_KEY
from tests.support.gateway import Gateway, check_headers, refusal_of
from tests.support.usage_rows import MODELS, row, store
from tests.web.api.test_usage import ADMIN_TOKEN, NOW, db, served  # noqa: F401 - fixtures


@pytest.fixture(scope="module", autouse=True)
def rows(db) -> list[dict[str, Any]]:  # noqa: F811
    """Two users' requests over two pool keys, of which one is known by name."""
    keys = PoolKeys(db, Envelopes([ENCRYPTION_KEY]), Clock())
    keys.add("sk-or-v1-" + "a1b2" * 16, "env/one", PoolKeySource.OPERATOR)
    pool_key_id = next(one.id for one in keys.rows())
    made = [
        row(
            number,
            NOW - timedelta(hours=number),
            user_id=101 + number % 2,
            client_key_id=7 if number == 1 else None,
            pool_key_id=pool_key_id if number < 12 else 999,
            model=MODELS[number % 3],
            outcome="refused" if number < 5 else "complete",
        )
        for number in range(25)
    ]
    store(db, made)
    return made


def get(served: Gateway, path: str) -> dict[str, Any]:  # noqa: F811
    answer = served.get(path, ADMIN_TOKEN)
    assert answer.status_code == 200, answer.text
    check_headers(answer)
    return answer.json()


def test_the_log_of_everybody_is_shown_with_users_and_pool_keys(served):  # noqa: F811
    found = get(served, "/admin/logs?page_size=100")
    assert found["total"] == 25
    first, last = found["items"][0], found["items"][-1]
    assert (first["user_id"], first["pool_key"], first["outcome"]) == (101, "env/one", "refused")
    assert (last["user_id"], last["pool_key"]) == (101, None)  # a key that is not there any more


@pytest.mark.parametrize(
    ("query", "total"),
    [
        ("user_id=102", 12),
        ("user_id=102&client_key_id=7", 1),
        ("user_id=101&client_key_id=7", 0),
        ("pool_key=env/one", 12),
        ("pool_key=env/one&status=error", 5),
        (f"model={MODELS[1]}", 8),
        (f"model={MODELS[1]}&status=ok", 6),
        ("status=error&user_id=101", 3),
        ("user_id=4711", 0),
        ("model_contains=CLAUDE", 8),
        ("status=2xx&user_id=102", 12),
        ("outcome=refused&min_ms=900", 5),
        ("min_cost_usd=0.000001", 25),
        ("min_cost_usd=0.0000011", 0),
        ("error_type=server", 0),
    ],
)
def test_the_log_is_filtered(served, query, total):  # noqa: F811
    assert get(served, f"/admin/logs?{query}")["total"] == total
    exported = served.get(f"/admin/logs/export?format=jsonl&{query}", ADMIN_TOKEN).text.splitlines()
    assert len(exported) == total
    assert all(json.loads(line)["user_id"] in {101, 102} for line in exported)


def test_statistics_of_everybody_and_of_one_user(served):  # noqa: F811
    found = get(served, "/admin/stats")
    assert set(found) == {"start_date", "end_date", "totals", "by_model", "by_day", "by_pool_key"}
    assert (found["totals"]["requests"], found["totals"]["errors"]) == (25, 5)
    assert sorted((str(one["pool_key"]), one["requests"]) for one in found["by_pool_key"]) == [
        ("None", 13),
        ("env/one", 12),
    ]
    found = get(served, "/admin/stats?user_id=102")
    assert found["totals"]["requests"] == 12
    assert [(one["client_key_id"], one["requests"]) for one in found["by_client_key"]] == [(None, 11), (7, 1)]


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("/admin/logs?user_id=0", "user_id must be a whole number"),
        ("/admin/logs?user_id=x", "user_id must be a whole number"),
        ("/admin/logs?pool_key=nobody", "pool_key must be the name of a key of the pool"),
        ("/admin/logs?client_key_id=70000", "client_key_id must be the number of a client key"),
        ("/admin/logs?upstream=x", "upstream must be openrouter or the name of another upstream"),
        ("/admin/stats?pool_key=env/one", "There is no parameter 'pool_key'"),
        ("/admin/stats?start_date=x", "start_date must be a day"),
        ("/admin/logs/export", "format must be csv or jsonl"),
        ("/admin/logs/export?format=csv&page=1", "There is no parameter 'page'"),
    ],
)
def test_bad_input_is_a_400_that_says_what_is_accepted(served, path, why):  # noqa: F811
    refused = served.get(path, ADMIN_TOKEN)
    assert refused.status_code == 400
    assert why in refusal_of(refused)
