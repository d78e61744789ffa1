"""Which of the tables that processes copy into memory has changed: bumped by writers, watched by every process.

A write that others must see raises its table's number in the same transaction. Each process asks for all numbers
once a second, one small query, and reloads what moved: a change reaches every process within two seconds.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import sqlalchemy as sa

from db import Database, DatabaseError, Transaction, set_clock
from foundation.clock import Clock
from foundation.logs import event
from tables import revisions as table

log = logging.getLogger("revisions")

WARN_SECONDS = 60.0


def bump(tx: Transaction, name: str) -> None:
    """Tell every process to reload its copy of `name`."""
    tx.execute(table.update().where(table.c.name == name).values(value=table.c.value + 1))


def current(tx: Transaction, name: str) -> int:
    """The revision of `name` as this transaction sees it."""
    value: int = tx.execute(sa.select(table.c.value).where(table.c.name == name)).scalar_one()
    return value


class RevisionWatcher:
    """Keeps this process's copies fresh. Call `watch` for each copy, then `check` once a second."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock
        self._warn_at = 0.0
        self._reloads: dict[str, Callable[[], None]] = {}
        self._seen: dict[str, int] = {}
        self._lock = threading.Lock()
        self.database_is_up = True

    def watch(self, name: str, reload: Callable[[], None]) -> None:
        """Call `reload` whenever the revision of `name` moves, and at the first check."""
        self._reloads[name] = reload

    def seen(self, name: str) -> int:
        """The revision of this process's copy of `name`; 0 before the first check."""
        return self._seen.get(name, 0)

    @property
    def is_complete(self) -> bool:
        """True once every copy has been loaded."""
        return self._seen.keys() >= self._reloads.keys()

    def check(self) -> None:
        """Reload what has changed, and set the clock by the database's.

        With the database away the copies stay in use, and the log says so once a minute.
        A fault of one copy does not keep the others from being reloaded; it is raised after them.
        """
        with self._lock:
            faults: list[Exception] = []
            try:
                with self._db.reading() as tx:
                    set_clock(self._clock, tx)
                    current = {row.name: row.value for row in tx.execute(sa.select(table))}
                for name, reload in self._reloads.items():
                    # Seen only after the reload: one that fails is tried again.
                    if current.get(name, 0) != self._seen.get(name):
                        try:
                            reload()
                            self._seen[name] = current.get(name, 0)
                        except DatabaseError:
                            raise
                        except Exception as fault:  # noqa: BLE001 - raised below
                            faults.append(fault)
            except DatabaseError as error:
                if self.database_is_up or self._clock.monotonic() >= self._warn_at:
                    event(log, "database_unreachable", logging.WARNING, error=type(error).__name__)
                    self._warn_at = self._clock.monotonic() + WARN_SECONDS
                self.database_is_up = False
                return
            if not self.database_is_up:
                event(log, "database_reachable_again", logging.WARNING)
            self.database_is_up = True
            if faults:
                raise faults[0]
