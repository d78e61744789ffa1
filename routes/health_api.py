"""Is the service able to work: database, ledger and pool."""

from __future__ import annotations

from flask import Blueprint, Response

from routes.http import answer, services

routes = Blueprint("health_api", __name__)

LEDGER_LAG_SECONDS = 30  # a database that is slow for a while is no fault


@routes.get("/api/health")
def health() -> Response:
    """200 `ok`; 200 `degraded` without database or Redis, or while every key rests; 503 `unavailable` without keys.

    Reads what the background thread already knows: asking costs no query, however often strangers ask.
    """
    usable, known = services().pool.usable_count(), services().pool.known_count()
    database_is_up = services().watcher.database_is_up
    cache, behind = services().rate_limits.cache_status, services().drain.behind_seconds
    is_whole = usable and database_is_up and cache != "unreachable" and behind <= LEDGER_LAG_SECONDS
    status = "unavailable" if not known else "ok" if is_whole else "degraded"
    body = {
        "status": status,
        "database": {"status": "ok" if database_is_up else "unreachable", "kind": services().db.kind},
        "cache": {"status": cache},
        "ledger": {"status": "behind" if behind > LEDGER_LAG_SECONDS else "ok", "behind_seconds": behind},
        "pool": {"status": "ok" if usable else "resting" if known else "empty", "usable": usable, "known": known},
    }
    return answer(body, 503 if status == "unavailable" else 200)
