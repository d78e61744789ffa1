"""What opens an account besides its key is stored as a hash, and belongs to one account."""

import pytest

from db import Duplicate
from foundation.clock import Clock
from tables import recovery_codes, reset_links, users

NOW = Clock().now()


def test_a_code_stands_once_in_an_account_and_a_link_once_in_all(db):
    person = {"key_hash": "x", "state": "active", "created_at": NOW, "updated_at": NOW}
    db.transact(lambda tx: tx.execute(users.insert(), [person | {"username_hash": name} for name in ("a", "b")]))
    code = {"code_hash": "c" * 64, "created_at": NOW}
    db.transact(lambda tx: tx.execute(recovery_codes.insert(), [code | {"user_id": 1}, code | {"user_id": 2}]))
    with pytest.raises(Duplicate):
        db.transact(lambda tx: tx.execute(recovery_codes.insert(), [code | {"user_id": 1}]))
    link = {"token_hash": "l" * 64, "created_by": "cli", "created_at": NOW, "expires_at": NOW}
    db.transact(lambda tx: tx.execute(reset_links.insert(), [link | {"user_id": 1}]))
    with pytest.raises(Duplicate):
        db.transact(lambda tx: tx.execute(reset_links.insert(), [link | {"user_id": 2}]))
