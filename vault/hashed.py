"""Secrets that clients hold and we know only by hash, in memory by that hash: what client keys and API tokens share.

A look-up is one hash and one dictionary, whatever is asked for; the database is never asked. Each row carries the
revision of its last change, so that a process reads only what changed since it last looked.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any, Generic, Protocol, TypeVar

import sqlalchemy as sa

from db import Database, DatabaseError, Transaction
from foundation.clock import Clock
from foundation.crypto import new_token, sha256_hex
from foundation.errors import BadRequest
from replicas.revisions import bump, current

HINT_CHARACTERS = 2
MAX_NAME_CHARACTERS = 190
BATCH = 500
A_YEAR = timedelta(days=366)  # whichever day of the year it is, and whatever time of that day

T = TypeVar("T")


class Secret(Protocol):
    """What is kept of a row. expires_at: seconds since 1970, infinite if it never does."""

    @property
    def id(self) -> int: ...
    @property
    def expires_at(self) -> float: ...


S = TypeVar("S", bound=Secret)


def new_secret(prefix: str) -> tuple[str, str, str]:
    """(a new secret of 256 random bits, its hash, what may be shown of it)."""
    text = prefix + new_token()
    return text, sha256_hex(text), f"{text[: len(prefix) + HINT_CHARACTERS]}****"


class HashedSecrets(Generic[S]):
    """The live secrets of one table, which has the columns id, revoked_at, expires_at, last_used and revision."""

    def __init__(
        self,
        db: Database,
        clock: Clock,
        table: sa.Table,
        by: sa.Column[str],
        kept: Callable[[sa.Row[Any]], S],
        before: Callable[[], None] | None = None,
    ) -> None:
        """by: the column of the hash. kept: what memory keeps of a row. before: done before changed rows are in force,
        to know by then what was written with them."""
        self._db = db
        self._clock = clock
        self._table = table
        self._by = by
        self._kept = kept
        self._before = before
        self._live: dict[str, S] = {}
        self._revision = 0
        self._reloading = threading.Lock()
        self._uses: dict[int, datetime] = {}
        self._uses_lock = threading.Lock()

    def find(self, text: str) -> S | None:
        """What is known of a secret; None if it is unknown, revoked or expired."""
        found = self._live.get(sha256_hex(text))
        if found is None or found.expires_at <= self._clock.timestamp():
            return None
        with self._uses_lock:
            self._uses[found.id] = self._clock.now()
        return found

    def change(self, work: Callable[[Transaction, int], T]) -> T:
        """Run a change of rows, each of which takes the revision that `work` is given; in force here when it returns.

        In every other process it is within two seconds.
        """

        def in_order(tx: Transaction) -> T:
            # First, and not last: whoever has the revision's lock is alone until the commit. Else a change could
            # commit after a later revision was read by others, who would never see it.
            bump(tx, self._table.name)
            return work(tx, current(tx, self._table.name))

        result = self._db.transact(in_order)
        with suppress(DatabaseError):  # it is committed; the watcher reads it as soon as the database is back
            self.reload()
        return result

    def reload(self) -> None:
        """Take over what has changed since the last time. Raises DatabaseError."""
        with self._reloading:
            with self._db.reading() as tx:
                # The restore of a backup sets revisions back; then all is read anew.
                seen = self._revision if self._revision <= current(tx, self._table.name) else 0
                wanted = self._table.c.revision > seen if seen else self._table.c.revoked_at.is_(None)
                rows = tx.execute(sa.select(self._table).where(wanted)).all()
            if rows and self._before:
                self._before()
            live = self._live if seen else {}
            for row in rows:
                if row.revoked_at is None:
                    live[row._mapping[self._by]] = self._kept(row)
                else:
                    live.pop(row._mapping[self._by], None)
                seen = max(seen, row.revision)
            self._live, self._revision = live, seen

    def write_uses(self) -> None:
        """Write down when secrets were last used. A crash may lose some seconds of that. Raises DatabaseError."""
        with self._uses_lock:
            uses, self._uses = self._uses, {}
        ordered = sorted(uses.items())  # one order in all processes, so that they don't deadlock
        try:
            for begin in range(0, len(ordered), BATCH):
                self._db.transact(lambda tx, batch=ordered[begin : begin + BATCH]: self._write(tx, batch))  # type: ignore[misc]
        except BaseException:
            with self._uses_lock:
                self._uses = uses | self._uses
            raise

    def _write(self, tx: Transaction, uses: list[tuple[int, datetime]]) -> None:
        column = self._table.c.last_used
        for row_id, at in uses:
            is_older = sa.and_(self._table.c.id == row_id, sa.or_(column.is_(None), column < at))
            tx.execute(self._table.update().where(is_older).values(last_used=at))


def check_name(name: str) -> str:
    """A name that people can read. Raises BadRequest."""
    return check_text("name", name.strip(), 1, MAX_NAME_CHARACTERS)


def check_text(field: str, text: str, least: int, most: int) -> str:
    """A text that can be shown. Raises BadRequest."""
    if not least <= len(text) <= most or not text.isprintable():
        raise BadRequest(f"{field} must have {least} to {most} characters, all of them printable")
    return text


def check_expiry(expires_at: datetime | None, now: datetime) -> None:
    """Refuse what is over already: whoever wants that revokes. Raises BadRequest."""
    if expires_at is not None and expires_at <= now:
        raise BadRequest("expires_at must be in the future; to end it now, revoke it")


def is_lasting(expires_at: datetime | None, now: datetime) -> bool:
    """True for what never ends, or so late that it comes to the same."""
    return expires_at is None or expires_at > now + A_YEAR
