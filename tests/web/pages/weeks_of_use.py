"""A service as it looks after some weeks: people with keys and quotas, requests of several models, a pool at work."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa

import tables
from db import Database
from tests.support.gateway import ADMIN_TOKEN, user_id_of, wait_for
from tests.support.usage_rows import Row, row, store
from tests.web.pages.conftest import Site
from tests.web.pages.operator_world import add_pool_key

DAYS = 31
JUST_NOW = 25  # so many requests are of the last minutes
# A model, how often it is asked compared to others, and its nano-dollars for a token in and a token out.
MODELS = [
    ("openai/gpt-4o-mini", 9, 150, 600),
    ("anthropic/claude-sonnet-4.6", 5, 3000, 15000),
    ("google/gemini-2.5-flash", 4, 300, 2500),
    ("deepseek/deepseek-chat", 2, 270, 1100),
    ("openai/gpt-4o", 2, 2500, 10000),
]
LOCAL = ("local/qwen3-32b", 2, 20, 60)
KEYS = {"support assistant": 20, "nightly report": 10, "release notes": 5, "code review": 15}  # and their budgets


def lived_in(site: Site, database: Database, stand_in: Any) -> dict[str, str]:
    """Fill a service; returns somebody who has used it all the time."""
    dice = random.Random(7)
    person, others = site.new_person(), [site.new_person() for _ in range(4)]
    token = person["token"]
    _add_upstream(site)
    _fill_pool(database)
    keys = [site.gateway.post("/api/api-keys", {"name": name}, token).json() for name in KEYS]
    rows = _requests(dice, 1500, [user_id_of(token)], [key["id"] for key in keys])
    rows += _requests(dice, 2500, [user_id_of(other["token"]) for other in others], [None], first=len(rows))
    store(database, rows)
    for key, budget in zip(keys, KEYS.values(), strict=True):
        changes = {"budget": {"limit_usd": budget}}
        assert site.gateway.ask("PATCH", f"/api/api-keys/{key['id']}", changes, token).status_code == 200
    for name in ("spending chart", "month-end export"):
        assert site.gateway.post("/api/tokens", {"name": name}, token).status_code == 201
    for name in ("laptop", "home server"):
        made = {"name": name, "key": stand_in.new_key(limit=25)["key"]}
        assert site.gateway.post("/api/keys", made, token).status_code == 201
    _spread_watched_keys(dice, database, user_id_of(token))
    _use_keys(database)
    for somebody, limit in zip([person, *others], (25, 20, 20, 10, 10), strict=True):
        path = f"/admin/quotas/user/{user_id_of(somebody['token'])}"
        assert site.gateway.ask("PUT", path, {"limit_usd": limit}, ADMIN_TOKEN).status_code == 200
    wait_for(lambda: site.gateway.get("/v1/models", token).status_code == 200)
    for model in ("anthropic/claude-sonnet-4.6", "openai/gpt-4o-mini"):
        assert site.gateway.ask("PUT", f"/api/models/favourites/{model}", None, token).status_code == 200
    chosen = site.gateway.ask("PUT", "/api/models/default", {"model": "openai/gpt-4o-mini"}, token)
    assert chosen.status_code == 200
    return person


def _requests(
    dice: random.Random, count: int, users: Sequence[int], keys: Sequence[int | None], first: int = 0
) -> list[Row]:
    """Of these users, by these keys: fewer at weekends and at night, more from week to week."""
    now = datetime.now(UTC) - timedelta(seconds=5)
    rows: list[Row] = []
    while len(rows) < count:
        at = now - timedelta(days=DAYS * dice.random() ** 1.3)
        if len(rows) < JUST_NOW:
            at = now - timedelta(minutes=9 * dice.random())
        elif dice.random() > (0.35 if at.weekday() >= 5 else 1) * (1 if 8 <= at.hour <= 19 else 0.3):
            continue
        [(model, _, price_in, price_out)] = dice.choices([*MODELS, LOCAL], [one[1] for one in [*MODELS, LOCAL]])
        tokens_in, tokens_out = int(dice.lognormvariate(8.2, 0.8)), int(dice.lognormvariate(6.2, 0.7))
        values: Row = {
            "user_id": dice.choice(users),
            "client_key_id": dice.choices(keys, range(len(keys), 0, -1))[0],
            "pool_key_id": dice.choice([1, 2, 3, 4]),
            "model": model,
            "prompt_tokens": tokens_in,
            "completion_tokens": tokens_out,
            "cost_nano": tokens_in * price_in + tokens_out * price_out,
            "first_byte_ms": dice.randrange(250, 1400),
            "total_ms": 600 + tokens_out * dice.randrange(4, 12),
        }
        if model == LOCAL[0]:
            values |= {"pool_key_id": None, "upstream_id": 1}
        if dice.random() < 0.02:
            values |= {"outcome": "error", "http_status": 502, "completion_tokens": 0, "cost_nano": 0}
        rows.append(row(first + len(rows), at, **values))
    return rows


def _add_upstream(site: Site) -> None:
    upstream = {"name": "workstation", "base_url": "http://127.0.0.1:11434/v1", "model_prefixes": {"local/": ""}}
    assert site.gateway.ask("POST", "/admin/upstreams", upstream, ADMIN_TOKEN).status_code == 201


def _fill_pool(database: Database) -> None:
    """Keys with more or less left, of which one is being replaced."""
    at = datetime.now(UTC)
    rows = tables.pool_keys
    first = {"name": "gateway/k-01", "limit_nano": 50 * 10**9, "remaining_nano": 31_420_000_000, "use_count": 18_204}
    first |= {"last_used": at - timedelta(seconds=9), "source": "minted"}
    database.transact(lambda tx: tx.execute(rows.update().where(rows.c.id == 1).values(first)))
    for number, state, left, used in (
        (2, "active", 44.1, 9310),
        (3, "active", 12.75, 26118),
        (4, "draining", 1.2, 40277),
    ):
        values = {"limit_nano": 50 * 10**9, "remaining_nano": round(left * 10**9), "use_count": used}
        old = add_pool_key(
            database, f"gateway/k-{number:02}", state, last_used=at - timedelta(minutes=number * number), **values
        )
    add_pool_key(
        database, "gateway/k-05", "quarantined", replaces_id=old, limit_nano=50 * 10**9, remaining_nano=50 * 10**9
    )


def _use_keys(database: Database) -> None:
    """Client keys and API tokens as used last at various times."""
    for table in (tables.client_keys, tables.api_tokens):
        for number in range(1, len(KEYS) + 1):
            at = datetime.now(UTC) - timedelta(minutes=7 * number**3)
            used = table.update().where(table.c.id == number).values(last_used=at)
            database.transact(lambda tx, used=used: tx.execute(used))  # type: ignore[misc]


def _spread_watched_keys(dice: random.Random, database: Database, user_id: int) -> None:
    """What somebody's own keys cost elsewhere, day by day."""
    keys, days = tables.watched_keys, tables.watched_key_days
    today = datetime.now(UTC).date()

    def work(tx: Any) -> None:
        for (key_id,) in tx.execute(sa.select(keys.c.id).where(keys.c.user_id == user_id)).all():
            costs = [round(dice.lognormvariate(-1.6, 0.7) * 10**9) for _ in range(DAYS - 2)]
            spent = {"usage_nano": sum(costs), "remaining_nano": 25 * 10**9 - sum(costs)}
            tx.execute(keys.update().where(keys.c.id == key_id).values(spent))
            tx.execute(
                days.insert(),
                [
                    {"personal_key_id": key_id, "day": today - timedelta(days=1 + number), "cost_nano": cost}
                    for number, cost in enumerate(costs)
                ],
            )

    database.transact(work)
