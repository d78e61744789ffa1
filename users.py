"""Accounts: create, find, disable. A username is stored only as a keyed hash."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

import sqlalchemy as sa

from clock import Clock
from crypto import keyed_name
from db import Database, Duplicate, Transaction, inserted_id
from errors import NotFound, UsernameTaken
from revisions import bump
from tables import users as table


class UpstreamChoice(StrEnum):
    """Which OpenRouter keys carry a user's calls, where users have keys of their own."""

    DEDICATED_FIRST = "dedicated_first"
    SHARED_FIRST = "shared_first"
    DEDICATED_ONLY = "dedicated_only"


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
    upstream_choice: UpstreamChoice


class Users:
    """The accounts, and in memory which of them may not call or have chosen otherwise than most."""

    def __init__(self, db: Database, username_key: bytes, clock: Clock) -> None:
        self._db = db
        self._username_key = username_key
        self._clock = clock
        self.restricted: dict[int, UserState] = {}
        self._choices: dict[int, UpstreamChoice] = {}

    def name_hash(self, username: str) -> str:
        """The name as it is stored: 64 hex characters."""
        return keyed_name(self._username_key, username)

    def create(self, username: str, key_hash: str) -> int:
        """Add an account and return its id. Raises UsernameTaken."""
        now = self._clock.now()
        row: dict[str, object] = {"username_hash": self.name_hash(username), "key_hash": key_hash}
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
        return self._find(table.c.username_hash == self.name_hash(username))

    def find_by_id(self, user_id: int) -> User | None:
        """The account of this id."""
        return self._find(table.c.id == user_id)

    def get(self, user_id: int) -> User:
        """The account of this id. Raises NotFound."""
        user = self.find_by_id(user_id)
        if user is None:
            raise NotFound("There is no such account any more")
        return user

    def _find(self, condition: sa.ColumnElement[bool]) -> User | None:
        columns = [table.c[name] for name in User.__dataclass_fields__]
        with self._db.reading() as tx:
            row = tx.execute(sa.select(*columns).where(condition)).first()
        if row is None:
            return None
        choice = UpstreamChoice(row.upstream_choice or UpstreamChoice.DEDICATED_FIRST)
        return User(**{**row._asdict(), "state": UserState(row.state), "upstream_choice": choice})

    def logged_in(self, user_id: int, new_key_hash: str | None = None) -> None:
        """Note a login; with `new_key_hash`, store the key's hash made with today's parameters."""
        values: dict[str, object] = {"last_login": self._clock.now()}
        if new_key_hash:
            values["key_hash"] = new_key_hash
        self._db.transact(lambda tx: tx.execute(table.update().where(table.c.id == user_id).values(values)))

    def set_state(self, user_id: int, state: UserState) -> None:
        """Enable, disable or silence; in force in every process within two seconds."""
        self._change(user_id, {"state": state})

    def upstream_choice(self, user_id: int) -> UpstreamChoice:
        """Which keys carry this user's calls, as this process knows it."""
        return self._choices.get(user_id, UpstreamChoice.DEDICATED_FIRST)

    def set_upstream_choice(self, user_id: int, choice: UpstreamChoice) -> None:
        """Choose which keys carry a user's calls; in force in every process within two seconds."""
        self._change(user_id, {"upstream_choice": None if choice is UpstreamChoice.DEDICATED_FIRST else choice})

    def _change(self, user_id: int, values: dict[str, object]) -> None:
        values |= {"updated_at": self._clock.now()}

        def update(tx: Transaction) -> None:
            tx.execute(table.update().where(table.c.id == user_id).values(values))
            bump(tx, "users")

        self._db.transact(update)

    def reload(self) -> None:
        """Copy into memory those who differ from most: few, where all users may be a million."""
        differs = sa.or_(table.c.state != UserState.ACTIVE, table.c.upstream_choice.is_not(None))
        with self._db.reading() as tx:
            rows = tx.execute(sa.select(table.c.id, table.c.state, table.c.upstream_choice).where(differs)).all()
        self.restricted = {row.id: UserState(row.state) for row in rows if row.state != UserState.ACTIVE}
        self._choices = {row.id: UpstreamChoice(row.upstream_choice) for row in rows if row.upstream_choice}
