"""Users' own OpenRouter keys in memory: of those who have called lately, out of perhaps a million.

A key is read and decrypted at its user's first call, and then kept fresh like all copies (replicas/revisions.py). A
user's first call in a process is the only one that waits for the database.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping

from db import DatabaseError
from foundation.clock import Clock
from foundation.errors import AppError, Busy, PaymentRequired, TooManyRequests, UpstreamFailed
from pool.choice import PoolKey, load
from pool.health import SPENT, SUSPECT
from pool.keys import PoolKeys
from pool.life import PoolKeyRow
from upstream.refusal import Refusal
from upstream.refusals import Lasts, Row

# Users whose key, or its absence, is kept; about 1 kB each. Every reload looks all of them up.
MAX_USERS = 10_000
# While the database is away, one call in this time waits for its time-out, and not every call.
ASK_AGAIN_SECONDS = 5.0


class DedicatedKeys:
    """By user. lock: the pool's, which guards what changes in keys. join: gives a new key the health of its account."""

    def __init__(
        self, store: PoolKeys, clock: Clock, lock: threading.Lock, join: Callable[[PoolKey, PoolKeyRow], None]
    ) -> None:
        self._store = store
        self._clock = clock
        self._join = join
        self._lock = lock
        self._keys: dict[int, PoolKey | None] = {}
        self._connected: frozenset[int] = frozenset()
        self._reloads = 0
        self._ask_at = 0.0

    def is_connected(self, owner: int) -> bool:
        """True if the user has a connected key in use, as the last reload has seen."""
        return owner in self._connected

    def known(self, owner: int) -> PoolKey | None:
        """The user's key if it is in memory."""
        return self._keys.get(owner)

    def all(self) -> list[PoolKey]:
        """All keys in memory."""
        return [key for key in list(self._keys.values()) if key]

    def find(self, owner: int) -> PoolKey | None:
        """The user's key, if there is one. Raises Busy if that is not known and the database is away."""
        try:
            return self._keys[owner]
        except KeyError:
            return self._read(owner)

    def _read(self, owner: int) -> PoolKey | None:
        while True:
            reloads = self._reloads
            if self._clock.monotonic() < self._ask_at:
                raise _database_is_away()
            try:
                found = load(self._store, list(self._store.dedicated([owner]).values()), {})
            except DatabaseError:
                self._ask_at = self._clock.monotonic() + ASK_AGAIN_SECONDS
                raise _database_is_away() from None
            for row, key in found:
                self._join(key, row)
            with self._lock:
                if self._reloads != reloads:
                    continue  # what was read may be older than what the reload has seen
                if len(self._keys) >= MAX_USERS:
                    self._forget_idle()
                # Another call of the user may have been first: then its object counts.
                return self._keys.setdefault(owner, found[0][1] if found else None)

    def _forget_idle(self) -> None:
        """Simpler than an order of use: who calls again is read again. What carries calls stays, to be reported."""
        kept: dict[int, PoolKey | None] = {user: key for user, key in self._keys.items() if key and key.in_flight}
        for key in self.all():
            key.is_in_pool = bool(key.in_flight)  # a call that is just about to take one looks again
        self._keys = kept

    def reload(self, leaving: Mapping[int, PoolKey]) -> tuple[list[tuple[PoolKeyRow, PoolKey]], list[PoolKey]]:
        """Read the keys of all users in memory anew: those in use with their rows, and those that are no more.

        leaving: keys that were in use once and still carry calls, by row id. Raises DatabaseError.
        """
        with self._lock:
            self._reloads += 1
            old = dict(self._keys)
        connected = self._store.connected_owners()
        before = {key.id: key for key in old.values() if key}
        found = load(self._store, list(self._store.dedicated(old.keys()).values()), {**leaving, **before})
        keys = {key.owner_id: key for _, key in found}
        with self._lock:
            # Users who have come meanwhile were read after this reload began.
            self._keys = {**self._keys, **{owner: keys.get(owner) for owner in old}}
            self._connected = connected
        used = {key.id for key in keys.values()}
        return found, [key for key in before.values() if key.id not in used]


def no_own_key(key: PoolKey, free: bool, now: float) -> AppError:
    """Why a call does not get its user's own key, which is there. free: for a model that costs nothing."""
    shut = [breaker for breaker in key.breakers(free) if not breaker.lets(now)]
    if not shut:
        return TooManyRequests("Your own OpenRouter key has too many calls to carry; try again shortly", 1)
    longest = max(shut, key=lambda breaker: breaker.until)
    if longest is key.rest and longest.reason in SPENT:
        return own_key_is_spent()
    if key.is_connected and longest.reason in SUSPECT:
        return account_key_refused()
    back_at = longest.until if longest.until < math.inf else key.questions.at
    wait = math.ceil(min(max(back_at - now, 1), 60))
    return TooManyRequests("Your own OpenRouter key is resting; try again shortly", wait)


def own_key_is_spent() -> PaymentRequired:
    """What a user is told whose calls may be carried by their own key only, which can't pay for them."""
    return PaymentRequired(
        "What your own OpenRouter key may still spend does not pay for this request. GET /api/upstream says how much "
        'that is; PUT /api/upstream with {"choice": "dedicated_first"} lets the shared keys step in'
    )


def account_is_spent() -> PaymentRequired:
    """What a user is told whose connected account does not pay for a call, if no other key may step in."""
    return PaymentRequired(
        "Your OpenRouter account does not pay for this request: add credit at https://openrouter.ai/settings/credits, "
        'or let the shared keys step in by PUT /api/upstream with {"choice": "dedicated_first"}'
    )


def account_key_refused() -> UpstreamFailed:
    """The same for an account whose key does not work any more."""
    return UpstreamFailed(
        "The key of your OpenRouter account does not work any more: connect the account again "
        "(POST /api/v1/openrouter/oauth/initiate), or disconnect it"
    )


def account_refusal(refusal: Refusal, row: Row) -> AppError | None:
    """The same by a refusal; None for those that are not about the account."""
    if row.lasts is Lasts.REFUSED:
        return account_key_refused()
    is_about_money = row.answer is not None and row.answer(refusal).status == PaymentRequired.status
    return account_is_spent() if is_about_money else None


def _database_is_away() -> Busy:
    return Busy("Your own OpenRouter key can't be looked up at this moment; try again shortly", retry_after_seconds=5)
