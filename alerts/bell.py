"""Alerts as one object: what runs in the background, the test, and what pages and commands ask for."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from alerts.facts import Facts
from alerts.host import Host
from alerts.kinds import KINDS
from alerts.mail import Mail
from alerts.messages import AlertMessages, Message
from alerts.notice import AlertNotice, Channel, NotSent
from alerts.rounds import AlertRounds
from alerts.states import Alert, AlertStates
from alerts.webhook import Webhook
from config.settings import Config
from db import Database
from foundation.clock import Clock
from foundation.crypto import new_id
from foundation.logs import event
from replicas.repeating import repeat
from upstream.dial import GuardedDial

log = logging.getLogger("alerts")

LOOK_SECONDS, SEND_SECONDS = 5.0, 2.0
PAGE = "/operator/alerts"


@dataclass(frozen=True)
class Tested:
    """What became of a test message to one channel. reason: why it did not arrive."""

    channel: str
    target: str
    ok: bool
    reason: str | None = None


class Bell:
    """look: makes the facts of a round. Each channel has a thread: one that hangs keeps nothing else waiting."""

    def __init__(
        self, config: Config, db: Database, clock: Clock, guard: GuardedDial, host: Host, look: Callable[[], Facts]
    ) -> None:
        self.channels = _channels(config, clock, guard)
        self.states = AlertStates(db, clock, [channel.name for channel in self.channels])
        self.messages = AlertMessages(db, clock)
        self.rounds = AlertRounds(self.states, clock, look)
        self.report = host.report
        self._clock = clock
        self._link = config.public_url and config.public_url + PAGE

    def background(self) -> dict[str, Callable[[threading.Event], None]]:
        """What runs in a thread of its own, by the thread's name."""
        runs: dict[str, Callable[[threading.Event], None]] = {
            "alerts": partial(repeat, self.rounds.run_if_due, LOOK_SECONDS)
        }
        for channel in self.channels:
            runs[f"alerts-{channel.name}"] = partial(repeat, partial(self.send_due, channel), SEND_SECONDS)
        return runs

    def send_due(self, channel: Channel) -> None:
        """Send a channel what waits for it, until that is all. Raises DatabaseError."""
        while message := self.messages.take(channel.name):
            alert = self.states.get(message.alert_id)
            try:
                channel.send(self._notice(alert, message.says))
            except NotSent as fault:
                self._note_failed(message, str(fault))
            except Exception as fault:
                self._note_failed(message, type(fault).__name__)
                raise
            else:
                self.messages.note_sent(message)

    def test(self) -> list[Tested]:
        """Send a test message to every channel, now, and say what became of it."""
        notice = AlertNotice(
            id=f"test-{new_id()}",
            says="test",
            kind="test",
            subject="test",
            title="Test",
            sentence="This is a test: alerts arrive here.",
            advice="Nothing has to be done.",
            details={},
            began_at=self._clock.now(),
            ended_at=None,
            link=self._link,
        )
        return [_tested(channel, notice) for channel in self.channels]

    def _notice(self, alert: Alert, says: str) -> AlertNotice:
        kind = KINDS[alert.kind]
        return AlertNotice(
            id=f"alert-{alert.id}-{says}",
            says=says,
            kind=alert.kind,
            subject=alert.subject,
            title=kind.title,
            sentence=kind.words(alert.subject).format(**alert.details),
            advice=kind.advice,
            details=alert.details,
            began_at=alert.began_at,
            ended_at=alert.ended_at,
            link=self._link,
        )

    def _note_failed(self, message: Message, reason: str) -> None:
        self.messages.note_failed(message, reason)
        event(log, "alert_not_sent", logging.WARNING, channel=message.channel, tries=message.tries, reason=reason)


def _tested(channel: Channel, notice: AlertNotice) -> Tested:
    try:
        channel.send(notice)
    except NotSent as fault:
        return Tested(channel.name, channel.target, ok=False, reason=str(fault))
    return Tested(channel.name, channel.target, ok=True)


def _channels(config: Config, clock: Clock, guard: GuardedDial) -> list[Channel]:
    """Those that are set up."""
    channels: list[Channel] = []
    if config.alert_webhook_url and config.alert_webhook_secret:
        url, secret = config.alert_webhook_url.get_secret_value(), config.alert_webhook_secret.get_secret_value()
        channels.append(Webhook(url, secret, guard, clock))
    if config.alert_email_to:
        channels.append(Mail(config, clock))
    return channels
