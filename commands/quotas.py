"""Operator commands for quotas: `flask --app app quota list|show|set|reset`."""

from __future__ import annotations

from collections.abc import Iterable

import click

from accounts.labels import with_labels
from billing.quotas.rows import Quota
from billing.quotas.subjects import known_subject, user_of
from billing.quotas.terms import PERIODS, RECOVERIES, check_amount
from commands.printing import Commands, audit, services, show

quota_commands = Commands(
    "quota", help="What users (user/<id>), client keys (key/<id>) and teams (team/<id>) may spend."
)


@quota_commands.command("list")
@click.option("--page", default=1, type=click.IntRange(1), help="Which page, newest first.")
@click.option("--page-size", default=100, type=click.IntRange(1, 10_000), help="Quotas on a page.")
def list_quotas(page: int, page_size: int) -> None:
    """Show the quotas that hold; users with the default are among them from their first call on."""
    found, total = services().quotas.page(page, page_size)
    _show_quotas([(quota.subject, quota) for quota in found], f"Quotas: {total}")


@quota_commands.command("show")
@click.argument("subject")
def show_quota(subject: str) -> None:
    """Show one quota. Exits with 1 if there is none."""
    found = services().quotas.find(_subject(subject))
    if not found:
        raise click.ClickException(f"{subject} has no quota")
    _show_quotas([(subject, found)], "Quota")


@quota_commands.command("set")
@click.argument("subject")
@click.option("--limit", default="none", show_default=True, help="Dollars per period, or none.")
@click.option("--soft", default="none", show_default=True, help="Dollars from which on answers carry a warning.")
@click.option("--period", type=click.Choice(PERIODS), help="By default QUOTA_PERIOD.")
@click.option("--recovery", type=click.Choice(RECOVERIES), help="By default QUOTA_RECOVERY.")
def set_quota(subject: str, limit: str, soft: str, period: str | None, recovery: str | None) -> None:
    """Give a user, a client key or a team a quota of its own, in force everywhere within two seconds."""
    config = services().config
    limit_nano, soft_limit_nano = (
        check_amount(name, None if text == "none" else text) for name, text in (("--limit", limit), ("--soft", soft))
    )
    period, recovery = period or config.quota_period, recovery or config.quota_recovery
    found = services().quotas.set(_subject(subject), limit_nano, soft_limit_nano, period, recovery)
    terms = {name: found.to_dict()[name] for name in ("limit_usd", "soft_limit_usd", "period", "recovery")}
    audit("quota_set", subject, user_of(subject), **terms)
    _show_quotas([(subject, found)], "Set")


@quota_commands.command("reset")
@click.argument("subject")
def reset_quota(subject: str) -> None:
    """Put a user, a client key or a team back to the default."""
    found = services().quotas.reset(_subject(subject))
    audit("quota_reset", subject, user_of(subject))
    _show_quotas([(subject, found)], "Reset")


def _subject(subject: str) -> str:
    return known_subject(services().users, services().teams, subject)


def _show_quotas(found: Iterable[tuple[str, Quota | None]], title: str) -> None:
    rows = [{"subject": subject, **(quota.to_dict() if quota else {"limit_usd": None})} for subject, quota in found]
    show(with_labels(services().db, rows, user_label="subject"), title)
