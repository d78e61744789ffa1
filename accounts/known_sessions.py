"""Which sessions there are and whose, told from memory: a token is good only while its session is known here.

Those that somebody may still call with are read when a process starts, and noted when one begins here. One that has
begun elsewhere since is asked of the database, once. Who shows tokens of sessions that do not exist has them signed by
a key of ours: few of those are asked about for one address, and it alone waits then.
"""

from __future__ import annotations

import threading
from collections import Counter
from datetime import timedelta

import sqlalchemy as sa

from db import Database, DatabaseError
from foundation.clock import Clock
from foundation.errors import Busy, TooManyRequests, Unauthorized
from tables import user_sessions as table

KNOWN_SESSIONS = 100_000  # as many as tokens are remembered: some 20 MB
WINDOW_SECONDS = 60
UNKNOWN_PER_WINDOW = 10


class KnownSessions:
    """Sessions with their users, and the ended ones whose access tokens have not run out yet."""

    def __init__(self, db: Database, clock: Clock, access_life: timedelta, refresh_life: timedelta) -> None:
        self._db = db
        self._clock = clock
        self._access_life = access_life
        self._refresh_life = refresh_life
        self.ended: frozenset[str] = frozenset()
        self._users: dict[str, int] = {}
        self._are_read = False
        self._lock = threading.Lock()
        self._window = 0
        self._asked: Counter[str] = Counter()
        self._unknown: set[str] = set()
        self._questions: dict[str, threading.Lock] = {}
        """One at a time about a session, however many calls come with its token at once."""

    def note(self, session_id: str, user_id: int) -> None:
        """This session is this user's. The one noted first is forgotten for one too many."""
        with self._lock:
            self._users[session_id] = user_id
            if len(self._users) > KNOWN_SESSIONS:
                del self._users[next(iter(self._users))]

    def check(self, session_id: str, user_id: int, address: str) -> None:
        """Let only this user's session pass, while it has not ended.

        address: of whoever shows its token. Raises Unauthorized; Busy if the database would have to be asked and is
        away; TooManyRequests.
        """
        if session_id in self.ended:
            raise Unauthorized("The session has ended; log in again")
        known = self._users.get(session_id)
        if known is None:
            known = self._ask_once(session_id, address)
        if known != user_id:
            raise _unknown()

    def _ask_once(self, session_id: str, address: str) -> int:
        with self._lock:
            question = self._questions.setdefault(session_id, threading.Lock())
        try:
            with question:
                known = self._users.get(session_id)  # whoever was before has learnt it
                return self._ask(session_id, address) if known is None else known
        finally:
            with self._lock:
                self._questions.pop(session_id, None)

    def _ask(self, session_id: str, address: str) -> int:
        self._begin_question(session_id, address)
        query = sa.select(table.c.user_id, table.c.ended_at).where(table.c.id == session_id)
        found = None
        try:
            if session_id.isascii():  # MariaDB can't compare the column with other letters
                with self._db.reading() as tx:
                    found = tx.execute(query).first()
        except DatabaseError:
            self._end_question(address)
            raise Busy("Accounts can't be looked up at present; try again shortly", retry_after_seconds=5) from None
        if found is None:
            with self._lock:
                self._unknown.add(session_id)
            raise _unknown()
        self._end_question(address)
        if found.ended_at is not None:
            raise Unauthorized("The session has ended; log in again")
        self.note(session_id, found.user_id)
        user_id: int = found.user_id
        return user_id

    def _begin_question(self, session_id: str, address: str) -> None:
        """Count a question before it is asked, so that no number of them at once goes over the limit."""
        window, elapsed = divmod(int(self._clock.monotonic()), WINDOW_SECONDS)
        with self._lock:
            if window != self._window:
                self._window = window
                self._asked.clear()
                self._unknown.clear()
            if session_id in self._unknown:
                raise _unknown()
            if self._asked[address] >= UNKNOWN_PER_WINDOW:
                raise TooManyRequests(
                    "Too many tokens of unknown sessions came from this address; log in again, or wait",
                    WINDOW_SECONDS - elapsed,
                )
            self._asked[address] += 1

    def _end_question(self, address: str) -> None:
        """It was about a session that there is, or got no answer: it does not count."""
        with self._lock:
            self._asked[address] = max(0, self._asked[address] - 1)

    def reload(self) -> None:
        """Copy into memory which sessions have ended while their access tokens may still run; at first, the others."""
        since = self._clock.now() - self._access_life
        with self._db.reading() as tx:
            self.ended = frozenset(tx.scalars(sa.select(table.c.id).where(table.c.ended_at > since)))
            if self._are_read:
                return
            # Whoever has logged in or refreshed since then: that moved this time. Few have run into their family's end.
            wanted = sa.and_(table.c.ended_at.is_(None), table.c.expires_at > since + self._refresh_life)
            query = sa.select(table.c.id, table.c.user_id).where(wanted)
            rows = tx.execute(query.order_by(table.c.expires_at.desc()).limit(KNOWN_SESSIONS)).all()
        for session_id, user_id in reversed(rows):
            self.note(session_id, user_id)
        self._are_read = True


def _unknown() -> Unauthorized:
    return Unauthorized("The token's session is not known here; log in again")
