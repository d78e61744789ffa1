"""For operators: the pool of OpenRouter keys, and changes to it."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from flask import Blueprint, Response
from pydantic import BeforeValidator, Field, WithJsonSchema

from accounts.labels import with_labels
from billing.reports.latency import read_keys_health
from pool.keys import ANYBODYS, MAX_NAME_CHARACTERS, SHARED, Whose
from pool.life import PoolKeySource, PoolKeyState
from pool.overview import pool_overview
from web.api.latency import PointShown, TimesShown
from web.http import answer, audit, services
from web.operation import Body, Page, Paging, Shown, Who, operation

routes = Blueprint("admin_api", __name__, url_prefix="/admin/pool")


def _whose(text: object) -> Whose:
    if text in {SHARED, ANYBODYS}:
        return str(text)
    if not (isinstance(text, str) and text.isascii() and text.isdigit() and len(text) <= 18):
        raise ValueError(f"must be {SHARED}, {ANYBODYS}, or a user's id")
    return int(text)


Owner = Annotated[
    Whose, BeforeValidator(_whose), WithJsonSchema({"type": "string", "pattern": "^[0-9]{1,18}$|^[a-z]+$"})
]


class PoolFilter(Paging):
    """Which keys of the pool."""

    all: Literal["true", "false"] = Field("false", description="With the keys that are deleted, abandoned or dead")
    owner: Owner = Field(SHARED, description=f"`{SHARED}`, `{ANYBODYS}`, or the user whose own keys are wanted")


class PoolKeyName(Body):
    """Which key."""

    name: str = Field(min_length=1, max_length=MAX_NAME_CHARACTERS, examples=["env/0a1b2c3d4e5f"])


class LastErrorShown(Shown):
    """A try that failed. message: as the client was told, or would have been."""

    at: datetime
    request_id: str = Field(examples=["019ab5d1c2e3a1b2c3d4e5f60718293a"])
    status: int | None = Field(examples=[429])
    error_type: str | None = Field(examples=["rate_limit_exceeded"])
    message: str | None = Field(examples=["Too much is in flight upstream; try again shortly"])


class PoolKeyShown(Shown):
    """A key of the pool, without its text; limits in dollars, null for none or unknown."""

    name: str = Field(examples=["env/0a1b2c3d4e5f"])
    status: str = Field(
        description="How it is in one word: its `state` unless that is active, `off`, its `health`, "
        "or `silent` if no gateway reports",
        examples=["ok"],
    )
    state: PoolKeyState
    enabled: bool
    health: str | None = Field(description="The worst that any gateway reports", examples=["ok"])
    reason: str | None = Field(examples=[None])
    until: str | None = Field(examples=[None])
    limit_usd: float | None = Field(examples=[10.0])
    remaining_usd: float | None = Field(examples=[7.5])
    used: int = Field(description="Calls", examples=[120])
    in_flight: int = Field(examples=[2])
    expires_at: datetime | None
    last_used: datetime | None
    created_at: datetime
    source: PoolKeySource
    owner_id: int | None = Field(description="The user whose own key it is", examples=[None])
    owner_label: str | None = Field(description="What operators call the owner", examples=[None])
    hash: str = Field(description="The begin of the hash of its text", examples=["0a1b2c3d4e5f"])
    last_hour: TimesShown = Field(description="Its tries since the begin of the hour before this one")
    last_day: TimesShown = Field(description="Its tries of the last 24 hours and of this one")
    points: list[PointShown] = Field(description="Hour by hour, of the last day")
    last_error: LastErrorShown | None = Field(description="The newest of the last day", examples=[None])


class ProcessShown(Shown):
    """A process that serves calls."""

    id: str = Field(examples=["019ab5d1"])
    beat_at: datetime
    silent: bool
    keys_revision: int = Field(examples=[7])
    in_flight: int = Field(examples=[2])


class PoolShown(Page[PoolKeyShown]):
    """A page of the pool, and the pool as a whole."""

    usable: int = Field(description="Shared keys that the next call may get", examples=[5])
    pool_size: int = Field(description="How many are wanted", examples=[5])
    processes: list[ProcessShown]


class PoolKeyEnabled(Shown):
    """What holds from now on."""

    name: str = Field(examples=["env/0a1b2c3d4e5f"])
    enabled: bool


class RotationRequested(Shown):
    """What was noted."""

    name: str = Field(examples=["gw/prod/0a1b"])
    rotation: Literal["requested"]


@routes.get("")
@operation("Show the pool", Who.AUDITOR, query=PoolFilter, answers={200: PoolShown})
def pool(query: PoolFilter) -> Response:
    """The keys without their texts, newest first, as all processes together see them, and the processes."""
    return answer(pool_shown(query))


@routes.post("/enable")
@operation("Enable a pool key", Who.OPERATOR, body=PoolKeyName, answers={200: PoolKeyEnabled}, refusals=(404,))
def enable(operator: str, body: PoolKeyName) -> Response:
    """The key may be picked again, everywhere within two seconds."""
    return set_enabled(operator, body.name, True)


@routes.post("/disable")
@operation("Disable a pool key", Who.OPERATOR, body=PoolKeyName, answers={200: PoolKeyEnabled}, refusals=(404,))
def disable(operator: str, body: PoolKeyName) -> Response:
    """The key is not picked any more, everywhere within two seconds; it stays alive at OpenRouter."""
    return set_enabled(operator, body.name, False)


@routes.post("/rotate")
@operation("Rotate a pool key", Who.OPERATOR, body=PoolKeyName, answers={202: RotationRequested}, refusals=(404,))
def rotate(operator: str, body: PoolKeyName) -> Response:
    """The background service replaces the key at its next pass. 404 unless it is a minted key in use."""
    return ask_renewal(operator, body.name)


# ── for the pages too


def pool_shown(query: PoolFilter) -> dict[str, Any]:
    """A page of the pool, as it is answered."""
    begin, now = (query.page - 1) * query.page_size, services().clock.now()
    keys, db = services().pool_keys, services().db
    found = pool_overview(keys, db, now, query.all == "true", query.owner, begin, query.page_size)
    health = read_keys_health(db, [key.row.id for key in found.keys], now)
    items = [key.to_dict() | health[key.row.id].to_dict() for key in found.keys]
    return {
        "items": with_labels(db, items, owner_label="owner_id"),
        "total": found.total,
        "page": query.page,
        "page_size": query.page_size,
        "usable": found.usable,
        "pool_size": services().config.pool_size,
        "processes": found.processes,
    }


def ask_renewal(operator: str, name: str) -> Response:
    """Have the rotation replace a key."""
    services().pool_keys.ask_renewal(name)
    audit(operator, "pool_key_rotation_asked", f"pool/{name}")
    return answer({"name": name, "rotation": "requested"}, 202)


def set_enabled(operator: str, name: str, enabled: bool) -> Response:
    """Let a key be picked, or not."""
    services().pool_keys.set_enabled(name, enabled)
    audit(operator, "pool_key_enabled" if enabled else "pool_key_disabled", f"pool/{name}")
    return answer({"name": name, "enabled": enabled})
