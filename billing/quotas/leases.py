"""What one process has leased of quotas, in the database; and what others have that are heard of no more."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from datetime import timedelta
from functools import partial

from billing.quotas import moves
from billing.quotas.rows import Quota
from db import Database, DatabaseError, Transaction
from foundation.clock import Clock
from foundation.logs import event
from replicas.processes import beaten_at

log = logging.getLogger("quotas")

# Others take back the slices of a process that has not reported for RECLAIM; by then it has stopped to use them.
RECLAIM = timedelta(minutes=11)
TRUST = timedelta(minutes=10)


class Leases:
    """This process's rows of `quota_slices`. All methods raise DatabaseError."""

    def __init__(self, db: Database, process_id: str, clock: Clock) -> None:
        self._db = db
        self._process_id = process_id
        self._clock = clock

    def take(self, quota_id: int, grant: Callable[[int], int]) -> tuple[int, Quota]:
        """Lease what `grant` makes of what is left of a quota; how much that is, and the quota afterwards."""
        at = self._clock.now()
        return self._db.transact(lambda tx: moves.take(tx, self._process_id, quota_id, at, grant))

    def put_back(self, amounts: Mapping[int, int], keep: Callable[[], None]) -> dict[int, int]:
        """Return parts of slices, by quota id; how much of each was returned.

        keep: called if it fails and surely nothing was returned. After a commit that got lost nobody knows.
        """
        is_committing = False

        def work(tx: Transaction) -> dict[int, int]:
            nonlocal is_committing
            is_committing = False
            returned = moves.put_back(tx, self._process_id, amounts)
            is_committing = True
            return returned

        try:
            return self._db.transact(work) if amounts else {}
        except DatabaseError:
            if not is_committing:
                keep()
            raise

    def remove(self, quota_ids: Collection[int] | None = None, process_id: str | None = None) -> None:
        """Return all slices, or those of these quotas, with their rows; of this process or a dead one."""
        process_id = process_id or self._process_id
        self._db.transact(partial(moves.remove_slices, process_id=process_id, quota_ids=quota_ids))

    def held(self) -> set[int]:
        """The quotas of which this process has a slice, even an empty one."""
        with self._db.reading() as tx:
            return moves.held_by(tx, self._process_id)

    def trusted_seconds(self) -> float:
        """For how long nobody takes our slices from us, by this process's own report; 0 or less if somebody may."""
        at = self._clock.now()
        with self._db.reading() as tx:
            beat_at = beaten_at(tx, self._process_id)
        return 0 if beat_at is None else (TRUST - (at - beat_at)).total_seconds()

    def reclaim_expired(self) -> int:
        """Return the slices of processes that have been silent for RECLAIM; how many processes that were."""
        since = self._clock.now() - RECLAIM
        with self._db.reading() as tx:
            others = moves.holders(tx) - {self._process_id}
        removed = 0
        for process_id in sorted(others):
            work = partial(moves.remove_slices_if_silent, process_id=process_id, since=since)
            if self._db.transact(work):
                event(log, "quota_slices_reclaimed", logging.WARNING, process=process_id[:8])
                removed += 1
        return removed
