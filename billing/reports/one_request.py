"""One request, whole: what the log says of it, and each of its tries."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from billing.reports.log_items import items_of
from db import Database
from foundation.errors import NotFound
from foundation.money import usd
from tables import pool_keys, upstreams
from tables import usage_ledger as ledger

OWN = ("attempt", "state", "source", "cost_nano", "cost_usd", "generation_id")
"""What its caller sees of a try. Why a try failed that another one followed may be about our keys."""


def get_request(db: Database, request_id: str, user_id: int | None = None) -> dict[str, Any]:
    """A request as the log shows it, with `attempts`, first to last. Raises NotFound.

    user_id: whose it must be, and what is shown is what its caller may see; None for operators.

    A try: attempt, state, source, cost_nano, cost_usd and generation_id; for operators pool_key, upstream, status,
    error_type, error_message and ms too. A try that was refused or failed says why by the name of its kind.
    """
    joined = ledger.outerjoin(pool_keys, pool_keys.c.id == ledger.c.pool_key_id)
    joined = joined.outerjoin(upstreams, upstreams.c.id == ledger.c.upstream_id)
    names = pool_keys.c.name.label("pool_key"), upstreams.c.name.label("upstream_name")
    query = sa.select(ledger, *names).select_from(joined).where(ledger.c.request_id == request_id)
    with db.reading() as tx:
        rows = tx.execute(query.order_by(ledger.c.attempt)).mappings().all()
        if not rows or user_id not in {None, rows[0]["user_id"]}:
            raise NotFound(
                f"There is no request {request_id} here; ids are in X-Request-Id, and in the log of requests"
            )
        [item] = items_of(tx, [request_id])
    shown = item.to_dict(for_operator=user_id is None)
    return shown | {"attempts": [_try(dict(row), user_id is None) for row in rows if row["attempt"]]}


def _try(row: dict[str, Any], for_operator: bool) -> dict[str, Any]:
    shown = {name: row[name] for name in OWN if name != "cost_usd"} | {"cost_usd": usd(row["cost_nano"])}
    if not for_operator:
        return shown
    more = {"pool_key": row["pool_key"], "upstream": row["upstream_name"], "status": row["http_status"]}
    return (
        shown | more | {"error_type": row["error_type"], "error_message": row["error_message"], "ms": row["total_ms"]}
    )
