"""One message as channels get it, and what a channel is."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

TITLES = {"began": "{}", "ended": "Over: {}", "test": "{}"}


class NotSent(Exception):
    """A message did not arrive. The text says why, without secrets."""


@dataclass(frozen=True)
class AlertNotice:
    """id: the same however often it is sent, so that receivers can tell a repeated one. says: began, ended or test.

    link: where operators see more; "" if PUBLIC_URL is not set.
    """

    id: str
    says: str
    kind: str
    subject: str
    title: str
    sentence: str
    advice: str
    details: dict[str, Any]
    began_at: datetime
    ended_at: datetime | None
    link: str

    @property
    def headline(self) -> str:
        """The message in a few words."""
        return TITLES[self.says].format(self.title)

    @property
    def text(self) -> str:
        """The message in a line."""
        return f"{self.headline}. {self.sentence}"

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "id": self.id,
            "state": self.says,
            "kind": self.kind,
            "subject": self.subject,
            "text": self.text,
            "advice": self.advice,
            "details": self.details,
            "began_at": self.began_at.isoformat(timespec="seconds"),
            "ended_at": self.ended_at.isoformat(timespec="seconds") if self.ended_at else None,
            "link": self.link or None,
        }


class Channel(Protocol):
    """A way to operators. name: as messages are stored under; target: to whom, as may be shown."""

    name: str
    target: str

    def send(self, notice: AlertNotice) -> None:
        """Deliver a message. Raises NotSent."""
