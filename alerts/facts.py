"""How things are, for one look at them: read from the database, which has what all processes report."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property
from typing import Any

import sqlalchemy as sa

from accounts.audit_log import AuditLog
from accounts.refused_log_ins import ACTIONS
from alerts.host import HOST
from billing import daily_check_rows
from billing.daily_check_rows import Verdict
from billing.quotas.rows import Quota, Quotas
from config.settings import Config
from db import Database
from foundation.clock import Clock
from foundation.money import nano
from pool.credit import find_credit
from pool.keys import PoolKeys
from pool.life import PoolKeySource, PoolKeyState
from pool.names import short_name
from pool.overview import SILENT_AFTER, PoolOverview, pool_overview
from replicas.processes import reports
from tables import pool_keys, quotas

LOG_INS_WITHIN = timedelta(minutes=10)
DEAD_WITHIN = timedelta(days=1)
CHECKED_WITHIN = timedelta(days=3)
MOST_ENTRIES = 1000  # of refused log-ins, each of which is one at least
QUOTA_SHARE = 0.75  # less than this no kind asks for
MOST_QUOTAS = 1000
BROUGHT = PoolKeySource.ENVIRONMENT, PoolKeySource.OPERATOR, PoolKeySource.CONNECTED
OF_A_LIMIT = 0.2  # of a small limit so much is low, whatever ALERT_CREDIT_USD says


@dataclass(frozen=True)
class Fact:
    """One thing as it is. value: what the kind's bounds are about. parts: what its sentence tells."""

    subject: str
    value: float
    parts: dict[str, str | int] = field(default_factory=dict)


