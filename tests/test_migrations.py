"""Upgrades that are killed are finished by the next start; and a migration leaves room for the version before it."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config as AlembicConfig

from db import Database
from tables import caller_rollups, log_retention, revisions, rotator, usage_rollups
from tests.support.gateway import ROOT, environment, preparation
from tests.support.mariadb import DatabaseServer
from tests.test_db import NOON, connect, described

DIES = """
import os, signal, sys
import sqlalchemy as sa
import db
from config.settings import Config
left = int(sys.argv[2])
def count(connection, cursor, statement, *rest):
    global left
    left -= statement.split()[0].upper() in {"CREATE", "ALTER", "DROP", "INSERT", "UPDATE", "DELETE"}
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
sa.event.listen(sa.Engine, "after_cursor_execute", count)
db.Database(db.database_url(Config(database_url=sys.argv[1]))).upgrade()
"""
FILLED = revisions, rotator, log_retention  # by migrations
# What a migration after 0016 takes away or demands, as `narrowed` tells it, and why the version before can do without.
ALLOWED: dict[str, str] = {}


def upgraded_until_killed(url: str, changes: int) -> bool:
    """Upgrade in a process of its own that is killed after so many changes; False if there were not as many."""
    with Path(os.devnull).open() as nothing, TemporaryFile("w+") as complaints:
        streams = nothing.fileno(), complaints.fileno(), complaints.fileno()
        code = preparation().begin(["-c", DIES, url, str(changes)], environment(), streams).wait(120)
        complaints.seek(0)
        assert code in {0, -signal.SIGKILL}, complaints.read()
    return bool(code)


def upgrade_to(database: Database, version: str) -> None:
    alembic = AlembicConfig()
    alembic.set_main_option("script_location", str(ROOT / "migrations"))

    def work(tx: sa.Connection) -> None:
        alembic.attributes["connection"] = tx
        command.upgrade(alembic, version)

    database.transact(work)


def contents(database: Database) -> list[Any]:
    with database.reading() as tx:
        return [sorted(map(tuple, tx.execute(sa.select(table))), key=str) for table in FILLED]


@pytest.mark.mysql
@pytest.mark.parametrize("step", [30, pytest.param(1, marks=[pytest.mark.torture, pytest.mark.timeout(7200)])])
def test_an_upgrade_that_is_killed_is_finished_by_the_next(
    db: Database, database_server: DatabaseServer | None, tmp_path: Path, step: int
) -> None:
    whole, rows, changes, is_killed = described(db), contents(db), 1, True
    while is_killed:
        url = database_server.empty_database() if database_server else f"sqlite:///{tmp_path}/{changes}.db"
        is_killed = upgraded_until_killed(url, changes)
        database = connect(url)
        database.upgrade()
        assert database.is_current()
        assert described(database) == whole, f"killed after {changes} changes"
        assert contents(database) == rows, f"killed after {changes} changes"
        database.close()
        if database_server:
            database_server.execute(f"DROP DATABASE {url.rpartition('/')[2]}")
        changes += step
    assert changes > step + 1


@pytest.mark.mysql
def test_sums_are_put_together_once_however_often_that_is_killed(empty_database_url: str) -> None:
    database = connect(empty_database_url)
    upgrade_to(database, "0010")
    row = {"period": "d", "user_id": 7, "start": NOON, "client_key_id": 0, "model": "a/b", "requests": 1}
    row |= dict.fromkeys(("errors", "prompt_tokens", "completion_tokens", "unknown"), 0)
    rows = [row | {"pool_key_id": number, "cost_nano": number} for number in (1, 2, 3)]
    database.transact(lambda tx: tx.execute(usage_rollups.insert(), rows))
    for changes in (1, 2, 3):
        assert upgraded_until_killed(empty_database_url, changes)
    database.upgrade()
    with database.reading() as tx:
        found = tx.execute(sa.select(usage_rollups.c.requests, usage_rollups.c.cost_nano)).all()
    assert found == [(3, 6)]
    database.close()


@pytest.mark.mysql
def test_sums_of_callers_are_those_of_the_roll_ups_once_however_often_that_is_killed(empty_database_url: str) -> None:
    database = connect(empty_database_url)
    upgrade_to(database, "0021")
    row = {"period": "d", "start": NOON, "pool_key_id": 1, "requests": 1}
    row |= dict.fromkeys(("errors", "prompt_tokens", "completion_tokens", "unknown"), 0)
    callers = [(7, 3, "a", 10), (7, 0, "a", 5), (7, 3, "b", 1), (8, 4, "a", 2), (0, 0, "a", 20)]
    names = "user_id", "client_key_id", "model", "cost_nano"
    rows = [row | dict(zip(names, caller, strict=True)) for caller in callers]
    database.transact(lambda tx: tx.execute(usage_rollups.insert(), rows))
    for changes in (1, 2, 3, 4):
        upgraded_until_killed(empty_database_url, changes)
    database.upgrade()
    columns = caller_rollups.c.kind, caller_rollups.c.subject_id, caller_rollups.c.cost_nano
    with database.reading() as tx:
        found = {tuple(one) for one in tx.execute(sa.select(*columns))}
    assert found == {("u", 7, 16), ("u", 8, 2), ("u", -1, 2), ("k", 0, 5), ("k", 3, 11), ("k", 4, 2), ("k", -1, 2)}
    database.close()


# ── expand and contract


Shape = dict[str, dict[str, tuple[str, bool, bool]]]


def shape(database: Database) -> tuple[Shape, set[str]]:
    """Each column's type, whether it may be null, and whether it has a default; and what has to be unique."""
    with database.reading() as tx:
        there = sa.inspect(tx)
        tables: Shape = {}
        unique: set[str] = set()
        for name in there.get_table_names():
            columns = there.get_columns(name)
            tables[name] = {
                one["name"]: (str(one["type"]), bool(one["nullable"]), one["default"] is not None) for one in columns
            }
            unique |= {f"{name} {sorted(one['column_names'])}" for one in there.get_unique_constraints(name)}
            unique |= {f"{name} {sorted(one['column_names'])}" for one in there.get_indexes(name) if one["unique"]}
        return tables, unique


