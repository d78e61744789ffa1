"""API tokens: what reads its owner's usage, and can do nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from math import inf
from typing import Any

import sqlalchemy as sa

from accounts.deleted import hold_account
from db import Database, Transaction, inserted_id
from foundation.clock import Clock
from foundation.errors import Conflict, NotFound
from tables import api_tokens as table
from vault.hashed import HashedSecrets, check_expiry, check_name, new_secret

PREFIX = "or_api_"
MAX_PER_USER = 50


@dataclass(frozen=True, slots=True)
class ApiToken:
    """A live token. expires_at: seconds since 1970."""

    id: int
    user_id: int
    expires_at: float = inf


@dataclass(frozen=True)
class ApiTokenRow:
    """A token as its owner sees it. token_hint: its first characters."""

    id: int
    token_hint: str
    name: str
    expires_at: datetime | None
    created_at: datetime
    last_used: datetime | None


class ApiTokens:
    """The tokens; the live ones in memory."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock
        self.live = HashedSecrets(db, clock, table, table.c.token_hash, _live)

    def create(
        self,
        user_id: int,
        name: str,
        expires_at: datetime | None,
        first: Callable[[Transaction], None] = lambda _: None,
    ) -> tuple[ApiTokenRow, str]:
        """Make a token; returns it with its text, which nobody can ever ask for again. Raises BadRequest, Conflict.

        first: done in the same transaction, before: if it raises, no token is made.
        """
        name, now = check_name(name), self._clock.now()
        check_expiry(expires_at, now)
        text, token_hash, token_hint = new_secret(PREFIX)
        values = {"user_id": user_id, "token_hash": token_hash, "token_hint": token_hint, "name": name}
        values |= {"expires_at": expires_at, "created_at": now}

        def insert(tx: Transaction, revision: int) -> ApiTokenRow:
            first(tx)
            hold_account(tx, user_id)
            if _count(tx, user_id) >= MAX_PER_USER:
                raise Conflict(f"You have {MAX_PER_USER} API tokens; revoke one that is not needed any more")
            token_id = inserted_id(tx.execute(table.insert().values(values | {"revision": revision})))
            return ApiTokenRow(token_id, token_hint, name, expires_at, now, None)

        return self.live.change(insert), text

    def page(self, user_id: int, page: int, page_size: int) -> tuple[list[ApiTokenRow], int]:
        """A page of a user's tokens that are not revoked, newest first, and how many there are. page: from 1."""
        query = sa.select(*(table.c[name] for name in ApiTokenRow.__dataclass_fields__)).where(_kept(user_id))
        with self._db.reading() as tx:
            rows = query.order_by(table.c.id.desc()).limit(page_size).offset((page - 1) * page_size)
            return [ApiTokenRow(**row._asdict()) for row in tx.execute(rows)], _count(tx, user_id)

    def revoke(self, token_id: int, user_id: int) -> None:
        """Refuse a token from now on, everywhere within two seconds. Raises NotFound if the user has no such token."""

        def update(tx: Transaction, revision: int) -> None:
            values = {"revoked_at": self._clock.now(), "revision": revision}
            one = sa.and_(table.c.id == token_id, _kept(user_id))
            if not tx.execute(table.update().where(one).values(values)).rowcount:
                raise NotFound(f"There is no API token {token_id}")

        self.live.change(update)


def _kept(user_id: int) -> sa.ColumnElement[bool]:
    return sa.and_(table.c.user_id == user_id, table.c.revoked_at.is_(None))


def _count(tx: Transaction, user_id: int) -> int:
    return tx.execute(sa.select(sa.func.count()).select_from(table).where(_kept(user_id))).scalar_one()


def _live(row: sa.Row[Any]) -> ApiToken:
    return ApiToken(row.id, row.user_id, row.expires_at.timestamp() if row.expires_at else inf)
