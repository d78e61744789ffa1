"""Model calls that are refused at the door: each has a row in the ledger, or is counted in a sum.

A caller's refusals have rows, MOST_ROWS a minute; what comes on top, and what strangers ask, is counted by hour. All of
it waits in memory until the background writes it: a refusal that waited for a disk would hold a thread that others
need. Neither the log nor the memory grows with a flood.
"""

from __future__ import annotations

import threading
from collections import Counter
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from accounts.caller import Caller
from billing.journal import UsageJournal
from billing.records import Record, State
from db import Database
from foundation.clock import Clock
from foundation.counts import Counts
from storage.many_rows import upsert_rows
from tables import refusal_sums as table

MOST_ROWS = 60  # a minute for each caller
MOST_WAITING = 5000  # rows in memory
MOST_SUMS = 2000  # an hour; who comes later is counted together
OTHERS = "others"

Sums = Counter[tuple[datetime, str, str]]


class RefusedCalls:
    """Counts this process's refusals. reasons: error_type, error_message, as the ledger's columns hold them."""

    def __init__(self, db: Database, journal: UsageJournal, clock: Clock, counts: Counts) -> None:
        self._db = db
        self._journal = journal
        self._clock = clock
        self._counts = counts
        self._minute = 0
        self._rows: Counter[int] = Counter()
        self._sums: Sums = Counter()
        self._hour: datetime | None = None
        self._places: set[tuple[str, str]] = set()  # the sums of this hour, written ones too
        self._waiting: list[Record] = []
        self._lock = threading.Lock()

    def note(self, request_id: str, caller: Caller, status: int, reasons: Record) -> None:
        """A caller's call was refused before it began."""
        minute = int(self._clock.monotonic() // 60)
        self._count_one(reasons)
        with self._lock:
            if minute != self._minute:
                self._minute, self._rows = minute, Counter()
            self._rows[caller.user_id] += 1
            if self._rows[caller.user_id] > MOST_ROWS or len(self._waiting) >= MOST_WAITING:
                self._count(f"user/{caller.user_id}", reasons["error_type"])
                return
            row: Record = {"request_id": request_id, "attempt": 0, "state": State.VOID, "is_last": True}
            row |= {"user_id": caller.user_id, "client_key_id": caller.client_key_id, "model": "", "is_stream": False}
            row |= {"outcome": "refused", "reserved_nano": 0, "estimate_nano": 0, "http_status": status, "total_ms": 0}
            self._waiting.append(row | reasons)

    def note_stranger(self, address: str, reasons: Record) -> None:
        """Somebody was refused of whom nothing is known but where they are."""
        self._count_one(reasons)
        with self._lock:
            self._count(f"address/{address}", reasons["error_type"])

    def _count_one(self, reasons: Record) -> None:
        self._counts.add("calls", "none", "refused")
        self._counts.add("errors", reasons["error_type"])

    def _count(self, caller: str, error_type: str) -> None:
        hour = self._clock.now().replace(minute=0, second=0, microsecond=0)
        if hour != self._hour:
            self._hour, self._places = hour, set()
        place = caller[:64], error_type
        if place not in self._places and len(self._places) >= MOST_SUMS:
            place = OTHERS, error_type
        else:
            self._places.add(place)
        self._sums[(hour, *place)] += 1

    def write_rows(self) -> None:
        """Hand the rows to the journal. No money is in them: those that it can't take are lost."""
        with self._lock:
            rows, self._waiting = self._waiting, []
        with suppress(OSError):
            for row in rows:
                self._journal.append(row)

    def write_sums(self) -> None:
        """Add what was counted to the table. Raises DatabaseError: then it is counted still."""
        with self._lock:
            sums, self._sums = self._sums, Counter()
        names = "start", "caller", "error_type", "refusals"
        rows = [dict(zip(names, (*place, count), strict=True)) for place, count in sorted(sums.items())]
        try:
            if rows:
                self._db.transact(lambda tx: upsert_rows(tx, table, rows, adding=["refusals"]))
        except BaseException:
            with self._lock:
                self._sums.update(sums)
            raise


def latest(db: Database, since: datetime, most: int) -> list[dict[str, Any]]:
    """Sums since then, the most refused first: {"caller", "error_type", "refusals", "latest"}, the last one an hour."""
    count, last = sa.func.sum(table.c.refusals).label("refusals"), sa.func.max(table.c.start).label("latest")
    query = sa.select(table.c.caller, table.c.error_type, count, last).where(table.c.start >= since)
    query = query.group_by(table.c.caller, table.c.error_type).order_by(count.desc()).limit(most)
    with db.reading() as tx:
        rows = tx.execute(query).all()
    return [
        {"caller": row.caller, "error_type": row.error_type, "refusals": int(row.refusals), "latest": row.latest}
        for row in rows
    ]


def delete_old(db: Database, before: datetime) -> None:
    """Delete the sums of hours that ended before."""
    db.transact(lambda tx: tx.execute(table.delete().where(table.c.start < before - timedelta(hours=1))))
