"""Operator commands, `flask --app app ...`: all of them. A terminal gets tables, a pipe JSON lines."""

from __future__ import annotations

from flask import Flask

from audit_cli import audit_commands
from check_cli import check
from command_line import Commands, services, show
from encryption_key_cli import encryption_key_commands
from key_cli import key_commands
from personal_key_cli import personal_key_commands
from pool_cli import pool_commands
from quota_cli import quota_commands
from upstream_cli import upstream_commands
from usage_cli import logs_commands, usage_commands
from user_cli import user_commands

db_commands = Commands("db", help="The database.")


def register(app: Flask) -> None:
    """Add the commands to the application's command line."""
    app.cli.add_command(db_commands)
    app.cli.add_command(encryption_key_commands)
    app.cli.add_command(key_commands)
    app.cli.add_command(personal_key_commands)
    app.cli.add_command(pool_commands)
    app.cli.add_command(logs_commands)
    app.cli.add_command(quota_commands)
    app.cli.add_command(usage_commands)
    app.cli.add_command(upstream_commands)
    app.cli.add_command(user_commands)
    app.cli.add_command(audit_commands)
    app.cli.add_command(check)


@db_commands.command("upgrade")
def upgrade() -> None:
    """Bring the schema up to date (every start does this too)."""
    db = services().db
    db.upgrade()
    show([{"database": db.kind, "schema": "current"}], "Database")
