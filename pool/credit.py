"""What is left at the account that pays for minted keys: only the rotation can ask, and writes it down for all."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import sqlalchemy as sa

from db import Database, DatabaseError, Transaction
from foundation.clock import Clock
from foundation.logs import event, redact
from tables import openrouter_credit as table

if TYPE_CHECKING:
    from upstream.openrouter.management_api import ManagementApi

log = logging.getLogger("rotation")

ASK_SECONDS = 300.0
NAME = "openrouter"


class AccountCredit:
    """Asks every few minutes. Not under the lease: to ask twice does no harm."""

    def __init__(self, db: Database, api: ManagementApi, clock: Clock) -> None:
        self._db = db
        self._api = api
        self._clock = clock
        self._next_at = 0.0
        self._is_unknown = False

    def note_if_due(self) -> None:
        """Ask if it is time. Never raises: the rotation goes on whatever happens."""
        now = self._clock.monotonic()
        if now < self._next_at:
            return
        self._next_at = now + ASK_SECONDS
        from upstream.openrouter.management_api import ManagementError  # here: it brings requests, which gateways lack

        try:
            self._note(self._api.credit_nano())
        except (ManagementError, DatabaseError) as error:
            if not self._is_unknown:
                event(log, "credit_unknown", logging.WARNING, reason=redact(str(error).partition("\n")[0]))
            self._is_unknown = True
            return
        self._is_unknown = False

    def _note(self, left_nano: int) -> None:
        values = {"left_nano": left_nano, "told_at": self._clock.now()}

        def write(tx: Transaction) -> None:
            if not tx.execute(table.update().where(table.c.name == NAME).values(values)).rowcount:
                tx.execute(table.insert().values(name=NAME, **values))

        self._db.transact(write)


def find_credit(db: Database) -> int | None:
    """Nano-dollars, as OpenRouter last told; None if it never did."""
    with db.reading() as tx:
        left_nano: int | None = tx.scalar(sa.select(table.c.left_nano).where(table.c.name == NAME))
    return left_nano
