"""Operator commands for the log of changes: `flask --app app audit list`."""

from __future__ import annotations

from typing import Any

import click

from accounts.labels import called, with_labels
from commands.printing import Commands, is_for_people, services, show
from foundation import json_text
from pool.names import short_subject

audit_commands = Commands("audit", help="Who changed what.")


@audit_commands.command("list")
@click.option("--action", help="Of this kind alone, as quota_set.")
@click.option("--user-id", type=click.IntRange(1), help="That concern this user alone.")
@click.option("--page", default=1, type=click.IntRange(1), help="Which page, newest first.")
@click.option("--page-size", default=100, type=click.IntRange(1, 10_000), help="Changes on a page.")
def list_changes(action: str | None, user_id: int | None, page: int, page_size: int) -> None:
    """Show the changes that operators made, and users to their keys and tokens."""
    found, total = services().audit.page(page, page_size, action, user_id)
    rows = [entry.to_dict() for entry in found]
    rows = with_labels(services().db, rows, actor_label="actor", user_label="user_id")
    if is_for_people():
        rows = [_for_people(row) for row in rows]
    show(rows, f"Changes: {total}")


def _for_people(row: dict[str, Any]) -> dict[str, object]:
    """What fits on a terminal."""
    return {
        "at": row["at"],
        "actor": called(row["actor"], row["actor_label"]),
        "action": row["action"],
        "subject": called(short_subject(row["subject"]), row["user_label"]),
        "address": row["address"],
        "details": json_text.write(row["details"]).decode(),
    }
