"""The pool in memory: every process's copy of the usable OpenRouter keys, and which of them the next call gets.

A call gets one of the keys that all users share (pool/shared.py), or its user's own where users have such keys
(pool/dedicated.py).
"""

from __future__ import annotations

import logging
import math
import threading
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from typing import Any

from accounts.users import UpstreamChoice
from foundation.clock import Clock
from foundation.errors import AppError, Busy
from foundation.logs import event
from pool.choice import PoolKey, Trial, load
from pool.dedicated import DedicatedKeys, account_key_refused, no_own_key
from pool.health import (
    MAX_OTHER_ASK_SECONDS,
    MAX_SUSPECT_ASK_SECONDS,
    SPENT,
    SUSPECT,
    Account,
    Breaker,
    Outage,
    health_told,
)
from pool.keys import PoolKeys
from pool.life import PoolKeyRow
from pool.shared import SharedKeys, no_shared_key
from upstream.refusals import ROWS, Hits, Lasts, Other, Refusal, Row, rest_seconds

log = logging.getLogger("pool")

NEXT_PASS_SECONDS = 30  # until the rotation has most likely made a key that is missing
REPORTED_AT_REST = 1000  # users' own keys: one report must not grow with the number of users
FOUND_OUT = next(row for row in ROWS if row.id == "401b")


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
        self._outage = Outage()
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
        """Learn that OpenRouter has answered a call with this key."""
        if not isinstance(key, Trial) and not self._outage.is_on:
            return
        with self._lock:
            if isinstance(key, Trial):
                for breaker in key.breakers_held:
                    breaker.close()
                self._end_trial(key)
            if self._outage.is_on and not key.is_connected:  # an account of its own: no news of the others
                self._outage.note_success(key.id, len(self._shared.keys), self._monotonic())
                self._note_outage(was_on=True)

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
            elif row.lasts is Lasts.CONFIRMED:
                self._refuse_key(key, trial, row, status)
            else:
                account = key.account
                breaker = {Hits.KEY: key.rest, Hits.ACCOUNT: account.rest, Hits.FREE_MODELS: account.free}[row.hits]
                self._open(breaker, trial, seconds, row, status)
                if row.lasts is Lasts.RESET and breaker is key.rest:
                    key.questions.begin(self._monotonic(), breaker.failures)

    def _open(self, breaker: Breaker, trial: Trial | None, seconds: float, row: Row, status: int) -> None:
        has_tried = trial is not None and breaker in trial.breakers_held
        breaker.open(self._monotonic(), seconds, row.name, status, has_tried)
        self._shared.note_shut()

    def _refuse_key(self, key: PoolKey, trial: Trial | None, row: Row, status: int) -> None:
        """A 401. In an outage it says nothing about the key, which is picked on, so that the end is seen at once."""
        now, was_on = self._monotonic(), self._outage.is_on
        if key.rest.until > now and key.rest.reason in SUSPECT:
            return  # a call from before: no news
        # What happens to users' own keys says little about all keys: an operator may have deleted some of many.
        if key.owner_id is None:
            self._outage.note_refused(key.id, len(self._shared.keys), now)
        if not self._outage.is_on:
            self._open(key.rest, trial, math.inf, row, status)
            key.questions.begin(now, key.rest.failures)
        elif not was_on:
            for suspect in (*self._shared.keys, *self._dedicated.all()):
                if suspect.rest.reason in SUSPECT:
                    suspect.rest.close()
        if self._outage.is_on and key.questions.at == math.inf:
            key.questions.begin(now, 1)
        self._note_outage(was_on)

    def _note_outage(self, was_on: bool) -> None:
        if self._outage.is_on != was_on:
            name = "outage_suspected" if self._outage.is_on else "outage_over"
            event(log, name, logging.ERROR if self._outage.is_on else logging.WARNING, keys=len(self._shared.keys))
            self._shared.choose_anew()

    # ── what GET /key says, asked by pool/probe.py

    def to_ask(self, count: int) -> list[PoolKey]:
        """Keys whose turn it is, those that rest first: suspects, spent limits, keys whose account is unknown."""
        now = self._monotonic()
        with self._lock:
            if self._outage.is_on:  # seen to be over without a call, too
                self._outage.look(len(self._shared.keys), now)
                self._note_outage(was_on=True)
        due = [key for key in (*self._shared.keys, *self._dedicated.all()) if key.questions.at <= now]
        # The shared ones first: one question too many costs them more than one user.
        return sorted(due, key=lambda key: (key.owner_id is not None, not key.rest.until, key.questions.at))[:count]

    def note_confirmed(self, key: PoolKey, remaining_nano: int | None) -> None:
        """GET /key accepts the key: a suspect is tried at once, a spent limit only if it has something left."""
        with self._lock:
            now = self._monotonic()
            key.remaining_nano = remaining_nano
            if key.rest.until > now and key.rest.reason in SPENT and remaining_nano is not None and remaining_nano <= 0:
                key.questions.go_on(now, MAX_OTHER_ASK_SECONDS)
                return
            if key.rest.reason in SUSPECT | SPENT:
                key.rest.half_open(now)
            key.questions.end()
            self._shared.choose_anew()

    def note_denied(self, key: PoolKey) -> None:
        """GET /key refuses the key too. Only a key that calls refused is out for it, and in an outage not even that."""
        with self._lock:
            now = self._monotonic()
            is_urgent = key.rest.reason in SUSPECT or self._outage.is_on
            key.questions.go_on(now, MAX_SUSPECT_ASK_SECONDS if is_urgent else MAX_OTHER_ASK_SECONDS)
            if self._outage.is_on and not key.rest.until and self._outage.is_refuted(now):
                key.rest.open(now, math.inf, FOUND_OUT.name, 502, again=False)
                self._shared.note_shut()
                self._outage.note_convicted(key.id, len(self._shared.keys), now)
                self._note_outage(was_on=True)

    def note_unanswered(self, key: PoolKey) -> None:
        """GET /key said nothing useful: let a call try a suspect; ask about the rest another time."""
        with self._lock:
            now = self._monotonic()
            if key.rest.until > now and key.rest.reason in SUSPECT:
                key.rest.half_open(now)
                key.questions.end()
                self._shared.choose_anew()
            else:
                key.questions.go_on(now, MAX_OTHER_ASK_SECONDS)

    # ── what others see

    def usable_count(self) -> int:
        """How many shared keys `pick` chooses from."""
        return len(self._shared.choice(False, self._monotonic()).keys)

    def known_count(self) -> int:
        """How many shared keys there are that have not expired, resting ones included."""
        return self._shared.choice(False, self._monotonic()).known

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
        told = [key for key in keys if key.in_flight or key.rest.until or key.account.rest.until]
        own = self._dedicated.all()
        told += [key for key in own if key.in_flight]
        told += [key for key in own if key.rest.until and not key.in_flight][:REPORTED_AT_REST]
        return {str(key.id): self._told(key) for key in told}

    def _told(self, key: PoolKey) -> dict[str, Any]:
        worst = max(key.breakers(False), key=lambda breaker: breaker.until)
        return {"in_flight": key.in_flight, **health_told(worst, self._clock, SUSPECT)}

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
