"""An alias has one row, so has a model's rule, and letters are told apart as the copies in memory tell them."""

import pytest

from db import Duplicate
from foundation.clock import Clock
from tables import model_aliases, model_rules

NOW = Clock().now()


def test_no_two_aliases_have_one_name(db):
    row = {"name": "fast", "models": "{}", "updated_at": NOW}
    db.transact(lambda tx: tx.execute(model_aliases.insert(), [row, row | {"name": "FAST"}]))
    with pytest.raises(Duplicate):
        db.transact(lambda tx: tx.execute(model_aliases.insert(), [row]))


def test_no_two_rules_are_for_one_model(db):
    row = {"name": "a/m", "terms": "{}", "updated_at": NOW}
    db.transact(lambda tx: tx.execute(model_rules.insert(), [row, row | {"name": "a/M"}]))
    with pytest.raises(Duplicate):
        db.transact(lambda tx: tx.execute(model_rules.insert(), [row]))
