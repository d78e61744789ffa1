"""An alias has one row, and letters are told apart as the copies in memory tell them."""

import pytest

from db import Duplicate
from foundation.clock import Clock
from tables import model_aliases

NOW = Clock().now()


def test_no_two_aliases_have_one_name(db):
    row = {"name": "fast", "models": "{}", "updated_at": NOW}
    db.transact(lambda tx: tx.execute(model_aliases.insert(), [row, row | {"name": "FAST"}]))
    with pytest.raises(Duplicate):
        db.transact(lambda tx: tx.execute(model_aliases.insert(), [row]))
