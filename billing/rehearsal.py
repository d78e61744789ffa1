"""One call's accounting, rehearsed: every kind of statement that it takes, in a transaction that is rolled back.

Servers that speak MySQL differ in what they refuse, and some accept what they don't do. Without this every page of such
an installation would work, and no call be accounted for.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from billing import latency_rollups, rollups
from billing.ledger import JournalOrigin, UsageLedger
from billing.quotas import moves
from billing.quotas.rows import ensure_rows
from billing.records import State
from db import Database, DatabaseError, Transaction, is_away
from foundation.clock import Clock
from foundation.crypto import new_id
from replicas.processes import is_silent
from replicas.refusals import reason_of
from start_up import CannotStart
from tables import gateway_processes, quotas, usage_ledger, usage_rollups

# What passes by itself, and is told by health: a process starts with it.
PASSING = {"read-only", "full", "locked"}
NOBODY = 2**62  # a user that nobody is


class _Over(Exception):
    """The rehearsal came to its end: nothing of it stays."""


def rehearse(db: Database, clock: Clock) -> None:
    """Account for a call of nobody's. Raises CannotStart with the statement that is refused, DatabaseError if away."""

    def work(tx: Transaction) -> None:
        _account(tx, UsageLedger(db, clock), clock.now())
        raise _Over

    try:
        db.transact(work)
    except _Over:
        return
    except DatabaseError as error:
        if is_away(error):
            raise
        if reason_of(error) in PASSING:
            return
        raise CannotStart(f"the database can't keep accounts: it refuses {_told(error)}") from None


def _told(error: DatabaseError) -> str:
    """The statement, without what it would have written, and the server's words."""
    if not isinstance(error, DBAPIError):
        return type(error).__name__
    statement = re.sub(r"VALUES \(.*\)( ON|$)", r"VALUES (...)\1", " ".join(str(error.statement).split()))
    return f"{statement} ({error.orig})"


def _account(tx: Transaction, ledger: UsageLedger, now: datetime) -> None:
    """What a call costs goes all the way, through a lease of a quota; checked by what is in the tables then."""
    process_id, subject = new_id(), f"user/{NOBODY}"
    tx.execute(gateway_processes.insert().values(id=process_id, beat_at=now, keys_revision=0, report="{}"))
    quota_id = ensure_rows(tx, [subject], now)[subject]
    moves.take(tx, process_id, quota_id, now, lambda _: 20)
    request_id = f"{int(now.timestamp() * 1000):012x}{new_id()[:20]}"
    call = {"request_id": request_id, "attempt": 1, "user_id": NOBODY, "client_key_id": None, "pool_key_id": None}
    call |= {"model": "rehearsal", "is_stream": False, "reserved_nano": 10, "estimate_nano": 0}
    begun = call | {"state": State.DISPATCHED, "user_quota_id": quota_id, "key_quota_id": None}
    paid = {"state": State.SETTLED, "source": "body", "cost_nano": 7, "is_last": True, "outcome": "complete"}
    for facts in (begun, paid):
        ledger.write(tx, {(request_id, 1): facts}, JournalOrigin(process_id, now))
    moves.put_back(tx, process_id, {quota_id: 5})
    found = _found(tx, quota_id)
    if found != (7, 8, 7):  # 20 leased, of which the call took 7 and 5 went back
        raise CannotStart(f"the database can't keep accounts: it says {found} where (7, 8, 7) is right")
    if not is_silent(tx, process_id, now + timedelta(seconds=1)):
        raise CannotStart("the database can't keep accounts: it does not say how many rows an update has changed")
    moves.remove_slices(tx, process_id)
    rollups.delete_old(tx, rollups.HOUR, now.replace(year=1970), NOBODY)
    latency_rollups.delete_old(tx, rollups.HOUR, now.replace(year=1970))
    tx.execute(usage_ledger.delete().where(usage_ledger.c.request_id.in_([request_id])))


def _found(tx: Transaction, quota_id: int) -> tuple[int, int, int]:
    """What is spent and reserved of the quota, and the sum of the hour."""
    quota = tx.execute(sa.select(quotas).where(quotas.c.id == quota_id)).one()
    mine = usage_rollups.c.user_id == NOBODY, usage_rollups.c.period == rollups.HOUR
    cost_nano = tx.scalar(sa.select(sa.func.sum(usage_rollups.c.cost_nano)).where(*mine))
    return quota.spent_nano, quota.reserved_nano, int(cost_nano or 0)
