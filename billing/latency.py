"""How long calls take, how fast they speak and how they fail: what one row of the ledger says of it, and percentiles.

Times are counted in buckets, each reaching RATIO times as far as the one before. A percentile is told as the middle of
its bucket, by ratio, so that it is wrong by sqrt(RATIO) at most: less than 10 %.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from billing.records import COUNTED, NO_ERROR

RATIO = 1.2
SHORTEST_MS = 10.0  # what is shorter counts together
LAST = 74  # the last bucket, which ends where no call goes on: at two hours
_ENDS = [SHORTEST_MS * RATIO**bucket for bucket in range(LAST)]  # of all but the last
FIRST_BYTE, WHOLE, FAILURE = "f/", "w/", "e/"  # the begins of names of counts: of buckets, and of kinds of errors
ANSWERED = "complete"  # the outcome of calls whose times count: a refusal is fast, and says nothing of a model


@dataclass(slots=True)
class CallTimes:
    """What is added up of calls; negative amounts take back. output_ms: how long output_tokens took.

    counts: by bucket of the time to the first byte and of the whole, and by kind of error.
    """

    calls: int = 0
    errors: int = 0
    output_tokens: int = 0
    output_ms: int = 0
    counts: Counter[str] = field(default_factory=Counter)

    def add(self, other: CallTimes, sign: int = 1) -> None:
        """Add these calls to ours, or take them back."""
        self.calls += sign * other.calls
        self.errors += sign * other.errors
        self.output_tokens += sign * other.output_tokens
        self.output_ms += sign * other.output_ms
        for name, count in other.counts.items():  # Counter.update takes four times as long for two of them
            self.counts[name] += sign * count

    def first_byte_ms(self, share: float) -> int | None:
        """The time to the first byte that this share of calls has kept to; None without any."""
        return _percentile(self._buckets(FIRST_BYTE), share)

    def whole_ms(self, share: float) -> int | None:
        """The same of the whole call."""
        return _percentile(self._buckets(WHOLE), share)

    @property
    def tokens_per_second(self) -> float | None:
        """How fast answers came; None if that is not known of any."""
        return round(self.output_tokens * 1000 / self.output_ms, 1) if self.output_ms > 0 else None

    @property
    def errors_by_kind(self) -> dict[str, int]:
        """How often each kind of error came, the most frequent first."""
        kinds = {name.removeprefix(FAILURE): n for name, n in self.counts.items() if name.startswith(FAILURE) and n > 0}
        return dict(sorted(kinds.items(), key=lambda kind: (-kind[1], kind[0])))

    def _buckets(self, begin: str) -> dict[int, int]:
        return {int(name[len(begin) :]): n for name, n in self.counts.items() if name.startswith(begin) and n > 0}


def added(several: Iterable[CallTimes]) -> CallTimes:
    """All of these together."""
    sums = CallTimes()
    for one in several:
        sums.add(one)
    return sums


NOTHING = CallTimes()


def times_of(row: Mapping[str, Any] | None) -> tuple[CallTimes, CallTimes]:
    """What a row of the ledger adds for its request, and for who carried it.

    A request counts when it is over, and a try that failed even though another one followed.
    """
    if row is None:
        return NOTHING, NOTHING
    if row["is_last"]:
        call = _times_of_call(row)
        return call, call
    if row["error_type"] is None:
        return NOTHING, NOTHING
    failed = CallTimes(calls=1)
    _fail(failed, row)
    return NOTHING, failed


def _times_of_call(row: Mapping[str, Any]) -> CallTimes:
    found = CallTimes(calls=1)
    if row["outcome"] not in NO_ERROR:
        _fail(found, row)
    if row["outcome"] == ANSWERED:
        for begin, name in ((FIRST_BYTE, "first_byte_ms"), (WHOLE, "total_ms")):
            if row[name] is not None:
                found.counts[f"{begin}{bucket_of(row[name])}"] = 1
        _speak(found, row)
    return found


def _fail(found: CallTimes, row: Mapping[str, Any]) -> None:
    found.errors = 1
    found.counts[FAILURE + (row["error_type"] or row["outcome"] or "")] = 1


def _speak(found: CallTimes, row: Mapping[str, Any]) -> None:
    """Tokens, and the time in which they came: of a stream from its first byte on."""
    tokens = row["completion_tokens"] if row["state"] in COUNTED else None
    took = (row["total_ms"] or 0) - ((row["first_byte_ms"] or 0) if row["is_stream"] else 0)
    if tokens and took > 0:
        found.output_tokens, found.output_ms = tokens, took


def bucket_of(ms: float) -> int:
    """The number of the bucket that a time is counted in."""
    return bisect_left(_ENDS, ms)


def _percentile(buckets: Mapping[int, int], share: float) -> int | None:
    rank = math.ceil(sum(buckets.values()) * share)
    for bucket in sorted(buckets):
        rank -= buckets[bucket]
        if rank <= 0:
            return round(SHORTEST_MS * RATIO ** (bucket - 0.5)) if bucket else round(SHORTEST_MS)
    return None
