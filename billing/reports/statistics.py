"""Statistics of what was used: by model, by day, by key, from the roll-ups alone, however many calls there were."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from billing.quotas.rows import Quota
from billing.quotas.terms import QuotaTerms
from billing.reports.row_filter import RowFilter
from billing.rollups import DAY, EVERYBODY, UsageSums, added, shown, summed, sums_in
from db import Database, Transaction
from foundation.clock import Clock
from foundation.errors import NotFound
from pool.names import get_whole_name
from tables import pool_keys, team_rollups, upstreams
from tables import usage_rollups as table
from upstream.registry import OPENROUTER

DEFAULT_DAYS = 30
DAY_LONG = timedelta(days=1)
SPENT = "usage", "usage_daily", "usage_weekly", "usage_monthly"
POOL = 0  # the number of the upstream that has no row: the pool of OpenRouter keys


@dataclass(frozen=True)
class UsageFilter:
    """Which calls are asked about; None leaves a question open.

    user_id: None for everybody. client_key_id: only together with a user, because everybody's sums don't tell keys.
    start, end: aware, full hours; end is not included. upstream_id: of another upstream than the pool, or POOL.
    model_part: a text in the model's name, in lower case. rows: what only rows tell; sums leave it open.
    """

    user_id: int | None = None
    client_key_id: int | None = None
    model: str | None = None
    pool_key_id: int | None = None
    is_error: bool | None = None
    start: datetime | None = None
    end: datetime | None = None
    upstream_id: int | None = None
    model_part: str | None = None
    rows: RowFilter | None = None

    def sums_of(self, period: str) -> sa.ColumnElement[bool]:
        """The roll-ups that these calls are counted in; the time is the caller's to add."""
        assert self.client_key_id is None or self.user_id is not None  # noqa: S101 - routes have refused it
        assert self.pool_key_id is None or self.user_id is None  # noqa: S101 - a user's sums don't tell pool keys
        wanted = [table.c.period == period, table.c.user_id == (self.user_id or EVERYBODY)]
        if self.client_key_id is not None:
            wanted.append(table.c.client_key_id == self.client_key_id)
        if self.pool_key_id is not None:
            wanted.append(table.c.pool_key_id == self.pool_key_id)
        if self.upstream_id is not None:
            carrier = table.c.pool_key_id
            wanted.append(carrier > 0 if self.upstream_id == POOL else carrier == -self.upstream_id)
        if self.model is not None:
            wanted.append(table.c.model == self.model)
        if self.model_part is not None:
            wanted.append(sa.func.lower(table.c.model).contains(self.model_part, autoescape=True))
        return sa.and_(*wanted)


