"""The keys that all users share, in memory, and in which order they are looked at for a call."""

from __future__ import annotations

import math
import random
import threading
from collections.abc import Iterator

from foundation.clock import Clock
from foundation.errors import AppError, Busy, PaymentRequired, TooManyRequests
from pool.choice import Choice, PoolKey, Ring

RANDOM_TRIES = 8


class SharedKeys:
    """What a process has of them. lock: the pool's, which guards what changes in keys. Times are monotonic seconds.

    free: always, whether the call is for a model that costs nothing.
    """

    def __init__(self, clock: Clock, lock: threading.Lock) -> None:
        self._clock = clock
        self._lock = lock
        self.keys: tuple[PoolKey, ...] = ()
        self._choices: list[Choice | None] = [None, None]  # for any model, for free ones
        self._shut_since = False
        self._ring = Ring(self.keys)

    def use(self, keys: tuple[PoolKey, ...]) -> None:
        """These are the keys from now on. The caller holds the lock."""
        if keys != self.keys:  # else the same object: the ring knows by it that it is still good
            self.keys = keys
        self.choose_anew()

    def draw(self, free: bool, now: float) -> PoolKey | None:
        """A key at random, by what its limit has left; None if it rests, or there is none."""
        choice = self._latest_choice(free, now)
        if not choice.keys:
            return None
        key = choice.draw()
        return None if key.rest.until or (free and key.account.free.until) else key

    def candidates(self, free: bool, now: float, sticky: str | None) -> Iterator[PoolKey]:
        """Keys to look at: the text's own, some at random, then all from a random one on."""
        if sticky:
            if self._ring.keys is not self.keys:
                self._ring = Ring(self.keys)
            yield from self._ring.walk(sticky)
        choice = self._latest_choice(free, now)
        for _ in range(RANDOM_TRIES if choice.keys else 0):
            yield choice.draw()
        if self._shut_since:
            choice = self.choice(free, now)
        start = random.randrange(len(choice.keys) or 1)  # noqa: S311 - spreads load, guards nothing
        yield from choice.keys[start:]
        yield from choice.keys[:start]

    def _latest_choice(self, free: bool, now: float) -> Choice:
        """Without the lock, and maybe with keys that have come to rest since."""
        choice = self._choices[free]
        return self.choice(free, now) if choice is None or now >= choice.stale_at else choice

    def choice(self, free: bool, now: float) -> Choice:
        """The choice as it is now, made anew if it has to be."""
        with self._lock:
            if self._shut_since:
                self._choices, self._shut_since = [None, None], False
            choice = self._choices[free]
            if choice is None or now >= choice.stale_at:
                choice = self._choices[free] = Choice(self.keys, free, now, self._clock.timestamp())
            return choice

    def choose_anew(self) -> None:
        """Something that rested may be used again, or weighs less: look at all keys at the next pick."""
        self._choices = [None, None]

    def note_shut(self) -> None:
        """Something has come to rest: a choice from before may still offer it."""
        self._shut_since = True


def no_shared_key(choice: Choice, all_busy: bool, now: float) -> AppError:
    """Why a call gets none of them. all_busy: some could carry it if they carried fewer."""
    if all_busy:
        return TooManyRequests("Every OpenRouter key is in use; try again shortly", 1)
    if not choice.resting:
        return Busy("No OpenRouter key is available at this moment; try again shortly", retry_after_seconds=5)
    if choice.are_spent:
        return limits_are_spent()
    wait = math.ceil(min(max(choice.back_at - now, 1), 60))
    return TooManyRequests("Every OpenRouter key is resting; try again shortly", wait)


def limits_are_spent() -> PaymentRequired:
    """What users are told when the limits of the operator's keys are spent, by what OpenRouter says of the keys."""
    return PaymentRequired("The service's OpenRouter keys have spent what they may; its operator has to raise limits")
