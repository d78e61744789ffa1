"""Who rotates: one process at a time, by a lease in the database, and only the deployment that the database belongs to.

Each leader gets a higher number, the epoch. Every write of a rotation checks, in its own transaction, that its epoch is
still the newest, so a leader that slept through the end of its lease writes nothing more. OpenRouter can't be fenced
like that: what the rotation does there is safe to do twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa

from db import Database, Transaction
from foundation.clock import Clock
from foundation.crypto import new_id, same, sha256_hex
from tables import rotator as table

# Longer than the longest time between two checks: one call to OpenRouter with its time-out.
LEASE = timedelta(seconds=90)


class LeaseLost(Exception):
    """Another process rotates now; this one must stop."""


class WrongDeployment(Exception):
    """The database belongs to a deployment with another DEPLOYMENT_ID."""


@dataclass(frozen=True)
class RotationStatus:
    """What everybody may know of the rotation. is_running: a pass is being made at this moment."""

    is_running: bool
    deletions_held_until: datetime | None


def rotation_status(db: Database, now: datetime) -> RotationStatus:
    """How the rotation is."""
    with db.reading() as tx:
        row = tx.execute(sa.select(table.c.lease_until, table.c.deletions_held_until)).one()
    return RotationStatus(bool(row.lease_until and row.lease_until > now), row.deletions_held_until)


class RotationLease:
    """The right to rotate. `take` it for a pass, `release` it after."""

    def __init__(self, db: Database, clock: Clock, deployment_id: str) -> None:
        self._db = db
        self._clock = clock
        self._deployment_hash = sha256_hex(f"deployment {deployment_id}")
        self._owner = new_id()
        self._epoch = 0

    def take(self, claim: bool = False) -> bool:
        """True if this process may rotate now. Raises WrongDeployment.

        claim: whichever deployment the database belonged to, from now on it is this one's.
        """
        now = self._clock.now()

        def take(tx: Transaction) -> int:
            if not claim:
                self._check_deployment(tx)
            free = sa.or_(table.c.lease_until.is_(None), table.c.lease_until <= now, table.c.owner == self._owner)
            values = {"owner": self._owner, "epoch": table.c.epoch + 1, "lease_until": now + LEASE}
            values["deployment_hash"] = self._deployment_hash
            if not tx.execute(table.update().where(free).values(values)).rowcount:
                return 0
            epoch: int = tx.execute(sa.select(table.c.epoch)).scalar_one()
            return epoch

        self._epoch = self._db.transact(take)
        return self._epoch > 0

    def check_deployment(self) -> None:
        """Raises WrongDeployment."""
        self._db.transact(self._check_deployment)

    def _check_deployment(self, tx: Transaction) -> None:
        # With the lock that the update needs: between the two another deployment's first pass could come and go.
        known = tx.execute(sa.select(table.c.deployment_hash).with_for_update()).scalar_one()
        if known is not None and not same(known, self._deployment_hash):
            raise WrongDeployment(
                "this database belongs to a deployment with another DEPLOYMENT_ID. If it is a copy, run "
                "`python key_rotation.py --claim` to make it this deployment's, with keys of its own"
            )

    def guard(self, tx: Transaction) -> None:
        """Within a writing transaction: go on only as the leader, and stay it. Raises LeaseLost."""
        mine = sa.and_(table.c.owner == self._owner, table.c.epoch == self._epoch)
        values = {"lease_until": self._clock.now() + LEASE}
        if not tx.execute(table.update().where(mine).values(values)).rowcount:
            raise LeaseLost("another process rotates now")

    def renew(self) -> None:
        """Stay the leader for another LEASE. Raises LeaseLost."""
        self._db.transact(self.guard)

    def release(self) -> None:
        """Let another process rotate at once."""
        mine = sa.and_(table.c.owner == self._owner, table.c.epoch == self._epoch)
        self._db.transact(lambda tx: tx.execute(table.update().where(mine).values(lease_until=None)))

    # ── what one leader leaves for the next

    def hold_deletions(self, until: datetime) -> None:
        """Let no rotation delete anything before this time."""

        def hold(tx: Transaction) -> None:
            self.guard(tx)
            tx.execute(table.update().values(deletions_held_until=until))

        self._db.transact(hold)

    def deletions_held_until(self) -> datetime | None:
        """Before this time nothing may be deleted."""
        with self._db.reading() as tx:
            held: datetime | None = tx.execute(sa.select(table.c.deletions_held_until)).scalar_one()
        return held
