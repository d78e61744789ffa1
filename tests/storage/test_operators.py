"""An operator token has a name and a hash of its own."""

import pytest

from db import Duplicate
from foundation.clock import Clock
from tables import operator_tokens

NOW = Clock().now()


def test_no_two_tokens_have_one_name_or_one_text(db):
    first = {"name": "a", "token_hash": "a" * 64, "token_hint": "or_op_ab****", "scope": "read", "created_by": "cli"}
    first |= {"created_at": NOW, "expires_at": NOW, "revision": 1}
    db.transact(lambda tx: tx.execute(operator_tokens.insert(), [first, first | {"name": "A", "token_hash": "b" * 64}]))
    for other in ({"name": "c"}, {"token_hash": "c" * 64}):
        with pytest.raises(Duplicate):
            db.transact(lambda tx, other=other: tx.execute(operator_tokens.insert(), [first | other]))
