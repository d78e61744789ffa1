"""Reset links: by one an operator lets somebody set a new password. Good once and for an hour, the newest alone.

Its owner is told at the next log-in that there was one, and whether it was used: an operator could use it themselves.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from accounts.deleted import IS_THERE
from accounts.users import UserRole
from db import Database, Transaction, inserted_id
from foundation.clock import Clock
from foundation.crypto import sha256_hex
from foundation.errors import Conflict, Forbidden, NotFound
from tables import reset_links as table
from tables import users
from vault.hashed import new_secret

PREFIX = "reset_"
LIFE = timedelta(hours=1)
MAX_TEXT_CHARACTERS = 100


class ResetLinkRefused(Forbidden):
    """Nobody can set a password with this text."""

    type = "reset_link_refused"

    def __init__(self) -> None:
        super().__init__("This link is unknown, used or older than an hour; ask for a new one")


@dataclass(frozen=True)
class ResetLink:
    """One link, without its text."""

    id: int
    user_id: int
    created_by: str
    created_at: datetime
    expires_at: datetime
    used_at: datetime | None

    def notice(self) -> dict[str, Any]:
        """What its account's owner is told."""
        used_at = self.used_at and self.used_at.isoformat(timespec="seconds")
        return {"type": "reset_link", "at": self.created_at.isoformat(timespec="seconds"), "used_at": used_at}


COLUMNS = [table.c[name] for name in ResetLink.__dataclass_fields__]


class ResetLinks:
    """The rows."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock

    def create(self, user_id: int, created_by: str) -> tuple[ResetLink, str]:
        """Make a link for an account; returns it with its text. The one before is over. Raises NotFound, Conflict."""
        text, token_hash, _ = new_secret(PREFIX)
        now = self._clock.now()
        row = {"user_id": user_id, "token_hash": token_hash, "created_by": created_by, "created_at": now}
        row |= {"expires_at": now + LIFE}

        def insert(tx: Transaction) -> ResetLink:
            role = tx.scalar(sa.select(users.c.role).where(users.c.id == user_id, IS_THERE).with_for_update())
            if role is None:
                raise NotFound(f"There is no user {user_id}")
            if role == UserRole.SERVICE:
                raise Conflict("Nobody can log in to a service account")
            open_ones = sa.and_(table.c.user_id == user_id, table.c.used_at.is_(None), table.c.expires_at > now)
            tx.execute(table.update().where(open_ones).values(expires_at=now))
            made = inserted_id(tx.execute(table.insert().values(row)))
            return ResetLink(*tx.execute(sa.select(*COLUMNS).where(table.c.id == made)).one())

        return self._db.transact(insert), text

    def get_open(self, text: str) -> ResetLink:
        """The one with this text. Raises ResetLinkRefused."""
        with self._db.reading() as tx:
            row = tx.execute(sa.select(*COLUMNS).where(table.c.token_hash == sha256_hex(text))).first()
        if row is None or row.used_at is not None or row.expires_at <= self._clock.now():
            raise ResetLinkRefused
        return ResetLink(*row)

    def redeem(self, tx: Transaction, link: ResetLink) -> None:
        """Use it up, in the transaction that sets the key. Raises ResetLinkRefused."""
        now = self._clock.now()
        is_open = sa.and_(table.c.id == link.id, table.c.used_at.is_(None), table.c.expires_at > now)
        if tx.execute(table.update().where(is_open).values(used_at=now)).rowcount != 1:
            raise ResetLinkRefused

    def tell(self, user_id: int, but: int = 0) -> list[ResetLink]:
        """Those that their owner has not been told of; with that they are. but: the one that has just let them in."""
        untold = sa.and_(table.c.user_id == user_id, table.c.told_at.is_(None), table.c.id != but)
        query = sa.select(*COLUMNS).where(untold).order_by(table.c.id)
        with self._db.reading() as tx:
            found = [ResetLink(*row) for row in tx.execute(query)]
        if found:
            these = table.c.id.in_([link.id for link in found])
            told = table.update().where(these).values(told_at=self._clock.now())
            self._db.transact(lambda tx: tx.execute(told))
        return found
