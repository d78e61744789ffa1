"""All that opens an account beside its password and its log-ins elsewhere: ended at once, as after a theft."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime

from accounts.api_tokens import ApiTokens
from accounts.client_keys import ClientKeys
from accounts.sessions import EndedBy, UserSessions, end_all_of
from db import Database, Transaction
from foundation.clock import Clock
from replicas.revisions import bump, current
from tables import api_tokens, client_keys


@dataclass(frozen=True)
class Ended:
    """How many there were."""

    sessions: int
    client_keys: int
    api_tokens: int

    def to_dict(self) -> dict[str, int]:
        """As JSON."""
        return asdict(self)


class Everything:
    """Ends sessions, client keys and API tokens in one step, in every process within two seconds."""

    def __init__(
        self, db: Database, clock: Clock, sessions: UserSessions, client_keys: ClientKeys, api_tokens: ApiTokens
    ) -> None:
        self._db = db
        self._clock = clock
        self._copies = (sessions, client_keys.live, api_tokens.live)

    def end(self, user_id: int, by: EndedBy) -> Ended:
        """End all of a user's, here at once."""
        now = self._clock.now()

        def work(tx: Transaction) -> Ended:
            keys, tokens = revoke_all_of(tx, user_id, now)
            return Ended(end_all_of(tx, user_id, now, by), keys, tokens)

        ended = self._db.transact(work)
        self.reload()
        return ended

    def reload(self) -> None:
        """Know in this process what has ended. Raises DatabaseError."""
        for copy in self._copies:
            copy.reload()


def revoke_all_of(tx: Transaction, user_id: int, now: datetime) -> tuple[int, int]:
    """Revoke a user's client keys and API tokens; returns how many of each there were.

    To be done before anything else in its transaction: whoever makes a key has the same locks in this order.
    """
    counts = []
    for table in (client_keys, api_tokens):
        bump(tx, table.name)  # first: as vault/hashed.py says
        theirs = table.update().where(table.c.user_id == user_id, table.c.revoked_at.is_(None))
        counts.append(tx.execute(theirs.values(revoked_at=now, revision=current(tx, table.name))).rowcount)
    return counts[0], counts[1]
