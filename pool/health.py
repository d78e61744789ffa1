"""What may be used right now: breakers of keys and accounts, and doubts about keys, which GET /key settles.

    closed ──failure──> resting ──its time──> half-open ──success──> closed
                           ^                      └──the same failure──> resting twice as long
    closed ──a refusal that may be about the key──> in doubt, and in use ──GET /key──> closed, or resting

A call's refusal alone proves nothing against a key: what one caller asks for may be refused with any words. Nothing
here locks: the pool calls it under its own lock.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from datetime import timedelta
from typing import Any, NamedTuple

from foundation.clock import Clock
from upstream.refusals import ROWS, Lasts

MAX_REST_SECONDS = 900.0  # how far the back-off of repeated failures goes; what OpenRouter asks for may be longer
FIRST_ASK_SECONDS = 5.0  # between two questions about one key

# Reasons of rests, by their rows' names: of keys that GET /key has to accept again, and of those whose limit is spent.
SUSPECT = frozenset(row.name for row in ROWS if row.lasts is Lasts.REFUSED)
SPENT = frozenset(row.name for row in ROWS if row.lasts is Lasts.SPENT)


class Doubt(NamedTuple):
    """A refusal that GET /key has to confirm before its key rests for it. until: monotonic seconds."""

    reason: str
    status: int
    until: float


class Breaker:
    """Whether one thing may be used. Times are monotonic seconds.

    until: 0.0 while closed; then the end of the rest, math.inf if only GET /key ends it.
    status: what a client would have been told of the refusal. is_trying: a call is trying whether it works again.
    """

    __slots__ = ("failures", "is_trying", "reason", "status", "until")

    def __init__(self) -> None:
        self.until = 0.0
        self.failures = 0
        self.is_trying = False
        self.reason = ""
        self.status = 0

    def lets(self, now: float) -> bool:
        """True if a call may use it; while half-open, one at a time."""
        return self.until <= now and not self.is_trying

    def open(self, now: float, seconds: float, reason: str, status: int, again: bool) -> None:
        """Let it rest. again: the call that tried has failed; only then, and when it was closed, does a failure count.

        Calls that began before the rest and fail within it are no news. A lesser refusal does not shorten a rest. A try
        that failed for another reason is the first failure of its own kind.
        """
        if again and reason != self.reason:
            self.failures = 0
        if again or not self.until:
            self.failures += 1
            if seconds < MAX_REST_SECONDS:
                seconds = min(seconds * 2.0 ** min(self.failures - 1, 30), MAX_REST_SECONDS)
        if now + seconds > self.until:
            self.until, self.reason, self.status = now + seconds, reason, status

    def half_open(self, now: float) -> None:
        """End the rest: the next call tries."""
        self.until = min(self.until, now)

    def close(self) -> None:
        """It works."""
        self.until, self.failures, self.reason, self.status = 0.0, 0, "", 0


def health_told(breaker: Breaker, clock: Clock, suspects: Collection[str] = ()) -> dict[str, Any]:
    """What is reported of a breaker: {"health": "ok" | "resting" | "suspect" | "half-open", "reason", "until"}.

    until: an ISO time, or None. suspects: the reasons that make a suspect.
    """
    now, until = clock.monotonic(), None
    if not breaker.until:
        health = "ok"
    elif breaker.until <= now:
        health = "half-open"
    else:
        health = "suspect" if breaker.reason in suspects else "resting"
        if breaker.until < math.inf:
            until = (clock.now() + timedelta(seconds=breaker.until - now)).isoformat(timespec="seconds")
    return {"health": health, "reason": breaker.reason or None, "until": until}


class Account:
    """One account at OpenRouter: what hits it hits all its keys.

    free: for calls of free models only. is_low: its balance was too small for a request, so it is picked less.
    """

    __slots__ = ("free", "is_low")

    def __init__(self) -> None:
        self.free = Breaker()
        self.is_low = False


class Questions:
    """When to ask GET /key about one key. at: monotonic seconds, math.inf for never."""

    __slots__ = ("asked_at", "at", "count")

    def __init__(self, at: float) -> None:
        self.at = at
        self.count = 0
        self.asked_at = -math.inf

    def begin(self, now: float) -> None:
        """Ask at once, but not again within seconds, however often calls are refused."""
        self.at = min(self.at, max(now, self.asked_at + FIRST_ASK_SECONDS))

    def go_on(self, now: float, longest: float) -> None:
        """Ask again, each time after twice the pause."""
        self.asked_at = now
        self.at = now + min(FIRST_ASK_SECONDS * 2.0 ** min(self.count, 30), longest)
        self.count += 1

    def end(self, now: float) -> None:
        """Nothing to ask."""
        self.asked_at, self.at, self.count = now, math.inf, 0
