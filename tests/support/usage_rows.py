"""Rows of the ledger with their roll-ups, as many and as various as a test needs, and what should be read from them."""

from __future__ import annotations

import random
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from billing import latency_rollups, rollups
from billing.latency import CallTimes
from billing.latency_rollups import LatencyPlace
from billing.rollups import Bucket, UsageSums, bucket_of
from db import Database
from tables import usage_ledger

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)  # the time of MovableClock
MODELS = ["openai/gpt-4o-mini", "anthropic/claude-sonnet-4.5", "x-ai/grok-4:free", ""]
OUTCOMES = ["complete", "complete", "complete", "client_gone", "error", "refused", "lost"]

# By whom a call was carried: nobody, a pool key, or another upstream.
CARRIERS: list[dict[str, int | None]] = [
    {"pool_key_id": None},
    {"pool_key_id": 1},
    {"pool_key_id": 2},
    {"pool_key_id": None, "upstream_id": 1},
    {"pool_key_id": None, "upstream_id": 2},
]
Row = dict[str, Any]


def row(number: int, at: datetime, **values: Any) -> Row:
    """One settled row. number: makes its id one of its own."""
    milliseconds = int(at.timestamp() * 1000)
    found: Row = {
        "request_id": f"{milliseconds:012x}{number:020x}",
        "attempt": 1,
        "process_id": "p" * 32,
        "user_id": 1,
        "client_key_id": None,
        "pool_key_id": 1,
        "upstream_id": None,
        "asked_model": None,
        "model": MODELS[0],
        "is_stream": True,
        "state": "settled",
        "source": "stream",
        "user_quota_id": None,
        "key_quota_id": None,
        "team_id": 0,
        "team_quota_id": None,
        "reserved_nano": 0,
        "estimate_nano": 0,
        "cost_nano": 1000,
        "generation_id": None,
        "prompt_tokens": 10,
        "completion_tokens": 20,
        "is_last": True,
        "http_status": 200,
        "outcome": "complete",
        "error_type": None,
        "error_message": None,
        "first_byte_ms": 300,
        "total_ms": 900,
        "created_at": datetime.fromtimestamp(milliseconds / 1000, UTC),
        "settled_at": None,
        "next_check_at": None,
        "checks": 0,
    }
    return found | values


def random_rows(seed: int, count: int, days: int) -> list[Row]:
    """Requests of three users over some days, many of them in few hours; one in six with two tries, some open."""
    dice = random.Random(seed)
    rows: list[Row] = []
    for number in range(count):
        at = NOON - timedelta(days=dice.choice([0, 1, dice.random() * days]), seconds=dice.random() * 5000)
        client_gone = dice.random() < 0.2
        common = {
            "user_id": dice.choice([1, 1, 1, 2, 3]),
            "client_key_id": dice.choice([None, 7, 8]),
            "model": dice.choice(MODELS) if dice.random() < 0.5 else MODELS[0],
            "is_stream": client_gone,
        }
        if dice.random() < 0.16:
            rows.append(row(number, at, **common, pool_key_id=dice.choice([1, 2]), is_last=False, **money(dice)))
            common["attempt"] = 2
        rows.append(
            row(
                number,
                at,
                **common,
                **dice.choice(CARRIERS),
                outcome=dice.choice(OUTCOMES),
                **money(dice),
            )
        )
    return rows


def money(dice: random.Random) -> Row:
    state = dice.choice(["settled", "settled", "settled", "estimated", "void", "unknown", "pending"])
    if state in {"settled", "estimated"}:
        source = "estimate" if state == "estimated" else "body"
        return {
            "state": state,
            "source": source,
            "cost_nano": dice.randrange(10**9),
            "prompt_tokens": dice.randrange(99),
        }
    return {"state": state, "source": None, "cost_nano": None, "prompt_tokens": None, "completion_tokens": None}


def sums_of(rows: Iterable[Row]) -> dict[Bucket, UsageSums]:
    """What the ledger adds to the roll-ups for these rows."""
    found: dict[Bucket, UsageSums] = {}
    for one in rows:
        sums = UsageSums()
        if one["is_last"]:
            sums += UsageSums(requests=1, errors=one["outcome"] not in {"complete", "client_gone"})
        if one["state"] in {"settled", "estimated"}:
            paid_nano = one["cost_nano"] if one["is_last"] else 0
            sums += UsageSums(0, 0, one["prompt_tokens"] or 0, one["completion_tokens"] or 0, paid_nano, 0)
            nobodys = bucket_of(one)._replace(user_id=rollups.EVERYBODY, team_id=rollups.NO_TEAM)
            found[nobodys] = found.get(nobodys, UsageSums()) + UsageSums(cost_nano=one["cost_nano"] - paid_nano)
        sums += UsageSums(unknown=one["state"] == "unknown")
        key = bucket_of(one)
        found[key] = found.get(key, UsageSums()) + sums
    return found


def latency_of(rows: Iterable[Row]) -> dict[LatencyPlace, CallTimes]:
    """What these rows add to the sums of how long calls took."""
    changes = latency_rollups.Changes()
    for one in rows:
        changes.note(bucket_of(one), None, one)
    return changes.by_place()


def store(db: Database, rows: list[Row]) -> None:
    """Put rows into the ledger, and their sums into the roll-ups."""

    def work(tx: Any) -> None:
        tx.execute(usage_ledger.insert(), rows)
        rollups.add(tx, sums_of(rows))
        latency_rollups.add(tx, latency_of(rows))

    db.transact(work)