class UsageStats:
    """Answers from the sums by day. Days are those of UTC."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock

    def summary(self, asked: UsageFilter, for_operator: bool = False) -> dict[str, Any]:
        """Totals, by model, by day and, for one user, by client key; for operators by pool key too.

        asked: of full days; without start or end the last 30 days. Days and models without calls are left out. The
        sums of one user don't tell pool keys apart.
        """
        asked = self._with_days(asked)
        with self._db.reading() as tx:
            days = self._grouped(tx, asked, table.c.start)
            found: dict[str, Any] = {
                "start_date": _date(asked.start),
                "end_date": _date(asked.end - DAY_LONG if asked.end else None),
                "totals": shown(added(sums_in(day) for day in days)),
                "by_model": _by_cost(
                    {"model": row.model} | shown(sums_in(row)) for row in self._grouped(tx, asked, table.c.model)
                ),
                "by_day": [{"date": _date(day.start)} | shown(sums_in(day)) for day in days],
            }
            if asked.user_id is not None:
                found["by_client_key"] = self._by_client_key(tx, asked)
            if for_operator:
                rows = self._grouped(tx, asked, table.c.pool_key_id)
                names = _pool_key_names(tx, {row.pool_key_id for row in rows})
                others = _upstream_names(tx)
                found["by_pool_key"] = _by_cost(
                    {"pool_key": names.get(row.pool_key_id), "upstream": _upstream(row.pool_key_id, others)}
                    | shown(sums_in(row))
                    for row in rows
                )
        return found

    def client_keys(self, asked: UsageFilter) -> list[dict[str, Any]]:
        """A user's usage by client key; client_key_id None stands for calls without one."""
        asked = self._with_days(asked)
        with self._db.reading() as tx:
            return self._by_client_key(tx, asked)

    def spent_nano(self, user_id: int, client_key_id: int | None) -> dict[str, int]:
        """What a user, or one client key of theirs, has spent in nano-dollars, under OpenRouter's names of the times:
        `usage` ever, `usage_daily`, `usage_weekly` (from Monday) and `usage_monthly` in those of now.
        """
        by_key = self.spent_by_key(user_id)
        if client_key_id is not None:
            return by_key[client_key_id]
        return {name: sum(spent[name] for spent in by_key.values()) for name in SPENT}

    def spent_by_key(self, user_id: int) -> Mapping[int, dict[str, int]]:
        """The same for each client key of theirs, by its id; 0 stands for calls without one."""
        today = self._clock.now().astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        monday = today - today.weekday() * DAY_LONG
        starts = dict(zip(SPENT[1:], (today, monday, today.replace(day=1)), strict=True))
        since = [
            sa.func.sum(sa.case((table.c.start >= start, table.c.cost_nano), else_=0)).label(name)
            for name, start in starts.items()
        ]
        key, whole = table.c.client_key_id, sa.func.sum(table.c.cost_nano).label("usage")
        query = sa.select(key, whole, *since).where(UsageFilter(user_id=user_id).sums_of(DAY)).group_by(key)
        with self._db.reading() as tx:
            rows = tx.execute(query).all()
        spent = {row.client_key_id: {name: int(getattr(row, name) or 0) for name in SPENT} for row in rows}
        return defaultdict(lambda: dict.fromkeys(SPENT, 0), spent)

    def spent_by_members(self, team_id: int, quota: Quota | None) -> tuple[datetime, Mapping[int, int]]:
        """The start of the period of a team's quota, and what each member has spent in it, in nano-dollars.

        quota: None for one without, whose period is the month. Who has left is among them; others have 0.
        """
        period = quota.terms.period if quota else "month"
        since = QuotaTerms(None, None, period, "reset").window_of(self._clock.now())
        theirs = team_rollups.c.period == DAY, team_rollups.c.team_id == team_id, team_rollups.c.start >= since
        query = sa.select(team_rollups.c.user_id, sa.func.sum(team_rollups.c.cost_nano).label("nano"))
        with self._db.reading() as tx:
            rows = tx.execute(query.where(*theirs).group_by(team_rollups.c.user_id)).all()
        return since, defaultdict(int, {row.user_id: int(row.nano) for row in rows})

    def days_and_models(self, asked: UsageFilter, page: int, page_size: int) -> tuple[list[dict[str, Any]], int]:
        """One page of a user's usage by day and model, newest day first, and how many such items there are."""
        groups = self._select(self._with_days(asked), table.c.start, table.c.model)
        cut = groups.order_by(table.c.start.desc(), table.c.model).limit(page_size).offset((page - 1) * page_size)
        with self._db.reading() as tx:
            total = tx.scalar(sa.select(sa.func.count()).select_from(groups.subquery())) or 0
            rows = tx.execute(cut).all()
        return [{"date": _date(row.start), "model": row.model} | shown(sums_in(row)) for row in rows], total

    def _with_days(self, asked: UsageFilter) -> UsageFilter:
        today = self._clock.now().replace(hour=0, minute=0, second=0, microsecond=0)
        end = asked.end or today + DAY_LONG
        return replace(asked, start=asked.start or end - DEFAULT_DAYS * DAY_LONG, end=end)

    def _select(self, asked: UsageFilter, *by: sa.Column[Any]) -> sa.Select[Any]:
        times = table.c.start >= asked.start, table.c.start < asked.end
        return sa.select(*by, *summed(table)).where(asked.sums_of(DAY), *times).group_by(*by)

    def _grouped(self, tx: Transaction, asked: UsageFilter, by: sa.Column[Any]) -> list[sa.Row[Any]]:
        return list(tx.execute(self._select(asked, by).order_by(by)))

    def _by_client_key(self, tx: Transaction, asked: UsageFilter) -> list[dict[str, Any]]:
        rows = self._grouped(tx, asked, table.c.client_key_id)
        return _by_cost({"client_key_id": row.client_key_id or None} | shown(sums_in(row)) for row in rows)


def no_usage(client_key_id: int) -> dict[str, Any]:
    """What UsageStats.client_keys has for a key with calls, for one without."""
    return {"client_key_id": client_key_id} | shown(UsageSums())


def _pool_key_names(tx: Transaction, ids: Iterable[int]) -> dict[int, str]:
    """The names of pool keys by their ids."""
    rows = tx.execute(sa.select(pool_keys.c.id, pool_keys.c.name).where(pool_keys.c.id.in_(list(ids))))
    return {row.id: row.name for row in rows}


def _upstream_names(tx: Transaction) -> dict[int, str]:
    return {row.id: row.name for row in tx.execute(sa.select(upstreams.c.id, upstreams.c.name))}


def _upstream(carrier: int, names: Mapping[int, str]) -> str | None:
    if carrier < 0:
        return shown_upstream(-carrier, names.get(-carrier))
    return OPENROUTER if carrier else None


def shown_upstream(upstream_id: int, name: str | None) -> str:
    """An upstream's name; `#` and its number once it was removed."""
    return name or f"#{upstream_id}"


def find_upstream(db: Database, name: str) -> int | None:
    """The id of the upstream of this name; POOL for that of the pool."""
    if name == OPENROUTER:
        return POOL
    with db.reading() as tx:
        return {name: number for number, name in _upstream_names(tx).items()}.get(name)


def find_pool_key(db: Database, name: str) -> int | None:
    """The id of the pool key of this name, short name or part of a name. Raises BadRequest if several match."""
    try:
        whole = get_whole_name(db, name)
    except NotFound:
        return None
    with db.reading() as tx:
        found: int | None = tx.scalar(sa.select(pool_keys.c.id).where(pool_keys.c.name == whole))
    return found


def _by_cost(items: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(items, key=lambda item: (item["cost_nano"], item["requests"]), reverse=True)


def _date(time: datetime | None) -> str | None:
    return time.astimezone(UTC).date().isoformat() if time else None
