"""Operator commands for the pool of OpenRouter keys: `flask --app app pool [add|enable|disable|rotate]`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import click
from flask.cli import with_appcontext

from accounts.labels import called, with_labels
from commands.printing import Commands, audit, is_for_people, services, show
from config.checks import OPENROUTER_KEY
from foundation.crypto import sha256_hex
from pool.keys import ANYBODYS, MAX_NAME_CHARACTERS, SHARED, KeyAlreadyKnown, Whose
from pool.life import PoolKeySource
from pool.names import get_whole_name, short_name
from pool.overview import pool_overview


@click.group("pool", cls=Commands, invoke_without_command=True, help="The pool of OpenRouter keys; shows it.")
@click.option("--all", "with_gone", is_flag=True, help="With the pool keys that were deleted, abandoned or found dead.")
@click.option("--owner", default=SHARED, help=f"Whose keys: {SHARED} (the default), {ANYBODYS}, or a user's id.")
@with_appcontext
@click.pass_context
def pool_commands(context: click.Context, with_gone: bool, owner: str) -> None:
    """Show the pool, newest key first."""
    if context.invoked_subcommand:
        return
    found = pool_overview(services().pool_keys, services().db, services().clock.now(), with_gone, _whose(owner))
    rows = with_labels(services().db, [key.to_dict() for key in found.keys], owner_label="owner_id")
    if is_for_people():
        rows = [_for_people(row) for row in rows]
    wanted = services().config.pool_size
    show(rows, f"Key pool: {found.usable} usable, {wanted} wanted, {len(found.processes)} gateways")


def _whose(owner: str) -> Whose:
    if owner in {SHARED, ANYBODYS}:
        return owner
    if not (owner.isascii() and owner.isdigit() and len(owner) <= 18):
        raise click.BadParameter(f"must be {SHARED}, {ANYBODYS}, or a user's id", param_hint="--owner")
    return int(owner)


def _for_people(row: Mapping[str, Any]) -> dict[str, object]:
    """What fits on a terminal."""
    return {
        "name": short_name(row["name"]),
        "status": " ".join(filter(None, [row["status"], row["reason"] if row["status"] == row["health"] else None])),
        "until": row["until"],
        "limit": _dollars(row["limit_usd"]),
        "remaining": _dollars(row["remaining_usd"]),
        "used": row["used"],
        "in flight": row["in_flight"],
        "expires": row["expires_at"],
        "owner": called(row["owner_id"], row["owner_label"]),
    }


def _dollars(amount: float | None) -> str | None:
    return None if amount is None else f"${amount:.2f}"


@pool_commands.command("add")
@click.option("--name", help="A name for the pool key; by default operator/<begin of its hash>.")
def add_key(name: str | None) -> None:
    """Add an OpenRouter key to the pool, read from the terminal or standard input (never from the command line)."""
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
        services().pool_keys.add(text, name, PoolKeySource.OPERATOR)
    except KeyAlreadyKnown:
        raise click.ClickException("The pool has, or once had, this key or a key of this name") from None
    audit("pool_key_added", f"pool/{name}")
    show([{"name": name, "state": "active"}], "Added")


@pool_commands.command("enable")
@click.argument("name")
def enable_key(name: str) -> None:
    """Let a pool key be picked again. NAME: or its short name, or any part that only it has."""
    name = get_whole_name(services().db, name)
    services().pool_keys.set_enabled(name, True)
    audit("pool_key_enabled", f"pool/{name}")
    show([{"name": name, "enabled": True}], "Changed")


@pool_commands.command("disable")
@click.argument("name")
def disable_key(name: str) -> None:
    """Stop a pool key from being picked; it stays alive at OpenRouter. NAME: or any part that only it has."""
    name = get_whole_name(services().db, name)
    services().pool_keys.set_enabled(name, False)
    audit("pool_key_disabled", f"pool/{name}")
    show([{"name": name, "enabled": False}], "Changed")


@pool_commands.command("rotate")
@click.argument("name")
def rotate_key(name: str) -> None:
    """Let the background service replace a minted pool key at its next pass. NAME: or any part of it."""
    name = get_whole_name(services().db, name)
    services().pool_keys.ask_renewal(name)
    audit("pool_key_rotation_asked", f"pool/{name}")
    show([{"name": name, "rotation": "requested"}], "Changed")
