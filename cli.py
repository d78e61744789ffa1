"""Operator commands: `flask --app app db|keys|pool|quota|logs|usage`. A terminal gets tables, a pipe JSON lines."""

from __future__ import annotations

import dataclasses
import logging
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

import click
from flask import Flask, current_app
from flask.cli import AppGroup, with_appcontext
from rich.progress import Progress

import reencrypt
import usage_checks
from config import OPENROUTER_KEY
from crypto import Envelopes, sha256_hex
from db import DatabaseError
from errors import AppError, NotFound
from logs import event
from pool_keys import ANYBODYS, MAX_NAME_CHARACTERS, SHARED, KeyAlreadyKnown, KeySource, Whose
from pool_overview import pool_overview
from quota_terms import PERIODS, RECOVERIES
from quotas import Quota, check_amount, check_subject
from services import Services
from terminal import show
from usage_cli import logs_commands

log = logging.getLogger("cli")
T = TypeVar("T")

db_commands = AppGroup("db", help="The database.")
keys_commands = AppGroup("keys", help="The keys of ENCRYPTION_KEY.")
quota_commands = AppGroup("quota", help="What users (user/<id>) and client keys (key/<id>) may spend.")
usage_commands = AppGroup("usage", help="What was spent.")


def register(app: Flask) -> None:
    """Add the commands to the application's command line."""
    app.cli.add_command(db_commands)
    app.cli.add_command(keys_commands)
    app.cli.add_command(pool_commands)
    app.cli.add_command(logs_commands)
    app.cli.add_command(quota_commands)
    app.cli.add_command(usage_commands)


def _services() -> Services:
    found: Services = current_app.extensions["services"]
    return found


@db_commands.command("upgrade")
def upgrade() -> None:
    """Bring the schema up to date (every start does this too)."""
    db = _services().db
    db.upgrade()
    show([{"database": db.kind, "schema": "current"}], "Database")


@keys_commands.command("status")
def show_encryption_keys() -> None:
    """Show how many values need which key of ENCRYPTION_KEY. Exits with 1 if a value opens with none of them."""
    services = _services()
    found = reencrypt.survey(services.db, Envelopes(services.config.encryption_keys))
    _show_survey(found)
    sys.exit(1 if found.broken else 0)


@keys_commands.command("reencrypt")
def reencrypt_values() -> None:
    """Seal every value under the first key of ENCRYPTION_KEY, while gateways serve. May be stopped and run again.

    Exits with 1 if a value opens with none of the keys; it is left as it is.
    """
    services = _services()
    db, envelopes = services.db, Envelopes(services.config.encryption_keys)
    resealed = 0
    try:
        for batch_resealed in _watched(reencrypt.reencrypt(db, envelopes), reencrypt.count_sealed(db)):
            resealed += batch_resealed
    except DatabaseError:
        raise click.ClickException("The database went away; what is done stays done. Run it again") from None
    event(log, "reencrypted", resealed=resealed, key=envelopes.fingerprints[0])
    found = reencrypt.survey(db, envelopes)
    _show_survey(found)
    sys.exit(0 if found.is_done else 1)


def _watched(batches: Iterator[tuple[int, int]], total: int) -> Iterator[int]:
    """How many values each batch sealed anew; the progress shows as a bar on a terminal, as JSON lines otherwise."""
    if sys.stdout.isatty():
        with Progress() as progress:
            task = progress.add_task("Sealing", total=total)
            for looked_at, resealed in batches:
                progress.advance(task, looked_at)
                yield resealed
        return
    done = 0
    for looked_at, resealed in batches:
        done += looked_at
        show([{"done": done, "of": total, "resealed": resealed}], "Sealing")
        yield resealed


def _show_survey(found: reencrypt.Survey) -> None:
    show(map(dataclasses.asdict, found.keys), "Encryption keys, newest first")
    if found.broken:
        show(({"unreadable": line} for line in found.broken), "Values that do not open; restore them from a backup")


@usage_commands.command("checks")
@click.option("--count", default=100, type=click.IntRange(1, 10_000), help="How many of the newest; by default 100.")
def show_usage_checks(count: int) -> None:
    """Show the daily checks of our sums against OpenRouter's, newest first. docs/usage-check.md explains them."""
    checks, _ = usage_checks.page(_services().db, 1, count)
    show([check.to_dict() for check in checks], "Our sums and OpenRouter's")


