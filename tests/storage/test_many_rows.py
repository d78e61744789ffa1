"""Many rows at once hold what each column can, on every engine."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

import tables
from db import Duplicate
from storage.many_rows import insert_rows
from tests.test_db import NOON

pytestmark = pytest.mark.mysql


def test_many_rows_are_inserted_with_every_kind_of_value(db):
    columns = {"name": "x", "owner": None, "epoch": 2**62, "lease_until": NOON, "deployment_hash": None}
    rows = [columns | {"deletions_held_until": None, "name": f"name-{n}"} for n in range(1000)]
    rows[0]["deployment_hash"] = "plain ' \\ \" %s :x"
    for row in rows[1:]:
        row["deployment_hash"] = None
    db.transact(lambda tx: insert_rows(tx, tables.rotator, rows))
    with db.reading() as tx:
        found = tx.execute(sa.select(tables.rotator).where(tables.rotator.c.name.like("name-%"))).mappings().all()
    assert sorted(map(dict, found), key=str) == sorted(rows, key=str)
    flags = {"period": "h", "user_id": 1, "start": NOON, "client_key_id": 0, "pool_key_id": 0, "model": "a/b"}
    sums = dict.fromkeys(("requests", "errors", "prompt_tokens", "completion_tokens", "cost_nano", "unknown"), True)
    with pytest.raises(Duplicate):
        db.transact(lambda tx: insert_rows(tx, tables.usage_rollups, [flags | sums] * 2))
    db.transact(lambda tx: insert_rows(tx, tables.usage_rollups, [flags | sums]))
    with db.reading() as tx:
        assert tx.scalar(sa.select(tables.usage_rollups.c.requests)) == 1
