"""For operators: alerts, what rings and rang; a test of the channels; kinds of which nobody wants to be told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any, Literal

from flask import Blueprint, Response
from pydantic import Field

from alerts.kinds import KINDS
from alerts.messages import Message
from alerts.states import Alert
from foundation.errors import BadRequest
from web.http import answer, audit, services
from web.operation import Body, Paging, Shown, Who, operation

routes = Blueprint("admin_alert_api", __name__, url_prefix="/admin/alerts")


class MessageShown(Shown):
    """A message to one channel. reason: why it did not arrive, at the last of so many tries."""

    channel: str = Field(examples=["webhook"])
    says: Literal["began", "ended"]
    state: Literal["waiting", "sent", "given-up"]
    tries: int = Field(examples=[1])
    reason: str | None = Field(examples=[None])


class AlertShown(Shown):
    """One time that something was wrong. told_at: when messages were written that it began; null if nobody was told."""

    id: int = Field(examples=[12])
    kind: str = Field(examples=["disk-nearly-full"])
    subject: str = Field(description="What it is about", examples=["host/gateway-1"])
    title: str = Field(examples=["Disk nearly full"])
    text: str = Field(examples=["gateway-1 has 0.8 GB left on the disk of DATA_DIR."])
    advice: str = Field(examples=["Make room before calls are refused."])
    details: dict[str, str | int] = Field(examples=[{"host": "gateway-1", "free": "0.8 GB"}])
    began_at: datetime
    told_at: datetime | None
    ended_at: datetime | None
    messages: list[MessageShown]


class AlertKindShown(Shown):
    """A kind of alerts, and who has silenced it."""

    kind: str = Field(examples=["disk-nearly-full"])
    title: str = Field(examples=["Disk nearly full"])
    silenced_by: str | None = Field(examples=[None])
    silenced_at: datetime | None


class ChannelShown(Shown):
    """Where alerts go. target: the webhook's host, or the addresses."""

    channel: str = Field(examples=["email"])
    target: str = Field(examples=["ops@example.org"])


class AlertsShown(Shown):
    """open: what rings now, oldest first. items: what is over, newest first, for 90 days."""

    open: list[AlertShown]
    items: list[AlertShown]
    total: int
    page: int
    page_size: int
    kinds: list[AlertKindShown]
    channels: list[ChannelShown]


class TestedShown(Shown):
    """What became of a test message. reason: why it did not arrive."""

    channel: str = Field(examples=["webhook"])
    target: str = Field(examples=["hooks.example.org"])
    ok: bool
    reason: str | None = Field(examples=[None])


class AllTested(Shown):
    """Every channel that is set."""

    items: list[TestedShown]


class KindSwitch(Body):
    """Whether operators are told when something of a kind begins."""

    silenced: bool


@routes.get("")
@operation("List alerts", Who.AUDITOR, query=Paging, answers={200: AlertsShown})
def page(query: Paging) -> Response:
    """What rings, what rang and what became of the messages; the channels; and which kinds are silenced."""
    return answer(alerts_shown(query))


@routes.post("/test")
@operation("Send a test alert", Who.OPERATOR, answers={200: AllTested})
def test(operator: str) -> Response:
    """Sends a message to each channel that is set, now, and says what became of it; that takes 20 seconds at most."""
    return answer({"items": test_alerts(operator)})


@routes.put("/kinds/<kind>")
@operation("Silence a kind of alerts", Who.OPERATOR, body=KindSwitch, answers={200: AlertKindShown})
def switch(operator: str, kind: str, body: KindSwitch) -> Response:
    """Silenced, nobody is told when something of this kind begins; the page shows it all the same. What was told before
    is told to be over. When the silence ends, what rings then is told."""
    return answer(switch_kind(operator, kind, body.silenced))


# ── for the pages too


def alerts_shown(query: Paging) -> dict[str, Any]:
    """All of it, as it is answered."""
    bell = services().bell
    open_now, (over, total) = bell.states.open(), bell.states.page(query.page, query.page_size)
    messages = bell.messages.of([alert.id for alert in (*open_now, *over)])
    return {
        "open": [_alert_shown(alert, messages) for alert in open_now],
        "items": [_alert_shown(alert, messages) for alert in over],
        "total": total,
        "page": query.page,
        "page_size": query.page_size,
        "kinds": _kinds_shown(),
        "channels": [{"channel": channel.name, "target": channel.target} for channel in bell.channels],
    }


def test_alerts(operator: str) -> list[dict[str, Any]]:
    """Send a test message to each channel. Raises BadRequest if none is set."""
    if not services().bell.channels:
        raise BadRequest("No channel is set: set ALERT_WEBHOOK_URL, or ALERT_EMAIL_TO and SMTP_HOST")
    tested = services().bell.test()
    audit(operator, "alerts_tested", "alerts", arrived=[one.channel for one in tested if one.ok])
    return [asdict(one) for one in tested]


def switch_kind(operator: str, kind: str, silenced: bool) -> dict[str, Any]:
    """Silence a kind, or end its silence. Raises BadRequest."""
    if kind not in KINDS:
        raise BadRequest(f"kind must be one of {', '.join(KINDS)}")
    if silenced:
        services().bell.states.silence(kind, operator)
    else:
        services().bell.states.unsilence(kind)
    audit(operator, "alerts_silenced" if silenced else "alerts_unsilenced", f"alerts/{kind}")
    return next(one for one in _kinds_shown() if one["kind"] == kind)


def _kinds_shown() -> list[dict[str, Any]]:
    silences = services().bell.states.silences()
    found = []
    for kind in KINDS.values():
        silence = silences.get(kind.name)
        by, at = (silence.silenced_by, _iso(silence.silenced_at)) if silence else (None, None)
        found.append({"kind": kind.name, "title": kind.title, "silenced_by": by, "silenced_at": at})
    return found


def _alert_shown(alert: Alert, messages: Sequence[Message]) -> dict[str, Any]:
    kind = KINDS[alert.kind]
    return {
        "id": alert.id,
        "kind": alert.kind,
        "subject": alert.subject,
        "title": kind.title,
        "text": kind.words(alert.subject).format(**alert.details),
        "advice": kind.advice,
        "details": alert.details,
        "began_at": _iso(alert.began_at),
        "told_at": _iso(alert.told_at),
        "ended_at": _iso(alert.ended_at),
        "messages": [
            {name: getattr(one, name) for name in MessageShown.model_fields}
            for one in messages
            if one.alert_id == alert.id
        ],
    }


def _iso(time: datetime | None) -> str | None:
    return None if time is None else time.isoformat(timespec="seconds")
