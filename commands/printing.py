"""What all operator commands share: the services, `--json`, how refusals are told, how changes are written down."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Mapping
from typing import Any

import click
from flask import current_app
from flask.cli import AppGroup

from db import DatabaseError, error_number
from foundation import terminal
from foundation.errors import AppError
from foundation.logs import event
from services import Services
from start_up import what_database_does

log = logging.getLogger("cli")

JSON = "as_json"  # its place in click's context, which a command shares with the group it is in


class Commands(AppGroup):
    """A group of commands that all take --json, and whose refusals are one line and exit code 1."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.invoke_without_command:
            self.params.append(json_option())

    def add_command(self, cmd: click.Command, name: str | None = None) -> None:
        """Add a command, with --json among its options."""
        cmd.params.append(json_option())
        super().add_command(cmd, name)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command. What it raises for clients of the API is told to the operator too."""
        try:
            return super().invoke(ctx)
        except AppError as error:
            raise click.ClickException(error.message) from None
        except DatabaseError as error:
            number = error_number(error)
            name = f"{type(error).__name__}{f' {number}' if number else ''}"
            raise click.ClickException(f"{what_database_does(error).capitalize()} ({name})") from None


def json_option() -> click.Option:
    """The option --json; for a command that is in no group."""

    def note(context: click.Context, _option: click.Parameter, given: bool) -> None:
        if given:
            context.meta[JSON] = True

    told = "Print JSON lines on a terminal too."
    return click.Option(["--json"], is_flag=True, expose_value=False, callback=note, help=told)


def services() -> Services:
    """The application's services; its background threads do not run in a command."""
    found: Services = current_app.extensions["services"]
    return found


def is_for_people() -> bool:
    """True if a person looks at what is printed."""
    return sys.stdout.isatty() and JSON not in click.get_current_context().meta


def show(rows: Iterable[Mapping[str, object]], title: str) -> None:
    """Print rows: a table for people, JSON lines for programs."""
    terminal.show(rows, title, as_table=is_for_people())


def audit(action: str, subject: str, user_id: int | None = None, **details: Any) -> None:
    """Write down and log a change that this command has made. user_id: whom it concerns."""
    services().audit.record("cli", action, subject, user_id, **details)
    event(log, action, actor="cli", subject=subject, **details)
