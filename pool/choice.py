"""The keys that may be picked, as rows make them, arranged so that a pick costs the same among ten and ten thousand.

A table of cumulative weights for picks at random, and a ring of hashes for picks that stay with one key.
"""

from __future__ import annotations

import hashlib
import logging
import math
import random
import struct
from bisect import bisect
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta

from foundation.logs import event
from pool.health import SPENT, Account, Breaker, Doubt, Questions
from pool.keys import PoolKeys
from pool.life import PoolKeyRow, PoolKeySource
from upstream.http import authorization_of
from upstream.known_keys import note_key

log = logging.getLogger("pool")

# A key is not picked in its last minutes: an answer that it has begun should end before OpenRouter refuses it.
EXPIRY_MARGIN = timedelta(minutes=10)
# The share of a key whose limit is nearly spent, of the share of the fullest: none starves.
MIN_WEIGHT = 0.05
# The share of one that was too small for a request, until the next reload.
LOW_WEIGHT = 0.1
POINTS_PER_KEY = 8
# How far to look along the ring for a usable key.
RING_STEPS = 64
# A table lasts at least this long for each of its keys, so that making tables takes little of a large pool's time.
SECONDS_PER_KEY = 2e-5


class PoolKey:
    """A decrypted key in memory. The pool's lock guards what changes.

    expires_at: seconds since 1970. remaining_nano: what its limit has left in nano-dollars; None for no limit.
    is_low: its limit was too small for a request. doubt: what GET /key has to settle. worked_at: when a call with it
    was last answered, in monotonic seconds. is_in_pool: False once it has left, while calls go on. owner_id: the
    only user whose calls it carries; None for everybody's. is_connected: it is of that user's own account, which pays.
    """

    __slots__ = (
        "account",
        "account_id",
        "authorization",
        "doubt",
        "expires_at",
        "id",
        "in_flight",
        "is_connected",
        "is_in_pool",
        "is_low",
        "name",
        "owner_id",
        "questions",
        "remaining_nano",
        "rest",
        "worked_at",
    )

    def __init__(self, row_id: int, name: str, text: str, expires_at: float, owner_id: int | None = None) -> None:
        self.id = row_id
        self.name = name
        self.owner_id = owner_id
        self.authorization = authorization_of(text)
        note_key(text)
        self.expires_at = expires_at
        self.remaining_nano: int | None = None
        self.account_id: str | None = None
        self.account = Account()
        self.rest = Breaker()
        self.doubt: Doubt | None = None
        self.worked_at = -math.inf
        self.questions = Questions(0.0)
        self.is_connected = False
        self.in_flight = 0
        self.is_in_pool = True
        self.is_low = False

    def breakers(self, free: bool) -> tuple[Breaker, ...]:
        """All that must let a call pass."""
        return (self.rest, self.account.free) if free else (self.rest,)

    def weight(self, most_nano: int) -> float:
        """Its share of the calls, between 0 and 1. most_nano: what the fullest key has left."""
        left = self.remaining_nano
        share = 1.0 if left is None else max(left / most_nano if most_nano else 0.0, MIN_WEIGHT)
        return share * LOW_WEIGHT if self.is_low or self.doubt or self.account.is_low else share

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PoolKey) and other.id == self.id

    def __hash__(self) -> int:
        return self.id

    def __repr__(self) -> str:
        return f"<PoolKey {self.id}>"


def load(store: PoolKeys, rows: Sequence[PoolKeyRow], known: Mapping[int, PoolKey]) -> list[tuple[PoolKeyRow, PoolKey]]:
    """The keys of these rows, but for those whose text is damaged; `known` ones, by row id, stay the same objects."""
    texts = store.texts([row.id for row in rows if row.id not in known])
    found: list[tuple[PoolKeyRow, PoolKey]] = []
    for row in rows:
        key, text = known.get(row.id), texts.get(row.id)
        if key is None and isinstance(text, str):
            expires_at = (row.expires_at - EXPIRY_MARGIN).timestamp() if row.expires_at else math.inf
            key = PoolKey(row.id, row.name, text, expires_at, row.owner_id)
            key.remaining_nano = row.remaining_nano
            key.is_connected = row.source is PoolKeySource.CONNECTED
            if row.account_id and row.owner_id is not None:
                key.questions.at = math.inf  # what there is to ask of it is known; shared keys are asked if they work
        if key:
            found.append((row, key))
        else:  # left alone in the database: the fault may be this process's keys, and a damaged row is evidence
            event(log, "pool_key_unreadable", logging.ERROR, key=row.name, reason=str(text))
    return found


