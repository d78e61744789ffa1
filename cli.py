"""Operator commands: `flask --app app db|pool ...`. A terminal gets tables, a pipe JSON lines."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping

import click
import orjson
from flask import Flask, current_app
from flask.cli import AppGroup
from rich.console import Console
from rich.table import Table

from config import OPENROUTER_KEY
from crypto import sha256_hex
from errors import AppError
from pool_keys import MAX_NAME_CHARACTERS, KeyAlreadyKnown, KeySource
from services import Services

db_commands = AppGroup("db", help="The database.")
pool_commands = AppGroup("pool", help="The pool of OpenRouter keys.")


def register(app: Flask) -> None:
    """Add the commands to the application's command line."""
    app.cli.add_command(db_commands)
    app.cli.add_command(pool_commands)


def show(rows: Iterable[Mapping[str, object]], title: str) -> None:
    """Print rows: a table on a terminal, JSON lines otherwise."""
    rows = list(rows)
    if not sys.stdout.isatty():
        for row in rows:
            sys.stdout.write(orjson.dumps(row, default=str).decode() + "\n")
        return
    table = Table(*(rows[0] if rows else ["nothing yet"]), title=title)
    for row in rows:
        table.add_row(*("" if value is None else str(value) for value in row.values()))
    Console().print(table)


def _services() -> Services:
    found: Services = current_app.extensions["services"]
    return found


@db_commands.command("upgrade")
def upgrade() -> None:
    """Bring the schema up to date (every start does this too)."""
    db = _services().db
    db.upgrade()
    show([{"database": db.kind, "schema": "current"}], "Database")


@pool_commands.command("list")
def list_keys() -> None:
    """Show every key of the pool, without its text."""
    show(
        [
            {
                "name": row.name,
                "state": row.state.value,
                "enabled": row.enabled,
                "source": row.source.value,
                "hash": (row.api_key_hash or "")[:12],
                "used": row.use_count,
                "last_used": row.last_used and row.last_used.isoformat(timespec="seconds"),
                "expires_at": row.expires_at and row.expires_at.isoformat(timespec="seconds"),
            }
            for row in _services().keys.rows()
        ],
        "Key pool",
    )


@pool_commands.command("add")
@click.option("--name", help="A name for the key; by default operator/<begin of its hash>.")
def add_key(name: str | None) -> None:
    """Add an OpenRouter key, read from the terminal or standard input (never from the command line)."""
    if sys.stdin.isatty():
        text = click.prompt("OpenRouter key", hide_input=True)
    else:
        text = sys.stdin.buffer.read().decode(errors="replace")
    text = text.strip()
    if not OPENROUTER_KEY.fullmatch(text):
        raise click.ClickException("That does not look like an OpenRouter key (sk-or-v1-...)")
    name = name or f"operator/{sha256_hex(text)[:12]}"
    if len(name) > MAX_NAME_CHARACTERS or not name.isprintable():
        raise click.ClickException(f"A name has at most {MAX_NAME_CHARACTERS} characters, all of them printable")
    try:
        _services().keys.add(text, name, KeySource.OPERATOR)
    except KeyAlreadyKnown:
        raise click.ClickException("The pool has, or once had, this key or a key of this name") from None
    show([{"name": name, "state": "active"}], "Added")


@pool_commands.command("enable")
@click.argument("name")
def enable_key(name: str) -> None:
    """Let a key be picked again."""
    _set_enabled(name, True)


@pool_commands.command("disable")
@click.argument("name")
def disable_key(name: str) -> None:
    """Stop a key from being picked; it stays alive at OpenRouter."""
    _set_enabled(name, False)


def _set_enabled(name: str, enabled: bool) -> None:
    try:
        _services().keys.set_enabled(name, enabled)
    except AppError as error:
        raise click.ClickException(error.message) from None
    show([{"name": name, "enabled": enabled}], "Changed")
