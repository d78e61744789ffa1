"""What the deployment itself must remember under encryption: the keys that hide usernames, make refresh tokens
and tell its derived keys from others'.

The username key's row is also the canary: a process whose ENCRYPTION_KEY does not open it must not start, or it would
take every pool key for damaged. These keys live here, and not in SECRET_KEY, so that SECRET_KEY can be changed.
"""

from __future__ import annotations

import base64
import secrets
from datetime import datetime

import sqlalchemy as sa

from db import Database, Duplicate, Transaction
from foundation.crypto import Envelopes
from tables import sealed_secrets as table

USERNAME_KEY, REFRESH_KEY, DOMAIN_KEY = "username_key", "refresh_key", "domain_key"


def check_canary(db: Database, envelopes: Envelopes) -> None:
    """Raise crypto.SealBroken if the database was sealed with another key. Reads only; an empty database passes."""
    if db.has_table(table.name):
        find_deployment_key(db, envelopes, USERNAME_KEY)


def open_deployment_key(db: Database, envelopes: Envelopes, name: str, now: datetime) -> bytes:
    """The 32-byte key of this name, made at the first call. Raises crypto.SealBroken."""
    if (found := find_deployment_key(db, envelopes, name)) is not None:
        return found
    text = base64.b64encode(secrets.token_bytes(32)).decode()
    sealed = envelopes.seal(table.name, "value_encrypted", name, text)

    def insert(tx: Transaction) -> None:
        tx.execute(table.insert().values(name=name, value_encrypted=sealed, created_at=now))

    try:
        db.transact(insert)
    except Duplicate:
        pass  # another process was first; its key counts
    found = find_deployment_key(db, envelopes, name)
    assert found is not None  # noqa: S101 - just inserted, by us or by the other process
    return found


def check_canary_in(tx: Transaction, envelopes: Envelopes) -> None:
    """The same of a database as a transaction sees it."""
    _find_in(tx, envelopes, USERNAME_KEY)


def find_deployment_key(db: Database, envelopes: Envelopes, name: str) -> bytes | None:
    """The 32-byte key of this name, if it was ever made. Raises crypto.SealBroken."""
    with db.reading() as tx:
        return _find_in(tx, envelopes, name)


def _find_in(tx: Transaction, envelopes: Envelopes, name: str) -> bytes | None:
    sealed = tx.scalar(sa.select(table.c.value_encrypted).where(table.c.name == name))
    if sealed is None:
        return None
    return base64.b64decode(envelopes.open(table.name, "value_encrypted", name, sealed))
