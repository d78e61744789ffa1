"""The sums of callers: one row for each in an hour or a day, of users and of client keys apart."""

import pytest

from db import Duplicate
from foundation.clock import Clock
from tables import caller_rollups

NOW = Clock().now()


def test_a_user_and_a_key_of_one_number_are_told_apart(db):
    sums = dict.fromkeys(("requests", "errors", "prompt_tokens", "completion_tokens", "cost_nano", "unknown"), 0)
    row = {"period": "d", "kind": "u", "start": NOW, "subject_id": 7} | sums
    db.transact(lambda tx: tx.execute(caller_rollups.insert(), [row, row | {"kind": "k"}, row | {"period": "h"}]))
    with pytest.raises(Duplicate):
        db.transact(lambda tx: tx.execute(caller_rollups.insert(), [row]))
