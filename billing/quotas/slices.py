"""This process's slices of quotas: calls are admitted from memory, the database is asked only when a slice runs out.

A slice is leased: it counts as reserved in the database until it is used or returned. The hot path takes from it under
a lock of its own; whatever the database has to do with it is behind another lock, so that one thread asks and the
others find what it brought.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress

import msgspec

from accounts.caller import Caller
from billing.quotas.leased import CALLS, LeasedQuota, granted, target
from billing.quotas.leases import Leases
from billing.quotas.outage_credit import OutageCredit
from billing.quotas.rows import Quota, Quotas
from billing.quotas.subjects import subjects_of
from billing.quotas.terms import QuotaTerms, dollars
from db import Database, DatabaseError
from foundation.clock import Clock
from foundation.errors import AppError, Busy

log = logging.getLogger("quotas")

IDLE_SECONDS = 30
FORGET_SECONDS = 11 * 60  # without use, after which nothing can still be on its way to a slice
REFUSED_SECONDS = 0.5  # a refusal holds without asking again
AWAY_SECONDS = 1.0  # so does a database that did not answer
BATCH = 500


class Reservation(msgspec.Struct, frozen=True):
    """What a call may cost, taken from the slices of these quotas; 0 of none where none has a limit.

    quota_ids: by the column of the ledger that names each. credit_of: the user, if it was taken from what that one may
    spend while quotas are unknown.
    """

    nano: int
    quota_ids: Mapping[str, int]
    credit_of: int | None = None


UNLIMITED = Reservation(0, {})


class QuotaSlices:
    """Admits calls. Only a call that finds its slice empty waits for the database; without quota nothing waits at all.

    In the background, in this order: `reload` when the revision `quotas` moved (the watcher does it); once a second
    `top_up`; `return_idle` right after the journal was drained; `reclaim_expired` once a minute. At the start: the
    process reports, then `top_up`: without a report no call of anybody with a quota is admitted. At the end: when no
    call is running any more, drain the journal, `return_all`, and only then remove the process's report. After the
    journal of a dead process was drained: `return_slices_of`. All but `reserve`, `give_back` and `headers` raise
    DatabaseError.

    What a call did not use goes back with `give_back`, and in the database when the ledger applies the journal, by
    `quotas.apply`; a call that was never journalled is given back in memory alone. A lease whose commit got lost is not
    counted here, and stays reserved until its slice was unused for some minutes.
    """

    def __init__(self, db: Database, process_id: str, quotas: Quotas, clock: Clock, credit_nano: int = 0) -> None:
        """credit_nano: what each user may spend, once for all, before anything is known of quotas."""
        self._credit = OutageCredit(credit_nano)
        self.is_informed = True
        """False as long as `reload` has not succeeded in this process; told by whoever calls it."""
        self._db = db
        self._leases = Leases(db, process_id, clock)
        self._quotas = quotas
        self._clock = clock
        self._own: dict[str, Quota] = {}  # the quotas that were set; everybody else has the default
        self._slices: dict[str, LeasedQuota] = {}
        self._by_id: dict[int, LeasedQuota] = {}
        self._lock = threading.Lock()  # of both
        self._trusted_until = float("-inf")
        self._away_until = float("-inf")
        self._topped_up_at = clock.monotonic()

    # ── the hot path

    def reserve(self, caller: Caller, nano: int, user_pays: bool = False) -> Reservation:
        """Admit a call that may cost so much, by every quota that it must fit: what one refuses, the others get back.

        user_pays: with an account of their own.
        Raises QuotaExceeded; Busy if the database has to be asked and does not answer.
        """
        if not self.is_informed:
            self._credit.change(caller.user_id, -nano)
            return Reservation(nano, {}, caller.user_id)
        quota_ids: dict[str, int] = {}
        try:
            for found in self._slices_of(caller, user_pays):
                if nano and found.is_limited:
                    quota_ids[found.column] = self._admit(found, nano)
        except AppError:
            self.give_back(Reservation(nano, quota_ids), nano)
            raise
        return Reservation(nano, quota_ids) if quota_ids else UNLIMITED

    def give_back(self, reservation: Reservation, nano: int) -> None:
        """Put back a part of a reservation that was not used: at the end of its call, or when it never went up.

        nano: below 0 for what a call cost beyond its reservation. The slice pays that, or owes it.
        """
        if reservation.credit_of is not None:
            self._credit.change(reservation.credit_of, nano)
        for quota_id in reservation.quota_ids.values():
            # Of a slice without a row, as after it was forgotten, the ledger lets this part go back to the quota.
            if nano and (found := self._by_id.get(quota_id)) and found.has_row:
                with found.lock:
                    found.nano += nano
                    found.used -= nano
                    found.seen_at = self._clock.monotonic()

    def headers(self, caller: Caller) -> list[tuple[str, str]]:
        """What an answer says about the caller's quotas: of those that hold the one with the least remaining."""
        found = [each for each in self._slices_of(caller) if each.terms and each.quota]
        shown = [("X-Quota-Warning", each.warning) for each in found if each.warning][:1]
        if limited := [each for each in found if each.limit_text]:
            tightest = limited[0] if len(limited) == 1 else min(limited, key=LeasedQuota.remaining_nano)
            shown.append(("X-Quota-Limit", tightest.limit_text))
            shown.append(("X-Quota-Remaining", dollars(tightest.remaining_nano())))
            if tightest.resets_at is not None:
                shown.append(("X-Quota-Reset", str(max(0, int(tightest.resets_at - self._clock.timestamp())))))
        return shown

    def held_nano(self) -> int:
        """What is leased here and waits for the next calls."""
        with self._lock:
            return sum(max(0, found.nano) for found in self._slices.values())

    def _slices_of(self, caller: Caller, user_pays: bool = False) -> list[LeasedQuota]:
        subjects = subjects_of(caller.user_id, caller.client_key_id, caller.team_id, user_pays)
        return [found for subject in subjects if (found := self._slice(subject))]

    def _slice(self, subject: str) -> LeasedQuota | None:
        found = self._slices.get(subject)
        if not found:
            if self._terms_of(subject) is None:
                return None
            found = self._new_slice(subject)
        if found:
            found.seen_at = self._clock.monotonic()
        return found

    def _terms_of(self, subject: str) -> QuotaTerms | None:
        own = self._own.get(subject)
        return own.terms if own else self._quotas.default_of(subject)

    def _new_slice(self, subject: str) -> LeasedQuota | None:
        with self._lock:  # or a reload in between would miss it
            terms = self._terms_of(subject)
            if subject not in self._slices and terms:
                self._slices[subject] = found = LeasedQuota(subject, terms)
                found.since = self._clock.monotonic()
                self._know(found, self._own.get(subject))
            return self._slices.get(subject)

    def _know(self, found: LeasedQuota, quota: Quota | None) -> None:
        if quota and quota.id is not None:
            found.know(quota)
            self._by_id[quota.id] = found

    def _admit(self, found: LeasedQuota, nano: int) -> int:
        """Take a call's cost from a slice and return the quota's id. Raises QuotaExceeded, Busy."""
        if self._clock.monotonic() >= self._trusted_until:
            raise _busy()
        with found.lock:
            is_there = found.take(nano)
            if not is_there:
                found.waiting += nano
        if not is_there:
            try:
                with found.asking:
                    self._ask(found, nano)
            finally:
                with found.lock:
                    found.waiting -= nano
        assert found.quota_id is not None  # noqa: S101 - it has been leased
        return found.quota_id

    def _ask(self, found: LeasedQuota, nano: int) -> None:
        """Lease what a call needs, and take it. Raises QuotaExceeded, Busy."""
        now = self._clock.monotonic()
        want = max(found.wanted(now), CALLS * nano)
        with found.lock:
            if found.take(nano):  # another thread brought it
                return
            if now < found.refused_until and nano >= found.refused_nano:
                raise found.refusal(nano)
            held, found.nano = found.nano, 0  # this call's now: smaller ones would take it away while it asks
        if now < self._away_until or self._db.refusal:  # nobody waits for what is known to be refused
            found.add(held)
            raise _busy()
        try:
            if found.must_return and held > 0:
                surplus, held = held, 0
                self._put_back({found: surplus})
            amount = self._lease(found, lambda left: granted(left, held, nano - held, want, nano))
        except DatabaseError:
            self._away_until = self._clock.monotonic() + AWAY_SECONDS
            found.add(held)
            raise _busy() from None
        with found.lock:
            found.nano += held + amount
            if amount and found.take(nano):
                return
            found.refused_until, found.refused_nano = self._clock.monotonic() + REFUSED_SECONDS, nano
        with suppress(DatabaseError):  # too little for this call, but maybe not for one elsewhere
            self._put_back({found: found.take_out(held)})
        raise found.refusal(nano)

    def _lease(self, found: LeasedQuota, grant: Callable[[int], int]) -> int:
        """Lease what `grant` makes of what is left. Under `asking`. Raises DatabaseError: then nothing is counted."""
        if found.quota_id is None:
            self._know(found, self._quotas.open(found.subject))
        assert found.quota_id is not None  # noqa: S101 - it was opened
        amount, quota = self._leases.take(found.quota_id, grant)
        self._know(found, quota)
        found.has_row = found.has_row or amount > 0
        return amount

    # ── in the background

    def top_up(self) -> None:
        """Enlarge slices that run low before anybody has to wait; shrink those of quotas that run low."""
        now = self._clock.monotonic()
        self._trust(now)
        since, self._topped_up_at = self._topped_up_at, now
        seen = [
            found for found in list(self._slices.values()) if (found.seen_at >= since or found.nano < 0) and found.terms
        ]
        for begin in range(0, len(seen), BATCH):
            batch = seen[begin : begin + BATCH]
            ids = {found: found.quota_id for found in batch}  # a call may be opening another just now
            known = self._quotas.read([quota_id for quota_id in ids.values() if quota_id is not None])
            for found, quota_id in ids.items():
                if quota_id is not None and quota_id not in known:  # as after the restore of a backup
                    self._forget(found)
                    continue
                if quota_id is not None:
                    self._know(found, known[quota_id])
                elif not found.is_limited:  # nobody asks before a call: only its warning depends on it
                    self._know(found, self._quotas.open(found.subject))
                self._fit(found, now)

    def _fit(self, found: LeasedQuota, now: float) -> None:
        """Lease or return what a slice lacks, or has too much; only if that is half, so that it is seldom."""
        found.forgive()
        want = found.wanted(now)
        if not found.is_limited or not found.quota or not found.asking.acquire(blocking=False):
            return  # or a call is just asking for more
        try:
            held, unit = found.nano, found.unit
            wanted = target(found.quota.left_nano, held, want)
            if found.must_return:
                self._put_back({found: found.take_out()})
            elif held * 2 < wanted:
                found.add(self._lease(found, lambda left: granted(left, held, 0, want, unit)))
            elif held > max(unit, wanted * 2):
                self._put_back({found: found.take_out(held - wanted)})
        finally:
            found.asking.release()

    def _trust(self, now: float) -> None:
        """Learn until when nobody takes our slices from us."""
        trusted_seconds = self._leases.trusted_seconds()
        if trusted_seconds <= 0:
            return
        if now >= self._trusted_until:  # after a long silence: what was taken from us is not ours any more
            held = self._leases.held()
            for found in list(self._slices.values()):
                if found.quota_id not in held:
                    self._forget(found)
        self._trusted_until = now + trusted_seconds

    def return_idle(self) -> None:
        """Return slices that nobody has used for a while, and forget them later."""
        now = self._clock.monotonic()
        idle = [found for found in list(self._slices.values()) if now - found.seen_at >= IDLE_SECONDS]
        self._return([found for found in idle if found.nano])
        for found in idle:
            if now - found.seen_at < FORGET_SECONDS or not found.asking.acquire(blocking=False):
                continue
            try:
                if not found.nano and not found.waiting:
                    if (quota_id := found.quota_id) is not None:
                        self._leases.remove([quota_id])
                    self._forget(found)
            finally:
                found.asking.release()

    def _forget(self, found: LeasedQuota) -> None:
        with self._lock:
            self._slices.pop(found.subject, None)
            if found.quota_id is not None:
                self._by_id.pop(found.quota_id, None)

    def return_all(self) -> None:
        """Return everything; no call is admitted any more."""
        self._trusted_until = float("-inf")
        for found in list(self._slices.values()):
            self._forget(found)
        self._leases.remove()

    def return_slices_of(self, process_ids: Collection[str]) -> None:
        """Return the slices of processes that are dead, whose journals were drained."""
        for process_id in process_ids:
            self._leases.remove(process_id=process_id)

    def reclaim_expired(self) -> int:
        """Return the slices of processes that have been silent for too long; how many processes that were."""
        return self._leases.reclaim_expired()

    def reload(self) -> None:
        """Take over the quotas that were set or reset; what is over a lowered limit goes back at once."""
        own = self._quotas.own()
        with self._lock:
            self._own = own
            slices = list(self._slices.values())
        changed = [found for found in slices if found.terms != self._terms_of(found.subject)]
        known = self._quotas.read([found.quota_id for found in changed if found.quota_id is not None])
        for found in changed:
            with found.lock:
                found.terms, found.refused_until = self._terms_of(found.subject), 0.0
            self._know(found, own.get(found.subject) or known.get(found.quota_id or 0))
        self._return([found for found in changed if not found.is_limited or found.must_return])

    def _return(self, slices: Iterable[LeasedQuota]) -> None:
        slices = list(slices)
        for begin in range(0, len(slices), BATCH):
            self._put_back({found: found.take_out() for found in slices[begin : begin + BATCH]})

    def _put_back(self, amounts: Mapping[LeasedQuota, int]) -> None:
        """Return what memory has let go of already."""
        by_id = {found.quota_id: found for found, nano in amounts.items() if nano and found.quota_id is not None}

        def keep() -> None:
            for found, nano in amounts.items():
                found.add(nano)

        returned = self._leases.put_back({quota_id: amounts[found] for quota_id, found in by_id.items()}, keep)
        for quota_id, nano in returned.items():
            # The database has less where the ledger still has to put back what memory has already. That stays here.
            found = by_id[quota_id]
            found.add(amounts[found] - nano)


def _busy() -> Busy:
    return Busy("Quotas can't be checked at present; try again shortly", retry_after_seconds=5)
