"""Operator commands `flask --app app backup FILE` and `restore FILE`: the database and this host's journals."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from itertools import takewhile
from pathlib import Path
from typing import Any

import click
from flask.cli import with_appcontext

from billing import journal_files
from commands.printing import audit, json_option, services, show
from db import DatabaseError, Transaction
from foundation.crypto import Envelopes, SealBroken
from foundation.guesses import guesses_log10
from replicas.processes import reports
from start_up import what_database_does
from vault import backup as tables_backup
from vault import backup_file, sealed

PASSPHRASE_GUESSES_LOG10 = 12.0  # each takes a third of a second and 128 MiB
TELL_EVERY = 50_000  # rows
SILENT = timedelta(minutes=1)  # a gateway reports every five seconds

passphrase_option = click.option(
    "--passphrase-file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="A file with the passphrase; otherwise it is asked for.",
)


@click.command("backup", params=[json_option()])
@click.argument("file", type=click.Path(path_type=Path))
@passphrase_option
@with_appcontext
def backup(file: Path, passphrase_file: Path | None) -> None:
    """Write the database, as it is at one moment, and this host's journals into FILE, while gateways serve.

    FILE is encrypted under a passphrase, and must not exist. It holds the names of settings and not their values: keep
    SECRET_KEY, ENCRYPTION_KEY and DEPLOYMENT_ID elsewhere.
    """
    begun = time.monotonic()
    passphrase = _passphrase(passphrase_file, is_new=True)
    config = services().config
    about = {"at": services().clock.now(), "settings": sorted(config.model_fields_set)}
    journals = journal_files.taken(services().journal.folder)
    with _told_in_one_line():
        items = tables_backup.taken(services().db, about, journals, _tell)
        size = backup_file.write(file, passphrase, items)
        audit("backed_up", "database", bytes=size)
    show([{"file": str(file), "bytes": size, "seconds": round(time.monotonic() - begun, 1)}], "Backup")


@click.command("restore", params=[json_option()])
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@passphrase_option
@click.option("--replace", is_flag=True, help="Delete what the database holds.")
@with_appcontext
def restore(file: Path, passphrase_file: Path | None, replace: bool) -> None:
    """Put the database of FILE in the place of an empty one, of any engine, and its journals into DATA_DIR.

    All gateways and key_rotation.py must have been stopped. It is restored whole or not at all. For 24 hours nothing is
    deleted at OpenRouter.
    """
    begun = time.monotonic()
    passphrase = _passphrase(passphrase_file, is_new=False)
    db, envelopes = services().db, Envelopes(services().config.encryption_keys)

    def items() -> Iterator[dict[str, Any]]:
        return backup_file.read(file, passphrase)

    def check(tx: Transaction) -> None:
        sealed.check_canary_in(tx, envelopes)

    with _told_in_one_line():
        if any(one.beat_at > services().clock.now() - SILENT for one in reports(db, services().clock.now())):
            raise click.ClickException("Gateways work with this database, or did a minute ago: stop all of them")
        if not replace and not tables_backup.is_unused(db):
            raise click.ClickException("The database is in use; --replace deletes what it holds")
        rows, ended = tables_backup.restore(db, items, check, _tell)
        before_tables = takewhile(lambda item: "table" not in item, items())
        lines = (item for item in before_tables if "journal" in item)
        journals = journal_files.put_back(services().journal.folder, lines, ended)
        audit("restored", "database", rows=rows, journals=journals)
    told = {"file": str(file), "rows": rows, "journals": journals, "seconds": round(time.monotonic() - begun, 1)}
    show([told], "Restored")


def _passphrase(file: Path | None, is_new: bool) -> str:
    if file:
        text = file.read_text(encoding="utf-8").strip()
    else:
        text = click.prompt("Passphrase", hide_input=True, confirmation_prompt=is_new, err=True)
    if is_new and guesses_log10(text) < PASSPHRASE_GUESSES_LOG10:
        raise click.ClickException(
            "The passphrase is guessable: take five words that have nothing to do with each other"
        )
    return text


def _tell(table: str, rows: int) -> None:
    """How far it is, on standard error: each table as its first rows are done, then now and again."""
    if rows <= tables_backup.ROWS_AT_ONCE or rows % TELL_EVERY == 0:
        click.echo(f"{table}: {rows} rows", err=True)


@contextmanager
def _told_in_one_line() -> Iterator[None]:
    try:
        yield
    except (backup_file.NotABackup, tables_backup.CannotRestore, FileExistsError) as error:
        raise click.ClickException(f"{error}; nothing was changed") from None
    except SealBroken:
        raise click.ClickException("The backup was taken under another ENCRYPTION_KEY; nothing was changed") from None
    except OSError as error:
        raise click.ClickException(f"{error.filename}: {error.strerror}") from None
    except DatabaseError as error:
        raise click.ClickException(f"{what_database_does(error).capitalize()} ({type(error).__name__})") from None
