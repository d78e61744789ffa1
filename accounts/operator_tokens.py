"""Operator tokens: what a program administers with, each with a name, a scope and an end.

Unlike ADMIN_TOKEN there may be several; each is known by its name in the audit log, can be revoked alone, and ends by
itself. Its text exists once, in the answer to who made it; here is its hash.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from accounts.roles import TokenScope
from db import Database, Duplicate, Transaction, inserted_id
from foundation.clock import Clock
from foundation.errors import BadRequest, Conflict, NotFound
from tables import operator_tokens as table
from vault.hashed import HashedSecrets, new_secret

PREFIX = "or_op_"
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,47}")
MAX_DAYS = 365
MAX_UNREVOKED = 100


@dataclass(frozen=True, slots=True)
class OperatorToken:
    """A live token. expires_at: seconds since 1970."""

    id: int
    name: str
    scope: TokenScope
    expires_at: float

    @property
    def actor(self) -> str:
        """What the audit log calls whoever uses it."""
        return f"token/{self.name}"


@dataclass(frozen=True)
class OperatorTokenRow:
    """A token as operators see it. token_hint: its first characters."""

    id: int
    token_hint: str
    name: str
    scope: TokenScope
    created_by: str
    created_at: datetime
    expires_at: datetime
    last_used: datetime | None
    revoked_at: datetime | None

    def to_dict(self, at: datetime) -> dict[str, Any]:
        """As JSON, with its state at this time."""
        shown: dict[str, Any] = {name: getattr(self, name) for name in ("id", "token_hint", "name", "created_by")}
        times = ("created_at", "expires_at", "last_used", "revoked_at")
        shown |= {name: (time := getattr(self, name)) and time.isoformat(timespec="seconds") for name in times}
        state = "revoked" if self.revoked_at else "expired" if self.expires_at <= at else "active"
        return shown | {"scope": self.scope.value, "state": state}


COLUMNS = [table.c[name] for name in OperatorTokenRow.__dataclass_fields__]


class OperatorTokens:
    """The tokens; the live ones in memory."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock
        self.live = HashedSecrets(db, clock, table, table.c.token_hash, _live)

    def create(self, name: str, scope: TokenScope, life: timedelta, created_by: str) -> tuple[OperatorTokenRow, str]:
        """Make a token that is good for so long; returns it with its text, which nobody can ever ask for again.

        A name is given once and for all, so that the audit log says one thing. Raises BadRequest, Conflict.
        """
        if not NAME.fullmatch(name):
            raise BadRequest("name must be 1 to 48 characters of a-z 0-9 . _ -, the first a letter or a digit")
        now = self._clock.now()
        text, token_hash, token_hint = new_secret(PREFIX)
        values: dict[str, Any] = {"token_hash": token_hash, "token_hint": token_hint, "name": name, "scope": scope}
        values |= {"created_by": created_by, "created_at": now, "expires_at": now + life}

        def insert(tx: Transaction, revision: int) -> OperatorTokenRow:
            unrevoked = sa.select(sa.func.count()).select_from(table).where(table.c.revoked_at.is_(None))
            if tx.execute(unrevoked).scalar_one() >= MAX_UNREVOKED:
                raise Conflict(f"There are {MAX_UNREVOKED} operator tokens; revoke one that is not needed any more")
            return _get(tx, inserted_id(tx.execute(table.insert().values(values | {"revision": revision}))))

        try:
            return self.live.change(insert), text
        except Duplicate:
            raise Conflict(f"There is or was an operator token {name}; choose another name") from None

    def page(self, page: int, page_size: int) -> tuple[list[OperatorTokenRow], int]:
        """A page of them, newest first, revoked ones too, and how many there are. page: from 1."""
        query = sa.select(*COLUMNS).order_by(table.c.id.desc()).limit(page_size).offset((page - 1) * page_size)
        with self._db.reading() as tx:
            total = tx.scalar(sa.select(sa.func.count()).select_from(table)) or 0
            return [_row(row) for row in tx.execute(query)], total

    def revoke(self, token_id: int) -> OperatorTokenRow:
        """Refuse a token from now on, everywhere within two seconds. Raises NotFound."""

        def update(tx: Transaction, revision: int) -> OperatorTokenRow:
            one = sa.and_(table.c.id == token_id, table.c.revoked_at.is_(None))
            tx.execute(table.update().where(one).values(revoked_at=self._clock.now(), revision=revision))
            return _get(tx, token_id)

        return self.live.change(update)


def _get(tx: Transaction, token_id: int) -> OperatorTokenRow:
    row = tx.execute(sa.select(*COLUMNS).where(table.c.id == token_id)).first()
    if row is None:
        raise NotFound(f"There is no operator token {token_id}")
    return _row(row)


def _row(row: sa.Row[Any]) -> OperatorTokenRow:
    return OperatorTokenRow(**row._asdict() | {"scope": TokenScope(row.scope)})


def _live(row: sa.Row[Any]) -> OperatorToken:
    return OperatorToken(row.id, row.name, TokenScope(row.scope), row.expires_at.timestamp())
