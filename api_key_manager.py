"""The pool in memory: every process's copy of the usable OpenRouter keys, and which of them the next call gets."""

from __future__ import annotations

import logging
import math
import random
import threading
from collections import Counter
from collections.abc import Collection, Iterator
from datetime import timedelta
from typing import Any

from clock import Clock
from crypto import SealBroken
from errors import AppError, Busy, PaymentRequired, TooManyRequests
from key_choice import Choice, PoolKey, Ring, Trial
from key_health import MAX_OTHER_ASK_SECONDS, MAX_SUSPECT_ASK_SECONDS, Account, Breaker, Outage
from logs import event
from openrouter_errors import ROWS, Hits, Lasts, Other, Refusal, Row, rest_seconds
from pool_keys import KeyRow, PoolKeys

log = logging.getLogger("pool")

# A key is not picked in its last minutes: an answer that it has begun should end before OpenRouter refuses it.
EXPIRY_MARGIN = timedelta(minutes=10)
RANDOM_TRIES = 8
SUSPECT = frozenset(row.name for row in ROWS if row.lasts is Lasts.CONFIRMED)
SPENT = frozenset(row.name for row in ROWS if row.lasts is Lasts.RESET and row.hits is Hits.KEY)
FOUND_OUT = next(row for row in ROWS if row.id == "401b")