class Trial(PoolKey):
    """A key in the hands of the one call that tries whether it, or its account, works again."""

    __slots__ = ("breakers_held", "key")

    def __init__(self, key: PoolKey, breakers_held: list[Breaker]) -> None:  # shares all else with the key
        self.key = key
        self.id, self.name, self.authorization, self.account = key.id, key.name, key.authorization, key.account
        self.owner_id, self.is_connected = key.owner_id, key.is_connected
        self.breakers_held = breakers_held


class Choice:
    """What can be picked at one moment; anew from `stale_at` on. free: for calls of free models.

    known: keys that have not expired. resting: those of them that may not be picked.
    back_at: when the first of them may be back. are_spent: all of them rest because their limits are spent.
    """

    __slots__ = ("_last", "_sums", "are_spent", "back_at", "keys", "known", "resting", "stale_at")

    def __init__(self, pool: Sequence[PoolKey], free: bool, now: float, wall: float) -> None:
        self.keys: list[PoolKey] = []
        self.resting = 0
        self.back_at = self.stale_at = math.inf
        self.are_spent = True
        for key in pool:
            if key.expires_at <= wall:
                continue
            if key.expires_at < math.inf:
                self.stale_at = min(self.stale_at, now + key.expires_at - wall)
            if key.rest.until or (free and key.account.free.until):
                shut = [breaker for breaker in key.breakers(free) if not breaker.lets(now)]
                if shut:
                    self._note_resting(key, shut, now)
                    continue
            self.keys.append(key)
        self.known = len(self.keys) + self.resting
        self.stale_at = max(self.stale_at, now + len(pool) * SECONDS_PER_KEY)
        most = max((key.remaining_nano or 0 for key in self.keys), default=0)
        self._sums: list[float] = []
        total = 0.0
        for key in self.keys:
            total += key.weight(most)
            self._sums.append(total)
        self._last = len(self.keys) - 1

    def _note_resting(self, key: PoolKey, shut: list[Breaker], now: float) -> None:
        longest = max(shut, key=lambda breaker: breaker.until)
        self.resting += 1
        self.are_spent = self.are_spent and longest.reason in SPENT
        self.stale_at = min(self.stale_at, max(longest.until, now))
        # What only GET /key ends may end when that is asked next.
        self.back_at = min(self.back_at, longest.until if longest.until < math.inf else key.questions.at)

    def draw(self) -> PoolKey:
        """A key at random, by weight. There must be one."""
        return self.keys[bisect(self._sums, random.random() * self._sums[-1], 0, self._last)]  # noqa: S311


class Ring:
    """Consistent hashing: a text has the same key in every process, and most texts keep theirs as keys come and go."""

    def __init__(self, keys: Sequence[PoolKey]) -> None:
        self.keys = keys
        placed = sorted((point, place) for place, key in enumerate(keys) for point in _points(str(key.id)))
        self._points = [point for point, _ in placed]
        self._places = [place for _, place in placed]

    def walk(self, text: str) -> Iterator[PoolKey]:
        """The text's key, then those that stand in for it."""
        start = bisect(self._points, _points(text)[0])
        for step in range(start, start + min(RING_STEPS, len(self._places))):
            yield self.keys[self._places[step % len(self._places)]]


def _points(text: str) -> tuple[int, ...]:
    return struct.unpack(f"<{POINTS_PER_KEY}Q", hashlib.blake2b(text.encode("utf-8", "surrogatepass")).digest())
