"""What one pass of the rotation has to do, derived from the rows and OpenRouter's list of keys: no effects, only steps.

Each step is safe to repeat and to interrupt: what it leaves behind, the next pass finds here.

    what was found                                            step
    intent, older than any answer could be                    abandon (deleting the key of that name, if there is one)
    key with our name that no row knows                       take in: quarantined and disabled; alarm, no deletions
    row that is over, key still there                         sweep: delete the key
    key with the name of a row and another hash               sweep: a create that was carried out twice
    row in use, key not listed                                check missing: dead if OpenRouter refuses the key too
    row in use whose text is damaged                          quarantine; never a deletion
    stored                                                    activate: ask the key, then switch in one transaction
    active, not needed or not usable any more                 drain
    draining, time is over and no process uses it             disable
    disabled for an hour, or quarantined unknown for a day    delete
    fewer usable than POOL_SIZE, or one due for renewal       mint; a key that OpenRouter refuses is not usable
    user without a usable key of their own, or one is due     mint
    user's key with another limit than it should have         limit

What the shared keys need comes first; of what users' own keys need, a pass does some of each kind.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import cached_property

from pool.choice import EXPIRY_MARGIN
from pool.life import PoolKeyRow, PoolKeySource, PoolKeyState
from upstream.openrouter.key_facts import RemoteKey

MAX_TAKEN_IN = 3  # unknown keys in one pass: if it is us who are wrong, people have time to notice
MAX_PENDING = 3  # intents whose answer was lost: a create that never answers must not fill the account
MAX_DEDICATED = 50  # steps of a kind for users' own keys in one pass: a million users must not keep the pool waiting
MIN_LIMIT_NANO = 10_000_000  # a cent: what a limit of nothing means to OpenRouter, nobody knows


@dataclass(frozen=True)
class Timing:
    """How long the steps wait."""

    # An intent younger than this may still be on its way: longer than the API's time-out and any error of the clocks.
    intent_min_age: timedelta = timedelta(minutes=5)
    # Processes know of a switch within two seconds; this bounds a thread that was just picking the key.
    drain_grace: timedelta = timedelta(seconds=60)
    delete_after: timedelta = timedelta(hours=1)
    unknown_delete_after: timedelta = timedelta(hours=24)
    # A key that no row knows means that the database may be an old copy: its word is no reason to delete anything.
    hold_deletions: timedelta = timedelta(hours=24)
    # OpenRouter may take a moment to know its own new key everywhere.
    confirm_pauses_seconds: tuple[float, ...] = (0.5, 1, 2, 0)


class Do(StrEnum):
    """The kinds of steps."""

    TAKE_IN = "take in"
    ABANDON = "abandon"
    SWEEP = "sweep"
    CHECK_MISSING = "check missing"
    QUARANTINE = "quarantine"
    FORGET = "forget"
    ACTIVATE = "activate"
    DRAIN = "drain"
    LIMIT = "limit"
    DISABLE = "disable"
    DELETE = "delete"
    MINT = "mint"


@dataclass(frozen=True)
class Step:
    """One thing to do. row: for MINT, the key to replace; None for keys without a row. remote: as listed, if it is.

    owner_id, limit_nano: for MINT, whose own key it will be, and its limit.
    """

    do: Do
    row: PoolKeyRow | None = None
    remote: RemoteKey | None = None
    owner_id: int | None = None
    limit_nano: int | None = None

    @property
    def whose(self) -> int | None:
        """The user whose own key this is about; None for what all share."""
        return self.row.owner_id if self.row else self.owner_id

    @property
    def known_row(self) -> PoolKeyRow:
        """The row of a step that has one. Raises ValueError."""
        if self.row is None:
            raise ValueError(f"the plan gave no row to {self.do}")
        return self.row

    @property
    def known_key(self) -> RemoteKey:
        """The listed key of a step that has one. Raises ValueError."""
        if self.remote is None:
            raise ValueError(f"the plan gave no key to {self.do}")
        return self.remote

    @property
    def key_name(self) -> str:
        """Which key this is about; empty for a new one that replaces none."""
        known = self.row or self.remote
        return known.name if known else ""


@dataclass(frozen=True)
class Dedicated:
    """What users' own keys should be like, and who gets and loses one; nobody gets one by default.

    lacking: some users who should have a key, and have none in use nor on its way. withdrawn: users who have a key in
    use and may not have one any more. limit_reset: daily, weekly, monthly or none.
    """

    lacking: Collection[int] = ()
    withdrawn: Collection[int] = ()
    limit_nano: int = 0
    limit_reset: str = "none"
    renew_after: timedelta = timedelta.max

    def period_began(self, now: datetime) -> datetime:
        """When OpenRouter began to count against the limit anew: at 00:00 UTC, of Mondays, of the first."""
        today = now.replace(hour=0, minute=0, second=0, microsecond=0)
        if self.limit_reset == "weekly":
            return today - timedelta(days=today.weekday())
        if self.limit_reset == "monthly":
            return today.replace(day=1)
        return today if self.limit_reset == "daily" else datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True)
class Situation:
    """What a pass knows when it begins.

    in_use: whether a process may still have calls on a draining key. unreadable: ids of rows with a damaged text.
    refused: ids of shared keys in use that OpenRouter does not accept, by its own words to them.
    pool_size, renew_after: of the keys that all users share.
    """

    now: datetime
    rows: Sequence[PoolKeyRow]
    remote: Sequence[RemoteKey]
    in_use: Callable[[PoolKeyRow], bool]
    unreadable: Collection[int]
    deletions_held_until: datetime | None
    prefix: str
    pool_size: int
    renew_after: timedelta
    timing: Timing
    dedicated: Dedicated
    refused: Collection[int] = ()

    def ours(self, *states: PoolKeyState) -> list[PoolKeyRow]:
        """Rows of keys that this deployment minted, or found under its name, oldest first."""
        made = PoolKeySource.MINTED, PoolKeySource.UNKNOWN
        mine = [row for row in self.rows if row.source in made and row.name.startswith(self.prefix)]
        return [row for row in mine if row.state in states]

    def listed(self, row: PoolKeyRow) -> RemoteKey | None:
        """The row's key in OpenRouter's list: by its hash, or by its name while the hash is not known."""
        return self._by_hash.get(row.api_key_hash) if row.api_key_hash else self._by_name.get(row.name)

    @cached_property
    def _by_hash(self) -> dict[str, RemoteKey]:
        return {key.hash: key for key in self.remote}

    @cached_property
    def _by_name(self) -> dict[str, RemoteKey]:
        return {key.name: key for key in self.remote}

    @cached_property
    def usable(self) -> list[PoolKeyRow]:
        """Shared keys that gateways can pick for some time yet, oldest first. Those that people brought count too."""
        return [row for row in self._usable if row.owner_id is None]

    @cached_property
    def own(self) -> dict[int, PoolKeyRow]:
        """By owner, the own key that gateways can pick for some time yet: the newest, if there are two."""
        withdrawn = self.dedicated.withdrawn
        owned = ((row.owner_id, row) for row in self._usable if row.owner_id not in withdrawn)
        return {owner_id: row for owner_id, row in owned if owner_id is not None}

    @cached_property
    def _usable(self) -> list[PoolKeyRow]:
        rows = [row for row in self.rows if row.state is PoolKeyState.ACTIVE and row.enabled]
        rows = [row for row in rows if row.id not in self.unreadable and row.id not in self.refused]
        # Keys of other accounts are not listed.
        rows = [row for row in rows if (key := self.listed(row)) is None or not key.disabled]
        return [row for row in rows if row.expires_at is None or row.expires_at > self.now + EXPIRY_MARGIN]

    def is_due(self, row: PoolKeyRow) -> bool:
        """True for a key minted by this deployment that was asked to be renewed, or is old enough."""
        if row.source is not PoolKeySource.MINTED or not row.name.startswith(self.prefix):
            return False
        age = self.now - row.created_at
        too_old = self.renew_after if row.owner_id is None else self.dedicated.renew_after
        return row.renew_at is not None or age >= too_old

    @property
    def deletions_are_held(self) -> bool:
        """True while a key that no row knew has made this database doubtful."""
        return self.deletions_held_until is not None and self.now < self.deletions_held_until


def plan(at: Situation) -> list[Step]:
    """The steps of one pass, in their order."""
    steps = [*_unknown(at), *_lost(at), *_damaged(at), *_missing(at), *_stored(at), *_surplus(at), *_drained(at)]
    deleting = {Do.SWEEP, Do.DELETE}
    if at.deletions_are_held or any(step.do is Do.TAKE_IN for step in steps):
        # An intent whose key exists is deleted too.
        steps = [s for s in steps if s.do not in deleting and not (s.do is Do.ABANDON and s.remote)]
    shared = [step for step in steps if step.whose is None]
    dedicated = [step for step in steps if step.whose is not None]
    return [*shared, *_mints(at), *_some_of_each([*dedicated, *_limits(at), *_dedicated_mints(at)])]


def _some_of_each(steps: Iterable[Step]) -> Iterator[Step]:
    count: Counter[Do] = Counter()
    for step in steps:
        count[step.do] += 1
        if count[step.do] <= MAX_DEDICATED:
            yield step


def unknown_keys(at: Situation) -> list[RemoteKey]:
    """Keys with our prefix at OpenRouter that no row knows by its hash, nor as minted by its name."""
    names = {row.name for row in at.rows if row.source is PoolKeySource.MINTED}
    return [key for key in _without_row(at) if key.name.startswith(at.prefix) and key.name not in names]


def _without_row(at: Situation) -> list[RemoteKey]:
    hashes = {row.api_key_hash for row in at.rows}
    return [key for key in at.remote if key.hash not in hashes]


def _unknown(at: Situation) -> Iterator[Step]:
    # A young one may be another rotator's, whose row was not there yet when we read the rows.
    old = [key for key in unknown_keys(at) if key.created_at <= at.now - at.timing.intent_min_age]
    yield from (Step(Do.TAKE_IN, remote=key) for key in sorted(old, key=lambda key: key.name)[:MAX_TAKEN_IN])
    for row in at.ours(PoolKeyState.QUARANTINED):
        key = at.listed(row)
        if row.source is PoolKeySource.UNKNOWN and key is None:
            yield Step(Do.FORGET, row)
        elif row.source is PoolKeySource.UNKNOWN and key and not key.disabled:
            yield Step(Do.TAKE_IN, row, key)
        elif row.source is PoolKeySource.UNKNOWN and row.updated_at <= at.now - at.timing.unknown_delete_after:
            yield Step(Do.DELETE, row, key)


def _lost(at: Situation) -> Iterator[Step]:
    for row in at.ours(PoolKeyState.INTENT):
        if row.created_at <= at.now - at.timing.intent_min_age:
            yield Step(Do.ABANDON, row, at.listed(row))
    for row in at.ours(PoolKeyState.ABANDONED, PoolKeyState.DEAD, PoolKeyState.DELETED):
        if key := at.listed(row):
            yield Step(Do.SWEEP, row, key)
    minted = [row for row in at.ours(*PoolKeyState) if row.source is PoolKeySource.MINTED]
    whole = {row.name for row in minted if row.api_key_hash}
    yield from (Step(Do.SWEEP, remote=key) for key in _without_row(at) if key.name in whole)


def _damaged(at: Situation) -> Iterator[Step]:
    states = PoolKeyState.STORED, PoolKeyState.ACTIVE, PoolKeyState.DRAINING
    yield from (Step(Do.QUARANTINE, row) for row in at.rows if row.id in at.unreadable and row.state in states)


def _missing(at: Situation) -> Iterator[Step]:
    for row in at.ours(PoolKeyState.ACTIVE, PoolKeyState.STORED, PoolKeyState.DRAINING):
        if row.id not in at.unreadable and at.listed(row) is None:
            yield Step(Do.CHECK_MISSING, row)
    for row in at.ours(PoolKeyState.DISABLED):  # which can't be asked, and has nothing to lose
        if at.listed(row) is None:
            yield Step(Do.FORGET, row)


def _stored(at: Situation) -> Iterator[Step]:
    for row in at.ours(PoolKeyState.STORED):
        key = at.listed(row)
        if row.id not in at.unreadable and key:
            yield Step(Do.ACTIVATE, row, key)


def _surplus(at: Situation) -> Iterator[Step]:
    """Active keys that nobody can use or have any more, and due ones without which the pool is still full.

    A refused one only once others are there in its place: OpenRouter may be refusing everybody, and end to.
    """
    needed = {row.id for row in (*at.usable, *at.own.values())} - {row.id for row in surplus_due(at)}
    for row in at.ours(PoolKeyState.ACTIVE):
        key = at.listed(row)
        if row.id in at.refused and len(at.usable) < at.pool_size:
            continue
        # One that an operator has disabled stays until it is due.
        over = row.id not in needed and (row.enabled or at.is_due(row) or row.owner_id in at.dedicated.withdrawn)
        if key and row.id not in at.unreadable and (key.disabled or over):
            yield Step(Do.DRAIN, row, key)


def surplus_due(at: Situation) -> list[PoolKeyRow]:
    """Keys that are due and need no successor. Those that are not due stay, however small POOL_SIZE has become."""
    too_many = max(len(at.usable) - at.pool_size, 0)
    return [row for row in at.usable if at.is_due(row)][:too_many]


def _drained(at: Situation) -> Iterator[Step]:
    for row in at.ours(PoolKeyState.DRAINING):
        key = at.listed(row)
        if key and row.drain_until and row.drain_until <= at.now and not at.in_use(row):
            yield Step(Do.DISABLE, row, key)
    for row in at.ours(PoolKeyState.DISABLED):
        key = at.listed(row)
        if key and row.updated_at <= at.now - at.timing.delete_after:
            yield Step(Do.DELETE, row, key)


def _mints(at: Situation) -> Iterator[Step]:
    pending = [row for row in at.ours(PoolKeyState.INTENT, PoolKeyState.STORED) if row.owner_id is None]
    stored = [row for row in pending if row.state is PoolKeyState.STORED]
    missing = at.pool_size - len(at.usable) - sum(row.replaces_id is None for row in stored)
    if len(pending) - len(stored) >= MAX_PENDING:
        return
    yield from (Step(Do.MINT) for _ in range(max(missing, 0)))
    if missing <= 0 and not pending:
        gone = surplus_due(at)
        due = [row for row in at.usable if at.is_due(row) and row not in gone]
        yield from (Step(Do.MINT, row) for row in due)


def _dedicated_mints(at: Situation) -> Iterator[Step]:
    """For users who have no usable key, and for keys that are due. While one is on its way, no other."""
    if len(at.ours(PoolKeyState.INTENT)) >= MAX_PENDING:
        return
    waiting = {row.owner_id for row in at.rows if row.state in {PoolKeyState.INTENT, PoolKeyState.STORED}}
    holders = {row.owner_id for row in at.rows if row.state is PoolKeyState.ACTIVE and row.owner_id is not None}
    without = ({*at.dedicated.lacking} | holders) - at.own.keys() - {*at.dedicated.withdrawn} - waiting
    wanted: list[tuple[int, PoolKeyRow | None]] = [(owner_id, None) for owner_id in sorted(without)]
    wanted += [(owner_id, row) for owner_id, row in at.own.items() if at.is_due(row) and owner_id not in waiting]
    last = {row.owner_id: row for row in at.rows if row.state not in {PoolKeyState.INTENT, PoolKeyState.ABANDONED}}
    for owner_id, row in wanted:
        yield Step(Do.MINT, row, owner_id=owner_id, limit_nano=_first_limit_nano(at, last.get(owner_id)))


def _first_limit_nano(at: Situation, last: PoolKeyRow | None) -> int:
    """A new key's limit: what the owner's last key had left, if it was there in this period; else all of it.

    A key counts from nothing. With a whole limit again, each renewal would be a present.
    """
    began, whole = at.dedicated.period_began(at.now), at.dedicated.limit_nano
    if last is None or max(last.created_at, last.last_used or last.created_at) < began:
        return whole
    key = at.listed(last)
    known = (key.remaining_nano if key else None, last.remaining_nano, last.limit_nano)
    left = next((nano for nano in known if nano is not None), whole)
    return max(min(left, whole), MIN_LIMIT_NANO)


def _limits(at: Situation) -> Iterator[Step]:
    """Keys of earlier periods whose limit is what a predecessor had left, or a setting of before."""
    began, wanted = at.dedicated.period_began(at.now), (at.dedicated.limit_nano, at.dedicated.limit_reset)
    for row in at.own.values():
        key = at.listed(row)
        is_ours = row.source is PoolKeySource.MINTED and row.name.startswith(at.prefix)
        if key and is_ours and row.created_at < began and (key.limit_nano, key.limit_reset or "none") != wanted:
            yield Step(Do.LIMIT, row, key)
