"""How fast calls are answered, over HTTP: for operators alone, and nothing for bad questions."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from tests.support.gateway import ADMIN_TOKEN, Gateway, refusal_of, shown, user_id_of
from tests.support.usage_rows import row, store

PATH = "/admin/latency"


@pytest.fixture(scope="module")
def caller(administered: Gateway, database) -> str:
    """A user with calls of this hour."""
    token = administered.new_user()
    now = datetime.now(UTC)
    whose = {"user_id": user_id_of(token)}
    rows = [row(number, now, first_byte_ms=400, total_ms=2000, **whose) for number in range(9)]
    store(database, [*rows, row(10, now, outcome="error", error_type="overloaded", http_status=529, **whose)])
    return token


def test_an_operator_sees_percentiles_speed_and_errors_by_kind(administered, caller):
    found = shown(administered.get(f"{PATH}?last=hour", ADMIN_TOKEN))
    [item] = found["items"]
    assert (found["by"], found["last"], found["period"], len(found["times"])) == ("model", "hour", "hour", 25)
    assert (item["name"], item["calls"], item["errors"]) == ("openai/gpt-4o-mini", 10, 1)
    assert item["errors_by_kind"] == [{"kind": "overloaded", "count": 1}]
    assert 360 < item["first_byte_ms"]["p99"] < 440
    assert 1800 < item["total_ms"]["p50"] < 2200
    assert item["tokens_per_second"] == 12.5
    assert {name: item[name] for name in found["totals"]} == found["totals"]
    for by in ("provider", "pool_key", "upstream"):
        assert shown(administered.get(f"{PATH}?last=30d&by={by}", ADMIN_TOKEN))["items"][0]["calls"] == 10


def test_nobody_else_sees_it(administered, caller):
    other = administered.new_user()
    for token in (caller, other):
        assert administered.get(PATH, token).status_code == 403
    assert administered.get(PATH).status_code == 401


@pytest.mark.parametrize(
    ("query", "words"),
    [("by=user", "by must be"), ("last=year", "last must be"), ("user_id=1", "user_id"), ("by=", "by")],
)
def test_what_makes_no_sense_is_refused_in_words(administered, query, words):
    answer = administered.get(f"{PATH}?{query}", ADMIN_TOKEN)
    assert (answer.status_code, words in refusal_of(answer)) == (400, True), answer.text
