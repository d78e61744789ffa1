"""What may be used right now: breakers of keys and accounts, and the outages in which no verdict counts.

    closed ──failure──> resting ──its time, or GET /key──> half-open ──success──> closed
                           ^                                   └──failure──> resting twice as long

Nothing here locks: the pool calls it under its own lock.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from datetime import timedelta
from typing import Any

from foundation.clock import Clock
from upstream.refusals import ROWS, Hits, Lasts

MAX_REST_SECONDS = 900.0  # how far the back-off of repeated failures goes; what OpenRouter asks for may be longer
FIRST_ASK_SECONDS = 5.0
MAX_SUSPECT_ASK_SECONDS = 60.0
MAX_OTHER_ASK_SECONDS = 3600.0

OUTAGE_WINDOW_SECONDS = 60.0
OUTAGE_MIN_KEYS = 3
# How long ago a call may have succeeded to say that OpenRouter does not refuse everybody.
OUTAGE_SUCCESS_SECONDS = 10.0

# Reasons of rests, by their rows' names: of keys that GET /key has to accept again, and of those whose limit is spent.
SUSPECT = frozenset(row.name for row in ROWS if row.lasts is Lasts.CONFIRMED)
SPENT = frozenset(row.name for row in ROWS if row.lasts is Lasts.RESET and row.hits is Hits.KEY)


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

        Calls that began before the rest and fail within it are no news. A lesser refusal does not shorten a rest.
        """
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

    __slots__ = ("free", "is_low", "rest")

    def __init__(self) -> None:
        self.rest = Breaker()
        self.free = Breaker()
        self.is_low = False


class Questions:
    """When to ask GET /key about one key. at: monotonic seconds, math.inf for never."""

    __slots__ = ("at", "count")

    def __init__(self, at: float) -> None:
        self.at = at
        self.count = 0

    def begin(self, now: float, failures: int) -> None:
        """Ask soon; later if the key has been refused again although GET /key accepted it."""
        self.count = 0
        self.at = now + min(FIRST_ASK_SECONDS * 2.0 ** min(failures - 1, 30), MAX_REST_SECONDS)

    def go_on(self, now: float, longest: float) -> None:
        """Ask again, after twice the time."""
        self.count += 1
        self.at = now + min(FIRST_ASK_SECONDS * 2.0 ** min(self.count, 30), longest)

    def end(self) -> None:
        """Nothing to ask."""
        self.at, self.count = math.inf, 0


class Outage:
    """Recognises that OpenRouter takes no key at all, as it once did for half an hour.

    That is so when 401s have hit, within a minute, at least three keys that are at least half of all.
    """

    def __init__(self) -> None:
        self.is_on = False
        self._refused: dict[int, float] = {}
        self._succeeded_at = -math.inf

    def note_refused(self, key_id: int, known: int, now: float) -> None:
        """A call with this key got a 401."""
        self._refused[key_id] = now
        self.look(known, now)

    def note_success(self, key_id: int, known: int, now: float) -> None:
        """A call with this key was taken during the outage."""
        self._refused.pop(key_id, None)
        self._succeeded_at = now
        self.look(known, now)

    def is_refuted(self, now: float) -> bool:
        """True if other calls succeed: a key that GET /key then refuses is no victim of an outage."""
        return now - self._succeeded_at < OUTAGE_SUCCESS_SECONDS

    def note_convicted(self, key_id: int, known: int, now: float) -> None:
        """This key is out for a reason of its own."""
        self._refused.pop(key_id, None)
        self.look(known, now)

    def look(self, known: int, now: float) -> None:
        """Set `is_on`: how many keys have been refused in the last minute, without success since?"""
        self._refused = {key: at for key, at in self._refused.items() if now - at < OUTAGE_WINDOW_SECONDS}
        count = len(self._refused)
        self.is_on = count >= OUTAGE_MIN_KEYS and count * 2 >= known
