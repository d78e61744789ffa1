"""How long the calls of those took who are compared in shares.py: the p50 and p95, from the sums of latency."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

from billing import latency_rollups
from billing.latency import CallTimes, added
from billing.latency_rollups import POOL, LatencyKind, own_model
from billing.reports.shares_asked import By, SharesAsked, Subject
from db import Transaction

SHARES = {"p50": 0.5, "p95": 0.95}
Raws = Mapping[Subject, Collection[Subject]]
"""Of each who is compared, as whom they have sums: a provider as each of its models."""


class ShareTimes:
    """Of those who are compared, in the time that is asked about and in the one before."""

    def __init__(self, tx: Transaction, asked: SharesAsked, raws: Raws) -> None:
        self._asked = asked
        self._share = SHARES[asked.metric.value]
        self._by_time = _read(tx, asked, asked.times, raws)
        self.now = {one: added(sums.values()) for one, sums in self._by_time.items()}
        self.before = {one: added(sums.values()) for one, sums in _read(tx, asked, asked.times_before, raws).items()}
        self.all_now = _read_all(tx, asked, asked.times)
        self.all_before = _read_all(tx, asked, asked.times_before)

    def amount(self, subject: Subject) -> int:
        """The percentile that is asked for, in milliseconds; 0 if nothing was answered."""
        return self.now[subject].whole_ms(self._share) or 0

    def series(self, drawn: Sequence[Subject]) -> list[list[int]]:
        """The same at each time."""
        return [
            [self._by_time[one].get(time, CallTimes()).whole_ms(self._share) or 0 for time in self._asked.times]
            for one in drawn
        ]


def times_shown(sums: CallTimes | None) -> dict[str, Any]:
    """As JSON, in milliseconds; None where it was not asked for, or nothing was answered."""
    return {f"{name}_ms": sums.whole_ms(share) if sums else None for name, share in SHARES.items()}


def _read(
    tx: Transaction, asked: SharesAsked, times: Sequence[datetime], raws: Raws
) -> dict[Subject, dict[datetime, CallTimes]]:
    """The sums of each of them at the times at which they have any."""
    whose = {_subject(asked, raw): one for one, among in raws.items() for raw in among}
    found: dict[Subject, dict[datetime, CallTimes]] = {one: {} for one in raws}
    for start, subject, sums in latency_rollups.read(tx, asked.period, _kind(asked), times, list(whose)):
        found[whose[subject]].setdefault(start, CallTimes()).add(sums)
    return found


def _read_all(tx: Transaction, asked: SharesAsked, times: Sequence[datetime]) -> CallTimes:
    """Of all calls together."""
    of_all = (LatencyKind.ALL, "") if asked.user_id is None else (LatencyKind.USER, str(asked.user_id))
    kind, subject = of_all
    return added(sums for _, _, sums in latency_rollups.read(tx, asked.period, kind, times, [subject]))


def _kind(asked: SharesAsked) -> LatencyKind:
    if asked.by in {By.MODEL, By.PROVIDER}:
        return LatencyKind.MODEL if asked.user_id is None else LatencyKind.OWN_MODEL
    return LatencyKind(asked.by.value)


def _subject(asked: SharesAsked, raw: Subject) -> str:
    if asked.by is By.UPSTREAM and isinstance(raw, int):  # others' numbers are below 0; 0 is what was refused here
        return POOL if raw > 0 else str(-raw) if raw else ""
    if asked.by in {By.MODEL, By.PROVIDER} and asked.user_id is not None:
        return own_model(asked.user_id, str(raw))
    return str(raw)
