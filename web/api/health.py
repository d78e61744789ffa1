"""Is the service able to work: database, ledger and pool."""

from __future__ import annotations

from typing import Any, Literal

from flask import Blueprint, Response
from pydantic import Field

from web.http import answer, services
from web.operation import Shown, Who, operation

routes = Blueprint("health_api", __name__)

LEDGER_LAG_SECONDS = 30  # a database that is slow for a while is no fault


class DatabaseHealth(Shown):
    """The database. Without it calls go on from memory."""

    status: Literal["ok", "unreachable"]
    kind: str = Field(examples=["mysql"])


class CacheHealth(Shown):
    """Redis, which counts the rate limits of several replicas together."""

    status: Literal["ok", "unreachable", "off"]


class LedgerHealth(Shown):
    """Whether what was used reaches the database. behind_seconds: the age of the oldest record that has not."""

    status: Literal["ok", "behind"]
    behind_seconds: float = Field(examples=[0])


class PoolHealth(Shown):
    """The pool of OpenRouter keys."""

    status: Literal["ok", "resting", "empty"]
    usable: int = Field(description="Keys that can carry a call right now", examples=[5])
    known: int = Field(examples=[5])


class Health(Shown):
    """How the service is."""

    status: Literal["ok", "degraded", "unavailable"]
    database: DatabaseHealth
    cache: CacheHealth
    ledger: LedgerHealth
    pool: PoolHealth


@routes.get("/api/health")
@operation("Health", Who.ANYBODY, answers={200: Health, 503: Health})
def health() -> Response:
    """200 `ok`; 200 `degraded` without database or Redis, or while every key rests; 503 `unavailable`.

    The last without keys, and in a process that started without its database and waits for it.
    """
    body = health_shown()
    return answer(body, 503 if body["status"] == "unavailable" else 200)


def health_shown() -> dict[str, Any]:
    """How the service is, as it is answered."""
    # Reads what the background thread already knows: asking costs no query, however often strangers ask.
    usable, known = services().pool.usable_count(), services().pool.known_count()
    database_is_up = services().watcher.database_is_up
    cache, behind = services().rate_limits.cache_status, services().drain.behind_seconds
    serves = known and (services().auth.is_informed or services().auth.trusts_uninformed)
    is_whole = usable and database_is_up and cache != "unreachable" and behind <= LEDGER_LAG_SECONDS
    status = "unavailable" if not serves else "ok" if is_whole else "degraded"
    return {
        "status": status,
        "database": {"status": "ok" if database_is_up else "unreachable", "kind": services().db.kind},
        "cache": {"status": cache},
        "ledger": {"status": "behind" if behind > LEDGER_LAG_SECONDS else "ok", "behind_seconds": behind},
        "pool": {"status": "ok" if usable else "resting" if known else "empty", "usable": usable, "known": known},
    }
