"""Operator commands for alerts: `flask --app app alerts list|test|silence|unsilence`."""

from __future__ import annotations

import sys
from dataclasses import asdict

import click

from alerts.kinds import KINDS
from commands.printing import Commands, audit, services, show

alert_commands = Commands("alerts", help="What operators are told of by itself.")
KIND = click.argument("kind", type=click.Choice(list(KINDS)))


@alert_commands.command("list")
def list_alerts() -> None:
    """Show what rings now."""
    rows = [
        {
            "kind": alert.kind,
            "text": KINDS[alert.kind].words(alert.subject).format(**alert.details),
            "since": alert.began_at.isoformat(timespec="seconds"),
            "told": alert.told_at is not None,
        }
        for alert in services().bell.states.open()
    ]
    show(rows, "Alerts")


@alert_commands.command("test")
def test() -> None:
    """Send a test message to each channel that is set. Exits with 1 unless it arrives at all of them."""
    tested = services().bell.test()
    if not tested:
        raise click.ClickException("No channel is set: set ALERT_WEBHOOK_URL, or ALERT_EMAIL_TO and SMTP_HOST")
    audit("alerts_tested", "alerts", arrived=[one.channel for one in tested if one.ok])
    show(map(asdict, tested), "Test")
    sys.exit(0 if all(one.ok for one in tested) else 1)


@alert_commands.command("silence")
@KIND
def silence(kind: str) -> None:
    """Tell nobody any more when something of this kind begins. The page Alerts shows it all the same."""
    services().bell.states.silence(kind, "cli")
    audit("alerts_silenced", f"alerts/{kind}")
    show([{"kind": kind, "state": "silenced"}], "Silenced")


@alert_commands.command("unsilence")
@KIND
def unsilence(kind: str) -> None:
    """Tell of this kind again; what has begun meanwhile, too."""
    services().bell.states.unsilence(kind)
    audit("alerts_unsilenced", f"alerts/{kind}")
    show([{"kind": kind, "state": "told"}], "Told")
