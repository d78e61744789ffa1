"""A look at all facts, every few seconds, by one process of all: what begins, goes on and ends."""

from __future__ import annotations

import logging
from collections.abc import Callable

from alerts.facts import Fact, Facts
from alerts.kinds import KINDS, OTHERS, AlertKind
from alerts.states import Alert, AlertStates
from db import DatabaseError, is_away
from foundation.clock import Clock
from foundation.logs import event

log = logging.getLogger("alerts")

ROUND_SECONDS = 20.0
MOST_OF_A_KIND = 20  # that are told one by one; more of them are told as one


class AlertRounds:
    """look: makes the facts of a round."""

    def __init__(self, states: AlertStates, clock: Clock, look: Callable[[], Facts]) -> None:
        self._states = states
        self._clock = clock
        self._look = look

    def run_if_due(self) -> None:
        """A round, unless some process has just made one. Raises DatabaseError."""
        if self._states.take_round("facts", ROUND_SECONDS):
            self.run_once()

    def run_once(self) -> None:
        """Look at everything. A kind that can't be asked stays as it was, and keeps no other from being looked at."""
        facts, known = self._look(), self._states.open()
        silenced, faults = self._states.silences(), []
        for kind in KINDS.values():
            try:
                alerts = {alert.subject: alert for alert in known if alert.kind == kind.name}
                self._compare(kind, alerts, list(kind.ask(facts)), kind.name in silenced)
            except Exception as fault:
                if isinstance(fault, DatabaseError) and is_away(fault):
                    raise
                faults.append(fault)
        self._states.delete_old()
        if faults:
            raise faults[0]

    def _compare(self, kind: AlertKind, known: dict[str, Alert], facts: list[Fact], is_silenced: bool) -> None:
        found = _bounded(kind, known, facts)
        for subject, fact in found.items():
            if subject not in known:
                self._states.notice(kind, fact)
        for subject, alert in known.items():
            lasted = self._clock.now() - alert.began_at >= kind.lasting
            if subject in found:
                self._states.see(alert, found[subject])
                if lasted and not (alert.told_at or is_silenced):
                    self._tell(alert)
            elif not lasted:
                self._states.forget(alert)
            elif alert.clear_since is None:
                self._states.see_clear(alert)
            elif self._clock.now() - alert.clear_since >= kind.quiet:
                self._end(alert)

    def _tell(self, alert: Alert) -> None:
        if self._states.tell(alert):
            event(log, "alert_began", logging.WARNING, kind=alert.kind, subject=alert.subject, **alert.details)

    def _end(self, alert: Alert) -> None:
        if self._states.end(alert):
            event(log, "alert_ended", logging.WARNING, kind=alert.kind, subject=alert.subject)


def _bounded(kind: AlertKind, known: dict[str, Alert], facts: list[Fact]) -> dict[str, Fact]:
    """What is wrong, by subject. Of more than can be told one by one, the rest is one."""
    wrong = {
        fact.subject: fact
        for fact in facts
        if (kind.holds(fact.value) if fact.subject in known else kind.is_reached(fact.value))
    }
    # Who was told of one is told of its end: what is known comes first.
    subjects = sorted(wrong, key=lambda subject: subject not in known)
    rest = subjects[MOST_OF_A_KIND:]
    found = {subject: wrong[subject] for subject in subjects[:MOST_OF_A_KIND]}
    return found | ({OTHERS: Fact(OTHERS, len(rest), {"count": len(rest)})} if rest else {})
