"""Puts every sealed value under the newest encryption key while gateways serve, and tells which old keys can go.

Nothing is remembered but in the rows: each opens with one of the configured keys at every moment, so that a run that
was killed is simply started again. Processes need no reload, because the texts that they hold stay the same.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from db import Database, Transaction
from foundation.crypto import Envelopes, SealBroken
from foundation.logs import event
from tables import pool_keys, sealed_secrets, totp_secrets, upstreams, watched_keys

log = logging.getLogger("reencrypt")

BATCH_ROWS = 100  # a transaction's worth: a short lock, and little lost to a crash

# Every column that holds sealed values, after the column that names its rows in the seal.
# The canary comes first: a process that has only old keys then sees that, before it takes a row for damaged.
SEALED = (
    (sealed_secrets.c.name, sealed_secrets.c.value_encrypted),
    (pool_keys.c.id, pool_keys.c.api_key),
    (upstreams.c.id, upstreams.c.api_key),
    (watched_keys.c.id, watched_keys.c.api_key),
    (totp_secrets.c.user_id, totp_secrets.c.secret_encrypted),
    # Not oauth_states: what is sealed there lives for ten minutes, and is refused where it does not open.
)
Column = sa.Column[Any]


@dataclass(frozen=True)
class EncryptionKeyUse:
    """One configured key. position: 1 is the newest. rows: how many values only this key opens."""

    position: int
    fingerprint: str
    rows: int
    removable: bool


@dataclass(frozen=True)
class Survey:
    """Which key seals how much. broken: one line for each value that no configured key opens at its place."""

    keys: list[EncryptionKeyUse]
    broken: list[str]

    @property
    def is_done(self) -> bool:
        """True if every value opens with the newest key."""
        return not self.broken and all(key.rows == 0 for key in self.keys[1:])


def count_sealed(db: Database) -> int:
    """How many sealed values there are."""
    with db.reading() as tx:
        counts = [sa.select(sa.func.count()).where(column.is_not(None)) for _, column in SEALED]
        return sum(tx.execute(count).scalar_one() for count in counts)


def survey(db: Database, envelopes: Envelopes) -> Survey:
    """Try the configured keys on every value. Reads only.

    While a value does not open, no key is called removable: one of them may be what mends it.
    """
    needed = [0] * len(envelopes.fingerprints)
    broken = []
    for name, column, rows in _batches(db):
        for row, sealed in rows:
            try:
                needed[envelopes.sealed_by(name.table.name, column.name, row, sealed)] += 1
            except SealBroken as error:
                broken.append(str(error))
    keys = [
        EncryptionKeyUse(position, fingerprint, rows, removable=position > 1 and not rows and not broken)
        for position, (fingerprint, rows) in enumerate(zip(envelopes.fingerprints, needed, strict=True), 1)
    ]
    return Survey(keys, broken)


def reencrypt(db: Database, envelopes: Envelopes) -> Iterator[tuple[int, int]]:
    """Seal every value anew that is not under the newest key.

    Yields (values looked at, values sealed anew) after each committed batch. Values that don't open stay as they are.
    """
    for name, column, rows in _batches(db):
        changes = [change for row, sealed in rows if (change := _change(envelopes, name, column, row, sealed))]
        yield len(rows), _swap(db, name, column, changes) if changes else 0


def _batches(db: Database) -> Iterator[tuple[Column, Column, list[tuple[int | str, str]]]]:
    for name, column in SEALED:
        after = None
        while True:
            batch = sa.select(name, column).where(column.is_not(None)).order_by(name).limit(BATCH_ROWS)
            with db.reading() as tx:
                rows = tx.execute(batch if after is None else batch.where(name > after)).all()
            if not rows:
                break
            yield name, column, [(row, sealed) for row, sealed in rows]
            after = rows[-1][0]


def _change(
    envelopes: Envelopes, name: Column, column: Column, row: int | str, sealed: str
) -> tuple[int | str, str, str] | None:
    place = (name.table.name, column.name, row)
    try:
        if envelopes.sealed_by(*place, sealed) == 0:
            return None
        return row, sealed, envelopes.seal(*place, envelopes.open(*place, sealed))
    except SealBroken as error:  # evidence: left as it is
        event(log, "value_unreadable", logging.ERROR, reason=str(error))
        return None


def _swap(db: Database, name: Column, column: Column, changes: list[tuple[int | str, str, str]]) -> int:
    """Replace ciphertexts that are still as they were read: what others wrote in the meantime stays."""

    def write(tx: Transaction) -> int:
        swapped = 0
        for row, old, new in changes:
            # As bytes, because the column's collation ignores case.
            unchanged = sa.and_(name == row, sa.cast(column, sa.LargeBinary) == old.encode())
            swapped += tx.execute(name.table.update().where(unchanged).values({column.name: new})).rowcount
        return swapped

    return db.transact(write)
