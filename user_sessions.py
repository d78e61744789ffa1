"""Log-in sessions: start, refresh, end. A refresh token is stored only as a hash and works once."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa

from clock import Clock
from crypto import new_id, new_token, sha256_hex
from db import Database, Transaction
from errors import Unauthorized
from revisions import bump
from tables import user_sessions as table


@dataclass(frozen=True)
class UserSession:
    """A session as its owner gets it; the refresh token's text exists only here and with the client."""

    id: str
    user_id: int
    refresh_token: str


class UserSessions:
    """Sessions, and in memory the ended ones whose access tokens have not run out yet."""

    def __init__(self, db: Database, clock: Clock, access_life: timedelta, refresh_life: timedelta) -> None:
        self._db = db
        self._clock = clock
        self._access_life = access_life
        self._refresh_life = refresh_life
        self.ended: frozenset[str] = frozenset()

    def start(self, user_id: int) -> UserSession:
        """Open a session for a user who has just proved who they are."""
        now = self._clock.now()
        session = UserSession(new_id(), user_id, "")
        session, refresh_hash = _with_new_token(session)
        row: dict[str, object] = {"id": session.id, "user_id": user_id, "refresh_hash": refresh_hash}
        row |= {"created_at": now, "refreshed_at": now, "expires_at": now + self._refresh_life}
        self._db.transact(lambda tx: tx.execute(table.insert().values(row)))
        return session

    def refresh(self, token: str) -> UserSession:
        """Exchange a refresh token for its successor. Raises Unauthorized for one that is unknown, used or expired."""
        session_id, _, _secret = token.partition(".")
        now = self._clock.now()

        def exchange(tx: Transaction) -> UserSession:
            user_id = tx.scalar(sa.select(table.c.user_id).where(table.c.id == session_id))
            session, successor_hash = _with_new_token(UserSession(session_id, user_id or 0, ""))
            usable = sa.and_(
                table.c.id == session_id,
                table.c.refresh_hash == sha256_hex(token),
                table.c.ended_at.is_(None),
                table.c.expires_at > now,
            )
            values = {"refresh_hash": successor_hash, "refreshed_at": now, "expires_at": now + self._refresh_life}
            # The row count decides: of any number of parallel exchanges of one token exactly one succeeds.
            if tx.execute(table.update().where(usable).values(values)).rowcount != 1:
                raise Unauthorized("The refresh token is unknown, used, expired or revoked; log in again")
            return session

        return self._db.transact(exchange)

    def end(self, session_id: str) -> None:
        """Log out: refuse the session's tokens, in every process within two seconds."""
        open_one = sa.and_(table.c.id == session_id, table.c.ended_at.is_(None))

        def update(tx: Transaction) -> None:
            tx.execute(table.update().where(open_one).values(ended_at=self._clock.now()))
            bump(tx, "user_sessions")

        self._db.transact(update)

    def end_all(self, user_id: int) -> int:
        """Log a user out everywhere, in every process within two seconds; returns how many sessions there were."""
        return self._db.transact(lambda tx: end_all_of(tx, user_id, self._clock.now()))

    def reload(self) -> None:
        """Copy into memory which sessions have ended while their access tokens may still run."""
        since = self._clock.now() - self._access_life
        with self._db.reading() as tx:
            self.ended = frozenset(tx.scalars(sa.select(table.c.id).where(table.c.ended_at > since)))


def end_all_of(tx: Transaction, user_id: int, now: datetime) -> int:
    """End a user's open sessions, in the transaction that gives the reason; returns how many there were."""
    open_ones = sa.and_(table.c.user_id == user_id, table.c.ended_at.is_(None), table.c.expires_at > now)
    ended: int = tx.execute(table.update().where(open_ones).values(ended_at=now)).rowcount
    bump(tx, "user_sessions")
    return ended


def _with_new_token(session: UserSession) -> tuple[UserSession, str]:
    token = f"{session.id}.{new_token()}"
    return UserSession(session.id, session.user_id, token), sha256_hex(token)
