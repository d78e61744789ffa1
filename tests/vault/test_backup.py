"""Tables in a backup: all of them as of one moment, from any engine into any other, whole or not at all."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import islice
from typing import Any

import pytest
import sqlalchemy as sa

from db import Database, DatabaseError
from tables import metadata, rotator, usage_rollups, users, watched_key_days
from tests.test_db import NOON, connect, new_key, new_user
from vault import backup
from vault.backup import CannotRestore, is_unused, restore, taken

pytestmark = pytest.mark.mysql


def quiet(*_: Any) -> None:
    pass


def contents(db: Database, *without: str) -> dict[str, list[Any]]:
    with db.reading() as tx:
        return {
            table.name: sorted(map(tuple, tx.execute(sa.select(table))), key=str)
            for table in metadata.sorted_tables
            if table.name not in without
        }


def fill(db: Database) -> None:
    """Rows of many pages, of a key of six columns, with everything that a column can hold."""
    sums = dict.fromkeys(("requests", "errors", "prompt_tokens", "completion_tokens", "unknown"), 2**40)

    def work(tx: sa.Connection) -> None:
        for number in range(7):
            new_user(tx, f"user{number}", display_name="naïve 密钥 ' \" \\ 🔑", last_login=NOON if number % 2 else None)
        new_key(tx, "one", api_key="x" * 5000, limit_nano=2**62)
        for period in "dh":
            for user_id in range(5):
                for model in ("a/b", "c/d"):
                    row = {
                        "period": period,
                        "user_id": user_id,
                        "start": NOON,
                        "client_key_id": 0,
                        "pool_key_id": 2**62,
                    }
                    tx.execute(usage_rollups.insert().values(**row, **sums, model=model, cost_nano=-(2**50)))
        tx.execute(
            watched_key_days.insert().values(
                personal_key_id=1, day=datetime(2026, 2, 28, tzinfo=UTC).date(), cost_nano=3
            )
        )

    db.transact(work)


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backup, "ROWS_AT_ONCE", 3)


def test_every_row_comes_back_in_every_engine(db: Database, mariadb, tmp_path) -> None:
    fill(db)
    items = list(taken(db, {"at": "now"}, [{"journal": "x"}], quiet))
    assert items[0]["at"] == "now"
    assert items[1] == {"journal": "x"}
    assert {item["table"] for item in items if "table" in item} == set(metadata.tables)
    through_json = backup_as_json(items)
    for url in (mariadb.empty_database(), f"sqlite:///{tmp_path}/other.db"):
        other = connect(url)
        other.upgrade()
        assert is_unused(other)
        count, ended = restore(other, lambda: iter(through_json), quiet, quiet)
        assert ended == set()
        assert count == items[-1]["end"] == sum(map(len, contents(db).values()))
        assert not is_unused(other)
        assert contents(other, "rotator") == contents(db, "rotator")
        with other.reading() as tx:
            assert tx.scalar(sa.select(rotator.c.deletions_held_until)) > NOON
        assert other.transact(lambda tx: new_user(tx, "later")) > 7
        other.close()


def backup_as_json(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    import orjson

    return [orjson.loads(orjson.dumps(item)) for item in items]


def test_a_backup_is_of_one_moment_and_holds_up_no_writer(db: Database) -> None:
    fill(db)
    before = contents(db)
    reading = taken(db, {}, [], quiet)
    items = list(islice(reading, 3))  # the snapshot is taken
    db.transact(lambda tx: tx.execute(users.update().values(display_name="changed")))
    db.transact(lambda tx: new_user(tx, "too late"))
    items += reading
    tables: dict[str, list[Any]] = {}
    for item in items:
        if "table" in item:
            rows = tables.setdefault(item["table"], [])
        elif "rows" in item:
            rows += item["rows"]
    assert {name: sorted(rows, key=str) for name, rows in tables.items()} == before


def test_what_can_not_be_restored_changes_nothing(db: Database) -> None:
    fill(db)
    before = contents(db)
    items = backup_as_json(list(taken(db, {}, [], quiet)))

    def fails(_tx: sa.Connection) -> None:
        raise LookupError

    def cut() -> Any:
        yield from items[:-5]
        raise LookupError

    for wrong, error in (
        ([items[0] | {"schema": "0001"}, *items[1:]], CannotRestore),
        ([*items[:-1], {"end": 7}], CannotRestore),
        ([*items[:-1], {"rows": [[1]]}], ValueError),
    ):
        with pytest.raises(error):
            restore(db, lambda wrong=wrong: iter(wrong), quiet, quiet)
    with pytest.raises(LookupError):
        restore(db, cut, quiet, quiet)
    with pytest.raises(LookupError):
        restore(db, lambda: iter(items), fails, quiet)
    doubled = next(number for number, item in enumerate(items) if "rows" in item)
    with pytest.raises(DatabaseError):
        restore(db, lambda: iter([*items[:doubled], items[doubled], *items[doubled:]]), quiet, quiet)
    assert contents(db) == before