class Facts:
    """As of one moment: what several kinds ask for is read once. Methods raise DatabaseError."""

    def __init__(
        self, db: Database, clock: Clock, config: Config, keys: PoolKeys, quotas: Quotas, audit: AuditLog
    ) -> None:
        self._db = db
        self._now = clock.now()
        self._config = config
        self._keys = keys
        self._quotas = quotas
        self._audit = audit

    # ── the pool

    @cached_property
    def _pool(self) -> PoolOverview:
        return pool_overview(self._keys, self._db, self._now)

    def usable_keys(self) -> Iterator[Fact]:
        """How many shared keys can carry a call, in the eyes of all processes."""
        yield Fact("pool", self._pool.usable)

    def usable_share(self) -> Iterator[Fact]:
        """What part that is of POOL_SIZE; where no rotation mints, of the keys that there are."""
        in_use = [one.row for one in self._pool.keys if one.row.state is PoolKeyState.ACTIVE and one.row.enabled]
        is_rotated = any(row.source is PoolKeySource.MINTED for row in in_use)
        wanted = self._config.pool_size if is_rotated else len(in_use)
        if wanted:
            yield Fact("pool", self._pool.usable / wanted, {"usable": self._pool.usable, "wanted": wanted})

    def refused_keys(self) -> Iterator[Fact]:
        """Shared keys that OpenRouter does not accept, or does not know any more."""
        lately = sa.and_(
            pool_keys.c.state == PoolKeyState.DEAD,
            pool_keys.c.owner_id.is_(None),
            pool_keys.c.updated_at > self._now - DEAD_WITHIN,
        )
        with self._db.reading() as tx:
            dead = list(tx.scalars(sa.select(pool_keys.c.name).where(lately).order_by(pool_keys.c.id)))
        for name in [one.row.name for one in self._pool.keys if one.health == "suspect"] + dead:
            yield Fact(f"key/{short_name(name)}", 1, {"key": short_name(name)})

    # ── money

    def credit(self) -> Iterator[Fact]:
        """What accounts and brought keys have left, as a share of what is low."""
        low_nano = nano(self._config.alert_credit_usd) or 0
        if not low_nano:
            return
        left_nano = find_credit(self._db)
        if left_nano is not None:
            yield Fact("account", left_nano / low_nano, {"whose": "The pool’s account", "left": _dollars(left_nano)})
        columns = pool_keys.c.name, pool_keys.c.limit_nano, pool_keys.c.remaining_nano
        is_brought = sa.and_(pool_keys.c.source.in_(BROUGHT), pool_keys.c.state == PoolKeyState.ACTIVE)
        is_low = pool_keys.c.remaining_nano < 2 * low_nano
        with self._db.reading() as tx:
            rows = tx.execute(sa.select(*columns).where(is_brought, is_low).order_by(pool_keys.c.id)).all()
        for row in rows:
            bound_nano = min(low_nano, OF_A_LIMIT * row.limit_nano) if row.limit_nano else low_nano
            name = short_name(row.name)
            told: dict[str, str | int] = {"whose": f"Key {name}", "left": _dollars(row.remaining_nano)}
            yield Fact(f"key/{name}", row.remaining_nano / bound_nano, told)

    def quotas_used(self) -> Iterator[Fact]:
        """How much of their quotas users have used, of those who used much of it; who spent most comes first."""
        for quota in self._much_used:
            share = quota.spent_nano / (quota.terms.limit_nano or 1)
            told: dict[str, str | int] = {"account": quota.subject.removeprefix("user/"), "percent": int(share * 100)}
            yield Fact(quota.subject, share, told | {"quota": str(quota.terms)})

    @cached_property
    def _much_used(self) -> list[Quota]:
        # A row with terms of yesterday's settings is brought up to date with its user's next call (billing/quotas).
        used = quotas.c.spent_nano >= quotas.c.limit_nano * QUOTA_SHARE
        wanted = quotas.c.limit_nano > 0, quotas.c.subject.like("user/%"), used
        query = sa.select(quotas.c.subject).where(*wanted).order_by(quotas.c.spent_nano.desc(), quotas.c.id)
        with self._db.reading() as tx:
            subjects = list(tx.scalars(query.limit(MOST_QUOTAS)))
        found = self._quotas.find_all(subjects)
        return [found[subject] for subject in subjects if subject in found and found[subject].terms.limit_nano]

    # ── hosts

    @cached_property
    def _hosts(self) -> dict[str, list[dict[str, Any]]]:
        found: dict[str, list[dict[str, Any]]] = {}
        for process in reports(self._db, self._now):
            told = process.keys.get(HOST)
            if told and process.beat_at >= self._now - SILENT_AFTER:
                found.setdefault(str(told["name"]), []).append(told)
        return found

    def drain_behind(self) -> Iterator[Fact]:
        """For how many seconds the database has not taken what a host's journals hold."""
        for name, told in self._hosts.items():
            behind = max(one["behind_seconds"] for one in told)
            yield Fact(f"host/{name}", behind, {"host": name, "minutes": int(behind // 60)})

    def journal_faults(self) -> Iterator[Fact]:
        """Hosts that can't write down calls."""
        for name, told in self._hosts.items():
            fault = next((one["fault"] for one in told if one["fault"]), None)
            yield Fact(f"host/{name}", fault is not None, {"host": name, "reason": str(fault)})

    def free_bytes(self) -> Iterator[Fact]:
        """Room on the disks of DATA_DIR."""
        for name, told in self._hosts.items():
            free = [one["free_bytes"] for one in told if "free_bytes" in one]
            if free:
                yield Fact(f"host/{name}", min(free), {"host": name, "free": f"{min(free) / 1e9:.1f} GB"})

    def clock_skew(self) -> Iterator[Fact]:
        """How far hosts' clocks are off the database's, in seconds."""
        for name, told in self._hosts.items():
            skew = max((one["skew_seconds"] for one in told), key=abs)
            yield Fact(f"host/{name}", abs(skew), {"host": name, "seconds": f"{skew:+.1f}"})

    # ── what the daily check and the audit log know

    def differences(self) -> Iterator[Fact]:
        """In how many rows of the latest days our sums and OpenRouter's differ."""
        rows = daily_check_rows.since(self._db, self._now - CHECKED_WITHIN).values()
        latest = max((check.day for check in rows), default=None)
        differ = [check for check in rows if check.day == latest and check.verdict is Verdict.DIFFERS]
        day = f"{latest:%Y-%m-%d}" if latest else ""
        yield Fact("usage-check", len(differ), {"keys": len(differ), "day": day})

    def refused_log_ins(self) -> Iterator[Fact]:
        """How many log-ins were refused in the latest minutes."""
        count = self._audit.sum_of(ACTIONS, self._now - LOG_INS_WITHIN, MOST_ENTRIES)
        yield Fact("log-ins", count, {"count": count, "minutes": int(LOG_INS_WITHIN.total_seconds() // 60)})


def _dollars(amount_nano: int) -> str:
    return f"${amount_nano / 1e9:,.2f}"
