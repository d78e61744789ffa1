"""What rings and rang: one row for each time, which whoever comes first of all processes begins, tells and ends.

    noticed ──lasts──> told ──over──> ended
        └──over──> gone

Each step is a conditional write, and the messages that tell of it are written in the same transaction.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from alerts import messages
from alerts.facts import Fact
from alerts.kinds import KINDS, AlertKind
from alerts.messages import BEGAN, ENDED
from db import Database, Duplicate, Transaction
from foundation import json_text
from foundation.clock import Clock
from tables import alert_rounds, alert_silences
from tables import alerts as table

KEPT, KEPT_ROWS = timedelta(days=90), 10_000  # of what is over
DELETED_AT_ONCE = 1000


@dataclass(frozen=True)
class Alert:
    """One time that something was wrong. began_at: since when it was so; clear_since: since when it is not.

    told_at: when the messages were written that it began; None if nobody was told.
    """

    id: int
    kind: str
    subject: str
    details: dict[str, Any]
    began_at: datetime
    clear_since: datetime | None
    told_at: datetime | None
    ended_at: datetime | None


@dataclass(frozen=True)
class AlertSilence:
    """That operators don't want to be told when something of a kind begins."""

    silenced_by: str
    silenced_at: datetime


class AlertStates:
    """channels: names of those that messages go to."""

    def __init__(self, db: Database, clock: Clock, channels: Collection[str]) -> None:
        self._db = db
        self._clock = clock
        self._channels = channels

    # ── reading

    def open(self) -> list[Alert]:
        """What is not over, oldest first; of kinds that this version knows."""
        with self._db.reading() as tx:
            rows = tx.execute(sa.select(table).where(table.c.open_as.is_not(None)).order_by(table.c.id)).all()
        return [_alert(row) for row in rows if row.kind in KINDS]

    def get(self, alert_id: int) -> Alert:
        """An alert that has messages."""
        with self._db.reading() as tx:
            return _alert(tx.execute(sa.select(table).where(table.c.id == alert_id)).one())

    def page(self, page: int, page_size: int) -> tuple[list[Alert], int]:
        """A page of what is over, newest first, and how much there is."""
        over = table.c.ended_at.is_not(None), table.c.kind.in_(KINDS)
        query = sa.select(table).where(*over).order_by(table.c.ended_at.desc(), table.c.id.desc())
        with self._db.reading() as tx:
            total = tx.scalar(sa.select(sa.func.count()).select_from(table).where(*over)) or 0
            rows = tx.execute(query.limit(page_size).offset((page - 1) * page_size)).all()
        return [_alert(row) for row in rows], total

    def silences(self) -> dict[str, AlertSilence]:
        """By kind."""
        with self._db.reading() as tx:
            rows = tx.execute(sa.select(alert_silences)).all()
        return {row.kind: AlertSilence(row.silenced_by, row.silenced_at) for row in rows}

    # ── the life of an alert

    def notice(self, kind: AlertKind, fact: Fact) -> None:
        """Something is wrong, of which nobody knew."""
        now, subject = self._clock.now(), fact.subject
        values = {"kind": kind.name, "subject": subject, "open_as": f"{kind.name} {subject}", "details": _text(fact)}
        try:
            self._db.transact(lambda tx: tx.execute(table.insert().values(values | {"began_at": now})))
        except Duplicate:
            pass  # another process has just noticed it too

    def see(self, alert: Alert, fact: Fact) -> None:
        """It is still so."""
        if alert.clear_since or alert.details != fact.parts:
            self._change(alert, {"clear_since": None, "details": _text(fact)})

    def see_clear(self, alert: Alert) -> None:
        """It is not so, for the first time."""
        self._change(alert, {"clear_since": self._clock.now()})

    def tell(self, alert: Alert) -> bool:
        """Have messages sent that it began; False if there are no channels, or another process was first."""
        return bool(self._channels) and self._step(alert, BEGAN, table.c.told_at.is_(None), {})

    def end(self, alert: Alert) -> bool:
        """It is over: have that told where it was told that it began. False if another process was first."""
        over = {"open_as": None, "ended_at": self._clock.now()}
        if alert.told_at:
            return self._step(alert, ENDED, table.c.told_at.is_not(None), over)
        untold = sa.and_(_is_open(alert), table.c.told_at.is_(None))
        return self._db.transact(lambda tx: tx.execute(table.update().where(untold).values(over)).rowcount) == 1

    def forget(self, alert: Alert) -> None:
        """It was over before it had lasted."""
        untold = sa.and_(_is_open(alert), table.c.told_at.is_(None))
        self._db.transact(lambda tx: tx.execute(table.delete().where(untold)))

    def _step(self, alert: Alert, says: str, if_so: sa.ColumnElement[bool], values: dict[str, Any]) -> bool:
        now = self._clock.now()

        def write(tx: Transaction) -> bool:
            changed = values or {"told_at": now}
            if not tx.execute(table.update().where(_is_open(alert), if_so).values(changed)).rowcount:
                return False
            messages.add(tx, alert.id, says, self._channels, now)
            return True

        return self._db.transact(write)

    def _change(self, alert: Alert, values: dict[str, Any]) -> None:
        self._db.transact(lambda tx: tx.execute(table.update().where(_is_open(alert)).values(values)))

    # ── what operators say, and whose turn it is

    def silence(self, kind: str, by: str) -> None:
        """Tell nobody when something of this kind begins; of what was told before, the end is told all the same."""
        values = {"kind": kind, "silenced_by": by, "silenced_at": self._clock.now()}
        try:
            self._db.transact(lambda tx: tx.execute(alert_silences.insert().values(values)))
        except Duplicate:
            pass

    def unsilence(self, kind: str) -> None:
        """Tell of this kind again, what has begun meanwhile included."""
        self._db.transact(lambda tx: tx.execute(alert_silences.delete().where(alert_silences.c.kind == kind)))

    def take_round(self, name: str, seconds: float) -> bool:
        """True for one process of all in each so many seconds."""
        now = self._clock.now()
        next_at = now + timedelta(seconds=seconds)
        with self._db.reading() as tx:  # nearly always it is not time, and nothing is locked
            known: datetime | None = tx.scalar(sa.select(alert_rounds.c.next_at).where(alert_rounds.c.name == name))
        if known is None:
            try:
                self._db.transact(lambda tx: tx.execute(alert_rounds.insert().values(name=name, next_at=next_at)))
            except Duplicate:
                return False
            return True
        same = sa.and_(alert_rounds.c.name == name, alert_rounds.c.next_at == known)
        change = alert_rounds.update().where(same).values(next_at=next_at)
        return known <= now and self._db.transact(lambda tx: tx.execute(change).rowcount) == 1

    def delete_old(self) -> None:
        """Delete some of what has been over for long, or is more than is kept, with its messages."""
        over = sa.select(table.c.id, table.c.ended_at).where(table.c.ended_at.is_not(None))
        with self._db.reading() as tx:
            oldest = tx.execute(over.order_by(table.c.ended_at, table.c.id).limit(DELETED_AT_ONCE)).all()
            count = tx.scalar(sa.select(sa.func.count()).select_from(over.subquery())) or 0
        before = self._clock.now() - KEPT
        ids = [row.id for number, row in enumerate(oldest) if row.ended_at < before or number < count - KEPT_ROWS]

        def delete(tx: Transaction) -> None:
            messages.delete(tx, ids)
            tx.execute(table.delete().where(table.c.id.in_(ids)))

        if ids:
            self._db.transact(delete)


def _is_open(alert: Alert) -> sa.ColumnElement[bool]:
    return sa.and_(table.c.id == alert.id, table.c.open_as.is_not(None))


def _text(fact: Fact) -> str:
    return json_text.write(fact.parts).decode()


def _alert(row: Any) -> Alert:
    values = row._asdict() | {"details": json_text.parse(row.details.encode())}
    del values["open_as"]
    return Alert(**values)
