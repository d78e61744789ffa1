"""How soon upstreams begin to answer, learnt from the calls themselves, and which of several gets the next one.

Of each upstream and model there is a mean of the last few times, which loses half its weight every two minutes; what
is not known counts as fast as the fastest. Shares fall with the square of the time that is expected, so the
slow one keeps a few calls, by which it is seen when it is quick again, and the quick one never gets all at once. It is
kept in memory, by each process for itself.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence

HALF_LIFE_SECONDS = 120.0  # of what is known
MOST_SAMPLES = 5.0  # that a mean weighs: the next time counts a sixth
FAILED_SECONDS = 10.0  # as which a failure counts: the quickest refusal is no quick answer
LEAST_SECONDS = 0.001


class Pace:
    """One upstream's with one model. mean: the seconds until its answers begin. monotonic: the time."""

    __slots__ = ("_lock", "_monotonic", "_noted_at", "_samples", "_waiting", "mean")

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.mean: float | None = None
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._samples = 0.0
        self._noted_at = 0.0
        self._waiting = 0

    def begin(self) -> None:
        """A try goes out; `end` follows."""
        with self._lock:
            self._waiting += 1

    def end(self, seconds: float | None) -> None:
        """Its answer has begun after so many seconds. None: it ended in a way that says nothing of the upstream."""
        with self._lock:
            self._waiting -= 1
            if seconds is None:
                return
            samples = self._weight()
            self.mean = seconds if self.mean is None else (self.mean * samples + seconds) / (samples + 1)
            self._samples, self._noted_at = min(samples + 1, MOST_SAMPLES), self._monotonic()

    def expected_seconds(self, usual: float) -> float:
        """Until the next answer begins. usual: where nothing is known. Whoever waits now makes it longer: an upstream
        that hangs has no times to show."""
        samples = self._weight()
        known = ((self.mean or 0.0) * samples + usual) / (samples + 1)
        return max(known, LEAST_SECONDS) * (1 + self._waiting)

    def _weight(self) -> float:
        """How many times what is known is worth by now."""
        return self._samples * math.exp2((self._noted_at - self._monotonic()) / HALF_LIFE_SECONDS)


def shares(paces: Sequence[Pace]) -> list[float]:
    """The weights by which the next call is drawn for one of these."""
    usual = min((pace.mean for pace in paces if pace.mean is not None), default=1.0)
    return [pace.expected_seconds(usual) ** -2 for pace in paces]


class Paces:
    """Those of all upstreams and models whose rule asks for it."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str, bool], Pace] = {}

    def of(self, upstream: str, model: str, stream: bool) -> Pace:
        """A plain answer begins when all of it is written, and so has a pace of its own."""
        return self._known.setdefault((upstream, model, stream), Pace())
