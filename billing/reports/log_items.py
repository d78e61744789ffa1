"""What the log says of one request: its ledger rows, a row for each try, put together."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from accounts import labels
from billing import details
from billing.effects import is_lost
from billing.records import State
from billing.reports.statistics import shown_upstream
from db import Transaction
from foundation.money import usd
from pool.life import PoolKeySource
from tables import pool_keys, upstreams, users
from tables import usage_ledger as ledger
from upstream.registry import OPENROUTER

# Of a request with several tries the log shows the state that leaves most open.
STATES = [State.DISPATCHED, State.STREAMING, State.PENDING, State.UNKNOWN, State.ESTIMATED, State.SETTLED, State.VOID]


@dataclass(frozen=True)
class LogItem:
    """One request. tokens: of all its tries; cost_nano: what its caller pays, which is not what a try cost that another
    one followed; None while unknown. tries: calls upstream.

    What they consist of (billing/details.py) is None where it is 0 or nobody has told.

    user_label: what operators call the user. asked_model: what the client asked for, where that led to another model.

    upstream: where it went, `openrouter` for the pool; None if it never went up. error_type, error_message: why it was
    refused or failed, as the client was told; None if it was not, or nobody was there to be told.
    """

    request_id: str
    created_at: datetime
    user_id: int
    user_label: str | None
    client_key_id: int | None
    model: str
    asked_model: str | None
    upstream: str | None
    pool_key: str | None
    status: int | None
    outcome: str | None
    error_type: str | None
    error_message: str | None
    stream: bool
    state: str
    source: str | None
    prompt_tokens: int | None
    completion_tokens: int | None
    cached_tokens: int | None
    reasoning_tokens: int | None
    image_tokens: int | None
    web_searches: int | None
    cost_nano: int | None
    byok_nano: int | None
    tries: int
    first_byte_ms: int | None
    total_ms: int | None

    def to_dict(self, for_operator: bool = False) -> dict[str, Any]:
        """As JSON, with the names of `columns`."""
        shown = {name: getattr(self, name) for name in columns(for_operator) if name != "cost_usd"}
        shown["created_at"] = self.created_at.isoformat(timespec="milliseconds")
        shown["cost_usd"] = usd(self.cost_nano)
        return shown


OPERATORS = {"user_id", "user_label", "pool_key"}


def columns(for_operator: bool) -> list[str]:
    """What is shown of a request. Whose it is and which pool key carried it are the operator's alone to see."""
    names = [*(field.name for field in fields(LogItem)), "cost_usd"]
    return names if for_operator else [name for name in names if name not in OPERATORS]


def items_of(tx: Transaction, request_ids: list[str]) -> list[LogItem]:
    """These requests with all their tries, in this order."""
    joined = ledger.outerjoin(pool_keys, pool_keys.c.id == ledger.c.pool_key_id)
    joined = joined.outerjoin(upstreams, upstreams.c.id == ledger.c.upstream_id)
    joined = joined.outerjoin(users, users.c.id == ledger.c.user_id)
    names = pool_keys.c.name.label("pool_key"), upstreams.c.name.label("upstream"), *labels.COLUMNS
    query = sa.select(ledger, *names, pool_keys.c.source.label("key_source")).select_from(joined)
    tries: dict[str, list[sa.Row[Any]]] = {}
    query = query.where(ledger.c.request_id.in_(request_ids)).with_hint(ledger, "FORCE INDEX (PRIMARY)", "mysql")
    for row in tx.execute(query.order_by(ledger.c.attempt)):
        tries.setdefault(row.request_id, []).append(row)
    return [_item(tries[request_id]) for request_id in request_ids if request_id in tries]


def _item(tries: list[sa.Row[Any]]) -> LogItem:
    last = next((row for row in tries if row.is_last), tries[-1])
    paid = [row for row in tries if not is_lost(row.is_last, row.key_source == PoolKeySource.CONNECTED)]
    priced = [row for row in paid if row.cost_nano is not None]
    return LogItem(
        request_id=last.request_id,
        created_at=last.created_at,
        user_id=last.user_id,
        user_label=labels.shown_label(last.label, last.display_name, last.shares_name),
        client_key_id=last.client_key_id,
        model=last.model,
        asked_model=last.asked_model,
        upstream=_upstream(last),
        pool_key=last.pool_key,
        status=last.http_status,
        outcome=last.outcome,
        error_type=last.error_type,
        error_message=last.error_message,
        stream=last.is_stream,
        state=min((row.state for row in tries), key=STATES.index),
        source=priced[-1].source if priced else None,
        prompt_tokens=_sum(row.prompt_tokens for row in tries),
        completion_tokens=_sum(row.completion_tokens for row in tries),
        **{name: _sum(getattr(row, name) for row in tries) for name in details.NAMES},
        cost_nano=0 if all(row.state == "void" for row in tries) else _sum(row.cost_nano for row in paid),
        tries=sum(row.attempt > 0 for row in tries),
        first_byte_ms=last.first_byte_ms,
        total_ms=last.total_ms,
    )


def _upstream(row: sa.Row[Any]) -> str | None:
    if row.upstream_id is not None:
        return shown_upstream(row.upstream_id, row.upstream)
    return None if row.pool_key_id is None else OPENROUTER


def _sum(amounts: Iterable[int | None]) -> int | None:
    known = [amount for amount in amounts if amount is not None]
    return sum(known) if known else None
