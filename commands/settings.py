"""The operator's command `flask --app app settings`: which value each setting has, and where it comes from."""

from __future__ import annotations

from dataclasses import asdict

import click
from flask.cli import with_appcontext

from commands.printing import is_for_people, json_option, services, show
from config.in_force import in_force
from config.sources import Source


@click.command("settings", params=[json_option()])
@click.option("--all", "everything", is_flag=True, help="Those with their default, too.")
@with_appcontext
def settings(everything: bool) -> None:
    """Show what is set, and where it comes from. No secret is shown."""
    rows = [row for row in in_force(services().config) if everything or row.source != Source.DEFAULT]
    columns = (
        ("name", "value", "source", "default")
        if is_for_people()
        else ("name", "value", "source", "default", "description")
    )
    show([{name: asdict(row)[name] for name in columns} for row in rows], "Settings")
