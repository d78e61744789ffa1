"""What goes out, to each channel: written in the transaction that it tells of, and tried until it arrives.

A try is claimed before it is made and noted after it, so that a crash in between repeats a message and loses none.
Of one alert and channel, the end waits for the beginning.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa

from db import Database, Transaction
from foundation.clock import Clock
from tables import alert_messages as table

BEGAN, ENDED = "began", "ended"
WAITING, SENT, GIVEN_UP = "waiting", "sent", "given-up"
CLAIM = timedelta(minutes=2)  # longer than a try takes
FIRST_PAUSE, LONGEST_PAUSE = timedelta(seconds=10), timedelta(hours=1)
MAX_TRIES = 30  # about a day
MAX_REASON = 300


@dataclass(frozen=True)
class Message:
    """A message to one channel. tries: how often it was tried, this time included; reason: why the last try failed."""

    id: int
    alert_id: int
    says: str
    channel: str
    state: str
    tries: int
    next_at: datetime
    reason: str | None


def add(tx: Transaction, alert_id: int, says: str, channels: Collection[str], now: datetime) -> None:
    """Have these channels told, within the transaction that this tells of."""
    row = {"alert_id": alert_id, "says": says, "state": WAITING, "tries": 0, "next_at": now}
    tx.execute(table.insert(), [row | {"channel": channel} for channel in channels])


def delete(tx: Transaction, alert_ids: Sequence[int]) -> None:
    """Forget the messages of these alerts."""
    tx.execute(table.delete().where(table.c.alert_id.in_(alert_ids)))


class AlertMessages:
    """The messages in the database."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock

    def of(self, alert_ids: Collection[int]) -> list[Message]:
        """All messages of these alerts, in the order in which they were written."""
        query = sa.select(table).where(table.c.alert_id.in_(alert_ids)).order_by(table.c.id)
        with self._db.reading() as tx:
            return [Message(**row._asdict()) for row in tx.execute(query)]

    def take(self, channel: str) -> Message | None:
        """The next message to send there, which no other process sends meanwhile; None if there is none."""
        now = self._clock.now()
        earlier = table.alias()
        is_first = ~sa.exists().where(
            earlier.c.alert_id == table.c.alert_id,
            earlier.c.channel == table.c.channel,
            earlier.c.state == WAITING,
            earlier.c.id < table.c.id,
        )
        due = table.c.channel == channel, table.c.state == WAITING, table.c.next_at <= now
        with self._db.reading() as tx:
            query = sa.select(table).where(*due, is_first).order_by(table.c.next_at, table.c.id)
            row = tx.execute(query.limit(1)).first()
        if row is None:
            return None
        claim = {"tries": row.tries + 1, "next_at": now + CLAIM}
        same = sa.and_(table.c.id == row.id, table.c.tries == row.tries, table.c.state == WAITING)
        is_ours = self._db.transact(lambda tx: tx.execute(table.update().where(same).values(claim)).rowcount) == 1
        return Message(**row._asdict() | claim) if is_ours else None

    def note_sent(self, message: Message) -> None:
        """It has arrived."""
        self._note(message, {"state": SENT, "reason": None})

    def note_failed(self, message: Message, reason: str) -> None:
        """It has not: try again after a pause, each twice as long as the one before, or give up."""
        pause = min(FIRST_PAUSE * 2 ** min(message.tries - 1, 20), LONGEST_PAUSE)
        values = {"next_at": self._clock.now() + pause, "reason": reason[:MAX_REASON]}
        self._note(message, values | ({"state": GIVEN_UP} if message.tries >= MAX_TRIES else {}))

    def _note(self, message: Message, values: dict[str, object]) -> None:
        same = sa.and_(table.c.id == message.id, table.c.tries == message.tries)
        self._db.transact(lambda tx: tx.execute(table.update().where(same).values(values)))
