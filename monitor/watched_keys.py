"""People's own OpenRouter keys, which they use elsewhere and watch here: rows, and what each day has cost.

A key's days add up to what it has spent since it is here, plus its first day: every answer adds the difference to the
one before. Whoever asks OpenRouter about a key claims it first, and writes only while the claim is the latest, so that
of any number of processes one asks, and a key that was replaced or removed meanwhile is left alone.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import Any

import sqlalchemy as sa

from accounts.deleted import hold_account
from accounts.users import SHUT
from config.settings import Config
from db import Database, Transaction, inserted_id
from foundation.clock import Clock
from foundation.crypto import Envelopes, SealBroken, same, sha256_hex
from foundation.errors import BadRequest, Conflict, Forbidden, NotFound, TooManyRequests
from foundation.money import usd
from pool.life import PoolKeySource
from tables import pool_keys, users
from tables import watched_key_days as days
from tables import watched_keys as table
from upstream.openrouter.key_facts import KeyAccount
from vault.hashed import check_name

HINT_CHARACTERS = len("sk-or-v1-ab")
ONE_DAY = timedelta(days=1)
CLAIM = timedelta(minutes=5)  # longer than any question: after a crash another process asks then
ASK_AGAIN = timedelta(minutes=1)
# Whose keys carry calls of this service. A user's connected key may be watched too: it is theirs.
OF_THE_POOL = PoolKeySource.MINTED, PoolKeySource.ENVIRONMENT, PoolKeySource.OPERATOR, PoolKeySource.UNKNOWN


class WatchedKeyState(StrEnum):
    """suspect: OpenRouter has refused the key once, which it also does by mistake; refused: twice in a row."""

    VALID = "valid"
    SUSPECT = "suspect"
    REFUSED = "refused"


@dataclass(frozen=True)
class WatchedKey:
    """A key as its owner sees it: everything but its text. Money in nano-dollars; None means no limit, or unknown.

    asked_at: the latest question to OpenRouter. checked_at: its latest answer on whether it accepts the key.
    synced_at: its latest answer with usage and limits. failures: questions since then, all in vain.
    """

    id: int
    user_id: int
    name: str
    api_key_hint: str
    state: WatchedKeyState
    created_at: datetime
    updated_at: datetime
    asked_at: datetime
    checked_at: datetime | None
    synced_at: datetime | None
    next_sync_at: datetime
    failures: int
    last_error: str | None
    limit_nano: int | None
    remaining_nano: int | None
    usage_nano: int | None

    def to_dict(self) -> dict[str, Any]:
        """As JSON, money in dollars."""
        times = "created_at", "updated_at", "asked_at", "checked_at", "synced_at", "next_sync_at"
        found = {name: time.isoformat(timespec="seconds") if (time := getattr(self, name)) else None for name in times}
        found |= {f"{name}_usd": usd(getattr(self, f"{name}_nano")) for name in ("usage", "limit", "remaining")}
        told = "id", "name", "state", "failures", "last_error"
        return {name: getattr(self, name) for name in told} | {"key_hint": self.api_key_hint} | found


@dataclass(frozen=True)
class Claim:
    """The right to ask about a key, and to write what was answered while no later claim was made."""

    key: WatchedKey
    api_key: str | None
    api_key_hash: str

    @property
    def mine(self) -> sa.ColumnElement[bool]:
        """The row, while the claim holds."""
        return sa.and_(table.c.id == self.key.id, table.c.asked_at == self.key.asked_at)


COLUMNS = [table.c[name] for name in WatchedKey.__dataclass_fields__]


class WatchedKeys:
    """The keys in the database. clock: one for all processes."""

    def __init__(self, db: Database, envelopes: Envelopes, clock: Clock, config: Config) -> None:
        self._db = db
        self._envelopes = envelopes
        self._clock = clock
        self._most = config.max_api_keys_per_user
        self._interval = timedelta(minutes=config.sync_interval_minutes)

    # ── what their owners do

    def page(self, user_id: int, page: int, page_size: int) -> tuple[list[WatchedKey], int]:
        """A page of a user's keys, newest first, and how many there are. page: from 1."""
        with self._db.reading() as tx:
            rows = tx.execute(_of_user(user_id).limit(page_size).offset((page - 1) * page_size)).all()
            return [_key(row) for row in rows], _count(tx, user_id)

    def of_user(self, user_id: int) -> list[WatchedKey]:
        """All keys of a user, newest first."""
        with self._db.reading() as tx:
            return [_key(row) for row in tx.execute(_of_user(user_id))]

    def get(self, key_id: int, user_id: int) -> WatchedKey:
        """A user's key. Raises NotFound, and Forbidden for somebody else's."""
        with self._db.reading() as tx:
            return _key(_owned(tx, sa.select(*COLUMNS), key_id, user_id))

    def add(self, user_id: int, name: str, text: str, told: KeyAccount) -> WatchedKey:
        """Take in a key that OpenRouter accepts. Raises BadRequest, Conflict."""
        now = self._clock.now()
        values = {"user_id": user_id, "name": check_name(name), "created_at": now, "updated_at": now}

        def insert(tx: Transaction) -> WatchedKey:
            _lock(tx, user_id)
            if _count(tx, user_id) >= self._most:
                raise Conflict(f"You have {self._most} keys here, which is the most; remove one that you don't need")
            _check_hash(tx, user_id, sha256_hex(text))
            key_id = inserted_id(tx.execute(table.insert().values(values | self._of_text(text, told, now))))
            return self._fill(tx, key_id, text, told, now)

        return self._db.transact(insert)

    def change(self, key_id: int, user_id: int, name: str, new: tuple[str, KeyAccount] | None = None) -> WatchedKey:
        """Rename a key. new: another text in its place, and what OpenRouter says to that; the days stay.

        Raises NotFound, Forbidden, BadRequest, Conflict.
        """
        now = self._clock.now()
        values: dict[str, object] = {"name": check_name(name), "updated_at": now}

        def update(tx: Transaction) -> WatchedKey:
            _lock(tx, user_id)
            _owned(tx, sa.select(table.c.user_id), key_id, user_id)
            if new:
                text, told = new
                _check_hash(tx, user_id, sha256_hex(text))
                tx.execute(_of(key_id).values(values | self._of_text(text, told, now)))
                return self._fill(tx, key_id, text, told, now)
            tx.execute(_of(key_id).values(values))
            return _key(_owned(tx, sa.select(*COLUMNS), key_id, user_id))

        return self._db.transact(update)

    def has_text(self, key_id: int, user_id: int, text: str) -> bool:
        """True if this is the key's text already. Raises NotFound, Forbidden."""
        with self._db.reading() as tx:
            stored: str = _owned(tx, sa.select(table.c.user_id, table.c.api_key_hash), key_id, user_id).api_key_hash
        return same(stored, sha256_hex(text))

    def remove(self, key_id: int, user_id: int) -> None:
        """Forget a key and its days. Raises NotFound, Forbidden."""

        def delete(tx: Transaction) -> None:
            _owned(tx, sa.select(table.c.user_id).with_for_update(), key_id, user_id)
            tx.execute(days.delete().where(days.c.personal_key_id == key_id))
            tx.execute(table.delete().where(table.c.id == key_id))

        self._db.transact(delete)

    def _of_text(self, text: str, told: KeyAccount, now: datetime) -> dict[str, object]:
        values = {"api_key_hash": sha256_hex(text), "api_key_hint": f"{text[:HINT_CHARACTERS]}****"}
        return values | {"asked_at": now} | self._synced(told, now)

    def _fill(self, tx: Transaction, key_id: int, text: str, told: KeyAccount, now: datetime) -> WatchedKey:
        """Seal the text, which names the row, and note what the new key has cost today."""
        tx.execute(_of(key_id).values(api_key=self._envelopes.seal(table.name, "api_key", key_id, text)))
        _book(tx, key_id, now.date(), _part(told.usage_today_nano or 0, told.usage_nano or 0))
        return _key(tx.execute(sa.select(*COLUMNS).where(table.c.id == key_id)).one())

    def days(self, key_ids: Collection[int], first: date, last: date) -> list[tuple[int, date, int]]:
        """(key, UTC day, nano-dollars) for the days with a cost, both ends included, newest day first."""
        query = sa.select(days).where(days.c.personal_key_id.in_(key_ids), days.c.day.between(first, last))
        with self._db.reading() as tx:
            rows = tx.execute(query.order_by(days.c.day.desc(), days.c.personal_key_id)).all()
        return [(row.personal_key_id, row.day, row.cost_nano) for row in rows]

    # ── asking OpenRouter

    def due(self, count: int) -> list[int]:
        """Keys whose turn it is, longest due first: so many. Those of disabled users are left alone."""
        wanted = sa.and_(table.c.next_sync_at <= self._clock.now(), _is_watched())
        with self._db.reading() as tx:
            return list(tx.scalars(sa.select(table.c.id).where(wanted).order_by(table.c.next_sync_at).limit(count)))

    def claim_due(self, key_id: int) -> Claim | None:
        """The right to ask about a key whose turn it is; None if another process was first."""
        now = self._clock.now()
        return self._db.transact(lambda tx: self._claim(tx, key_id, table.c.next_sync_at <= now, now))

    def claim_own(self, key_id: int, user_id: int) -> Claim:
        """The right to ask about a user's key now. Raises NotFound, Forbidden, TooManyRequests."""
        now = self._clock.now()

        def claim(tx: Transaction) -> Claim:
            asked_at = _owned(tx, sa.select(table.c.user_id, table.c.asked_at), key_id, user_id).asked_at
            if found := self._claim(tx, key_id, table.c.asked_at <= now - ASK_AGAIN, now):
                return found
            wait = max(1, round((asked_at + ASK_AGAIN - now).total_seconds()))
            raise TooManyRequests("A key can be synchronised once a minute; this one was a moment ago", wait)

        return self._db.transact(claim)

    def _claim(self, tx: Transaction, key_id: int, when: sa.ColumnElement[bool], now: datetime) -> Claim | None:
        values = {"asked_at": now, "next_sync_at": now + CLAIM}
        # The row count decides: of any number of processes one gets it.
        if tx.execute(_of(key_id).where(when).values(values)).rowcount != 1:
            return None
        row = tx.execute(sa.select(*COLUMNS, table.c.api_key, table.c.api_key_hash).where(table.c.id == key_id)).one()
        return Claim(_key(row), row.api_key, row.api_key_hash)

    def text(self, claim: Claim) -> str:
        """The text of a claimed key. Raises SealBroken."""
        text = self._envelopes.open(table.name, "api_key", claim.key.id, claim.api_key)
        if not same(sha256_hex(text), claim.api_key_hash):
            raise SealBroken(f"the personal key of row {claim.key.id} is not the one that its hash names")
        return text

    def note_told(self, claim: Claim, told: KeyAccount) -> None:
        """OpenRouter accepts the key, and told its usage: the days get the difference to what was known."""
        now = self._clock.now()

        def write(tx: Transaction) -> None:
            before = tx.execute(sa.select(*COLUMNS).where(claim.mine).with_for_update()).first()
            if before is None:
                return
            spent = max(0, (told.usage_nano or 0) - (before.usage_nano or 0))
            # What was spent since the last time, and not today, was spent up to yesterday: of longer gaps nobody knows.
            is_of_today = before.synced_at is not None and before.synced_at.date() >= now.date()
            is_told = told.usage_today_nano is not None
            today = _part(told.usage_today_nano or 0, spent) if is_told and not is_of_today else spent
            _book(tx, claim.key.id, now.date(), today)
            _book(tx, claim.key.id, now.date() - ONE_DAY, spent - today)
            tx.execute(table.update().where(claim.mine).values(self._synced(told, now)))

        self._db.transact(write)

    def _synced(self, told: KeyAccount, now: datetime) -> dict[str, object]:
        values: dict[str, object] = {"state": WatchedKeyState.VALID, "checked_at": now, "synced_at": now}
        values |= {"next_sync_at": now + self._interval, "failures": 0, "last_error": None}
        return values | {name: getattr(told, name) for name in ("limit_nano", "remaining_nano", "usage_nano")}

    def note_refused(self, claim: Claim, why: str) -> WatchedKeyState:
        """OpenRouter does not accept the key. why: told to its owner. Returns the state that the key is in now."""
        now, before = self._clock.now(), claim.key.state
        state = WatchedKeyState.SUSPECT if before is WatchedKeyState.VALID else WatchedKeyState.REFUSED
        # A refused key may work again, and is asked once a day.
        pause = ONE_DAY if state is WatchedKeyState.REFUSED else self._pause(claim.key.failures)
        self._note(claim, {"state": state, "checked_at": now, "next_sync_at": now + pause, "last_error": why})
        return state

    def note_unanswered(self, claim: Claim, why: str) -> None:
        """OpenRouter said nothing about the key. why: told to its owner."""
        self._note(claim, {"next_sync_at": self._clock.now() + self._pause(claim.key.failures), "last_error": why})

    def _pause(self, failures: int) -> timedelta:
        return min(self._interval * (1 << min(failures, 20)), ONE_DAY)

    def _note(self, claim: Claim, values: dict[str, object]) -> None:
        values |= {"failures": claim.key.failures + 1}
        self._db.transact(lambda tx: tx.execute(table.update().where(claim.mine).values(values)))

    # ── for operators

    def status(self) -> list[dict[str, object]]:
        """One line a state: how many keys, how many of them wait for their turn, and how many fail."""
        is_due = sa.and_(table.c.next_sync_at <= self._clock.now(), _is_watched())
        sums = (sa.func.sum(sa.case((which, 1), else_=0)) for which in (is_due, table.c.failures > 0))
        with self._db.reading() as tx:
            rows = tx.execute(sa.select(table.c.state, sa.func.count(), *sums).group_by(table.c.state)).all()
        found = {state: tuple(map(int, counts)) for state, *counts in rows}  # MySQL's sums are Decimals
        names = "keys", "due", "failing"
        return [
            {"state": state.value} | dict(zip(names, found.get(state, (0, 0, 0)), strict=True))
            for state in WatchedKeyState
        ]