class ApiKeyManager:
    """This process's copy of the keys in use.

    max_in_flight: how many calls one key may carry at once in this process; 0 for any number.
    """

    def __init__(self, store: PoolKeys, clock: Clock, max_in_flight: int = 0) -> None:
        self._store = store
        self._clock = clock
        self._monotonic = clock.monotonic
        self._max_in_flight = max_in_flight or math.inf
        self._lock = threading.Lock()
        self._keys: tuple[PoolKey, ...] = ()
        self._leaving: list[PoolKey] = []
        self._accounts: dict[str, Account] = {}
        self._outage = Outage()
        self._choices: list[Choice | None] = [None, None]  # for any model, for free ones
        self._shut_since = False
        self._ring = Ring(self._keys)
        self._uses: Counter[int] = Counter()

    # ── one call

    def pick(
        self, tried: Collection[PoolKey] = (), other: Other = Other.KEY, free: bool = False, sticky: str | None = None
    ) -> PoolKey:
        """A key at random that is not among `tried`, by what its limit has left.

        The caller gives it back with `release`, once, after `refused` or `succeeded`. Raises Busy, TooManyRequests or
        PaymentRequired.

        other: KEY for any other key than those tried, ACCOUNT for one of another account.
        free: True if the call is for a model that costs nothing: free models have limits of their own.
        sticky: calls with the same text get the same key while that is usable.
        """
        now = self._monotonic()
        choice = self._choices[free]
        if choice is None or now >= choice.stale_at:
            choice = self._choose(free, now)
        # Nearly always the first draw is good, whether the pool has ten keys or ten thousand.
        if choice.keys and not (tried or sticky):
            key = choice.draw()
            account = key.account
            if not (key.rest.until or account.rest.until or (free and account.free.until)):
                with self._lock:
                    if key.is_in_pool and key.in_flight < self._max_in_flight:
                        key.in_flight += 1
                        self._uses[key.id] += 1
                        return key
        accounts = {key.account for key in tried} if other is Other.ACCOUNT else ()
        for key in self._candidates(free, now, sticky):
            if key not in tried and key.account not in accounts and (taken := self._take(key, free, now)):
                return taken
        choice = self._choose(free, now)
        all_busy = any(key not in tried and key.account not in accounts for key in choice.keys)
        raise self._no_key(choice, all_busy, now)

    def _candidates(self, free: bool, now: float, sticky: str | None) -> Iterator[PoolKey]:
        """Keys to look at: the text's own, some at random, then all from a random one on."""
        if sticky:
            if self._ring.keys is not self._keys:
                self._ring = Ring(self._keys)
            yield from self._ring.walk(sticky)
        choice = self._choices[free] or self._choose(free, now)
        for _ in range(RANDOM_TRIES if choice.keys else 0):
            yield choice.draw()
        if self._shut_since:
            choice = self._choose(free, now)
        start = random.randrange(len(choice.keys) or 1)  # noqa: S311 - spreads load, guards nothing
        yield from choice.keys[start:]
        yield from choice.keys[:start]

    def _choose(self, free: bool, now: float) -> Choice:
        """The choice as it is now, made anew if it has to be."""
        with self._lock:
            if self._shut_since:
                self._choices, self._shut_since = [None, None], False
            choice = self._choices[free]
            if choice is None or now >= choice.stale_at:
                choice = self._choices[free] = Choice(self._keys, free, now, self._clock.timestamp())
            return choice

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
            self._shut_since = True
            return Trial(key, half_open)

    def _no_key(self, choice: Choice, all_busy: bool, now: float) -> AppError:
        if all_busy:
            return TooManyRequests("Every OpenRouter key is in use; try again shortly", 1)
        if not choice.resting:
            return Busy("No OpenRouter key is available at this moment; try again shortly", retry_after_seconds=5)
        if choice.needs_credit:
            return PaymentRequired("The service has run out of OpenRouter credit; its operator has to add some")
        wait = math.ceil(min(max(choice.back_at - now, 1), 60))
        return TooManyRequests("Every OpenRouter key is resting; try again shortly", wait)

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
        self._choose_anew()

    def succeeded(self, key: PoolKey) -> None:
        """Learn that OpenRouter has answered a call with this key."""
        if not isinstance(key, Trial) and not self._outage.is_on:
            return
        with self._lock:
            if isinstance(key, Trial):
                for breaker in key.breakers_held:
                    breaker.close()
                self._end_trial(key)
            if self._outage.is_on:
                self._outage.succeeded(key.id, len(self._keys), self._monotonic())
                self._note_outage(was_on=True)

    def refused(self, key: PoolKey, refusal: Refusal, row: Row) -> None:
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
                    self._choose_anew()
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
        self._shut_since = True

    def _refuse_key(self, key: PoolKey, trial: Trial | None, row: Row, status: int) -> None:
        """A 401. In an outage it says nothing about the key, which is picked on, so that the end is seen at once."""
        now, was_on = self._monotonic(), self._outage.is_on
        if key.rest.until > now and key.rest.reason in SUSPECT:
            return  # a call from before: no news
        self._outage.refused(key.id, len(self._keys), now)
        if not self._outage.is_on:
            self._open(key.rest, trial, math.inf, row, status)
            key.questions.begin(now, key.rest.failures)
        elif not was_on:
            for suspect in self._keys:
                if suspect.rest.reason in SUSPECT:
                    suspect.rest.close()
        if self._outage.is_on and key.questions.at == math.inf:
            key.questions.begin(now, 1)
        self._note_outage(was_on)

    def _note_outage(self, was_on: bool) -> None:
        if self._outage.is_on != was_on:
            name = "outage_suspected" if self._outage.is_on else "outage_over"
            event(log, name, logging.ERROR if self._outage.is_on else logging.WARNING, keys=len(self._keys))
            self._choose_anew()

    def _choose_anew(self) -> None:
        """Something that rested may be used again, or weighs less: look at all keys at the next pick."""
        self._choices = [None, None]

    # ── what GET /key says, asked by key_probe.py

    def to_ask(self, count: int) -> list[PoolKey]:
        """Keys whose turn it is, those that rest first: suspects, spent limits, keys whose account is unknown."""
        now = self._monotonic()
        with self._lock:
            if self._outage.is_on:  # seen to be over without a call, too
                self._outage.look(len(self._keys), now)
                self._note_outage(was_on=True)
        due = [key for key in self._keys if key.questions.at <= now]
        return sorted(due, key=lambda key: (not key.rest.until, key.questions.at))[:count]

    def confirmed(self, key: PoolKey, remaining_nano: int | None) -> None:
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
            self._choose_anew()

    def denied(self, key: PoolKey) -> None:
        """GET /key refuses the key too. Only a key that calls refused is out for it, and in an outage not even that."""
        with self._lock:
            now = self._monotonic()
            is_urgent = key.rest.reason in SUSPECT or self._outage.is_on
            key.questions.go_on(now, MAX_SUSPECT_ASK_SECONDS if is_urgent else MAX_OTHER_ASK_SECONDS)
            if self._outage.is_on and not key.rest.until and self._outage.is_refuted(now):
                key.rest.open(now, math.inf, FOUND_OUT.name, 502, again=False)
                self._shut_since = True
                self._outage.convicted(key.id, len(self._keys), now)
                self._note_outage(was_on=True)

    def unanswered(self, key: PoolKey) -> None:
        """GET /key said nothing useful: let a call try a suspect; ask about the rest another time."""
        with self._lock:
            now = self._monotonic()
            if key.rest.until > now and key.rest.reason in SUSPECT:
                key.rest.half_open(now)
                key.questions.end()
                self._choose_anew()
            else:
                key.questions.go_on(now, MAX_OTHER_ASK_SECONDS)

    # ── what others see

    def usable_count(self) -> int:
        """How many keys `pick` chooses from."""
        return len(self._choose(False, self._monotonic()).keys)

    def known_count(self) -> int:
        """How many keys there are that have not expired, resting ones included."""
        return self._choose(False, self._monotonic()).known

    def report(self) -> dict[str, dict[str, Any]]:
        """By row id, each key that carries calls or is not well.

        {"in_flight": 2, "health": "ok" | "resting" | "suspect" | "half-open", "reason": a row's name or None,
        "until": an ISO time or None}
        """
        with self._lock:
            self._leaving = [key for key in self._leaving if key.in_flight]
            keys = *self._keys, *self._leaving
        told = (key for key in keys if key.in_flight or key.rest.until or key.account.rest.until)
        return {str(key.id): self._told(key) for key in told}

    def _told(self, key: PoolKey) -> dict[str, Any]:
        now = self._monotonic()
        worst = max(key.breakers(False), key=lambda breaker: breaker.until)
        until = None
        if not worst.until:
            health = "ok"
        elif worst.until <= now:
            health = "half-open"
        else:
            health = "suspect" if worst.reason in SUSPECT else "resting"
            if worst.until < math.inf:
                until = (self._clock.now() + timedelta(seconds=worst.until - now)).isoformat(timespec="seconds")
        return {"in_flight": key.in_flight, "health": health, "reason": worst.reason or None, "until": until}

    # ── what the database has

    def reload(self) -> None:
        """Copy the keys in use into memory; a key that stays keeps its health and its calls."""
        rows = self._store.in_use()
        old = {key.id: key for key in (*self._leaving, *self._keys)}
        texts = self._store.texts([row.id for row in rows if row.id not in old])
        found = [(row, old.get(row.id) or _pool_key(row, texts.get(row.id))) for row in rows]
        keys = tuple(key for _, key in found if key)
        with self._lock:
            ids = {row.account_id for row in rows if row.account_id}
            self._accounts = {account_id: self._accounts.get(account_id) or Account() for account_id in ids}
            for key in old.values():
                key.is_in_pool = False
            for row, loaded in found:
                if loaded:
                    self._update(loaded, row)
            self._leaving = [key for key in old.values() if not key.is_in_pool and key.in_flight]
            if keys != self._keys:  # else the same object: the ring knows by it that it is still good
                self._keys = keys
            self._choose_anew()

    def _update(self, key: PoolKey, row: KeyRow) -> None:
        key.is_in_pool, key.is_low, key.remaining_nano = True, False, row.remaining_nano
        if row.account_id != key.account_id:
            key.account_id = row.account_id
            key.account = self._accounts[row.account_id] if row.account_id else Account()
        key.account.is_low = False

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


def _pool_key(row: KeyRow, text: str | SealBroken | None) -> PoolKey | None:
    if not isinstance(text, str):
        # Left alone in the database: the fault may be this process's keys, and a damaged row is evidence.
        event(log, "pool_key_unreadable", logging.ERROR, key=row.name, reason=str(text))
        return None
    expires_at = (row.expires_at - EXPIRY_MARGIN).timestamp() if row.expires_at else math.inf
    key = PoolKey(row.id, row.name, text, expires_at)
    if row.account_id:
        key.questions.end()  # what there is to ask of a healthy key is known
    return key
