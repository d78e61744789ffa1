"""Recovery codes: each lets its owner set a new key once, in the place of a forgotten password.

Ten at a time, of 100 random bits each; their text exists once, in the answer that made them. New ones end the old ones.
"""

from __future__ import annotations

import secrets
from datetime import datetime

import sqlalchemy as sa

from accounts.deleted import hold_account
from db import Database, Transaction
from foundation.clock import Clock
from foundation.crypto import sha256_hex
from foundation.errors import Unauthorized
from tables import recovery_codes as table

CODES = 10
ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford's base 32: what is read as another letter is none
CHARACTERS, GROUP = 20, 5
MAX_TYPED = 64
MISREAD = str.maketrans({"O": "0", "I": "1", "L": "1"}) | dict.fromkeys(map(ord, " -–\t"))


class RecoveryCodes:
    """The rows."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock

    def renew(self, user_id: int) -> list[str]:
        """Ten new codes, as people read them; those before are good no more."""
        codes, now = [_new_code() for _ in range(CODES)], self._clock.now()
        rows = [{"user_id": user_id, "code_hash": _hash(code), "created_at": now} for code in codes]

        def replace(tx: Transaction) -> None:
            hold_account(tx, user_id)  # one at a time
            tx.execute(table.delete().where(table.c.user_id == user_id))
            tx.execute(table.insert(), rows)

        self._db.transact(replace)
        return codes

    def left(self, user_id: int) -> tuple[int, datetime | None]:
        """How many are left, and when they were made; None if they never were."""
        unused = sa.func.sum(sa.case((table.c.used_at.is_(None), 1), else_=0))
        with self._db.reading() as tx:
            row = tx.execute(sa.select(unused, sa.func.max(table.c.created_at)).where(_of(user_id))).one()
        return int(row[0] or 0), row[1]

    def is_good(self, user_id: int | None, code: str) -> bool:
        """True if this is an unused code of theirs; it stays unused. The same query for nobody."""
        with self._db.reading() as tx:
            return tx.scalar(sa.select(table.c.id).where(_is(user_id or 0, code))) is not None

    def use(self, tx: Transaction, user_id: int, code: str) -> None:
        """Use one up, in the transaction that it is used for. Raises Unauthorized if it is none, or not any more."""
        used = table.update().where(_is(user_id, code)).values(used_at=self._clock.now())
        # The row count decides: of any number of parallel tries with one code one gets it.
        if tx.execute(used).rowcount != 1:
            raise Unauthorized("Invalid credentials")


def _new_code() -> str:
    letters = "".join(secrets.choice(ALPHABET) for _ in range(CHARACTERS))
    return "-".join(letters[begin : begin + GROUP] for begin in range(0, CHARACTERS, GROUP))


def _hash(typed: str) -> str:
    """What is stored of a code, however it was typed."""
    return sha256_hex(f"recovery-code {typed.upper().translate(MISREAD)}")


def _of(user_id: int) -> sa.ColumnElement[bool]:
    return table.c.user_id == user_id


def _is(user_id: int, code: str) -> sa.ColumnElement[bool]:
    return sa.and_(_of(user_id), table.c.code_hash == _hash(code), table.c.used_at.is_(None))
