"""Is the service able to work: database, ledger, pool and OpenRouter."""

from __future__ import annotations

from typing import Any, Literal

from flask import Blueprint, Response
from pydantic import Field

from config.version import VERSION
from serving import ending
from web.http import answer, services
from web.operation import Shown, Who, operation

routes = Blueprint("health_api", __name__)

LEDGER_LAG_SECONDS = 30  # a database that is slow for a while is no fault


class DatabaseHealth(Shown):
    """The database. Without it calls go on from memory. reason: in a word why it refuses writes, such as read-only."""

    status: Literal["ok", "refusing", "unreachable"]
    reason: str | None = Field(examples=[None])
    kind: str = Field(examples=["mysql"])


class CacheHealth(Shown):
    """Redis, which counts the rate limits of several replicas together."""

    status: Literal["ok", "unreachable", "off"]


class LedgerHealth(Shown):
    """Whether what was used is written down and reaches the database. behind_seconds: for how long it has not.

    status: `unwritable` if the journal can't be written, so that all calls are refused. reason: why, in the system's
    words. set_aside: records on this host that no row can hold; `flask --app app usage repair` shows them.
    """

    status: Literal["ok", "behind", "unwritable"]
    reason: str | None = Field(examples=[None])
    behind_seconds: float = Field(examples=[0])
    set_aside: int = Field(examples=[0])


class ClockHealth(Shown):
    """This host's clock beside the database's, which everything goes by. `wrong` from 5 seconds on."""

    status: Literal["ok", "wrong"]
    skew_seconds: float = Field(description="How far it is ahead; negative if it is behind", examples=[0.0])


class PoolHealth(Shown):
    """The pool of OpenRouter keys.

    status: `refused` if OpenRouter accepts none of them, `resting` if none can be used for another reason.
    """

    status: Literal["ok", "resting", "refused", "empty"]
    usable: int = Field(
        description="Keys that can carry a call right now, and that the last news of them speaks for", examples=[5]
    )
    known: int = Field(examples=[5])
    refused: int = Field(
        description="Keys that OpenRouter does not accept, asked with the keys themselves", examples=[0]
    )


class OpenRouterHealth(Shown):
    """OpenRouter, as the process that answers last found it. While it can't be reached, calls are refused at once."""

    status: Literal["ok", "unreachable"]


class CallsHealth(Shown):
    """The model calls that ended within the last minute, in the process that answers."""

    last_minute: int = Field(examples=[120])
    failed: int = Field(description="Those that were not answered, whoever was at fault", examples=[3])
    why: dict[str, int] = Field(
        description="How often each reason: a refusal's name, how a try ended, or `never-sent`",
        examples=[{"provider-limited": 2, "request": 1}],
    )


class Health(Shown):
    """How the service is."""

    status: Literal["ok", "degraded", "unavailable"]
    version: str = Field(description="The program's", examples=[VERSION])
    database: DatabaseHealth
    cache: CacheHealth
    ledger: LedgerHealth
    clock: ClockHealth
    pool: PoolHealth
    openrouter: OpenRouterHealth
    calls: CallsHealth


class Liveness(Shown):
    """The process works."""

    status: Literal["ok"]


class Readiness(Shown):
    """Whether calls should be sent here."""

    status: Literal["ready", "not_ready"]
    reason: str | None = Field(description="Why not, in a word", examples=[None])


@routes.get("/livez")
@operation("Liveness", Who.ANYBODY, answers={200: Liveness})
def live() -> Response:
    """200 as long as the process answers at all: who restarts processes asks this, and nothing more."""
    return answer({"status": "ok"})


@routes.get("/readyz")
@operation("Readiness", Who.ANYBODY, answers={200: Readiness, 503: Readiness})
def ready() -> Response:
    """200 while calls should be sent here, 503 while they should not, for whoever shares them out among replicas.

    `ending`: it was told to end, and takes what still comes for DRAIN_DELAY_SECONDS.
    `unavailable`: as GET /api/health says, which knows why. A database that went away later is no reason: calls go on
    from memory, here as everywhere.
    """
    reason = "ending" if ending.is_announced() else "unavailable" if health_shown()["status"] == "unavailable" else None
    return answer({"status": "not_ready" if reason else "ready", "reason": reason}, 503 if reason else 200)


@routes.get("/api/health")
@operation("Health", Who.ANYBODY, answers={200: Health, 503: Health})
def health() -> Response:
    """200 `ok`; 200 `degraded` while one of the parts is not well; 503 `unavailable`.

    The last without keys, while nothing can be written down, and in a process that started without its database and
    waits for it.
    """
    body = health_shown()
    return answer(body, 503 if body["status"] == "unavailable" else 200)


def health_shown() -> dict[str, Any]:
    """How the service is, as it is answered."""
    # Reads what the background thread already knows: asking costs no query, however often strangers ask.
    pool = services().pool
    usable, known, refused = pool.usable_count(), pool.known_count(), pool.refused_count()
    behind, fault = services().drain.behind_seconds, services().journal.fault
    refusal = services().db.refusal or services().drain.refusals.reason
    parts: dict[str, dict[str, Any]] = {
        "database": {"status": _database_status(refusal), "reason": refusal, "kind": services().db.kind},
        "cache": {"status": services().rate_limits.cache_status},
        "ledger": {
            "status": _ledger_status(fault, behind),
            "reason": fault,
            "behind_seconds": behind,
            "set_aside": services().drain.set_aside,
        },
        "clock": {
            "status": "ok" if services().clock.is_right else "wrong",
            "skew_seconds": round(services().clock.skew_seconds, 1) + 0.0,  # no minus before a zero
        },
        "pool": {"status": _pool_status(usable, known, refused), "usable": usable, "known": known, "refused": refused},
        "openrouter": {"status": _up(not services().proxy.destinations.openrouter.reach.is_away)},
    }
    serves = known and fault is None and (services().auth.is_informed or services().auth.trusts_uninformed)
    is_whole = all(part["status"] in {"ok", "off"} for part in parts.values())
    status = "unavailable" if not serves else "ok" if is_whole else "degraded"
    return {"status": status, "version": VERSION, **parts, "calls": services().proxy.latest_calls.told()}


def _database_status(refusal: str | None) -> str:
    if not services().watcher.database_is_up:
        return "unreachable"
    return "refusing" if refusal else "ok"


def _up(is_up: bool) -> str:
    return "ok" if is_up else "unreachable"


def _ledger_status(fault: str | None, behind_seconds: int) -> str:
    if fault is not None:
        return "unwritable"
    return "behind" if behind_seconds > LEDGER_LAG_SECONDS else "ok"


def _pool_status(usable: int, known: int, refused: int) -> str:
    if usable:
        return "ok"
    if not known:
        return "empty"
    return "refused" if refused >= known else "resting"