def _key(row: Any) -> WatchedKey:
    fields = {name: getattr(row, name) for name in WatchedKey.__dataclass_fields__}
    return WatchedKey(**fields | {"state": WatchedKeyState(row.state)})


def _of_user(user_id: int) -> sa.Select[Any]:
    return sa.select(*COLUMNS).where(table.c.user_id == user_id).order_by(table.c.id.desc())


def _of(key_id: int) -> sa.Update:
    return table.update().where(table.c.id == key_id)


def _owned(tx: Transaction, query: sa.Select[Any], key_id: int, user_id: int) -> Any:
    """The row of a user's key; the query has its user_id. Raises NotFound, Forbidden."""
    row = tx.execute(query.where(table.c.id == key_id)).first()
    if row is None:
        raise NotFound(f"There is no key {key_id}")
    if row.user_id != user_id:
        raise Forbidden(f"The key {key_id} is somebody else's")
    return row


def _lock(tx: Transaction, user_id: int) -> None:
    """One change of a user's keys at a time: what was counted holds."""
    hold_account(tx, user_id)


def _count(tx: Transaction, user_id: int) -> int:
    query = sa.select(sa.func.count()).select_from(table).where(table.c.user_id == user_id)
    return tx.execute(query).scalar_one()


def _check_hash(tx: Transaction, user_id: int, api_key_hash: str) -> None:
    """Raises BadRequest for a key of the service's own, Conflict for one that the user has here."""
    in_pool = sa.and_(pool_keys.c.api_key_hash == api_key_hash, pool_keys.c.source.in_(OF_THE_POOL))
    if tx.scalar(sa.select(pool_keys.c.id).where(in_pool)) is not None:
        raise BadRequest("This is a key of this service's own pool; give one of your own account")
    own = sa.and_(table.c.user_id == user_id, table.c.api_key_hash == api_key_hash)
    if (known := tx.scalar(sa.select(table.c.id).where(own))) is not None:
        raise Conflict(f"You have this key here already, as key {known}")


def _is_watched() -> sa.ColumnElement[bool]:
    """Nothing is done with the keys of a user who is disabled."""
    return ~sa.exists().where(users.c.id == table.c.user_id, users.c.state.in_(SHUT))


def _part(amount: int, whole: int) -> int:
    """The amount, as far as it can be a part of the whole: OpenRouter's clock and ours may differ at midnight."""
    return min(max(amount, 0), whole)


def _book(tx: Transaction, key_id: int, day: date, cost_nano: int) -> None:
    """Add to a day. The key's row is locked: nobody else writes its days."""
    if cost_nano:
        one = sa.and_(days.c.personal_key_id == key_id, days.c.day == day)
        values = {"personal_key_id": key_id, "day": day, "cost_nano": cost_nano}
        if not tx.execute(days.update().where(one).values(cost_nano=days.c.cost_nano + cost_nano)).rowcount:
            tx.execute(days.insert().values(values))
