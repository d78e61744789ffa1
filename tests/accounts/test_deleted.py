"""What is left of a deleted account is held by nobody."""

from __future__ import annotations

import pytest

from accounts.deleted import MARK, hold_account
from accounts.users import Users
from foundation.errors import NotFound
from tables import users


def test_an_account_is_held_only_while_it_is_there(db, clock):
    people = Users(db, b"k" * 32, clock)
    owner, teammate = people.create("owner", "x"), people.create("teammate", "x")
    db.transact(lambda tx: hold_account(tx, owner))
    db.transact(lambda tx: tx.execute(users.update().where(users.c.id == owner).values(username_hash=f"{MARK}{owner}")))
    for nobody in (owner, 999):
        with pytest.raises(NotFound):
            db.transact(lambda tx, nobody=nobody: hold_account(tx, nobody))
    db.transact(lambda tx: hold_account(tx, teammate))
