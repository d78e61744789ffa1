"""Log-in sessions: start, refresh, list, end. A refresh token works once; its session is a family of such tokens.

    token = <session id>.<generation>.<HMAC-SHA256(refresh key, session id, generation)>

Only the generation is stored, so a copied database opens no session, and the successor of a token can be told again to
a client that lost the answer. That is so for GRACE and for the token just before the newest alone; whoever shows an
older one shows that a token has been stolen, and the whole session ends.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

import sqlalchemy as sa

from accounts.known_sessions import KnownSessions
from db import Database, NotAnswering, Transaction, delete_some
from foundation.clock import Clock
from foundation.column_types import UtcDateTime
from foundation.crypto import keyed_token, new_id, same
from foundation.errors import NotFound, Unauthorized
from replicas.revisions import bump
from tables import oauth_states
from tables import user_sessions as table

# RFC 9700 4.14.2 asks for an end at reuse; parallel tabs and lost answers would end sessions of honest people.
GRACE = timedelta(seconds=10)
FAMILY_LIFE = timedelta(days=30)  # however often it is refreshed
MAX_USER_AGENT = 200
KEPT = timedelta(days=30)  # after its time is over a session's row goes, and with it an address
FORGOTTEN_AT_ONCE = 100
SHOWN = 1000


class EndedBy(StrEnum):
    """Why a session is over."""

    LOGOUT = "logout"
    LOGOUT_ALL = "logout-all"
    REUSE = "reuse"
    NEW_KEY = "new-key"
    DISABLED = "disabled"
    OPERATOR = "operator"
    EVERYTHING = "everything"
    DELETED = "deleted"


@dataclass(frozen=True)
class Origin:
    """Where a log-in came from, as far as its owner wants to know it. method: `key`, `password`, or a provider."""

    method: str = "key"
    address: str | None = None
    user_agent: str | None = None


UNKNOWN = Origin()


@dataclass(frozen=True)
class UserSession:
    """A session as its owner gets it at a log-in; the refresh token's text exists only here and with the client."""

    id: str
    user_id: int
    refresh_token: str


@dataclass(frozen=True)
class OpenSession:
    """A session in the list of its owner."""

    id: str
    created_at: datetime
    refreshed_at: datetime
    expires_at: datetime
    method: str
    address: str | None
    user_agent: str | None

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        times = ("created_at", "refreshed_at", "expires_at")
        return self.__dict__ | {name: getattr(self, name).isoformat(timespec="seconds") for name in times}


class TokenReused(Unauthorized):
    """A refresh token from before the last one: somebody else has it, and the session is over."""

    def __init__(self, user_id: int, session_id: str) -> None:
        super().__init__("The refresh token was used before, so its session has ended; log in again")
        self.user_id = user_id
        self.session_id = session_id


