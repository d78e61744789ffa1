"""Quotas: one for each subject, whoever makes it first."""

import pytest

from db import Duplicate
from foundation.clock import Clock
from tables import quotas

NOW = Clock().now()


def test_a_subject_has_one_quota_and_nobodys_manager_has_set_it_unless_that_is_said(db):
    row = {"subject": "team/1", "period": "day", "recovery": "reset", "is_default": False, "window_start": NOW}
    row |= {"spent_nano": 0, "reserved_nano": 0, "updated_at": NOW}
    db.transact(lambda tx: tx.execute(quotas.insert(), [row]))
    with pytest.raises(Duplicate):
        db.transact(lambda tx: tx.execute(quotas.insert(), [row]))
    with db.reading() as tx:
        assert tx.scalar(quotas.select().with_only_columns(quotas.c.team_id)) is None
