"""Operator commands for encryption keys: `flask --app app encryption-keys status|reencrypt`."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator

import click

from commands.printing import Commands, audit, is_for_people, services, show
from db import DatabaseError
from foundation.crypto import Envelopes
from vault import reencrypt

encryption_key_commands = Commands("encryption-keys", help="Encryption keys: those of ENCRYPTION_KEY.")


@encryption_key_commands.command("status")
def show_encryption_keys() -> None:
    """Show how many values need which key of ENCRYPTION_KEY. Exits with 1 if a value opens with none of them."""
    found = reencrypt.survey(services().db, Envelopes(services().config.encryption_keys))
    _show_survey(found)
    sys.exit(1 if found.broken else 0)


@encryption_key_commands.command("reencrypt")
def reencrypt_values() -> None:
    """Seal every value under the first key of ENCRYPTION_KEY, while gateways serve. May be stopped and run again.

    Exits with 1 if a value opens with none of the keys; it is left as it is.
    """
    db, envelopes = services().db, Envelopes(services().config.encryption_keys)
    resealed = 0
    try:
        for batch_resealed in _watched(reencrypt.reencrypt(db, envelopes), reencrypt.count_sealed(db)):
            resealed += batch_resealed
    except DatabaseError:
        raise click.ClickException("The database went away; what is done stays done. Run it again") from None
    audit("reencrypted", f"encryption-key/{envelopes.fingerprints[0]}", resealed=resealed)
    found = reencrypt.survey(db, envelopes)
    _show_survey(found)
    sys.exit(0 if found.is_done else 1)


def _watched(batches: Iterator[tuple[int, int]], total: int) -> Iterator[int]:
    """How many values each batch sealed anew; the progress shows as a bar on a terminal, as JSON lines otherwise."""
    if is_for_people():
        from rich.progress import Progress

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
