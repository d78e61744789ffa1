"""The pool and other upstreams as operators see them: their rows, and what all processes report of each.

Every process learns by itself which keys rest, so that only all reports together tell how the pool is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from db import Database
from foundation.money import usd
from pool.choice import EXPIRY_MARGIN
from pool.keys import SHARED, PoolKeys, Whose
from pool.life import PoolKeyRow, PoolKeyState
from replicas.processes import ProcessReport, reports
from upstream.registry import Upstream

# A process that has not reported for this long may be gone: what it said about keys' health is not news any more.
SILENT_AFTER = timedelta(seconds=30)
SEVERITY = ("ok", "half-open", "resting", "suspect")
RENEWAL_STEPS = ("asked for", "minting", "checking", "draining", "disabled")
# By the new key's state until that is in use, then by the old one's.
NEW_KEYS_STEP = {PoolKeyState.INTENT: "minting", PoolKeyState.STORED: "checking"}
OLD_KEYS_STEP = {PoolKeyState.DRAINING: "draining", PoolKeyState.DISABLED: "disabled"}
PICKED = {None, "ok", "half-open"}


@dataclass(frozen=True)
class PoolKeyOverview:
    """One key. health: the worst that any process reports, with its reason and its end; None if nobody reports."""

    row: PoolKeyRow
    health: str | None
    reason: str | None
    until: str | None
    in_flight: int

    @property
    def status(self) -> str:
        """How it is in one word: where it is in its life, or `off`, or its health, `silent` if nobody reports."""
        if self.row.state is not PoolKeyState.ACTIVE:
            return self.row.state.value
        return (self.health or "silent") if self.row.enabled else "off"

    def to_dict(self) -> dict[str, Any]:
        """As JSON; limits in dollars, None for no limit or unknown. Never the key's text."""
        row = self.row
        return {
            "name": row.name,
            "status": self.status,
            "state": row.state.value,
            "enabled": row.enabled,
            "health": self.health,
            "reason": self.reason,
            "until": self.until,
            "limit_usd": usd(row.limit_nano),
            "remaining_usd": usd(row.remaining_nano),
            "used": row.use_count,
            "in_flight": self.in_flight,
            "expires_at": _iso(row.expires_at),
            "last_used": _iso(row.last_used),
            "created_at": _iso(row.created_at),
            "source": row.source.value,
            "owner_id": row.owner_id,
            "hash": (row.api_key_hash or "")[:12],
        }


@dataclass(frozen=True)
class PoolOverview:
    """keys: the part asked for, newest first; total: how many there are. usable: how many shared keys calls may get."""

    keys: list[PoolKeyOverview]
    total: int
    usable: int
    processes: list[dict[str, Any]]


def pool_overview(
    keys: PoolKeys,
    db: Database,
    now: datetime,
    with_gone: bool = False,
    whose: Whose = SHARED,
    begin: int = 0,
    size: int | None = None,
) -> PoolOverview:
    """The pool at this moment. with_gone: with the keys that were deleted, abandoned or found dead.

    whose: by default without users' own keys, of which there may be thousands. begin, size: which part of the keys.
    """
    processes = sorted(reports(db, now), key=lambda process: process.beat_at, reverse=True)
    rows, total = keys.page(whose, with_gone, begin, size)
    return PoolOverview(
        [_merge(row, processes, now) for row in rows],
        total,
        sum(_is_usable(_merge(row, processes, now), now) for row in keys.in_use()),
        [
            {
                "id": process.id[:8],
                "beat_at": _iso(process.beat_at),
                "silent": _is_silent(process, now),
                "keys_revision": process.keys_revision,
                "in_flight": sum(key.get("in_flight", 0) for key in process.keys.values()),
            }
            for process in processes
        ],
    )


def renewals(rows: Sequence[PoolKeyRow], now: datetime) -> list[dict[str, Any]]:
    """How far the renewals are that are under way: `old` and `new` name the keys, `step` is one of RENEWAL_STEPS.

    rows: all shared keys that are not gone. A renewal is over once the old key is gone.
    """
    by_id = {row.id: row for row in rows}
    followed = {row.replaces_id for row in rows}
    found: list[dict[str, Any]] = []
    for row in rows:
        if row.state is PoolKeyState.ACTIVE and row.renew_at and row.renew_at <= now and row.id not in followed:
            found.append({"old": row.name, "new": None, "step": "asked for"})
        old = by_id.get(row.replaces_id) if row.replaces_id is not None else None
        if old and (step := NEW_KEYS_STEP.get(row.state) or OLD_KEYS_STEP.get(old.state)):
            found.append({"old": old.name, "new": row.name, "step": step})
    return found


def upstream_overview(upstreams: Sequence[Upstream], db: Database, now: datetime) -> list[dict[str, Any]]:
    """Other upstreams as JSON, each with `health`, `reason` and `until` as keys have them."""
    processes = reports(db, now)
    worst = [_worst(f"upstream/{one.id}", one.terms.is_active, processes, now) for one in upstreams]
    told = [{name: one.get(name) for name in ("health", "reason", "until")} for one in worst]
    return [upstream.to_dict() | one for upstream, one in zip(upstreams, told, strict=True)]


def _merge(row: PoolKeyRow, processes: list[ProcessReport], now: datetime) -> PoolKeyOverview:
    in_flight = sum(process.keys.get(str(row.id), {}).get("in_flight", 0) for process in processes)
    worst = _worst(str(row.id), row.state is PoolKeyState.ACTIVE and row.enabled, processes, now)
    return PoolKeyOverview(row, worst.get("health"), worst.get("reason"), worst.get("until"), in_flight)


def _worst(name: str, serves: bool, processes: Sequence[ProcessReport], now: datetime) -> dict[str, Any]:
    """The worst that any process reports; nothing if nobody does."""
    heard = [process.keys.get(name, {}) for process in processes if not _is_silent(process, now)]
    # Who serves with it and has nothing to tell of its health finds it in order.
    heard = [{"health": "ok"} | one for one in heard if serves or "health" in one]
    return max(heard, key=_severity, default={})


def _severity(told: dict[str, Any]) -> tuple[int, str]:
    word = told["health"]
    # A word that only newer processes know is worth an operator's look.
    rank = SEVERITY.index(word) if word in SEVERITY else len(SEVERITY)
    return rank, told.get("until") or ""


def _is_silent(process: ProcessReport, now: datetime) -> bool:
    return process.beat_at < now - SILENT_AFTER


def _is_usable(key: PoolKeyOverview, now: datetime) -> bool:
    row = key.row
    lasts = row.expires_at is None or row.expires_at > now + EXPIRY_MARGIN
    return row.state is PoolKeyState.ACTIVE and row.enabled and lasts and key.health in PICKED


def _iso(time: datetime | None) -> str | None:
    return None if time is None else time.isoformat(timespec="seconds")
