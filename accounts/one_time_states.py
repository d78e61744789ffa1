"""What is under way elsewhere, at a provider or a device: one row each, until the browser comes back.

The state is 256 random bits, stored as a hash, and good for one return of the browser that began, within ten minutes.
The row holds what that return needs and no browser may see: the verifier of PKCE. What was begun in a session is over
with it: the database is asked, because memory forgets ended sessions once their access tokens have run out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

import sqlalchemy as sa

from accounts.sessions import is_alive
from db import Database, Transaction, delete_some
from foundation import json_text
from foundation.clock import Clock
from foundation.crypto import Envelopes, SealBroken, new_token, same, sha256_hex
from foundation.errors import BadRequest, Unauthorized
from tables import oauth_states as table

LIFE = timedelta(minutes=10)  # as long as OpenRouter's codes hold
MAX_TEXT = 200
CLEARED_AT_ONCE = 100


@dataclass(frozen=True)
class OneTimeState:
    """What was noted at the begin. user_id, session_id: of who links or connects an account; None for a log-in."""

    secrets: Mapping[str, str]
    user_id: int | None
    session_id: str | None
    next_path: str | None


class SessionOver(Unauthorized):
    """What was begun in a session came back after its end. next_path: as it was noted."""

    def __init__(self, next_path: str | None) -> None:
        super().__init__("The session has ended; log in again")
        self.next_path = next_path


class OneTimeStates:
    """Begun and consumed; nothing else."""

    def __init__(self, db: Database, envelopes: Envelopes, clock: Clock) -> None:
        self._db = db
        self._envelopes = envelopes
        self._clock = clock

    def begin(self, provider: str, browser: str, noted: OneTimeState, life: timedelta = LIFE) -> str:
        """Note that a browser goes to a provider; returns the state to send along.

        browser: a text that only this browser has: of a cookie that it was given for this, or its session's id.
        """
        state, now = new_token(), self._clock.now()
        state_hash, plain = sha256_hex(state), json_text.write(dict(noted.secrets)).decode()
        row: dict[str, object] = {"state_hash": state_hash, "provider": provider, "browser_hash": sha256_hex(browser)}
        row["secrets_encrypted"] = self._envelopes.seal(table.name, "secrets_encrypted", state_hash, plain)
        row |= {"user_id": noted.user_id, "session_id": noted.session_id, "next_path": noted.next_path}
        row["expires_at"] = now + life

        def insert(tx: Transaction) -> None:
            delete_some(tx, table.c.state_hash, table.c.expires_at <= now, CLEARED_AT_ONCE)
            tx.execute(table.insert().values(row))

        self._db.transact(insert)
        return state

    def provider_of(self, state: str) -> str:
        """The provider that a state was noted for; it is not used up. Raises BadRequest."""
        with self._db.reading() as tx:
            found = tx.scalar(sa.select(table.c.provider).where(table.c.state_hash == sha256_hex(state)))
        if found is None:
            raise _refused()
        return str(found)

    def user_of(self, provider: str, browser: str, state: str) -> int:
        """Whom a state was noted for, from this browser; it is not used up. Raises BadRequest."""
        with self._db.reading() as tx:
            row = tx.execute(sa.select(table).where(table.c.state_hash == sha256_hex(state))).first()
        if row is None or row.expires_at <= self._clock.now() or row.provider != provider or row.user_id is None:
            raise _refused()
        if not same(row.browser_hash, sha256_hex(browser)):
            self.consume(provider, browser, state)  # used up, as whatever is shown by another browser; raises
        return int(row.user_id)

    def consume(self, provider: str, browser: str, state: str) -> OneTimeState:
        """What was noted, once. Raises BadRequest, whatever is wrong; what was shown is used up in any case.

        SessionOver if it was begun in a session that has ended since.
        """
        if not isinstance(state, str) or not 1 <= len(state) <= MAX_TEXT:
            raise _refused()
        wanted = table.c.state_hash == sha256_hex(state)

        def take(tx: Transaction) -> sa.Row[tuple[object, ...]] | None:
            row = tx.execute(sa.select(table).where(wanted)).first()
            # The row count decides: of any number of parallel returns one gets it.
            return row if row and tx.execute(table.delete().where(wanted)).rowcount == 1 else None

        row = self._db.transact(take)
        if row is None or row.expires_at <= self._clock.now() or row.provider != provider:
            raise _refused()
        if not same(row.browser_hash, sha256_hex(browser)):
            raise _refused()
        try:
            plain = self._envelopes.open(table.name, "secrets_encrypted", row.state_hash, row.secrets_encrypted)
        except SealBroken:  # by a key that was taken from ENCRYPTION_KEY within these ten minutes
            raise _refused() from None
        if row.session_id is not None and not self._is_alive(row.session_id, row.user_id):
            raise SessionOver(row.next_path)
        return OneTimeState(json_text.parse(plain.encode()), row.user_id, row.session_id, row.next_path)

    def _is_alive(self, session_id: str, user_id: int) -> bool:
        with self._db.reading() as tx:
            return is_alive(tx, session_id, user_id)


def _refused() -> BadRequest:
    return BadRequest("This log-in was not begun here, has been used, or took too long; begin again")
