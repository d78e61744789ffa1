"""Operator commands, `flask --app app ...`: all of them. A terminal gets tables, a pipe JSON lines."""

from __future__ import annotations

from flask import Flask

from commands.alerts import alert_commands
from commands.aliases import alias_commands
from commands.audit import audit_commands
from commands.backup import backup, restore
from commands.check import check
from commands.client_keys import client_key_commands
from commands.encryption_keys import encryption_key_commands
from commands.model_rules import model_rule_commands
from commands.operator_tokens import operator_token_commands
from commands.pool import pool_commands
from commands.printing import Commands, services, show
from commands.quotas import quota_commands
from commands.requests import request_commands
from commands.settings import settings
from commands.teams import team_commands
from commands.upstreams import upstream_commands
from commands.usage import logs_commands, usage_commands
from commands.users import user_commands
from commands.watched_keys import watched_key_commands

db_commands = Commands("db", help="The database.")


def register(app: Flask) -> None:
    """Add the commands to the application's command line."""
    app.cli.add_command(db_commands)
    app.cli.add_command(encryption_key_commands)
    app.cli.add_command(client_key_commands)
    app.cli.add_command(watched_key_commands)
    app.cli.add_command(pool_commands)
    app.cli.add_command(logs_commands)
    app.cli.add_command(request_commands)
    app.cli.add_command(quota_commands)
    app.cli.add_command(usage_commands)
    app.cli.add_command(upstream_commands)
    app.cli.add_command(alias_commands)
    app.cli.add_command(alert_commands)
    app.cli.add_command(model_rule_commands)
    app.cli.add_command(user_commands)
    app.cli.add_command(team_commands)
    app.cli.add_command(operator_token_commands)
    app.cli.add_command(audit_commands)
    app.cli.add_command(check)
    app.cli.add_command(settings)
    app.cli.add_command(backup)
    app.cli.add_command(restore)


@db_commands.command("upgrade")
def upgrade() -> None:
    """Bring the schema up to date (every start does this too)."""
    db = services().db
    db.upgrade()
    show([{"database": db.kind, "schema": "current"}], "Database")
