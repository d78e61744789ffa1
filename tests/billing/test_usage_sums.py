"""Roll-ups, log and ledger together: the sums are those of the rows after any sequence of facts, on either database."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from billing.latency_rollups import LatencyPlace
from billing.ledger import UsageLedger
from billing.reports.request_log import UsageLog
from billing.reports.statistics import UsageFilter, UsageStats
from billing.rollups import NOBODY, UsageSums
from config.settings import Config
from db import Database, database_url
from tables import caller_rollups, latency_rollups, team_rollups, usage_ledger, usage_rollups
from tests.support.usage_rows import latency_of, sums_of

MIDNIGHT = datetime(2026, 11, 21, tzinfo=UTC)
ENDS = ["settled", "pending", "pending then settled", "unknown", "unknown then settled", "void", "estimated", "open"]

TRY = st.tuples(st.sampled_from(ENDS), st.sampled_from([None, 1, 2]), st.integers(0, 10**9), st.integers(0, 999))
REQUEST = st.tuples(
    st.integers(1, 2),
    st.sampled_from([None, 7]),
    st.sampled_from(["", "openai/gpt-4o-mini"]),
    st.integers(-7200, 7200),
    st.lists(TRY, min_size=1, max_size=3),
    st.sampled_from(["complete", "client_gone", "error", "failed", None]),  # None: it has not ended
    st.integers(0, 2),  # facts that came after its end
)


@pytest.fixture(scope="module", params=["sqlite", "mariadb"])
def emptied(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """One database for all examples, once of each kind; each example begins with it empty."""
    url = f"sqlite:///{tmp_path_factory.mktemp('sums')}/x.db"
    if request.param == "mariadb":
        url = request.getfixturevalue("mariadb").new_database()
    database = Database(database_url(Config(database_url=url)))
    database.upgrade()
    yield database
    database.close()


def facts_of(number: int, request: Any) -> list[dict[str, Any]]:
    """What a journal holds of a request, in order."""
    user_id, client_key_id, model, second, tries, outcome, late = request
    at = MIDNIGHT + timedelta(seconds=second)
    request_id = f"{round(at.timestamp() * 1000):012x}{number:020x}"
    facts: list[dict[str, Any]] = []
    for attempt, (end, pool_key_id, cost, tokens) in enumerate(tries, 1):
        key = {"request_id": request_id, "attempt": attempt}
        whose = {"user_id": user_id, "client_key_id": client_key_id, "pool_key_id": pool_key_id, "model": model}
        whose["team_id"] = 3 if user_id == 1 else 0
        none = {"user_quota_id": None, "key_quota_id": None, "reserved_nano": 0, "estimate_nano": 0}
        facts.append(key | {"state": "dispatched", "is_stream": True} | whose | none)
        paid = {"cost_nano": cost, "prompt_tokens": tokens, "completion_tokens": tokens // 2, "source": "stream"}
        for state in () if end == "open" else end.split(" then "):
            facts.append(key | {"state": state} | (paid if state in {"settled", "estimated"} else {}))
        if attempt < len(tries) or end == "void":
            facts[-1] |= {"error_type": end[:9], "total_ms": tokens}
    if outcome:
        ending = {
            "is_last": True,
            "outcome": outcome,
            "http_status": 200,
            "first_byte_ms": cost % 997,
            "total_ms": cost,
        }
        if outcome in {"error", "failed"}:
            ending |= {"error_type": outcome + str(cost % 3)}
        begun = max(place for place, fact in enumerate(facts) if fact["state"] == "dispatched")
        place = max(begun + 1, len(facts) - late)
        facts.insert(place, {"request_id": request_id, "attempt": len(tries)} | ending)
    return facts


def stored(db: Database, table: sa.Table) -> list[dict[str, Any]]:
    with db.reading() as tx:
        return [dict(row) for row in tx.execute(sa.select(table)).mappings()]


def check(db: Database, clock: Any) -> None:
    rows = stored(db, usage_ledger)
    expected: dict[Any, UsageSums] = defaultdict(UsageSums)
    by_caller: dict[Any, UsageSums] = defaultdict(UsageSums)
    by_member: dict[Any, UsageSums] = defaultdict(UsageSums)
    for key, sums in sums_of(rows).items():
        for period, start in (("h", key.hour), ("d", key.hour.replace(hour=0))):
            if key.user_id:
                expected[period, key.user_id, start, key.client_key_id or 0, key.carrier, key.model] += sums
            expected[period, 0, start, 0, key.pool_key_id or 0, key.model] += sums
            if key.team_id:
                by_member[period, key.team_id, start, key.user_id] += sums
            by_caller[period, "u", start, key.user_id or NOBODY] += sums
            by_caller[period, "k", start, (key.client_key_id or 0) if key.user_id else NOBODY] += sums
    found = {tuple(row.values())[:6]: UsageSums(*tuple(row.values())[6:]) for row in stored(db, usage_rollups)}
    assert {k: v for k, v in found.items() if v != UsageSums()} == {
        k: v for k, v in expected.items() if v != UsageSums()
    }
    callers = {tuple(row.values())[:4]: UsageSums(*tuple(row.values())[4:]) for row in stored(db, caller_rollups)}
    assert {k: v for k, v in callers.items() if v != UsageSums()} == {
        k: v for k, v in by_caller.items() if v != UsageSums()
    }
    members = {tuple(row.values())[:4]: UsageSums(*tuple(row.values())[4:]) for row in stored(db, team_rollups)}
    assert {k: v for k, v in members.items() if v != UsageSums()} == {
        k: v for k, v in by_member.items() if v != UsageSums()
    }
    times = latency_of(rows)
    found = {LatencyPlace(*tuple(row.values())[:4]): tuple(row.values())[4:] for row in stored(db, latency_rollups)}
    assert {place: (*amounts, json.loads(counts)) for place, (*amounts, counts) in found.items() if any(amounts)} == {
        place: (one.calls, one.errors, one.output_tokens, one.output_ms, +one.counts) for place, one in times.items()
    }
    log = UsageLog(db, clock)
    for user_id in (None, 1, 2):
        mine = [row for row in rows if user_id in {None, row["user_id"]}]
        shown = log.page(UsageFilter(user_id), 1, 100)
        ended = sorted((row["request_id"] for row in mine if row["is_last"]), reverse=True)
        assert ([item.request_id for item in shown.items], shown.total) == (ended, len(ended))
        totals = UsageStats(db, clock).summary(UsageFilter(user_id))["totals"]
        paid = [row for row in mine if row["is_last"] or user_id is None]  # a try that another followed is nobody's
        assert totals["cost_nano"] == sum(row["cost_nano"] or 0 for row in paid)


@given(data=st.data(), requests=st.lists(REQUEST, min_size=1, max_size=8))
def test_sums_and_log_are_those_of_the_rows_after_any_sequence_of_facts(emptied, clock, data, requests):
    for table in (team_rollups, usage_ledger, usage_rollups, caller_rollups, latency_rollups):
        emptied.transact(lambda tx, table=table: tx.execute(table.delete()))
    ledger = UsageLedger(emptied, clock)
    queues = [facts_of(number, request) for number, request in enumerate(requests)]
    journal = []
    while left := [queue for queue in queues if queue]:
        journal.append(data.draw(st.sampled_from(left)).pop(0))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(journal)), max_size=3)))
    for begin, end in zip([0, *cuts], [*cuts, len(journal)], strict=True):
        for _ in range(data.draw(st.integers(1, 2))):  # a segment may come twice
            ledger.apply("me", journal[begin:end])
            check(emptied, clock)
