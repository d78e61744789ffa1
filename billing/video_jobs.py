"""Jobs that make videos: which call of the ledger started one, and what its answers mean for the cost of that call.

A job's row is written in the transaction that writes its call's, from the journal, so that neither is there alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import sqlalchemy as sa

from billing.details import cost_of, details_of
from billing.records import OPEN, State
from db import Database, Transaction
from formats.videos import generation_id_in
from storage.many_rows import upsert_rows
from tables import usage_ledger
from tables import video_jobs as table

Row = dict[str, Any]
RowKey = tuple[str, int]

COMPLETED = "completed"
OVER = {COMPLETED, "failed", "cancelled", "expired"}
IS_OF_CALL = sa.and_(
    table.c.request_id == usage_ledger.c.request_id,
    table.c.attempt == usage_ledger.c.attempt,
)


class StartedJob(NamedTuple):
    """A job, and the call that started it."""

    id: str
    call: RowKey
    pool_key_id: int
    is_open: bool
    """False once its cost is known, or given up."""


def taken_out(facts: Mapping[RowKey, Row]) -> tuple[dict[RowKey, str], Mapping[RowKey, Row]]:
    """The ids of jobs among facts about calls, and the facts without them."""
    jobs = {call: row["job_id"] for call, row in facts.items() if "job_id" in row}
    if not jobs:
        return jobs, facts
    return jobs, {call: {name: value for name, value in row.items() if name != "job_id"} for call, row in facts.items()}


def insert(tx: Transaction, jobs: Mapping[RowKey, str]) -> None:
    """Note jobs by the calls that started them; may be done again. An id that another call has stays that call's."""
    rows = [{"id": job_id, "request_id": call[0], "attempt": call[1]} for call, job_id in sorted(jobs.items())]
    upsert_rows(tx, table, rows, setting=["id"])


def find(db: Database, job_id: str, user_id: int, client_key_id: int | None = None) -> StartedJob | None:
    """A job of this user's; None if it is somebody else's, or was not started here. Raises DatabaseError.

    client_key_id: only if it was started with this key.
    """
    call = usage_ledger.c
    query = sa.select(call.request_id, call.attempt, call.user_id, call.client_key_id, call.pool_key_id, call.state)
    query = query.select_from(usage_ledger.join(table, IS_OF_CALL)).where(table.c.id == job_id)
    with db.reading() as tx:
        row = tx.execute(query).one_or_none()
    if row is None or row.user_id != user_id or client_key_id not in {None, row.client_key_id}:
        return None
    return StartedJob(job_id, (row.request_id, row.attempt), row.pool_key_id, row.state in OPEN)


def delete_without_call(tx: Transaction, low: str, high: str) -> None:
    """Delete the jobs of requests after one id up to another whose calls the ledger has no more."""
    has_call = sa.exists().where(IS_OF_CALL)
    tx.execute(table.delete().where(table.c.request_id > low, table.c.request_id <= high, ~has_call))


def facts_of(job: Mapping[str, Any]) -> Row | None:
    """What a job says of its call's cost, for the ledger; None if it does not say yet.

    What did not come to its end is free, unless OpenRouter says that it cost something.
    """
    if job.get("status") not in OVER:
        return None
    usage = job.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    cost_nano = cost_of(usage.get("cost"))
    if not cost_nano and job["status"] != COMPLETED:
        return {"state": State.VOID}
    if cost_nano is None:
        return None
    facts: Row = {"state": State.SETTLED, "source": "job", "cost_nano": cost_nano, **details_of(usage)}
    if generation_id := generation_id_in(dict(job)):
        facts["generation_id"] = generation_id
    return facts
