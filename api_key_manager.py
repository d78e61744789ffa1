"""The pool of OpenRouter keys: add, pick, rest, drain.

The database holds each key encrypted; memory holds the usable ones decrypted, ready to be picked at random without
a query. A row goes through these states, and key_rotation.py moves it:

    intent ──> stored ──> active ──> draining ──> deleted
       └─────────┴──> abandoned

`intent` is written before OpenRouter is asked for the key, so that a crash in between leaves a name to look for;
`stored` has the key's text; only `active` and `enabled` rows are picked; `draining` ones finish what they carry.
No row is removed: its name and hash are what tells our keys from others'.
"""

from __future__ import annotations

import logging
import math
import random
import threading
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

import sqlalchemy as sa

from clock import Clock
from crypto import Envelopes, SealBroken, same, sha256_hex
from db import Database, Duplicate, Transaction, inserted_id
from db import api_keys as table
from errors import AppError, Busy, NotFound, PaymentRequired, TooManyRequests
from logs import event
from revisions import bump

log = logging.getLogger("pool")

# A key is not picked in its last minutes: an answer that it has begun should end before OpenRouter refuses it.
EXPIRY_MARGIN = timedelta(minutes=10)
RANDOM_TRIES = 8
MAX_NAME_CHARACTERS = 190


class KeyState(StrEnum):
    """Where a key is in its life."""

    INTENT = "intent"
    STORED = "stored"
    ACTIVE = "active"
    DRAINING = "draining"
    DELETED = "deleted"
    ABANDONED = "abandoned"


class KeySource(StrEnum):
    """Who brought a key into the pool; only minted ones are ever deleted at OpenRouter."""

    MINTED = "minted"
    ENVIRONMENT = "environment"
    OPERATOR = "operator"


class KeyAlreadyKnown(Exception):
    """The pool has, or once had, this key or this name."""


@dataclass(frozen=True)
class KeyRow:
    """A key as operators see it: everything but its text."""

    id: int
    name: str
    state: KeyState
    source: KeySource
    api_key_hash: str | None
    enabled: bool
    expires_at: datetime | None
    created_at: datetime
    updated_at: datetime
    last_used: datetime | None
    use_count: int


class PoolKey:
    """A decrypted key in memory. `rests_until` is monotonic seconds; `rest_status` says why it rests."""

    __slots__ = ("authorization", "expires_at", "id", "name", "rest_status", "rests_until")

    def __init__(self, row_id: int, name: str, text: str, expires_at: float) -> None:
        self.id = row_id
        self.name = name
        self.authorization = f"Authorization: Bearer {text}\r\n".encode("ascii")
        self.expires_at = expires_at
        self.rests_until = 0.0
        self.rest_status = 0

    def __repr__(self) -> str:
        return f"<PoolKey {self.id}>"


