"""What is left of an account that was deleted: a row with its number, so that no other account ever gets that one.

Nobody is told of the row, and nothing is added to it: whoever writes for a person holds the person's account.
"""

from __future__ import annotations

import sqlalchemy as sa

from db import Transaction
from foundation.errors import NotFound
from tables import users

MARK = "deleted-"  # the start of what then stands in the place of a name's hash
# By the mark, and not by a state of its own, which a gateway of an older version beside this one could not read: it
# sees a disabled account.
IS_THERE = users.c.username_hash.not_like(f"{MARK}%")


def hold_account(tx: Transaction, user_id: int) -> None:
    """Keep an account from being deleted before this transaction ends; one at a time holds it. Raises NotFound."""
    held = sa.select(users.c.id).where(users.c.id == user_id, IS_THERE).with_for_update()
    if tx.scalar(held) is None:
        raise NotFound("There is no such account any more")