class UserSessions:
    """Sessions; `known` has in memory whose they are, and which have ended."""

    def __init__(
        self,
        db: Database,
        clock: Clock,
        access_life: timedelta,
        refresh_life: timedelta,
        refresh_key: bytes | None = None,
    ) -> None:
        """refresh_key: 32 bytes; None if it is told by `know_refresh_key`, before anybody can log in."""
        self._db = db
        self._clock = clock
        self.access_life = access_life
        self._refresh_life = refresh_life
        self._refresh_key = refresh_key
        self.known = KnownSessions(db, clock, access_life, refresh_life)

    def know_refresh_key(self, refresh_key: bytes) -> None:
        """Learn the 32-byte key of refresh tokens."""
        self._refresh_key = refresh_key

    def start(
        self, user_id: int, origin: Origin = UNKNOWN, first: Callable[[Transaction], None] = lambda _: None
    ) -> UserSession:
        """Open a session for a user who has just proved who they are.

        first: done in the same transaction, before: if it raises, no session is opened.
        """
        now, session_id = self._clock.now(), new_id()
        session = self._session(session_id, user_id, 1)
        row: dict[str, object] = {"id": session_id, "user_id": user_id, "generation": 1, "created_at": now}
        row |= {"refreshed_at": now, "expires_at": now + self._refresh_life}
        row |= {"ends_at": now + max(FAMILY_LIFE, self._refresh_life), "method": origin.method}
        row |= {"address": origin.address, "user_agent": (origin.user_agent or "")[:MAX_USER_AGENT] or None}

        forgotten = table.c.expires_at < now - max(KEPT, self.access_life)

        def insert(tx: Transaction) -> None:
            first(tx)
            delete_some(tx, table.c.id, forgotten, FORGOTTEN_AT_ONCE)
            tx.execute(table.insert().values(row))

        self._db.transact(insert)
        self.known.note(session_id, user_id)
        return session

    def refresh(self, token: str) -> UserSession:
        """Exchange a refresh token for its successor. Raises Unauthorized, TokenReused."""
        session_id, generation = self._read(token)
        found = self._db.transact(lambda tx: self._exchange(tx, session_id, generation))
        if isinstance(found, TokenReused):  # raised only now: the session's end must be committed
            raise found
        self.known.note(found.id, found.user_id)
        return found

    def _exchange(self, tx: Transaction, session_id: str, generation: int) -> UserSession | TokenReused:
        now = self._clock.now()
        latest = sa.literal(now + self._refresh_life, UtcDateTime)
        values = {"generation": generation + 1, "refreshed_at": now}
        values["expires_at"] = sa.case((table.c.ends_at < latest, table.c.ends_at), else_=latest)
        is_newest = sa.and_(_usable(session_id, now), table.c.generation == generation)
        # The row count decides: of any number of parallel exchanges of one token exactly one moves the generation.
        moved = tx.execute(table.update().where(is_newest).values(values)).rowcount == 1
        row = tx.execute(sa.select(table).where(_usable(session_id, now))).first()
        if row is None:
            raise _refused()
        if moved or (row.generation == generation + 1 and now - row.refreshed_at <= GRACE):
            return self._session(session_id, row.user_id, generation + 1)
        end_of(tx, table.c.id == session_id, now, EndedBy.REUSE)
        return TokenReused(row.user_id, session_id)

    def extend(self, session_id: str) -> None:
        """Let a session go on as a refresh does, for pages, whose cookie is no refresh token. Raises Unauthorized."""
        now = self._clock.now()
        latest = sa.literal(now + self._refresh_life, UtcDateTime)
        values: dict[str, object] = {"expires_at": sa.case((table.c.ends_at < latest, table.c.ends_at), else_=latest)}
        # Seen as used. Where a token was refreshed this would begin its grace anew, for whoever has an old one.
        values["refreshed_at"] = sa.case(
            (table.c.generation == 1, sa.literal(now, UtcDateTime)), else_=table.c.refreshed_at
        )
        is_open = self._db.transact(
            lambda tx: tx.execute(table.update().where(_usable(session_id, now)).values(values)).rowcount == 1
        )
        if not is_open:
            raise _refused()

    def csrf_token(self, session_id: str) -> str:
        """What a session's pages show and their forms send back: no other site's page can know it."""
        return self._mac(session_id, "page")

    def _session(self, session_id: str, user_id: int, generation: int) -> UserSession:
        return UserSession(session_id, user_id, f"{session_id}.{generation}.{self._mac(session_id, str(generation))}")

    def _mac(self, session_id: str, use: str) -> str:
        if self._refresh_key is None:
            raise NotAnswering("the database, which has the key of refresh tokens, has not answered yet")
        return keyed_token(self._refresh_key, session_id, use)

    def _read(self, token: str) -> tuple[str, int]:
        """The session and the generation that a token names. Raises Unauthorized unless it is one of ours."""
        session_id, _, rest = token.partition(".")
        number, _, mac = rest.partition(".")
        if not (number.isascii() and number.isdigit() and len(number) <= 18):
            raise _refused()
        if number != str(int(number)) or not same(mac, self._mac(session_id, number)):
            raise _refused()
        return session_id, int(number)

    def open_ones(self, user_id: int) -> list[OpenSession]:
        """A user's sessions that can still be refreshed, the latest used first; of very many, so many."""
        columns = [table.c[name] for name in OpenSession.__dataclass_fields__]
        wanted = sa.and_(table.c.user_id == user_id, _is_open(self._clock.now()))
        query = sa.select(*columns).where(wanted).order_by(table.c.refreshed_at.desc(), table.c.id).limit(SHOWN)
        with self._db.reading() as tx:
            return [OpenSession(*row) for row in tx.execute(query)]

    def was_proved(self, user_id: int, session_id: str, within: timedelta) -> bool:
        """True if this session of a user's can still be refreshed, and they have proved in it so lately who they are:
        at its begin, or since."""
        now, proved_at = self._clock.now(), sa.func.coalesce(table.c.proved_at, table.c.created_at)
        wanted = sa.and_(_usable(session_id, now), table.c.user_id == user_id, proved_at > now - within)
        with self._db.reading() as tx:
            return tx.scalar(sa.select(table.c.id).where(wanted)) is not None

    def note_proof(self, user_id: int, session_id: str) -> None:
        """A user has just proved in this session who they are. Raises Unauthorized if it is over."""
        now = self._clock.now()
        this = table.update().where(_usable(session_id, now), table.c.user_id == user_id).values(proved_at=now)
        if self._db.transact(lambda tx: tx.execute(this).rowcount) != 1:
            raise Unauthorized("The session has ended; log in again")

    def end(self, session_id: str, by: EndedBy = EndedBy.LOGOUT) -> None:
        """Refuse a session's tokens, in every process within two seconds."""
        self._db.transact(lambda tx: end_of(tx, table.c.id == session_id, self._clock.now(), by))

    def end_own(self, user_id: int, session_id: str) -> None:
        """End one of a user's sessions. Raises NotFound if it is not theirs, or over."""
        now = self._clock.now()
        wanted = sa.and_(table.c.id == session_id, table.c.user_id == user_id, table.c.expires_at > now)
        # MariaDB can't compare the column with other letters.
        if not session_id.isascii() or not self._db.transact(lambda tx: end_of(tx, wanted, now, EndedBy.LOGOUT)):
            raise NotFound("You have no such session, or it has ended")

    def end_all(self, user_id: int, by: EndedBy = EndedBy.OPERATOR, spared: str | None = None) -> int:
        """Log a user out everywhere, in every process within two seconds; returns how many sessions there were.

        spared: the session that goes on.
        """
        return self._db.transact(lambda tx: end_all_of(tx, user_id, self._clock.now(), by, spared))

    @property
    def ended(self) -> frozenset[str]:
        """The ended ones whose access tokens have not run out yet."""
        return self.known.ended

    def reload(self) -> None:
        """Learn which sessions have ended; for the first time, also which there are."""
        self.known.reload()


