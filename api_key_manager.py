"""The pool in memory: every process's copy of the usable OpenRouter keys, and which of them the next call gets.

A call gets one of the keys that all users share (pool/shared.py), or its user's own where users have such keys
(pool/dedicated.py).
"""

from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from typing import Any

from accounts.users import UpstreamChoice
from foundation.clock import Clock
from foundation.errors import AppError, Busy
from pool.choice import PoolKey, Trial, load
from pool.dedicated import DedicatedKeys, account_key_refused, no_own_key
from pool.health import SUSPECT, Account, Breaker, Doubt, health_told
from pool.keys import PoolKeys
from pool.life import PoolKeyRow
from pool.shared import SharedKeys, no_shared_key
from pool.verdicts import Verdicts
from upstream.refusal import Refusal
from upstream.refusals import Hits, Lasts, Other, Row, rest_seconds

NEXT_PASS_SECONDS = 30  # until the rotation has most likely made a key that is missing
REPORTED_AT_REST = 1000  # users' own keys: one report must not grow with the number of users
NEWS_SECONDS = 60.0  # for how long a call that was answered makes a doubted key count as usable


class ApiKeyManager:
    """This process's copy of the keys in use.

    max_in_flight: how many calls one key may carry at once in this process; 0 for any number.
    choice_of: what a user has chosen. all_have_own: whether everybody gets a key of their own, or only those have one
    who have connected an account.
    """

    def __init__(
        self,
        store: PoolKeys,
        clock: Clock,
        max_in_flight: int = 0,
        choice_of: Callable[[int], UpstreamChoice] | None = None,
        all_have_own: bool = True,
    ) -> None:
        self._store = store
        self._choice_of = choice_of
        self._all_have_own = all_have_own
        self._clock = clock
        self._monotonic = clock.monotonic
        self._max_in_flight = max_in_flight or math.inf
        self._lock = threading.Lock()
        self._shared = SharedKeys(clock, self._lock)
        self._dedicated = DedicatedKeys(store, clock, self._lock, self._set_account)
        self._leaving: list[PoolKey] = []
        self._accounts: dict[str, Account] = {}
        self.verdicts = Verdicts(self._shared, self._dedicated, clock, self._lock)
        self._uses: Counter[int] = Counter()

    # ── one call

    def choice_of(self, user_id: int) -> UpstreamChoice | None:
        """What this user has chosen; None for who has no key of their own, nor gets one. Asks memory only."""
        if self._choice_of and (self._all_have_own or self.is_connected(user_id)):
            return self._choice_of(user_id)
        return None

    def is_connected(self, user_id: int) -> bool:
        """True if the user's own account at OpenRouter is connected, and may pay for a call."""
        return self._dedicated.is_connected(user_id)

    def pick(
        self,
        tried: Collection[PoolKey] = (),
        other: Other = Other.KEY,
        free: bool = False,
        sticky: str | None = None,
        owner: int | None = None,
        choice: UpstreamChoice | None = None,
    ) -> PoolKey:
        """A shared key, or the owner's own, that is not among `tried`.

        The caller gives it back with `release`, once, after `refused` or `succeeded`. Raises Busy, TooManyRequests or
        PaymentRequired. Of the shared keys, one at random, by what its limit has left.

        other: KEY for any other key than those tried, ACCOUNT for one of another account.
        free: True if the call is for a model that costs nothing: free models have limits of their own.
        sticky: calls with the same text get the same shared key while that is usable.
        owner, choice: whose call it is, and what `choice_of` says; shared keys only without a choice.
        """
        if owner is None or choice is None:
            return self._pick_shared(tried, other, free, sticky)
        if choice is UpstreamChoice.SHARED_FIRST:
            try:
                return self._pick_shared(tried, other, free, sticky)
            except AppError as error:
                try:
                    return self._pick_own(owner, tried, other, free)
                except AppError:
                    raise error from None
        try:
            return self._pick_own(owner, tried, other, free)
        except AppError:
            if choice is UpstreamChoice.DEDICATED_ONLY:
                raise
        return self._pick_shared(tried, other, free, sticky)

    def _pick_own(self, owner: int, tried: Collection[PoolKey], other: Other, free: bool) -> PoolKey:
        now = self._monotonic()
        key = self._dedicated.find(owner)
        if key is None and self.is_connected(owner):
            raise account_key_refused()
        if key is None or key.expires_at <= self._clock.timestamp():
            raise Busy("Your own OpenRouter key is being made; try again shortly", NEXT_PASS_SECONDS)
        accounts = {one.account for one in tried} if other is Other.ACCOUNT else ()
        if key not in tried and key.account not in accounts and (taken := self._take(key, free, now)):
            return taken
        raise no_own_key(key, free, now)

    def _pick_shared(self, tried: Collection[PoolKey], other: Other, free: bool, sticky: str | None) -> PoolKey:
        now = self._monotonic()
        # Nearly always the first draw is good, whether the pool has ten keys or ten thousand.
        if not (tried or sticky) and (drawn := self._shared.draw(free, now)):
            with self._lock:
                if drawn.is_in_pool and drawn.in_flight < self._max_in_flight:
                    drawn.in_flight += 1
                    self._uses[drawn.id] += 1
                    return drawn
        accounts = {key.account for key in tried} if other is Other.ACCOUNT else ()
        for key in self._shared.candidates(free, now, sticky):
            if key not in tried and key.account not in accounts and (taken := self._take(key, free, now)):
                return taken
        choice = self._shared.choice(free, now)
        all_busy = any(key not in tried and key.account not in accounts for key in choice.keys)
        raise no_shared_key(choice, all_busy, now)

    def _take(self, key: PoolKey, free: bool, now: float) -> PoolKey | None:
        with self._lock:
            breakers = key.breakers(free)
            if not key.is_in_pool or key.in_flight >= self._max_in_flight:
                return None
            if not all(breaker.lets(now) for breaker in breakers):
                return None
            key.in_flight += 1
            self._uses[key.id] += 1
            half_open = [breaker for breaker in breakers if breaker.until]
            if not half_open:
                return key
            for breaker in half_open:
                breaker.is_trying = True
            self._shared.note_shut()
            return Trial(key, half_open)

    def release(self, key: PoolKey) -> None:
        """A call no longer uses this key."""
        with self._lock:
            if isinstance(key, Trial):
                self._end_trial(key)
                key = key.key
            key.in_flight -= 1

    def _end_trial(self, trial: Trial) -> None:
        for breaker in trial.breakers_held:
            breaker.is_trying = False
        trial.breakers_held = []
        self._shared.choose_anew()

    def note_success(self, key: PoolKey) -> None:
        """Learn that OpenRouter has answered a call with this key: it has passed the checks of key and account."""
        known = key.key if isinstance(key, Trial) else key
        known.worked_at, known.doubt = self._monotonic(), None
        if isinstance(key, Trial):
            with self._lock:
                for breaker in key.breakers_held:
                    breaker.close()
                self._end_trial(key)
                self.verdicts.note_outage()

    def note_refusal(self, key: PoolKey, refusal: Refusal, row: Row) -> None:
        """Learn from OpenRouter's refusal of a call with this key."""
        if row.hits is Hits.NOTHING:
            return
        seconds = rest_seconds(row, refusal, self._clock.now())
        status = row.answer(refusal).status if row.answer else refusal.status
        with self._lock:
            trial, key = (key, key.key) if isinstance(key, Trial) else (None, key)
            if row.lasts is Lasts.RELOAD:
                low = key if row.hits is Hits.KEY else key.account
                if not low.is_low:
                    low.is_low = True
                    self._shared.choose_anew()
            elif row.lasts in {Lasts.REFUSED, Lasts.SPENT}:
                self.verdicts.doubt(key, trial, Doubt(row.name, status, self._monotonic() + seconds))
            else:
                breaker = key.rest if row.hits is Hits.KEY else key.account.free
                self._open(breaker, trial, seconds, row.name, status)

    def _open(self, breaker: Breaker, trial: Trial | None, seconds: float, reason: str, status: int) -> None:
        breaker.open(self._monotonic(), seconds, reason, status, trial is not None and breaker in trial.breakers_held)
        self._shared.note_shut()

    # ── what others see

    def usable_count(self) -> int:
        """How many shared keys may carry a call, and were not refused by the last news of them."""
        now = self._monotonic()
        keys = self._shared.choice(False, now).keys
        return sum(key.doubt is None or now - key.worked_at < NEWS_SECONDS for key in keys)

    def refused_count(self) -> int:
        """How many shared keys OpenRouter does not accept, by its own words to them."""
        return self.verdicts.refused_count()

    def known_count(self) -> int:
        """How many shared keys there are that have not expired, resting ones included."""
        return self._shared.choice(False, self._monotonic()).known

    def first_expiry(self) -> float:
        """When the first of the shared keys expires, in seconds since 1970; infinite if none does."""
        return min((key.expires_at for key in self._shared.keys), default=math.inf)

    def own_key_rests(self, key_id: int, owner: int) -> bool:
        """True if this process knows that calls of the owner can't have their own key now."""
        key, now = self._dedicated.known(owner), self._monotonic()
        return key is not None and key.id == key_id and not all(one.lets(now) for one in key.breakers(False))

    def report(self) -> dict[str, dict[str, Any]]:
        """By row id, each key that carries calls or is not well.

        {"in_flight": 2, "health": "ok" | "resting" | "suspect" | "half-open", "reason": a row's name or None,
        "until": an ISO time or None}
        """
        with self._lock:
            self._leaving = [key for key in self._leaving if key.in_flight]
            keys = *self._shared.keys, *self._leaving
        told = [key for key in keys if key.in_flight or key.rest.until]
        own = self._dedicated.all()
        told += [key for key in own if key.in_flight]
        told += [key for key in own if key.rest.until and not key.in_flight][:REPORTED_AT_REST]
        return {str(key.id): self._told(key) for key in told}

    def _told(self, key: PoolKey) -> dict[str, Any]:
        return {"in_flight": key.in_flight, **health_told(key.rest, self._clock, SUSPECT)}

    # ── what the database has

    def reload(self) -> None:
        """Copy the keys in use into memory; a key that stays keeps its health and its calls."""
        rows = self._store.in_use()
        old = {key.id: key for key in (*self._leaving, *self._shared.keys)}
        found = load(self._store, rows, old)
        keys = tuple(key for _, key in found)
        own, gone = self._dedicated.reload(old)
        with self._lock:
            old |= {key.id: key for key in gone}
            for key in old.values():
                key.is_in_pool = False
            for row, key in (*found, *own):
                self._update(key, row)
            self._leaving = [key for key in old.values() if not key.is_in_pool and key.in_flight]
            self._shared.use(keys)

    def use_unstored(self, texts: Sequence[str]) -> None:
        """Use these keys, of which nothing is known yet, until the first reload. Their ids are below 0."""
        with self._lock:
            self._shared.use(
                tuple(PoolKey(-number, f"env/{number}", text, math.inf) for number, text in enumerate(texts, 1))
            )

    def _update(self, key: PoolKey, row: PoolKeyRow) -> None:
        key.is_in_pool, key.is_low, key.remaining_nano = True, False, row.remaining_nano
        self._set_account(key, row)
        key.account.is_low = False

    def _set_account(self, key: PoolKey, row: PoolKeyRow) -> None:
        if row.account_id != key.account_id:
            key.account_id = row.account_id
            key.account = self._accounts.setdefault(row.account_id, Account()) if row.account_id else Account()

    def write_counts(self) -> None:
        """Add the uses since the last call to the rows. A crash may lose some seconds of them: they only inform."""
        with self._lock:
            uses, self._uses = self._uses, Counter()
        if not uses:
            return
        try:
            self._store.add_uses(uses)
        except BaseException:
            with self._lock:
                self._uses.update(uses)
            raise
