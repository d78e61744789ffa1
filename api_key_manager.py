"""The pool in memory: every process's copy of the usable OpenRouter keys, and which of them the next call gets."""

from __future__ import annotations

import logging
import math
import random
import threading
from collections.abc import Collection
from datetime import timedelta
from typing import Any

from clock import Clock
from crypto import SealBroken
from errors import AppError, Busy, PaymentRequired, TooManyRequests
from logs import event
from openrouter_errors import Other, Refusal, Row
from pool_keys import KeyRow, PoolKeys

log = logging.getLogger("pool")

# A key is not picked in its last minutes: an answer that it has begun should end before OpenRouter refuses it.
EXPIRY_MARGIN = timedelta(minutes=10)
RANDOM_TRIES = 8


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
    """This process's copy of the keys in use."""

    def __init__(self, store: PoolKeys, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._keys: tuple[PoolKey, ...] = ()
        self._uses: dict[int, int] = {}
        self._uses_lock = threading.Lock()

    def pick(
        self, tried: Collection[PoolKey] = (), other: Other = Other.KEY, free: bool = False, sticky: str | None = None
    ) -> PoolKey:
        """A random usable key that is not among `tried`. Raises Busy, TooManyRequests or PaymentRequired.

        The caller gives it back with `release`, once, after `refused` or `succeeded`.

        other: KEY for any other key than those tried, ACCOUNT for one of another account.
        free: True if the call is for a model that costs nothing: free models have limits of their own.
        sticky: calls with the same text get the same key while that is usable.
        """
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

    def release(self, key: PoolKey) -> None:
        """A call no longer uses this key."""

    def refused(self, key: PoolKey, refusal: Refusal, row: Row) -> None:
        """Learn from OpenRouter's refusal of a call with this key."""
        if row.rest_seconds:
            answer = row.answer(refusal) if row.answer else None
            asked = int(answer.headers.get("Retry-After", 0)) if answer else 0
            self.rest(key, max(row.rest_seconds, asked), answer.status if answer else refusal.status)

    def succeeded(self, key: PoolKey) -> None:
        """Learn that OpenRouter has answered a call with this key."""

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
        """Copy the keys in use into memory; a key that stays keeps its rest."""
        rows = self._store.in_use()
        old = {key.id: key for key in self._keys}
        texts = self._store.texts([row.id for row in rows if row.id not in old])
        self._keys = tuple(filter(None, (old.get(row.id) or _pool_key(row, texts.get(row.id)) for row in rows)))

    def report(self) -> dict[str, dict[str, Any]]:
        """What there is to tell about keys, by row id."""
        return {}

    def write_counts(self) -> None:
        """Add the uses since the last call to the rows. A crash may lose some seconds of them: they only inform."""
        with self._uses_lock:
            uses, self._uses = self._uses, {}
        if not uses:
            return
        try:
            self._store.add_uses(uses)
        except BaseException:
            with self._uses_lock:
                for row_id, count in uses.items():
                    self._uses[row_id] = self._uses.get(row_id, 0) + count
            raise


def _pool_key(row: KeyRow, text: str | SealBroken | None) -> PoolKey | None:
    if not isinstance(text, str):
        # Left alone in the database: the fault may be this process's keys, and a damaged row is evidence.
        event(log, "pool_key_unreadable", logging.ERROR, key=row.name, reason=str(text))
        return None
    expires_at = (row.expires_at - EXPIRY_MARGIN).timestamp() if row.expires_at else math.inf
    return PoolKey(row.id, row.name, text, expires_at)
