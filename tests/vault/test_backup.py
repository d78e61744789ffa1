"""Tables in a backup: all of them as of one moment, from any engine into any other, whole or not at all."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import islice
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import mysql

from db import Database, DatabaseError
from tables import metadata, rotator, usage_rollups, users, watched_key_days
from tests.support.mariadb import DatabaseServer
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


def largest(column: sa.Column[Any]) -> Any:
    """What is hardest to carry of what the column holds, on every engine."""
    if column.foreign_keys:
        return 1
    if isinstance(column.type, sa.String):
        letters, length = "naïve 密钥 ' \" \\ 🔑 \n", column.type.length or 20_000
        as_mysql = column.type.dialect_impl(mysql.dialect())
        if getattr(as_mysql, "charset", None) == "ascii":
            letters = "aA'\"\\%:"
        return (letters * length)[:length].rstrip()
    if isinstance(column.type, sa.Boolean):
        return True
    if isinstance(column.type, sa.Date):
        return NOON.date()
    bits = {sa.SmallInteger: 15, sa.Integer: 31}.get(type(column.type), 63)
    return 2**bits - 1 if isinstance(column.type, sa.Integer) else NOON


def fill_every_column(db: Database) -> None:
    """A row in each table that holds as much as it can."""
    for table in metadata.sorted_tables:
        row = {column.name: largest(column) for column in table.columns}
        if table.name in {"users", "teams"}:
            row["id"] = 1
        db.transact(
            lambda tx, row=row, table=table: tx.execute(table.delete()) and tx.execute(table.insert().values(row))
        )


@pytest.fixture
def servers(request: pytest.FixtureRequest) -> list[DatabaseServer]:
    return [request.getfixturevalue(kind) for kind in ("mariadb", "mysql")]


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


def test_nothing_that_a_column_can_hold_is_lost_on_the_way(db: Database, servers, tmp_path) -> None:
    fill_every_column(db)
    before = contents(db, "rotator")
    assert {name: len(rows) for name, rows in before.items()} == dict.fromkeys(before, 1)
    items = backup_as_json(list(taken(db, {}, [], quiet)))
    for url in (*(server.new_database() for server in servers), f"sqlite:///{tmp_path}/other.db"):
        other = connect(url)
        other.upgrade()
        restore(other, lambda: iter(items), quiet, quiet)
        assert contents(other, "rotator") == before | {"gateway_processes": []}
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
