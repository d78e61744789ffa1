"""What is known against keys, and how GET /key settles it: which are doubted and asked about, what the answers do.

A refused call makes a key doubted, and picked less; only OpenRouter's answer to the key itself takes it out, or a call
that was let through to try it. Nothing lasts on silence.
"""

from __future__ import annotations

import logging
import math
import threading

from foundation.clock import Clock
from foundation.logs import event
from pool.choice import PoolKey, Trial
from pool.dedicated import DedicatedKeys
from pool.health import FIRST_ASK_SECONDS, SPENT, SUSPECT, Doubt
from pool.shared import SharedKeys

log = logging.getLogger("pool")

MAX_SUSPECT_ASK_SECONDS = 60.0
MAX_OTHER_ASK_SECONDS = 3600.0
# A key that nothing is known of for this long is asked about: an idle pool would else seem whole for ever.
IDLE_ASK_SECONDS = 600.0
# For how long a call that was answered says more of its key than GET /key does.
WORKED_SECONDS = 10.0
# When so many shared keys are refused, and they are half of all, OpenRouter may be refusing everybody.
OUTAGE_MIN_KEYS = 3
FOUND_OUT = "key-refused"  # by GET /key alone


class Verdicts:
    """Of the keys in memory. lock: the pool's, which guards what changes in keys; what is public here takes it, but for
    `doubt` and `note_outage`, which are called under it.
    """

    def __init__(self, shared: SharedKeys, dedicated: DedicatedKeys, clock: Clock, lock: threading.Lock) -> None:
        self._shared = shared
        self._dedicated = dedicated
        self._monotonic = clock.monotonic
        self._lock = lock
        self._is_outage = False

    def doubt(self, key: PoolKey, trial: Trial | None, doubt: Doubt) -> None:
        """Let GET /key be asked whether a refusal was about the key. It stays in use, unless it was just on trial."""
        now = self._monotonic()
        if key.rest.until > now:
            return  # a call from before: no news
        if trial and key.rest in trial.breakers_held and key.rest.reason == doubt.reason:
            self._open(key, FIRST_ASK_SECONDS, doubt, again=True)
        key.questions.begin(now)
        if key.doubt is None and key.questions.at <= now:  # else it weighs what it did: tables are dear
            self._shared.choose_anew()
        key.doubt = doubt

    def _open(self, key: PoolKey, seconds: float, doubt: Doubt, again: bool = False) -> None:
        key.rest.open(self._monotonic(), seconds, doubt.reason, doubt.status, again)
        self._shared.note_shut()

    # ── asked by pool/probe.py

    def to_ask(self, count: int) -> list[PoolKey]:
        """Keys whose turn it is: those that rest or are doubted, then those of which nothing is known for long."""
        now = self._monotonic()
        due = [key for key in (*self._shared.keys, *self._dedicated.all()) if key.questions.at <= now]
        idle = (key for key in self._shared.keys if key.questions.at == math.inf)
        due += [key for key in idle if max(key.worked_at, key.questions.asked_at) + IDLE_ASK_SECONDS <= now]

        def turn(key: PoolKey) -> tuple[bool, bool, float]:
            # The shared ones first: one question too many costs them more than one user.
            return key.owner_id is not None, not (key.rest.until or key.doubt), key.questions.at

        return sorted(due, key=turn)[:count]

    def note_confirmed(self, key: PoolKey, remaining_nano: int | None) -> None:
        """GET /key accepts the key: it is in use again, unless its limit was said to be spent, and is.

        remaining_nano: what it may still spend; None for any amount, or if that is unknown.
        """
        with self._lock:
            now = self._monotonic()
            doubt, key.doubt = key.doubt, None
            key.remaining_nano = remaining_nano
            if remaining_nano is not None and remaining_nano <= 0:
                if doubt and doubt.reason in SPENT and doubt.until > now:
                    self._open(key, doubt.until - now, doubt)
                if key.rest.until > now and key.rest.reason in SPENT:
                    key.questions.go_on(now, MAX_OTHER_ASK_SECONDS)
                    return
            if key.rest.reason in SUSPECT:
                self._ask_suspects(now)
            if key.rest.reason in SUSPECT | SPENT:
                key.rest.close()
            key.questions.end(now)
            self._shared.choose_anew()
            self.note_outage()

    def _ask_suspects(self, now: float) -> None:
        """One is accepted again: it may not be the only one."""
        for other in self._shared.keys:
            if other.rest.reason in SUSPECT:
                other.questions.at = min(other.questions.at, now)

    def note_denied(self, key: PoolKey) -> None:
        """GET /key refuses the key: it is out until it is accepted again, unless calls with it have just succeeded."""
        with self._lock:
            now = self._monotonic()
            if now - key.worked_at < WORKED_SECONDS:
                key.questions.go_on(now, MAX_SUSPECT_ASK_SECONDS)
                return
            if not (key.rest.until > now and key.rest.reason in SUSPECT):
                self._open(key, math.inf, Doubt(FOUND_OUT, 502, math.inf))
            is_left = any(other.rest.until <= now for other in self._shared.keys)
            longest = MAX_SUSPECT_ASK_SECONDS if is_left else FIRST_ASK_SECONDS
            key.questions.go_on(now, longest)
            self.note_outage()

    def note_unanswered(self, key: PoolKey) -> None:
        """GET /key said nothing useful: a suspect is tried by a call, for nothing lasts on silence; and asked again."""
        with self._lock:
            now = self._monotonic()
            is_suspect = key.rest.until > now and key.rest.reason in SUSPECT
            if is_suspect:
                key.rest.half_open(now)
                self._shared.choose_anew()
            is_urgent = is_suspect or key.doubt or key.rest.until
            longest = MAX_SUSPECT_ASK_SECONDS if is_urgent else MAX_OTHER_ASK_SECONDS
            key.questions.go_on(now, longest)

    # ── all of them

    def refused_count(self) -> int:
        """How many shared keys OpenRouter does not accept."""
        now = self._monotonic()
        return sum(key.rest.until > now and key.rest.reason in SUSPECT for key in self._shared.keys)

    def note_outage(self) -> None:
        """Say so in the log when OpenRouter begins or ends to refuse at least half of the keys."""
        was_on, count = self._is_outage, self.refused_count()
        self._is_outage = count >= OUTAGE_MIN_KEYS and count * 2 >= len(self._shared.keys)
        if self._is_outage != was_on:
            name = "outage_suspected" if self._is_outage else "outage_over"
            event(log, name, logging.ERROR if self._is_outage else logging.WARNING, keys=len(self._shared.keys))
