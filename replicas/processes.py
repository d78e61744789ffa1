"""What each gateway process reports about itself: that it lives, which keys it knows, and which carry calls right now.

The rotation lets a key go only when no process uses it any more, and operators see the whole pool. One row a process,
written anew every few seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import orjson
import sqlalchemy as sa

from db import Database, Transaction
from foundation.clock import Clock
from foundation.crypto import new_id
from tables import gateway_processes as table

# A process that has been silent for this long is dead: longer than any answer takes. Until then its calls may go on,
# even if it can't reach the database.
SILENT_IS_DEAD = timedelta(hours=2)


@dataclass(frozen=True)
class ProcessReport:
    """One process: when it last reported, the revision of `api_keys` that it knew, and what it told of keys by row id,
    and of upstreams by `upstream/<id>`.
    """

    id: str
    beat_at: datetime
    keys_revision: int
    keys: dict[str, dict[str, Any]]

    def may_use(self, row_id: int, since_revision: int) -> bool:
        """True unless this process has seen the revision at which the key was withdrawn, and has no call on it."""
        return self.keys_revision < since_revision or bool(self.keys.get(str(row_id), {}).get("in_flight"))


class GatewayProcess:
    """This process's own row."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock
        self.id = new_id()

    def beat(self, keys_revision: int, keys: dict[str, dict[str, Any]]) -> None:
        """Report now. keys: for each key, or upstream, with something to tell: {"in_flight": 2, ...}."""
        now = self._clock.now()

        def write(tx: Transaction) -> None:
            values = {"beat_at": now, "keys_revision": keys_revision, "report": orjson.dumps(keys).decode()}
            if not tx.execute(table.update().where(table.c.id == self.id).values(values)).rowcount:
                tx.execute(table.insert().values(id=self.id, **values))

        self._db.transact(write)

    def leave(self) -> None:
        """This process carries no calls any more."""
        forget(self._db, self.id)


def reports(db: Database, now: datetime) -> list[ProcessReport]:
    """All processes that may still carry calls."""
    with db.reading() as tx:
        rows = tx.execute(sa.select(table).where(table.c.beat_at > now - SILENT_IS_DEAD)).all()
    return [ProcessReport(row.id, row.beat_at, row.keys_revision, orjson.loads(row.report)) for row in rows]


def beaten_at(tx: Transaction, process_id: str) -> datetime | None:
    """When a process last reported; None if it never did, or has left."""
    return tx.scalar(sa.select(table.c.beat_at).where(table.c.id == process_id))


def is_silent(tx: Transaction, process_id: str, since: datetime) -> bool:
    """True if a process has not reported since then, and can't until this transaction ends.

    Its row is written, not only locked: by that every server notices if the process reports at the same time.
    """
    beat_at = beaten_at(tx, process_id)
    if beat_at is None:
        return True
    is_same = sa.and_(table.c.id == process_id, table.c.beat_at == beat_at)
    earlier = table.update().where(is_same).values(beat_at=beat_at - timedelta(microseconds=1))
    return beat_at < since and tx.execute(earlier).rowcount == 1


def forget_dead(db: Database, now: datetime) -> None:
    """Remove the rows of processes that are long gone."""
    db.transact(lambda tx: tx.execute(table.delete().where(table.c.beat_at <= now - SILENT_IS_DEAD)))


def forget(db: Database, process_id: str) -> None:
    """Remove the row of a process that is known to be dead: it carries no calls any more."""
    db.transact(lambda tx: tx.execute(table.delete().where(table.c.id == process_id)))
