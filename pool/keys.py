"""The pool's rows in the database: each key encrypted, beside what is known of it, and all that changes one.

What a row says, and from which state to which it moves, is in pool/life.py.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import datetime
from typing import Any, TypeVar

import sqlalchemy as sa

from accounts.users import UserState
from db import Database, Duplicate, Transaction, inserted_id
from foundation.clock import Clock
from foundation.crypto import Envelopes, SealBroken, new_id, same, sha256_hex
from foundation.errors import NotFound
from pool.life import BEFORE, WITHOUT_TEXT, PoolKeyRow, PoolKeySource, PoolKeyState
from replicas.revisions import bump, current
from tables import openrouter_accounts, users
from tables import pool_keys as table
from upstream.http import authorization_of

T = TypeVar("T")
MAX_NAME_CHARACTERS = 190
# Whose keys: nobody's alone, anybody's; or a user's id.
SHARED, ANYBODYS = "shared", "any"
Whose = int | str
ROWS_AT_ONCE = 1000  # ids in one statement: SQLite takes no more than 32,766


class KeyAlreadyKnown(Exception):
    """The pool has, or once had, this key or this name."""


class MoveRefused(Exception):
    """The key is not in a state from which it could move there."""


def _unguarded(_tx: Transaction) -> None:
    """Nothing to check."""


def _owned_by(whose: Whose) -> sa.ColumnElement[bool]:
    if whose == ANYBODYS:
        return sa.true()
    return table.c.owner_id.is_(None) if whose == SHARED else table.c.owner_id == whose


def _columns() -> sa.Select[Any]:
    return sa.select(*(table.c[name] for name in PoolKeyRow.__dataclass_fields__))


def _batches(ids: Collection[int]) -> Iterator[list[int]]:
    ordered = sorted(ids)
    yield from (ordered[begin : begin + ROWS_AT_ONCE] for begin in range(0, len(ordered), ROWS_AT_ONCE))


_IN_USE = sa.and_(table.c.state == PoolKeyState.ACTIVE, table.c.enabled)
_NOT_CONNECTED = table.c.source != PoolKeySource.CONNECTED


def connected_key_of(owner_id: int) -> sa.ColumnElement[bool]:
    """What is true of a key that a user has, or had, connected."""
    return sa.and_(table.c.owner_id == owner_id, table.c.source == PoolKeySource.CONNECTED)


class PoolKeys:
    """The keys in the database.

    guard: called within every writing transaction; raises if this process may no longer write.
    """

    def __init__(
        self, db: Database, envelopes: Envelopes, clock: Clock, guard: Callable[[Transaction], None] = _unguarded
    ) -> None:
        self._db = db
        self._envelopes = envelopes
        self._clock = clock
        self._guard = guard

    def rows(self, whose: Whose = ANYBODYS) -> list[PoolKeyRow]:
        """All keys of these owners, oldest first."""
        return self._select(_columns().where(_owned_by(whose)).order_by(table.c.id))

    def operated(self, whose: Whose = ANYBODYS) -> list[PoolKeyRow]:
        """The same without users' connected keys: those that this service may renew, and has to account for."""
        return self._select(_columns().where(_owned_by(whose), _NOT_CONNECTED).order_by(table.c.id))

    def page(self, whose: Whose, with_gone: bool, begin: int, size: int | None) -> tuple[list[PoolKeyRow], int]:
        """A part of the keys, newest first, and how many there are in all. with_gone: those WITHOUT_TEXT too."""
        wanted = _owned_by(whose)
        if not with_gone:
            wanted = sa.and_(wanted, table.c.state.not_in(WITHOUT_TEXT))
        with self._db.reading() as tx:
            total: int = tx.execute(sa.select(sa.func.count()).select_from(table).where(wanted)).scalar_one()
        return self._select(_columns().where(wanted).order_by(table.c.id.desc()).limit(size).offset(begin)), total

    def in_use(self) -> list[PoolKeyRow]:
        """The shared keys that may be picked, oldest first."""
        return self._select(_columns().where(_IN_USE, table.c.owner_id.is_(None)).order_by(table.c.id))

    def dedicated(self, owner_ids: Collection[int]) -> dict[int, PoolKeyRow]:
        """The key that each of these users may use alone; nothing for those who have none.

        A connected one before a minted one; of two minted ones, the newer one.
        """
        found: dict[int, PoolKeyRow] = {}
        for ids in _batches(owner_ids):
            rows = self._select(_columns().where(_IN_USE, table.c.owner_id.in_(ids)).order_by(table.c.id))
            rows.sort(key=lambda row: row.source is PoolKeySource.CONNECTED)  # the last one stays
            found |= {row.owner_id: row for row in rows if row.owner_id is not None}
        return found

    def connected_owners(self) -> frozenset[int]:
        """Users who have a connected key in use."""
        # By the accounts, which are few: of keys with owners there may be a million.
        query = sa.select(table.c.owner_id).join(openrouter_accounts, openrouter_accounts.c.pool_key_id == table.c.id)
        with self._db.reading() as tx:
            return frozenset(tx.scalars(query.where(_IN_USE)))

    def lacking(self, count: int) -> list[int]:
        """Active users without a minted key of their own, nor one on its way: so many of them, low ids first."""
        on_its_way = PoolKeyState.INTENT, PoolKeyState.STORED, PoolKeyState.ACTIVE
        has_one = sa.exists().where(table.c.owner_id == users.c.id, table.c.state.in_(on_its_way), _NOT_CONNECTED)
        wanted = sa.and_(users.c.state == UserState.ACTIVE, ~has_one)
        with self._db.reading() as tx:
            return list(tx.scalars(sa.select(users.c.id).where(wanted).order_by(users.c.id).limit(count)))

    def owners(self, only_inactive: bool) -> set[int]:
        """Users who have a minted key of their own in use. only_inactive: those who may not call any more."""
        wanted = sa.and_(table.c.owner_id.is_not(None), _NOT_CONNECTED, table.c.state == PoolKeyState.ACTIVE)
        query = sa.select(table.c.owner_id).where(wanted)
        if only_inactive:
            is_active = sa.exists().where(users.c.id == table.c.owner_id, users.c.state == UserState.ACTIVE)
            query = query.where(~is_active)
        with self._db.reading() as tx:
            return set(tx.scalars(query))

    def _select(self, query: sa.Select[Any]) -> list[PoolKeyRow]:
        with self._db.reading() as tx:
            rows = tx.execute(query).all()
        # In the order of the columns: by name it would take three times as long, for thousands of rows at every reload.
        return [PoolKeyRow(row[0], row[1], PoolKeyState(row[2]), PoolKeySource(row[3]), *row[4:]) for row in rows]

    def texts(self, row_ids: Collection[int]) -> dict[int, str | SealBroken]:
        """The texts of these keys, each checked against its hash at OpenRouter, or why it does not open."""
        query = sa.select(table.c.id, table.c.api_key, table.c.api_key_hash)
        found: dict[int, str | SealBroken] = {}
        for ids in _batches(row_ids):
            with self._db.reading() as tx:
                rows = tx.execute(query.where(table.c.id.in_(ids))).all()
            found |= {row.id: self._open(row) for row in rows}
        return found

    def text(self, row_id: int) -> str:
        """One key's text. Raises SealBroken."""
        text = self.texts([row_id])[row_id]
        if isinstance(text, SealBroken):
            raise text
        return text

    def authorizations(self, row_id: int) -> list[bytes]:
        """What may ask about a call of this key: itself, and in case it is gone another one of the pool's account."""
        others = [row.id for row in self.in_use() if row.id != row_id][:1]
        wanted = [row_id, *others]
        found = self.texts(wanted)
        return [authorization_of(text) for row_id in wanted if isinstance(text := found.get(row_id), str)]

    def _open(self, row: Any) -> str | SealBroken:
        try:
            text = self._envelopes.open(table.name, "api_key", row.id, row.api_key)
        except SealBroken as error:
            return error
        if not same(sha256_hex(text), row.api_key_hash or ""):
            return SealBroken(f"the key of row {row.id} is not the one that its hash names")
        return text

    # ── new rows

    def add(self, text: str, name: str, source: PoolKeySource) -> int:
        """Put a key that already exists at OpenRouter into the pool, active at once. Raises KeyAlreadyKnown."""

        def insert(tx: Transaction) -> int:
            row_id = self._insert(tx, name=name, source=source, state=PoolKeyState.INTENT)
            self._fill(tx, row_id, text, PoolKeyState.ACTIVE)
            bump(tx, table.name)
            return row_id

        try:
            return self._transact(insert)
        except Duplicate:
            raise KeyAlreadyKnown(name) from None

    def intend(
        self,
        name: str,
        expires_at: datetime,
        limit_nano: int | None,
        replaces_id: int | None,
        owner_id: int | None = None,
    ) -> int:
        """Write down that a key of this name is about to be created at OpenRouter; returns the row's id."""
        values: dict[str, object] = {"expires_at": expires_at, "limit_nano": limit_nano, "replaces_id": replaces_id}
        values |= {"state": PoolKeyState.INTENT, "source": PoolKeySource.MINTED, "owner_id": owner_id}
        return self._transact(lambda tx: self._insert(tx, name=name, **values))

    def take_in_unknown(self, name: str, api_key_hash: str, usage_nano: int | None = None) -> int:
        """Write down a key that has our name at OpenRouter but no row here: quarantined. Raises KeyAlreadyKnown."""
        values = {"state": PoolKeyState.QUARANTINED, "source": PoolKeySource.UNKNOWN, "api_key_hash": api_key_hash}
        try:
            return self._transact(lambda tx: self._insert(tx, name=name, usage_nano=usage_nano, **values))
        except Duplicate:
            raise KeyAlreadyKnown(name) from None

    def _insert(self, tx: Transaction, **values: Any) -> int:
        now = self._clock.now()
        values |= {"enabled": True, "created_at": now, "updated_at": now, "use_count": 0}
        return inserted_id(tx.execute(table.insert().values(values)))

    # ── a user's connected key, in the transaction that connects or disconnects the account, and bumps the revision

    def add_connected(self, tx: Transaction, owner_id: int, text: str, account_id: str | None) -> int:
        """Store a key of a user's own account, in use at once; returns the row's id. Duplicate for a known key."""
        values: dict[str, object] = {
            "state": PoolKeyState.INTENT,
            "source": PoolKeySource.CONNECTED,
            "owner_id": owner_id,
        }
        row_id = self._insert(tx, name=f"connected/{new_id()}", account_id=account_id, **values)
        self._fill(tx, row_id, text, PoolKeyState.ACTIVE)
        return row_id

    def drop_connected(self, tx: Transaction, row_id: int) -> None:
        """Overwrite a connected key, whatever its state."""
        gone = {"state": PoolKeyState.DELETED, "api_key": None, "api_key_hash": None, "updated_at": self._clock.now()}
        wanted = sa.and_(table.c.id == row_id, table.c.source == PoolKeySource.CONNECTED)
        tx.execute(table.update().where(wanted).values(gone))

    # ── moves

    def store(self, row_id: int, text: str) -> None:
        """Keep the text of a key that OpenRouter has just created: intent → stored. Raises MoveRefused."""
        self._transact(lambda tx: self._fill(tx, row_id, text, PoolKeyState.STORED))

    def _fill(self, tx: Transaction, row_id: int, text: str, state: PoolKeyState) -> None:
        values: dict[str, object] = {
            "api_key": self._envelopes.seal(table.name, "api_key", row_id, text),
            "api_key_hash": sha256_hex(text),
            "state": state,
            "updated_at": self._clock.now(),
        }
        wanted = sa.and_(table.c.id == row_id, table.c.state == PoolKeyState.INTENT)
        if not tx.execute(table.update().where(wanted).values(values)).rowcount:
            raise MoveRefused(f"row {row_id} is no intent any more")

    def switch(self, row_id: int, drain_until: datetime, account_id: str | None) -> None:
        """In one transaction: stored → active, and the key that it replaces active → draining. Raises MoveRefused."""

        def move(tx: Transaction) -> None:
            self._move(tx, row_id, {PoolKeyState.STORED}, {"state": PoolKeyState.ACTIVE, "account_id": account_id})
            old_id = tx.scalar(sa.select(table.c.replaces_id).where(table.c.id == row_id))
            if old_id is not None:
                wanted = sa.and_(table.c.id == old_id, table.c.state == PoolKeyState.ACTIVE)
                tx.execute(table.update().where(wanted).values(self._draining(tx, drain_until)))
            else:
                bump(tx, table.name)

        self._transact(move)

    def drain(self, row_id: int, drain_until: datetime) -> None:
        """No new calls for this key: active → draining. Raises MoveRefused."""
        self._transact(lambda tx: self._move(tx, row_id, {PoolKeyState.ACTIVE}, self._draining(tx, drain_until)))

    def _draining(self, tx: Transaction, drain_until: datetime) -> dict[str, object]:
        bump(tx, table.name)  # first: the new revision is the one from which processes know
        revision = current(tx, table.name)
        values = {"state": PoolKeyState.DRAINING, "drain_until": drain_until, "drain_revision": revision}
        return values | {"updated_at": self._clock.now()}

    def move(self, row_id: int, state: PoolKeyState) -> None:
        """Change a key's state; processes follow within two seconds. The text of a key that is over is overwritten.

        Raises MoveRefused unless the row is in one of the states BEFORE this one.
        """
        gone: dict[str, object] = {"api_key": None} if state in WITHOUT_TEXT else {}

        def update(tx: Transaction) -> None:
            self._move(tx, row_id, BEFORE[state], gone | {"state": state})
            bump(tx, table.name)

        self._transact(update)

    def _move(self, tx: Transaction, row_id: int, before: set[PoolKeyState], values: Mapping[str, object]) -> None:
        wanted = sa.and_(table.c.id == row_id, table.c.state.in_(before))
        update = table.update().where(wanted).values({**values, "updated_at": self._clock.now()})
        if not tx.execute(update).rowcount:
            raise MoveRefused(f"row {row_id} is in none of {sorted(before)}")

    # ── what does not change the state

    def set_enabled(self, name: str, enabled: bool) -> None:
        """Let a key be picked, or not. Raises NotFound."""
        self._change(name, {"enabled": enabled, "updated_at": self._clock.now()})

    def ask_renewal(self, name: str) -> None:
        """Let the rotation replace this key at its next pass. Raises NotFound unless it is a minted key in use."""
        minted = sa.and_(table.c.source == PoolKeySource.MINTED, table.c.state == PoolKeyState.ACTIVE)
        self._change(name, {"renew_at": self._clock.now()}, minted, "minted key in use")

    def drop_foreign(self, prefix: str) -> list[str]:
        """Overwrite the texts of minted keys of other deployments: dead here, untouched at OpenRouter. Their names."""
        foreign = [row for row in self.rows() if row.source is PoolKeySource.MINTED and not row.name.startswith(prefix)]
        dropped = [row for row in foreign if row.state not in WITHOUT_TEXT]

        def update(tx: Transaction) -> None:
            for row in dropped:
                values = {"state": PoolKeyState.DEAD, "api_key": None, "updated_at": self._clock.now()}
                tx.execute(table.update().where(table.c.id == row.id).values(values))
            bump(tx, table.name)

        self._transact(update)
        return [row.name for row in dropped]

    def _change(
        self, name: str, values: dict[str, object], which: sa.ColumnElement[bool] | None = None, what: str = "key"
    ) -> None:
        wanted = table.c.name == name if which is None else sa.and_(table.c.name == name, which)

        def update(tx: Transaction) -> int:
            bump(tx, table.name)
            return tx.execute(table.update().where(wanted).values(values)).rowcount

        if not self._transact(update):
            raise NotFound(f"There is no {what} named {name!r}")

    def set_limits(self, limits: Mapping[int, tuple[int | None, int | None]]) -> None:
        """Note each row's (limit, remaining) in nano-dollars, as OpenRouter reports them."""

        def update(tx: Transaction) -> None:
            for row_id, (limit, remaining) in sorted(limits.items()):
                values = {"limit_nano": limit, "remaining_nano": remaining}
                tx.execute(table.update().where(table.c.id == row_id).values(values))
            bump(tx, table.name)

        if limits:
            self._transact(update)

    def set_usage(self, usages: Mapping[int, int]) -> None:
        """Note what each row's key has spent in all, in nano-dollars; no process keeps that in memory."""

        def update(tx: Transaction) -> None:
            for row_id, usage in sorted(usages.items()):
                tx.execute(table.update().where(table.c.id == row_id).values(usage_nano=usage))

        if usages:
            self._transact(update)

    def set_account(self, row_id: int, account_id: str) -> None:
        """Note to which account at OpenRouter a key belongs."""

        def update(tx: Transaction) -> None:
            tx.execute(table.update().where(table.c.id == row_id).values(account_id=account_id))
            bump(tx, table.name)

        self._transact(update)

    def add_uses(self, uses: Mapping[int, int]) -> None:
        """Add to the rows' counts of uses."""
        now = self._clock.now()

        def add(tx: Transaction) -> None:
            for row_id, count in sorted(uses.items()):  # one order in all processes, so that they don't deadlock
                values = {"use_count": table.c.use_count + count, "last_used": now}
                tx.execute(table.update().where(table.c.id == row_id).values(values))

        self._transact(add)

    def _transact(self, work: Callable[[Transaction], T]) -> T:
        def guarded(tx: Transaction) -> T:
            self._guard(tx)
            return work(tx)

        return self._db.transact(guarded)
