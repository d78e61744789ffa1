"""One quota as this process knows it, and the slice that it has leased: numbers in memory, no database."""

from __future__ import annotations

import threading

from billing.quotas.rows import Quota
from billing.quotas.subjects import column_of
from billing.quotas.terms import QuotaTerms, dollars
from foundation.errors import QuotaExceeded
from foundation.money import MAX_NANO

CALLS = 64  # as dear as the dearest of late, that a slice is meant to hold
WHOSE = {"user_quota_id": "Your quota", "key_quota_id": "This key's quota", "team_quota_id": "Your team's quota"}
AHEAD_SECONDS = 60  # of use that it is meant to hold, if that is more; what was asked for before is forgotten


class LeasedQuota:
    """One quota as this process knows it, and its slice. Amounts in nano-dollars, times monotonic."""

    def __init__(self, subject: str, terms: QuotaTerms) -> None:
        self.subject = subject
        self.column = column_of(subject)
        self.terms: QuotaTerms | None = terms  # None: no quota any more
        self.quota: Quota | None = None  # as last read
        self.left_nano = 0  # of the quota, as last read
        self.must_return = False  # what it holds is not to be used: the quota is overdrawn
        self.limit_text = self.warning = ""  # what answers say, made when the quota is read
        self.resets_at: float | None = None  # seconds since 1970
        self.lock = threading.Lock()  # of the numbers; held for moments
        self.asking = threading.Lock()  # of whoever asks the database for more
        self.nano = 0  # what the next calls may take; negative if calls cost more than was reserved, and it had less
        self.debt = 0  # of that, what was so a round ago, and so is in the database by now
        self.waiting = 0  # what the calls behind `asking` want
        self.unit = 0  # what the latest call took
        self.used = self.peak = 0  # taken less given back, and the most for one call, since `since`
        self.before = 0  # what it was to hold by the AHEAD_SECONDS before
        self.since = self.seen_at = 0.0
        self.refused_until = 0.0
        self.refused_nano = 0  # the call that was refused; smaller ones may ask
        self.has_row = False  # the database has one of it for certain

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
        self.unit, self.peak = nano, max(self.peak, nano)
        return True

    def add(self, nano: int) -> None:
        """Put something in."""
        with self.lock:
            self.nano += nano

    def take_out(self, most: int = MAX_NANO) -> int:
        """Take out what is there, to return it."""
        with self.lock:
            nano = max(0, min(self.nano, most))
            self.nano -= nano
        return nano

    def wanted(self, now: float) -> int:
        """What it should hold: CALLS of the dearest call of late, or what was used, whichever is more."""
        with self.lock:
            asked = max(self.used, CALLS * self.peak)
            if now - self.since >= AHEAD_SECONDS:
                self.before, self.used, self.peak, self.since = asked, 0, 0, now
            return max(self.before, asked) + self.waiting

    def forgive(self) -> None:
        """Let go of a debt that the ledger has brought to the quota itself; to be done after each drain."""
        with self.lock:
            self.nano += min(self.debt, max(0, -self.nano))
            self.debt = max(0, -self.nano)

    def refusal(self, nano: int) -> QuotaExceeded:
        """Why a call of this cost is not admitted."""
        quota = self.quota
        assert quota is not None  # noqa: S101 - it has been asked
        whose = WHOSE[self.column]
        if quota.terms.recovery == "steady":
            recovers = "; it recovers steadily"
        else:
            recovers = f"; it resets at {quota.resets_at:%Y-%m-%dT%H:%M:%SZ}" if quota.resets_at else ""
        return QuotaExceeded(
            f"{whose} of {quota.terms} does not cover this call, which may cost ${dollars(nano)}{recovers}"
        )


def granted(left: int, held: int, need: int, want: int, unit: int) -> int:
    """How much to lease: `need` if so much is left; and more, in whole units, towards `target`.

    left: in the quota; held: in the slice already.
    """
    if left < need:
        return 0
    more = target(left, held, want) - held - need
    return need + max(0, more) // max(1, unit) * unit


def target(left: int, held: int, want: int) -> int:
    """What a slice is to hold: what is wanted, but no more than a quarter of all that others could have too."""
    return max(0, min(want, (left + held) // 4))
