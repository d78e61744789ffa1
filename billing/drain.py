"""Moves journals into the ledger, in the background: this process's own, and those that dead processes have left.

Each round: close the journal's segment, apply what is closed, remove it. With the database away the segments wait, in
any number. Slices of quotas are enlarged and given back here too, because what they hold follows the journal.
"""

from __future__ import annotations

import logging
import threading
import time
from functools import partial
from pathlib import Path

from billing import journal as usage_journal
from billing import set_aside
from billing.journal import UsageJournal
from billing.ledger import UsageLedger
from billing.quotas.slices import QuotaSlices
from db import Database
from foundation.logs import event
from replicas import processes
from replicas.refusals import Refusals
from replicas.repeating import repeat

log = logging.getLogger("ledger")

ROUND_SECONDS = 0.5
SLICE_SECONDS = 1.0
ADOPT_SECONDS = 5.0
RECLAIM_SECONDS = 60.0
PROBE_SECONDS = 2.0
WAIT_SECONDS = 2.0


class UsageDrain:
    """Runs in a thread of its own: the database may take its time."""

    def __init__(self, db: Database, journal: UsageJournal, ledger: UsageLedger, slices: QuotaSlices) -> None:
        self._db = db
        self._journal = journal
        self._ledger = ledger
        self._slices = slices
        self._lock = threading.Lock()
        self._drained = threading.Condition()
        self._begun = self._done = 0
        self.refusals = Refusals("ledger")
        self.set_aside = 0
        """How many records no row can hold, as of the latest look at the journal's folder."""
        self._behind_since: float | None = None
        self._next_probe = 0.0
        self._next_slices = 0.0
        self._next_adoption = 0.0
        self._next_reclaim = 0.0

    def run(self, stopping: threading.Event) -> None:
        """Go on until told to stop."""
        repeat(self.run_once, ROUND_SECONDS, stopping)

    @property
    def behind_seconds(self) -> int:
        """For how long the database has not taken what the journal holds; 0 if all is well."""
        return 0 if self._behind_since is None else round(time.monotonic() - self._behind_since)

    def run_once(self) -> None:
        """One round. Raises DatabaseError."""
        with self._lock:
            self._run_round(time.monotonic())

    def _run_round(self, now: float) -> None:
        if self._journal.fault is not None or now >= self._next_probe:
            self._next_probe = now + PROBE_SECONDS
            self._journal.retry()
        self.drain()
        if now >= self._next_slices:
            self._next_slices = now + SLICE_SECONDS
            self._slices.top_up()
            self._slices.return_idle()
        if now >= self._next_adoption:
            self._next_adoption = now + ADOPT_SECONDS
            self.adopt()
            self.set_aside = set_aside.count(self._journal.folder)
        if now >= self._next_reclaim:
            self._next_reclaim = now + RECLAIM_SECONDS
            self._slices.reclaim_expired()

    def wait(self) -> None:
        """Wait until what this process has written by now is applied, WAIT_SECONDS at most."""
        with self._drained:
            wanted = self._begun + 1  # one that is under way may have passed it over
            self._drained.wait_for(lambda: self._done >= wanted, WAIT_SECONDS)

    def drain(self) -> None:
        """Apply what this process has written so far. Raises DatabaseError, OSError."""
        with self._drained:
            self._begun += 1
        self._apply_written()
        with self._drained:
            self._done = self._begun
            self._drained.notify_all()

    def _apply_written(self) -> None:
        segments = self._journal.take()
        if segments:  # from now on, so that a database that hangs is seen too
            self._behind_since = self._behind_since or time.monotonic()
        for segment in segments:
            self.refusals.watch(partial(self._apply, self._journal.process_id, segment))
        self._behind_since = None

    def adopt(self) -> None:
        """Apply the journals of dead processes, and close what they left open. Raises DatabaseError."""
        for lock_file in usage_journal.lock_files(self._journal.folder):
            if lock_file.name.startswith(self._journal.process_id):
                continue
            with usage_journal.adopt(lock_file) as dead:
                if dead is None:
                    continue
                for segment in dead.segments:
                    self._apply(dead.process_id, segment)
                self._ledger.close_dead(dead.process_id)
                self._slices.return_slices_of([dead.process_id])
                processes.forget(self._db, dead.process_id)
                usage_journal.forget(self._journal.folder, dead.process_id)
                event(log, "journal_adopted", logging.WARNING, process=dead.process_id, segments=len(dead.segments))

    def finish(self) -> None:
        """The last round, when no call is running any more. What can't be applied now waits for another process."""
        with self._lock:  # a round that is under way would lease slices again
            try:
                self._journal.retry()
                self._journal.seal()
                self.drain()
                self._apply_waiting()
                self._slices.return_all()
            finally:
                self._journal.close()

    def _apply_waiting(self) -> None:
        """Apply what the disk has not taken up to the end: memory will not outlive us."""
        if waiting := self._journal.waiting():
            self._ledger.apply(self._journal.process_id, waiting)
            self._journal.drop_waiting()

    def _apply(self, process_id: str, segment: Path) -> None:
        unreadable: list[bytes] = []
        waited_seconds = max(time.time() - segment.stat().st_mtime, 0.0)  # by one clock, whatever it says
        unusable = self._ledger.apply(process_id, usage_journal.read(segment, unreadable), waited_seconds)
        set_aside.keep(segment, unreadable, [each.record for each in unusable])
        segment.unlink(missing_ok=True)
