"""Sums of what was used: one row for each subject of a kind in an hour or a day."""

import pytest

from db import Duplicate
from foundation.clock import Clock
from tables import caller_rollups, latency_rollups

NOW = Clock().now()


def test_a_user_and_a_key_of_one_number_are_told_apart(db):
    sums = dict.fromkeys(("requests", "errors", "prompt_tokens", "completion_tokens", "cost_nano", "unknown"), 0)
    row = {"period": "d", "kind": "u", "start": NOW, "subject_id": 7} | sums
    db.transact(lambda tx: tx.execute(caller_rollups.insert(), [row, row | {"kind": "k"}, row | {"period": "h"}]))
    with pytest.raises(Duplicate):
        db.transact(lambda tx: tx.execute(caller_rollups.insert(), [row]))


def test_models_that_differ_in_case_alone_have_times_of_their_own(db):
    row = {"period": "d", "kind": "own", "start": NOW, "counts": "{}"}
    row |= dict.fromkeys(("calls", "errors", "output_tokens", "output_ms"), 0)
    longest = f"{2**63 - 1}/" + "m" * 255
    rows = [row | {"subject": subject} for subject in ("7/a/b", "7/a/B", longest)]
    db.transact(lambda tx: tx.execute(latency_rollups.insert(), rows))
    with pytest.raises(Duplicate):
        db.transact(lambda tx: tx.execute(latency_rollups.insert(), rows[:1]))
