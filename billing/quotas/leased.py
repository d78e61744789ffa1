"""One quota as this process knows it, and the slice that it has leased: numbers in memory, no database."""

from __future__ import annotations

import math
import threading

from billing.quotas.rows import Quota
from billing.quotas.terms import QuotaTerms, dollars
from foundation.errors import QuotaExceeded
from foundation.money import MAX_NANO

AHEAD_SECONDS = 60  # of recent use that a slice is enlarged to
FIRST_SECONDS = 5.0


class LeasedQuota:
    """One quota as this process knows it, and its slice. Amounts in nano-dollars, times monotonic."""

    def __init__(self, subject: str, terms: QuotaTerms) -> None:
        self.subject = subject
        self.terms: QuotaTerms | None = terms  # None: no quota any more
        self.quota: Quota | None = None  # as last read
        self.left_nano = 0  # of the quota, as last read
        self.must_return = False  # what it holds is not to be used: the quota is overdrawn
        self.limit_text = self.warning = ""  # what answers say, made when the quota is read
        self.resets_at: float | None = None  # seconds since 1970
        self.lock = threading.Lock()  # of the numbers; held for moments
        self.asking = threading.Lock()  # of whoever asks the database for more
        self.nano = 0  # what the next calls may take
        self.waiting = 0  # what the calls behind `asking` want
        self.unit = 1  # what the latest call took
        self.used = 0  # taken less given back, since it was measured
        self.per_minute = 0.0  # the same, of about the last minute
        self.begun_at = self.measured_at = self.seen_at = 0.0
        self.refused_until = 0.0
        self.refused_nano = 0  # the call that was refused; smaller ones may ask
        self.is_leased = False  # the database may have a row of it
        self.has_row = False  # it has one for certain

    def know(self, quota: Quota) -> None:
        """Take over what was read of the quota."""
        terms = quota.terms
        self.limit_text = "" if terms.limit_nano is None else dollars(terms.limit_nano)
        self.warning = f"more than ${dollars(terms.soft_limit_nano or 0)} spent" if quota.soft_limit_passed else ""
        self.resets_at = quota.resets_at.timestamp() if quota.resets_at else None
        self.quota, self.left_nano, self.must_return = quota, quota.left_nano, quota.left_nano < 0

    def remaining_nano(self) -> int:
        """What this process knows to be left for its calls."""
        return max(0, self.left_nano + self.nano)

    @property
    def is_limited(self) -> bool:
        """True if calls need a reservation."""
        return self.terms is not None and self.terms.limit_nano is not None

    @property
    def quota_id(self) -> int | None:
        """The row's id, once it is known."""
        return self.quota.id if self.quota else None

    def take(self, nano: int) -> bool:
        """Take a call's cost if it is there. Under `lock`."""
        if self.nano < nano or self.must_return:
            return False
        self.nano -= nano
        self.used += nano
        self.unit = nano
        return True

    def add(self, nano: int) -> None:
        """Put something in."""
        with self.lock:
            self.nano += nano

    def take_out(self, most: int = MAX_NANO) -> int:
        """Take out what is there, to return it."""
        with self.lock:
            nano = min(self.nano, most)
            self.nano -= nano
        return nano

    def measure(self, now: float) -> int:
        """What it should hold, by what was used lately: for AHEAD_SECONDS, also of somebody who has just come."""
        with self.lock:
            kept = max(0.0, 1 - (now - self.measured_at) / AHEAD_SECONDS)
            self.per_minute = max(0.0, self.per_minute * kept + self.used)
            self.used, self.measured_at = 0, now
            # A steady use fills `per_minute` to this part by now; of less than FIRST_SECONDS nobody can tell.
            filled = -math.expm1(-max(FIRST_SECONDS, now - self.begun_at) / AHEAD_SECONDS)
            return int(self.per_minute / filled) + self.waiting

    def refusal(self, nano: int) -> QuotaExceeded:
        """Why a call of this cost is not admitted."""
        quota = self.quota
        assert quota is not None  # noqa: S101 - it has been asked
        whose = "This key's quota" if self.subject.startswith("key/") else "Your quota"
        if quota.terms.recovery == "steady":
            recovers = "; it recovers steadily"
        else:
            recovers = f"; it resets at {quota.resets_at:%Y-%m-%dT%H:%M:%SZ}" if quota.resets_at else ""
        return QuotaExceeded(
            f"{whose} of {quota.terms} does not cover this call, which may cost ${dollars(nano)}{recovers}"
        )


def granted(left: int, held: int, need: int, want: int, unit: int) -> int:
    """How much to lease: `need` if so much is left; and more, in whole units, up to `want` and a quarter of the rest.

    left: in the quota; held: in the slice already.
    """
    if left < need:
        return 0
    more = min(want - need, (left + held) // 4 - held - need)
    return need + max(0, more) // unit * unit