@click.group("pool", cls=AppGroup, invoke_without_command=True, help="The pool of OpenRouter keys; shows it.")
@click.option("--all", "with_gone", is_flag=True, help="With the keys that were deleted, abandoned or found dead.")
@click.option("--owner", default=SHARED, help=f"Whose keys: {SHARED} (the default), {ANYBODYS}, or a user's id.")
@with_appcontext
@click.pass_context
def pool_commands(context: click.Context, with_gone: bool, owner: str) -> None:
    """Show the pool, newest key first."""
    if context.invoked_subcommand:
        return
    services, whose = _services(), _whose(owner)
    found = pool_overview(services.keys, services.db, services.clock.now(), with_gone, whose)
    rows = [key.to_dict() for key in found.keys]
    if sys.stdout.isatty():
        rows = [_for_people(row) for row in rows]
    show(rows, f"Key pool: {found.usable} usable, {services.config.pool_size} wanted, {len(found.processes)} gateways")


def _whose(owner: str) -> Whose:
    if owner in {SHARED, ANYBODYS}:
        return owner
    if not (owner.isascii() and owner.isdigit() and len(owner) <= 18):
        raise click.BadParameter(f"must be {SHARED}, {ANYBODYS}, or a user's id", param_hint="--owner")
    return int(owner)


def _for_people(row: Mapping[str, Any]) -> dict[str, object]:
    """What fits on a terminal."""
    return {
        "name": row["name"],
        "state": row["state"] if row["enabled"] else f"{row['state']}, not enabled",
        "health": f"{row['health'] or ''} {row['reason'] or ''}".strip(),
        "until": row["until"],
        "limit": _dollars(row["limit_usd"]),
        "remaining": _dollars(row["remaining_usd"]),
        "used": row["used"],
        "in flight": row["in_flight"],
        "expires": row["expires_at"],
        "owner": row["owner_id"],
    }


def _dollars(amount: float | None) -> str | None:
    return None if amount is None else f"${amount:.2f}"


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
    event(log, "pool_key_added", key=name)
    show([{"name": name, "state": "active"}], "Added")


@pool_commands.command("enable")
@click.argument("name")
def enable_key(name: str) -> None:
    """Let a key be picked again."""
    _change(lambda: _services().keys.set_enabled(name, True))
    event(log, "pool_key_enabled", key=name)
    show([{"name": name, "enabled": True}], "Changed")


@pool_commands.command("disable")
@click.argument("name")
def disable_key(name: str) -> None:
    """Stop a key from being picked; it stays alive at OpenRouter."""
    _change(lambda: _services().keys.set_enabled(name, False))
    event(log, "pool_key_disabled", key=name)
    show([{"name": name, "enabled": False}], "Changed")


@pool_commands.command("rotate")
@click.argument("name")
def rotate_key(name: str) -> None:
    """Let the background service replace a minted key at its next pass."""
    _change(lambda: _services().keys.ask_renewal(name))
    event(log, "pool_key_rotation_asked", key=name)
    show([{"name": name, "rotation": "requested"}], "Changed")


def _change(change: Callable[[], T]) -> T:
    try:
        return change()
    except AppError as error:
        raise click.ClickException(error.message) from None


@quota_commands.command("list")
@click.option("--page", default=1, type=click.IntRange(1), help="Which page, newest first.")
@click.option("--page-size", default=100, type=click.IntRange(1, 10_000), help="Quotas on a page.")
def list_quotas(page: int, page_size: int) -> None:
    """Show the quotas that hold; users with the default are among them from their first call on."""
    found, total = _services().quotas.page(page, page_size)
    _show_quotas([(quota.subject, quota) for quota in found], f"Quotas: {total}")


@quota_commands.command("show")
@click.argument("subject")
def show_quota(subject: str) -> None:
    """Show one quota. Exits with 1 if there is none."""
    found = _change(lambda: _services().quotas.find(_subject(subject)))
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
    """Give a user or a client key a quota of its own, in force everywhere within two seconds."""
    config = _services().config

    def change() -> Quota:
        limit_nano, soft_limit_nano = (
            check_amount(name, None if text == "none" else text)
            for name, text in (("--limit", limit), ("--soft", soft))
        )
        terms = period or config.quota_period, recovery or config.quota_recovery
        return _services().quotas.set(_subject(subject), limit_nano, soft_limit_nano, *terms)

    found = _change(change)
    event(log, "quota_set", subject=subject)
    _show_quotas([(subject, found)], "Set")


@quota_commands.command("reset")
@click.argument("subject")
def reset_quota(subject: str) -> None:
    """Put a user or a client key back to the default."""
    found = _change(lambda: _services().quotas.reset(_subject(subject)))
    event(log, "quota_reset", subject=subject)
    _show_quotas([(subject, found)], "Reset")


def _subject(subject: str) -> str:
    kind, _, number = check_subject(subject).partition("/")
    if kind == "user" and _services().users.find_by_id(int(number)) is None:
        raise NotFound(f"There is no user {number}")
    return subject


def _show_quotas(found: Iterable[tuple[str, Quota | None]], title: str) -> None:
    rows = [{"subject": subject, **(quota.to_dict() if quota else {"limit_usd": None})} for subject, quota in found]
    show(rows, title)
