"""A database that can't keep accounts is refused at the start, with what it refuses; one that can is left as it was."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from billing.rehearsal import rehearse
from config.settings import Config
from db import Database, database_url
from start_up import CannotStart
from tables import metadata
from tests.conftest import ENCRYPTION_KEY, SECRET_KEY
from tests.support.gateway import free_port, run


def rows(db: Database) -> dict[str, list[Any]]:
    with db.reading() as tx:
        return {table.name: tx.execute(sa.select(table)).all() for table in metadata.sorted_tables}


def break_it(db: Database, statement: str) -> None:
    db.transact(lambda tx: tx.exec_driver_sql(statement))


def refuse_inserts(db: Database, table: str) -> None:
    begin = f"CREATE TRIGGER broken BEFORE INSERT ON {table} FOR EACH ROW"
    if db.kind == "sqlite":
        break_it(db, f"{begin} BEGIN SELECT RAISE(ABORT, 'no such thing here'); END")
    else:
        break_it(db, f"{begin} SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'no such thing here'")


def test_nothing_of_a_rehearsal_stays(db, clock):
    before = rows(db)
    rehearse(db, clock)
    assert rows(db) == before


@pytest.mark.parametrize("table", ["usage_ledger", "usage_rollups", "quotas", "quota_slices"])
def test_what_is_refused_is_told_with_the_statement(db, clock, table):
    refuse_inserts(db, table)
    with pytest.raises(CannotStart, match=f"refuses INSERT INTO {table} .*no such thing here"):
        rehearse(db, clock)


def test_a_database_that_adds_up_wrongly_is_refused(db, clock):
    """It takes the statements, and does something else."""
    if db.kind == "sqlite":
        break_it(
            db,
            "CREATE TRIGGER broken AFTER INSERT ON usage_rollups FOR EACH ROW BEGIN "
            "UPDATE usage_rollups SET cost_nano = 0 WHERE user_id = NEW.user_id; END",
        )
    else:
        break_it(db, "CREATE TRIGGER broken BEFORE INSERT ON usage_rollups FOR EACH ROW SET NEW.cost_nano = 0")
    with pytest.raises(CannotStart, match=r"says \(7, 8, 0\) where \(7, 8, 7\) is right"):
        rehearse(db, clock)


def test_a_server_that_is_read_only_for_a_while_is_no_reason(mariadb, clock):
    """Health says so; and what the process does meanwhile waits in the journal."""
    db = Database(database_url(Config(database_url=mariadb.new_database())))
    db.upgrade()
    break_it(db, "CREATE TRIGGER b BEFORE INSERT ON quotas FOR EACH ROW SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = 1290")
    rehearse(db, clock)
    db.close()


def test_a_gateway_and_a_command_say_in_one_line_why_they_do_not_start(empty_database_url, tmp_path):
    db = Database(database_url(Config(database_url=empty_database_url)))
    db.upgrade()
    refuse_inserts(db, "usage_rollups")
    db.close()
    settings = {"DATABASE_URL": empty_database_url, "DATA_DIR": tmp_path, "PORT": free_port()}
    settings |= {"ENCRYPTION_KEY": ENCRYPTION_KEY, "SECRET_KEY": SECRET_KEY}
    for command in (["app.py"], ["-m", "flask", "--app", "app", "check"]):
        ended = run(*command, **settings)
        assert ended.returncode == 1, (command, ended)
        line = ended.stderr.splitlines()[-1]
        assert "Cannot start: the database can't keep accounts: it refuses INSERT INTO usage_rollups (" in line
        assert line.endswith("no such thing here)")
