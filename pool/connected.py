"""Users' own accounts at OpenRouter, one for each user at most: how each is connected, and what is left in it.

The key itself is a row of the pool (pool/keys.py) with an owner, so that calls get it as they get any dedicated key.
What is here is for showing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

import sqlalchemy as sa

from db import Database, Duplicate, Transaction
from foundation.clock import Clock
from foundation.crypto import SealBroken
from foundation.errors import Conflict, NotFound
from pool.keys import PoolKeys
from replicas.revisions import bump
from tables import openrouter_accounts as table
from tables import pool_keys
from upstream.openrouter.account_api import AccountApi
from upstream.openrouter.key_facts import KeyAccount


class Method(StrEnum):
    """How an account was connected."""

    KEY = "key"
    OAUTH = "oauth"


@dataclass(frozen=True)
class ConnectedAccount:
    """A user's connection. Money in nano-dollars; None means no limit, or unknown. checked_at: when that was told."""

    user_id: int
    pool_key_id: int
    method: Method
    label: str | None
    connected_at: datetime
    checked_at: datetime | None
    limit_nano: int | None
    remaining_nano: int | None
    usage_nano: int | None


class ConnectedAccounts:
    """Connected, shown, disconnected: in force in every process within two seconds. api: asks OpenRouter about them."""

    def __init__(self, db: Database, keys: PoolKeys, clock: Clock, api: AccountApi) -> None:
        self.api = api
        self._db = db
        self._keys = keys
        self._clock = clock

    def find(self, user_id: int) -> ConnectedAccount | None:
        """The user's connection."""
        columns = [table.c[name] for name in ConnectedAccount.__dataclass_fields__]
        with self._db.reading() as tx:
            row = tx.execute(sa.select(*columns).where(table.c.user_id == user_id)).first()
        return ConnectedAccount(**row._asdict() | {"method": Method(row.method)}) if row else None

    def get(self, user_id: int) -> ConnectedAccount:
        """The user's connection. Raises NotFound."""
        account = self.find(user_id)
        if account is None:
            raise NotFound("No OpenRouter account of yours is connected")
        return account

    def key_text(self, account: ConnectedAccount) -> str | None:
        """The connection's key; None if it does not open, or was disconnected a moment ago."""
        text = self._keys.texts([account.pool_key_id]).get(account.pool_key_id)
        return None if text is None or isinstance(text, SealBroken) else text

    def connect(
        self,
        user_id: int,
        text: str,
        method: Method,
        told: KeyAccount | None,
        first: Callable[[Transaction], None] = lambda _: None,
    ) -> ConnectedAccount:
        """Store a key, in the place of the one before. told: what OpenRouter says of it, if it was asked.

        first: done in the same transaction, before: if it raises, nothing is connected. Raises Conflict for a key that
        somebody else has connected, or the service itself uses.
        """
        values: dict[str, Any] = {"user_id": user_id, "method": method, "connected_at": self._clock.now()}

        def replace(tx: Transaction) -> None:
            first(tx)
            bump(tx, pool_keys.name)  # first: of a user's parallel connections each sees the one before
            self._drop(tx, user_id)
            key_id = self._keys.add_connected(tx, user_id, text, told.account_id if told else None)
            tx.execute(table.insert().values(values | {"pool_key_id": key_id} | self._told(told)))

        try:
            self._db.transact(replace)
        except Duplicate:
            raise Conflict(
                "This OpenRouter key is in use here already; make another one at https://openrouter.ai/settings/keys"
            ) from None
        return self.get(user_id)

    def disconnect(self, user_id: int) -> bool:
        """Overwrite the user's key; False if there was none."""

        return self._db.transact(lambda tx: self.drop(tx, user_id))

    def drop(self, tx: Transaction, user_id: int) -> bool:
        """The same, in a transaction that has locked nothing of the pool yet."""
        bump(tx, pool_keys.name)
        return self._drop(tx, user_id)

    def note(self, account: ConnectedAccount, told: KeyAccount) -> None:
        """Keep what OpenRouter has just said of a connection, unless it was replaced meanwhile."""
        this = sa.and_(table.c.user_id == account.user_id, table.c.pool_key_id == account.pool_key_id)
        self._db.transact(lambda tx: tx.execute(table.update().where(this).values(self._told(told))))

    def _told(self, told: KeyAccount | None) -> dict[str, Any]:
        if told is None:
            return {}
        values = {name: getattr(told, name) for name in ("label", "limit_nano", "remaining_nano", "usage_nano")}
        return values | {"checked_at": self._clock.now()}

    def _drop(self, tx: Transaction, user_id: int) -> bool:
        key_id = tx.scalar(sa.select(table.c.pool_key_id).where(table.c.user_id == user_id).with_for_update())
        if key_id is None:
            return False
        self._keys.drop_connected(tx, key_id)
        tx.execute(table.delete().where(table.c.user_id == user_id))
        return True
