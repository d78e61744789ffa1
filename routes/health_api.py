"""Is the service able to work: database and pool."""

from __future__ import annotations

from flask import Blueprint, Response

from routes.http import answer, services

routes = Blueprint("health_api", __name__)


@routes.get("/api/health")
def health() -> Response:
    """200 `ok`; 200 `degraded` without the database or while every key rests; 503 `unavailable` without keys.

    Reads what the background thread already knows: asking costs no query, however often strangers ask.
    """
    usable, known = services().pool.usable_count(), services().pool.known_count()
    database_is_up = services().watcher.database_is_up
    status = "unavailable" if not known else "ok" if usable and database_is_up else "degraded"
    body = {
        "status": status,
        "database": {"status": "ok" if database_is_up else "unreachable", "kind": services().db.kind},
        "pool": {"status": "ok" if usable else "resting" if known else "empty", "usable": usable, "known": known},
    }
    return answer(body, 503 if status == "unavailable" else 200)