def end_all_of(tx: Transaction, user_id: int, now: datetime, by: EndedBy, spared: str | None = None) -> int:
    """End a user's sessions, in the transaction that gives the reason; returns how many could be refreshed."""
    theirs = sa.and_(table.c.user_id == user_id, table.c.id != spared if spared else sa.true())
    count = end_of(tx, sa.and_(theirs, table.c.expires_at > now), now, by)
    end_of(tx, theirs, now, by)  # an access token can outlast its session's time
    # A code that was about to open another one. What was begun in a session is refused with it.
    opening = sa.and_(oauth_states.c.user_id == user_id, oauth_states.c.session_id.is_(None))
    tx.execute(oauth_states.delete().where(opening))
    return count


def end_of(tx: Transaction, wanted: sa.ColumnElement[bool], now: datetime, by: EndedBy) -> int:
    """End those of these sessions that have not ended; returns how many."""
    still_open = sa.and_(wanted, table.c.ended_at.is_(None))
    ended: int = tx.execute(table.update().where(still_open).values(ended_at=now, ended_by=by)).rowcount
    if ended:
        bump(tx, "user_sessions")
    return ended


def is_alive(tx: Transaction, session_id: str, user_id: int) -> bool:
    """True unless this session of a user's has ended, however long ago."""
    return tx.scalar(_alive(session_id, user_id)) is not None


def hold(tx: Transaction, session_id: str, user_id: int) -> None:
    """Keep a user's session from ending before this transaction does. Raises Unauthorized if it has ended."""
    if tx.scalar(_alive(session_id, user_id).with_for_update()) is None:
        raise Unauthorized("The session has ended; log in again")


def _alive(session_id: str, user_id: int) -> sa.Select[tuple[str]]:
    return sa.select(table.c.id).where(table.c.id == session_id, table.c.user_id == user_id, table.c.ended_at.is_(None))


def _is_open(now: datetime) -> sa.ColumnElement[bool]:
    return sa.and_(table.c.ended_at.is_(None), table.c.expires_at > now)


def _usable(session_id: str, now: datetime) -> sa.ColumnElement[bool]:
    return sa.and_(table.c.id == session_id, _is_open(now))


def _refused() -> Unauthorized:
    return Unauthorized("The refresh token is unknown, expired or revoked; log in again")