def narrowed(before: tuple[Shape, set[str]], after: tuple[Shape, set[str]]) -> list[str]:
    """What a program that knows the first schema could stumble over in the second."""
    told = []
    for name, columns in before[0].items():
        if name not in after[0]:
            told.append(f"{name} is gone")
            continue
        now = after[0][name]
        told += [f"{name}.{column} is gone" for column in columns if column not in now]
        told += [f"{name}.{column} has changed" for column, kind in columns.items() if now.get(column, kind) != kind]
        new = {column: kind for column, kind in now.items() if column not in columns}
        told += [
            f"{name}.{column} is demanded"
            for column, (_, may_be_null, has_default) in new.items()
            if not (may_be_null or has_default)
        ]
    return told + [f"{one} is unique" for one in after[1] - before[1] if one.split()[0] in before[0]]


def test_migrations_after_0016_only_add(tmp_path: Path) -> None:
    database = connect(f"sqlite:///{tmp_path}/x.db")
    upgrade_to(database, "0016")
    before = shape(database)
    database.upgrade()
    assert set(narrowed(before, shape(database))) == set(ALLOWED), "docs/upgrading.md says why, and what to do instead"
    database.close()


def test_what_does_not_only_add_is_noticed(tmp_path: Path) -> None:
    database = connect(f"sqlite:///{tmp_path}/x.db")
    database.upgrade()
    before = shape(database)
    steps = {
        "ALTER TABLE users ADD COLUMN fine VARCHAR(5)": [],
        "ALTER TABLE users ADD COLUMN too INTEGER NOT NULL DEFAULT 0": [],
        "CREATE TABLE extra (id INTEGER PRIMARY KEY)": [],
        "CREATE INDEX extra_index ON users (avatar_url)": [],
        "CREATE UNIQUE INDEX one ON users (display_name)": ["users ['display_name'] is unique"],
        "DROP INDEX extra_index": [],
        "ALTER TABLE users DROP COLUMN avatar_url": ["users.avatar_url is gone"],
        "ALTER TABLE users RENAME COLUMN default_model TO model": ["users.default_model is gone"],
        "DROP TABLE refusal_sums": ["refusal_sums is gone"],
    }
    told: list[str] = []
    for step, news in steps.items():
        database.transact(lambda tx, step=step: tx.execute(sa.text(step)))
        told += news
        assert sorted(narrowed(before, shape(database))) == sorted(told), step
    wider = ({"t": {"a": ("INTEGER", True, False)}}, set())
    assert narrowed(({"t": {}}, set()), wider) == []
    demanded = ({"t": {"a": ("INTEGER", False, False)}}, set())
    assert narrowed(({"t": {}}, set()), demanded) == ["t.a is demanded"]
    assert narrowed(wider, demanded) == ["t.a has changed"]
    database.close()
