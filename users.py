"""Accounts: create, find, disable. A username is stored only as a keyed hash."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

import sqlalchemy as sa

from clock import Clock
from crypto import keyed_name
from db import Database, Duplicate, Transaction, inserted_id
from errors import UsernameTaken
from revisions import bump
from tables import users as table


class UserState(StrEnum):
    """active; disabled: no login, no calls; silenced: may look, may not call."""

    ACTIVE = "active"
    DISABLED = "disabled"
    SILENCED = "silenced"


@dataclass(frozen=True)
class User:
    """One account, without its name."""

    id: int
    key_hash: str
    state: UserState
    created_at: datetime
    last_login: datetime | None


class Users:
    """The accounts, and in memory which of them may not call."""

    def __init__(self, db: Database, username_key: bytes, clock: Clock) -> None:
        self._db = db
        self._username_key = username_key
        self._clock = clock
        self.restricted: dict[int, UserState] = {}

    def create(self, username: str, key_hash: str) -> int:
        """Add an account and return its id. Raises UsernameTaken."""
        now = self._clock.now()
        row: dict[str, object] = {"username_hash": keyed_name(self._username_key, username), "key_hash": key_hash}
        row |= {"state": UserState.ACTIVE, "created_at": now, "updated_at": now}

        def insert(tx: Transaction) -> int:
            return inserted_id(tx.execute(table.insert().values(row)))

        try:
            return self._db.transact(insert)
        except Duplicate:
            raise UsernameTaken from None

    def exists(self, username: str) -> bool:
        """True if the name is taken."""
        return self.find(username) is not None

    def find(self, username: str) -> User | None:
        """The account of this name."""
        return self._find(table.c.username_hash == keyed_name(self._username_key, username))

    def find_by_id(self, user_id: int) -> User | None:
        """The account of this id."""
        return self._find(table.c.id == user_id)

    def _find(self, condition: sa.ColumnElement[bool]) -> User | None:
        columns = table.c.id, table.c.key_hash, table.c.state, table.c.created_at, table.c.last_login
        with self._db.reading() as tx:
            row = tx.execute(sa.select(*columns).where(condition)).first()
        return User(row.id, row.key_hash, UserState(row.state), row.created_at, row.last_login) if row else None

    def logged_in(self, user_id: int, new_key_hash: str | None = None) -> None:
        """Note a login; with `new_key_hash`, store the key's hash made with today's parameters."""
        values: dict[str, object] = {"last_login": self._clock.now()}
        if new_key_hash:
            values["key_hash"] = new_key_hash
        self._db.transact(lambda tx: tx.execute(table.update().where(table.c.id == user_id).values(values)))

    def set_state(self, user_id: int, state: UserState) -> None:
        """Enable, disable or silence; in force in every process within two seconds."""
        values = {"state": state, "updated_at": self._clock.now()}

        def update(tx: Transaction) -> None:
            tx.execute(table.update().where(table.c.id == user_id).values(values))
            bump(tx, "users")

        self._db.transact(update)

    def reload(self) -> None:
        """Copy into memory who may not call: few, where all users may be a million."""
        with self._db.reading() as tx:
            rows = tx.execute(sa.select(table.c.id, table.c.state).where(table.c.state != UserState.ACTIVE)).all()
        self.restricted = {row.id: UserState(row.state) for row in rows}