class ApiKeyManager:
    """The keys in the database, and this process's copy of the usable ones."""

    def __init__(self, db: Database, envelopes: Envelopes, clock: Clock) -> None:
        self._db = db
        self._envelopes = envelopes
        self._clock = clock
        self._keys: tuple[PoolKey, ...] = ()
        self._uses: dict[int, int] = {}
        self._uses_lock = threading.Lock()

    # ── memory: what the request path uses

    def pick(self, tried: Collection[PoolKey] = ()) -> PoolKey:
        """A random usable key that is not among `tried`. Raises Busy, TooManyRequests or PaymentRequired."""
        keys, now, wall = self._keys, self._clock.monotonic(), self._clock.timestamp()
        if keys:
            # Nearly always the first draw is good, whether the pool has ten keys or ten thousand.
            for _ in range(RANDOM_TRIES):
                key = random.choice(keys)  # noqa: S311 - spreads load, guards nothing
                if key.rests_until <= now and key.expires_at > wall and key not in tried:
                    return self._used(key)
            usable = [k for k in keys if k.rests_until <= now and k.expires_at > wall and k not in tried]
            if usable:
                return self._used(random.choice(usable))  # noqa: S311
        raise self._no_key(now, wall)

    def _used(self, key: PoolKey) -> PoolKey:
        with self._uses_lock:
            self._uses[key.id] = self._uses.get(key.id, 0) + 1
        return key

    def _no_key(self, now: float, wall: float) -> AppError:
        resting = [key for key in self._keys if key.rests_until > now and key.expires_at > wall]
        if not resting:
            return Busy("No OpenRouter key is available at this moment; try again shortly", retry_after_seconds=5)
        if all(key.rest_status == 402 for key in resting):
            return PaymentRequired("The service has run out of OpenRouter credit; its operator has to add some")
        wait = math.ceil(min(key.rests_until for key in resting) - now)
        return TooManyRequests("Every OpenRouter key is resting; try again shortly", min(max(wait, 1), 60))

    def rest(self, key: PoolKey, seconds: float, status: int) -> None:
        """Don't pick this key for a while, because OpenRouter answered `status` to it."""
        until = self._clock.monotonic() + seconds
        if until > key.rests_until:  # a later and lesser refusal does not shorten a rest
            key.rests_until, key.rest_status = until, status

    def usable_count(self) -> int:
        """How many keys `pick` chooses from."""
        now, wall = self._clock.monotonic(), self._clock.timestamp()
        return sum(key.rests_until <= now and key.expires_at > wall for key in self._keys)

    def known_count(self) -> int:
        """How many keys there are that have not expired, resting ones included."""
        wall = self._clock.timestamp()
        return sum(key.expires_at > wall for key in self._keys)

    def reload(self) -> None:
        """Copy the active keys into memory; a key that stays keeps its rest."""
        old = {key.id: key for key in self._keys}
        columns = table.c.id, table.c.name, table.c.api_key, table.c.api_key_hash, table.c.expires_at
        wanted = sa.and_(table.c.state == KeyState.ACTIVE, table.c.enabled)
        with self._db.reading() as tx:
            rows = tx.execute(sa.select(*columns).where(wanted)).all()
        self._keys = tuple(filter(None, (old.get(row.id) or self._unsealed(row) for row in rows)))

    def _unsealed(self, row: Any) -> PoolKey | None:
        try:
            text = self.open(row.id, row.api_key, row.api_key_hash)
        except SealBroken as error:
            # Left alone in the database: the fault may be this process's keys, and a damaged row is evidence.
            event(log, "pool_key_unreadable", logging.ERROR, key=row.name, reason=str(error))
            return None
        expires_at = (row.expires_at - EXPIRY_MARGIN).timestamp() if row.expires_at else math.inf
        return PoolKey(row.id, row.name, text, expires_at)

    def open(self, row_id: int, sealed: str | None, api_key_hash: str | None) -> str:
        """A stored key's text, checked against its hash at OpenRouter. Raises SealBroken."""
        text = self._envelopes.open(table.name, "api_key", row_id, sealed)
        if not same(sha256_hex(text), api_key_hash or ""):
            raise SealBroken(f"the key of row {row_id} is not the one that its hash names")
        return text

    def write_counts(self) -> None:
        """Add the uses since the last call to the rows. A crash may lose some seconds of them: they only inform."""
        with self._uses_lock:
            uses, self._uses = self._uses, {}
        if not uses:
            return
        now = self._clock.now()

        def add(tx: Transaction) -> None:
            for row_id, count in sorted(uses.items()):  # one order in all processes, so that they don't deadlock
                values = {"use_count": table.c.use_count + count, "last_used": now}
                tx.execute(table.update().where(table.c.id == row_id).values(values))

        try:
            self._db.transact(add)
        except BaseException:
            with self._uses_lock:
                for row_id, count in uses.items():
                    self._uses[row_id] = self._uses.get(row_id, 0) + count
            raise

    # ── the database: what operators and the rotation use

    def rows(self) -> list[KeyRow]:
        """All keys, oldest first."""
        columns = [table.c[name] for name in KeyRow.__dataclass_fields__]
        with self._db.reading() as tx:
            rows = tx.execute(sa.select(*columns).order_by(table.c.id)).all()
        return [
            KeyRow(**{**row._asdict(), "state": KeyState(row.state), "source": KeySource(row.source)}) for row in rows
        ]

    def add(self, text: str, name: str, source: KeySource) -> int:
        """Put a key that already exists at OpenRouter into the pool, active at once. Raises KeyAlreadyKnown."""

        def insert(tx: Transaction) -> int:
            row_id = self._insert(tx, name, source, None)
            self._fill(tx, row_id, text, KeyState.ACTIVE)
            bump(tx, table.name)
            return row_id

        try:
            return self._db.transact(insert)
        except Duplicate:
            raise KeyAlreadyKnown(name) from None

    def intend(self, name: str, expires_at: datetime) -> int:
        """Write down that a key of this name is about to be created at OpenRouter; returns the row's id."""
        return self._db.transact(lambda tx: self._insert(tx, name, KeySource.MINTED, expires_at))

    def store(self, row_id: int, text: str) -> None:
        """Keep the text of a key that OpenRouter has just created: intent → stored."""
        self._db.transact(lambda tx: self._fill(tx, row_id, text, KeyState.STORED))

    def stored_text(self, row_id: int) -> str:
        """The text of a stored key. Raises SealBroken."""
        with self._db.reading() as tx:
            row = tx.execute(sa.select(table.c.api_key, table.c.api_key_hash).where(table.c.id == row_id)).one()
        return self.open(row_id, row.api_key, row.api_key_hash)

    def move(self, row_id: int, state: KeyState) -> None:
        """Change a key's state; processes follow within two seconds. The text of a key that is over is overwritten."""
        values: dict[str, object] = {"state": state, "updated_at": self._clock.now()}
        if state in {KeyState.DELETED, KeyState.ABANDONED}:
            values["api_key"] = None
        self._update(table.c.id == row_id, values)

    def set_enabled(self, name: str, enabled: bool) -> None:
        """Let a key be picked, or not. Raises NotFound."""
        if not self._update(table.c.name == name, {"enabled": enabled, "updated_at": self._clock.now()}):
            raise NotFound(f"There is no key named {name!r}")

    def _update(self, condition: sa.ColumnElement[bool], values: dict[str, object]) -> int:
        def update(tx: Transaction) -> int:
            bump(tx, table.name)
            return tx.execute(table.update().where(condition).values(values)).rowcount

        return self._db.transact(update)

    def _insert(self, tx: Transaction, name: str, source: KeySource, expires_at: datetime | None) -> int:
        now = self._clock.now()
        row: dict[str, object] = {
            "name": name,
            "state": KeyState.INTENT,
            "source": source,
            "enabled": True,
            "expires_at": expires_at,
        }
        row |= {"created_at": now, "updated_at": now, "use_count": 0}
        return inserted_id(tx.execute(table.insert().values(row)))

    def _fill(self, tx: Transaction, row_id: int, text: str, state: KeyState) -> None:
        values: dict[str, object] = {
            "api_key": self._envelopes.seal(table.name, "api_key", row_id, text),
            "state": state,
        }
        values |= {"api_key_hash": sha256_hex(text), "updated_at": self._clock.now()}
        tx.execute(table.update().where(table.c.id == row_id).values(values))
