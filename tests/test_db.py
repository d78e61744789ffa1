"""The database: one schema on MySQL, MariaDB and SQLite, transactions that lose nothing, connections that recover."""

from __future__ import annotations

import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config as AlembicConfig
from alembic.script import ScriptDirectory
from hypothesis import given
from hypothesis import strategies as st

import db as db_module
import tables
from config.settings import Config
from db import (
    SCHEMA_VERSION,
    Database,
    DatabaseError,
    Duplicate,
    UnknownSchema,
    database_url,
    delete_some,
    inserted_id,
)
from tables import pool_keys, revisions, users
from tests.support.gateway import ROOT, in_processes
from tests.support.mariadb import DatabaseServer

NOON = datetime(2026, 11, 21, 12, 0, 0, 123456, tzinfo=UTC)
YEAR_1900, YEAR_2200 = (NOON.replace(year=year, tzinfo=None) for year in (1900, 2200))
pytestmark = pytest.mark.mysql
OPEN = "import db, tables; from config import settings; database = db.Database(db.database_url(settings.Config(database_url=sys.argv[1])))"
DRIVERS = ["mysql", "mysql+pymysql"]


def connect(url: str, **options: int) -> Database:
    return Database(database_url(Config(database_url=url)), **options)


def new_user(tx: sa.Connection, username_hash: str, **values: object) -> int:
    row = {"username_hash": username_hash, "key_hash": "x", "state": "active", "created_at": NOON, "updated_at": NOON}
    return inserted_id(tx.execute(users.insert().values(row | values)))


def new_key(tx: sa.Connection, name: str, **values: object) -> int:
    row = {"name": name, "state": "active", "source": "minted", "enabled": True, "use_count": 0}
    return inserted_id(tx.execute(pool_keys.insert().values(row | {"created_at": NOON, "updated_at": NOON} | values)))


@pytest.fixture(params=["mariadb", "mysql"])
def server(request: pytest.FixtureRequest) -> DatabaseServer:
    """Once a MariaDB and once a MySQL."""
    found: DatabaseServer = request.getfixturevalue(request.param)
    return found


@pytest.fixture(params=DRIVERS)
def mysql_url(request: pytest.FixtureRequest, server: DatabaseServer) -> str:
    """The URL of an empty database at the server, once for each driver."""
    return server.empty_database().replace("mysql:", f"{request.param}:")


@pytest.fixture
def mysql_db(mysql_url: str, server: DatabaseServer) -> Iterator[Database]:
    """A migrated database at the server whose statements may take one second, once for each driver."""
    server.fill(mysql_url)
    database = connect(mysql_url, timeout_seconds=1)
    yield database
    database.close()


# ── the schema


def test_an_upgrade_makes_the_tables_and_a_second_one_changes_nothing(empty_database_url):
    database = connect(empty_database_url)
    assert not database.has_table("users")
    assert not database.is_current()
    database.upgrade()
    assert database.has_table("users")
    assert database.is_current()
    with database.reading() as tx:
        before = tx.execute(sa.select(revisions)).all()
    database.upgrade()
    with database.reading() as tx:
        assert tx.execute(sa.select(revisions)).all() == before
    database.close()


def test_the_migrated_schema_is_that_of_the_tables_in_the_code(db):
    assert db.schema_differences() == []


def one_a_line(sql: str) -> str:
    """SQLite's own words, in which columns that were added later stand all on the last line."""
    head, _, body = sql.partition("(")
    return "\n".join([head, *re.split(r",(?![^(]*\))", body.rpartition(")")[0])])


def described(database: Database) -> dict[str, set[str]]:
    """Every table in the database's own words: types, character sets, keys and indexes, in any order."""
    tables = sorted(db_module.metadata.tables)
    with database.reading() as tx:
        if database.kind == "mysql":
            shown = {name: tx.execute(sa.text(f"SHOW CREATE TABLE {name}")).one()[1] for name in tables}
            # MySQL repeats a character set, though the collation tells it, where the statement had named it.
            texts = {name: [text.replace("CHARACTER SET utf8mb4 ", "")] for name, text in shown.items()}
        else:
            found = tx.execute(sa.text("SELECT tbl_name, sql FROM sqlite_master WHERE sql IS NOT NULL")).all()
            texts = {name: [one_a_line(row.sql) for row in found if row.tbl_name == name] for name in tables}
    return {name: {line.strip(" ,\t") for line in "\n".join(lines).splitlines()} for name, lines in texts.items()}


def test_the_migrations_make_the_same_tables_as_the_code_would_to_the_last_option(db, database_server, tmp_path):
    url = database_server.empty_database() if database_server else f"sqlite:///{tmp_path}/other.db"
    other = connect(url)
    other.transact(db_module.metadata.create_all)
    assert described(db) == described(other)
    other.close()


def test_a_schema_that_differs_from_the_code_is_noticed(db):
    db.transact(lambda tx: tx.execute(sa.text("ALTER TABLE users ADD COLUMN stray INTEGER")))
    assert "stray" in str(db.schema_differences())


def test_the_schema_version_is_that_of_the_newest_migration():
    assert ScriptDirectory(ROOT / "migrations").get_heads() == [SCHEMA_VERSION]
    assert max(path.name for path in (ROOT / "migrations/versions").glob("*.py")).startswith(SCHEMA_VERSION)


def upgrade_to(database: Database, version: str) -> None:
    """Bring an empty database to a version of earlier days."""
    alembic = AlembicConfig()
    alembic.set_main_option("script_location", str(ROOT / "migrations"))

    def migrate(tx: sa.Connection) -> None:
        alembic.attributes["connection"] = tx
        command.upgrade(alembic, version)

    database.transact(migrate)


def test_a_database_in_use_is_told_how_far_its_migration_is(empty_database_url, caplog):
    database = connect(empty_database_url)
    caplog.set_level("INFO", "migrations")
    upgrade_to(database, "0004")
    assert caplog.records == [], "a new one is made in silence"
    database.upgrade()
    told = [record.fields for record in caplog.records]
    steps = len(told) - 1
    assert told[0] == {"found": "0004", "wanted": SCHEMA_VERSION, "steps": steps}
    assert [(one["step"], one["of"]) for one in told[1:]] == [(number, steps) for number in range(1, steps + 1)]
    assert told[-1]["schema"] == SCHEMA_VERSION
    database.close()


def test_a_key_that_was_draining_before_the_rotation_was_rewritten_has_an_end_of_its_draining(empty_database_url):
    database = connect(empty_database_url)
    upgrade_to(database, "0001")
    for state in ("active", "draining"):
        database.transact(lambda tx, state=state: new_key(tx, state, state=state))
    database.upgrade()
    with database.reading() as tx:
        found = tx.execute(sa.select(pool_keys.c.state, pool_keys.c.drain_until)).all()
    assert {row.state: row.drain_until for row in found} == {"active": None, "draining": NOON}
    database.close()


def test_the_columns_of_the_original_schema_are_there():
    assert {"username_hash", "key_hash", "created_at", "last_login"} <= set(users.c.keys())
    original = "name api_key api_key_hash enabled created_at updated_at last_used use_count"
    assert set(original.split()) <= set(pool_keys.c.keys())


def test_processes_that_upgrade_together_all_succeed(empty_database_url):
    in_processes(4, OPEN, "database.upgrade()", empty_database_url)
    database = connect(empty_database_url)
    assert database.is_current()
    assert database.schema_differences() == []
    with database.reading() as tx:
        assert {row.value for row in tx.execute(sa.select(revisions))} == {1}
    database.close()


OPEN_TOGETHER = """
for _ in range(15):
    moment = int(time.time() * 25) + 1
    time.sleep(max(0, moment / 25 - time.time()))
    url = f"sqlite:///{sys.argv[1]}/{moment}.db"
    db.Database(db.database_url(settings.Config(database_url=url))).has_table("x")
"""


def test_processes_that_open_a_new_sqlite_file_at_the_same_moment_do_not_lock_each_other_out(tmp_path):
    in_processes(4, "import db, time; from config import settings", OPEN_TOGETHER, str(tmp_path))


def test_a_newer_schema_that_only_adds_is_worked_with_and_one_that_needs_a_newer_version_is_left_alone(db):
    db.transact(lambda tx: tx.execute(sa.text("UPDATE alembic_version SET version_num = '9999'")))
    assert db.is_current()
    needs = {"name": db_module.OLDEST_VERSION, "value": int(SCHEMA_VERSION)}
    db.transact(lambda tx: tx.execute(revisions.insert().values(needs)))
    assert db.is_current()
    db.transact(
        lambda tx: tx.execute(sa.text("UPDATE revisions SET value = value + 1 WHERE name = 'oldest_schema_version'"))
    )
    assert not db.is_current()
    with pytest.raises(UnknownSchema, match="another version"):
        db.upgrade()
    with db.reading() as tx:
        assert tx.scalar(sa.text("SELECT version_num FROM alembic_version")) == "9999"


@pytest.fixture
def locked(server: DatabaseServer) -> Iterator[Callable[[], object]]:
    """Another process holds the migration lock; call to let it go."""
    holder = connect(server.empty_database())
    connection = holder._engine.connect()
    assert connection.scalar(sa.text("SELECT GET_LOCK(:n, 0)"), {"n": db_module.MIGRATION_LOCK}) == 1
    yield connection.invalidate
    connection.close()
    holder.close()


def test_an_upgrade_waits_for_another_process_longer_than_a_statement_may_take(mysql_url, locked):
    database = connect(mysql_url, timeout_seconds=1)
    release = threading.Timer(1.6, locked)
    release.start()
    database.upgrade()
    release.join()
    assert database.is_current()
    database.close()


def test_an_upgrade_that_waits_in_vain_says_so_and_writes_nothing(server, locked, monkeypatch):
    monkeypatch.setattr(db_module, "MIGRATION_LOCK_SECONDS", 0)
    database = connect(server.empty_database())
    with pytest.raises(TimeoutError, match="another process has been migrating"):
        database.upgrade()
    assert not database.has_table("alembic_version")
    database.close()


# ── what is stored


@given(st.datetimes(YEAR_1900, YEAR_2200, timezones=st.timezones()))
def test_times_keep_their_microseconds_and_come_back_in_utc(db, moment):
    row_id = db.transact(lambda tx: new_user(tx, str(time.monotonic_ns()), last_login=moment))
    with db.reading() as tx:
        found = tx.scalar(sa.select(users.c.last_login).where(users.c.id == row_id))
        assert tx.scalar(sa.select(users.c.id).where(users.c.id == row_id, users.c.last_login == moment)) == row_id
    assert found == moment.astimezone(UTC)  # a time that a clock change skips equals no time in another zone
    assert found.tzinfo is UTC
    assert found.microsecond == moment.microsecond


def test_no_time_stays_no_time(db):
    row_id = db.transact(lambda tx: new_user(tx, "a"))
    with db.reading() as tx:
        assert tx.scalar(sa.select(users.c.last_login).where(users.c.id == row_id)) is None


def test_times_order_as_they_should(db):
    moments = [NOON + timedelta(microseconds=one) for one in (5, -1, 0, 1_000_000)]
    for number, moment in enumerate(moments):
        db.transact(lambda tx, n=number, m=moment: new_user(tx, f"user {n}", last_login=m))
    with db.reading() as tx:
        assert list(tx.scalars(sa.select(users.c.last_login).order_by(users.c.last_login))) == sorted(moments)


def test_every_alphabet_is_stored_whatever_the_servers_default_is(db):
    name = "naïve Schlüssel 密钥 🔑🇩🇪 %s %% ' \" \\"
    row_id = db.transact(lambda tx: new_key(tx, name))
    with db.reading() as tx:
        assert tx.scalar(sa.select(pool_keys.c.name).where(pool_keys.c.id == row_id)) == name


def test_hashes_that_differ_in_case_are_different(db):
    upper, lower = (db.transact(lambda tx, h=one: new_user(tx, h)) for one in ("ABCDEF", "abcdef"))
    with db.reading() as tx:
        assert tx.scalar(sa.select(users.c.id).where(users.c.username_hash == "abcdef")) == lower != upper


def test_no_table_takes_over_the_servers_character_set(db, database_server):
    if database_server is None:
        return
    tables = database_server.execute("SHOW TABLE STATUS", db._engine.url.database)
    ours = [row for row in tables if row[0] != "alembic_version"]
    assert {row[0] for row in ours} == set(db_module.metadata.tables)
    assert {row[1] for row in ours} == {"InnoDB"}
    assert {row[14] for row in ours} == {"utf8mb4_unicode_ci"}


def test_a_second_row_of_a_unique_value_is_a_duplicate(db):
    db.transact(lambda tx: new_user(tx, "a"))
    with pytest.raises(Duplicate):
        db.transact(lambda tx: new_user(tx, "a"))


def test_a_session_without_its_user_is_refused(db):
    row = {"id": "s", "user_id": 77, "created_at": NOON, "refreshed_at": NOON, "expires_at": NOON}
    with pytest.raises(Duplicate):  # the drivers' word for every broken constraint
        db.transact(lambda tx: tx.execute(tables.user_sessions.insert().values(row)))


def test_errors_do_not_show_what_was_to_be_stored(db):
    db.transact(lambda tx: new_key(tx, "a"))
    with pytest.raises(DatabaseError) as raised:
        db.transact(lambda tx: new_key(tx, "a", api_key="canary ciphertext", api_key_hash="canary hash"))
    assert "canary" not in str(raised.value)


# ── transactions


def test_work_that_fails_leaves_nothing_behind(db):
    def work(tx: sa.Connection) -> None:
        new_user(tx, "a")
        raise LookupError

    with pytest.raises(LookupError):
        db.transact(work)
    with db.reading() as tx:
        assert tx.scalar(sa.select(sa.func.count()).select_from(users)) == 0


def test_reading_does_not_wait_for_a_writer_and_sees_nothing_unfinished(db):
    written, looked = threading.Event(), threading.Event()

    def work(tx: sa.Connection) -> None:
        new_user(tx, "a")
        written.set()
        assert looked.wait(60)

    with ThreadPoolExecutor(1) as threads:
        writing = threads.submit(db.transact, work)
        assert written.wait(60)
        with db.reading() as tx:  # if it waited, nobody would have looked
            assert tx.scalar(sa.select(sa.func.count()).select_from(users)) == 0
        looked.set()
        writing.result()


COUNT_UP = """
import sqlalchemy as sa
this = tables.revisions.c.name == "users"
def read_and_write(tx):
    value = tx.scalar(sa.select(tables.revisions.c.value).where(this).with_for_update())
    tx.execute(tables.revisions.update().where(this).values(value=value + 1))
for _ in range(40):
    database.transact(read_and_write)
    database.transact(lambda tx: tx.execute(tables.revisions.update().where(this).values(value=tables.revisions.c.value + 1)))
"""


def test_increments_of_several_processes_are_all_counted(db, empty_database_url):
    in_processes(4, OPEN, COUNT_UP, empty_database_url)
    with db.reading() as tx:
        assert tx.scalar(sa.select(revisions.c.value).where(revisions.c.name == "users")) == 1 + 4 * 80


def test_increments_of_many_threads_are_all_counted(db):
    this = revisions.c.name == "users"

    def count_up(_: int) -> None:
        db.transact(lambda tx: tx.execute(revisions.update().where(this).values(value=revisions.c.value + 1)))

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(count_up, range(100)))
    with db.reading() as tx:
        assert tx.scalar(sa.select(revisions.c.value).where(this)) == 101


def crossing(database: Database, times: int) -> int:
    """Two transactions that take two rows in opposite order, so that they lock each other out the first `times`
    times. Returns how often the work was begun."""
    begun: list[str] = []
    meeting = threading.Barrier(2)

    def take(first: str, second: str) -> None:
        def work(tx: sa.Connection) -> None:
            begun.append(first)
            for name in (first, second):
                row = revisions.c.name == name
                tx.execute(revisions.update().where(row).values(value=revisions.c.value + 1))
                if name == first and begun.count(first) <= times:
                    try:
                        meeting.wait(60)
                    except threading.BrokenBarrierError:
                        pass

        database.transact(work)

    with ThreadPoolExecutor(2) as threads:
        done = [threads.submit(take, *names) for names in (("users", "api_keys"), ("api_keys", "users"))]
        for one in done:
            one.result()
    return len(begun)


def test_work_that_met_a_deadlock_is_done_again(mysql_url):
    database = connect(mysql_url)
    database.upgrade()
    assert crossing(database, times=1) == 3
    with database.reading() as tx:
        values = tx.execute(sa.select(revisions.c.name, revisions.c.value)).all()
    assert {name: value for name, value in values if value != 1} == {"users": 3, "api_keys": 3}
    database.close()


def deadlock(error_class: type[Exception], number: int) -> Exception:
    return sa.exc.DBAPIError("UPDATE", {}, error_class(number, "Deadlock found"))


@pytest.mark.parametrize("number", [1213, 1205, 9007, 1290, 1836, 1047])
def test_work_is_done_some_times_at_most(db, number):
    begun = []

    def work(_: sa.Connection) -> None:
        begun.append(1)
        raise deadlock(Exception, number)

    with pytest.raises(DatabaseError):
        db.transact(work)
    assert len(begun) == db_module.TRIES


def test_work_that_failed_for_another_reason_is_not_done_again(db):
    begun = []

    def work(_: sa.Connection) -> None:
        begun.append(1)
        raise deadlock(Exception, 1064)

    with pytest.raises(DatabaseError):
        db.transact(work)
    assert len(begun) == 1


# ── connections


def connection_id(tx: sa.Connection) -> int:
    return int(tx.scalar(sa.text("SELECT CONNECTION_ID()")))


def test_a_connection_that_was_killed_while_idle_is_replaced_unnoticed(mysql_db, server):
    with mysql_db.reading() as tx:
        first = connection_id(tx)
    server.execute(f"KILL {first}")
    with mysql_db.reading() as tx:
        assert connection_id(tx) != first


def test_a_connection_that_is_killed_in_use_costs_one_transaction(mysql_db, server):
    def work(tx: sa.Connection) -> None:
        new_user(tx, "a")
        server.execute(f"KILL {connection_id(tx)}")
        new_user(tx, "b")

    with pytest.raises(DatabaseError):
        mysql_db.transact(work)
    with mysql_db.reading() as tx:
        assert tx.scalar(sa.select(sa.func.count()).select_from(users)) == 0


def test_a_statement_that_takes_too_long_is_given_up_in_time_and_poisons_nothing(mysql_db):
    with pytest.raises(DatabaseError), mysql_db.reading() as tx:
        tx.execute(sa.text("SELECT SLEEP(100)"))
    for _ in range(3):
        with mysql_db.reading() as tx:
            assert tx.scalar(sa.text("SELECT 7")) == 7


def test_a_restart_of_the_server_is_survived(mysql_db, server):
    mysql_db.transact(lambda tx: new_user(tx, "a"))
    server.stop()
    try:
        with pytest.raises(DatabaseError):
            mysql_db.is_current()
        with pytest.raises(DatabaseError):
            mysql_db.transact(lambda tx: new_user(tx, "b"))
    finally:
        server.start()
    with mysql_db.reading() as tx:
        assert list(tx.scalars(sa.select(users.c.username_hash))) == ["a"]


def test_sessions_at_the_server_are_in_utc_and_read_what_is_committed(mysql_db):
    with mysql_db.reading() as tx:
        assert tx.scalar(sa.text("SELECT @@time_zone")) == "+00:00"
        assert tx.execute(sa.text("SHOW VARIABLES LIKE 't%isolation'")).first()[1] == "READ-COMMITTED"


def test_sqlite_keeps_a_journal_and_enforces_references(tmp_path):
    database = connect(f"sqlite:///{tmp_path}/x.db")
    with database.reading() as tx:
        found = {
            name: tx.scalar(sa.text(f"PRAGMA {name}")) for name in ("journal_mode", "foreign_keys", "busy_timeout")
        }
    assert found == {"journal_mode": "wal", "foreign_keys": 1, "busy_timeout": 5000}
    database.close()


# ── where it is


@pytest.mark.parametrize("scheme", ["mysql", "mariadb", "mysql+mysqlconnector", "mysql+pymysql"])
def test_every_form_of_a_url_leads_to_the_same_database(mariadb, scheme):
    url = mariadb.empty_database()
    first, second = connect(url), connect(url.replace("mysql:", f"{scheme}:"))
    first.upgrade()
    assert second.is_current()
    second.transact(lambda tx: new_key(tx, "🔑"))
    with first.reading() as tx:
        assert tx.scalar(sa.select(pool_keys.c.name)) == "🔑"
    assert second.schema_differences() == []
    first.close()
    second.close()


def test_single_settings_lead_to_the_database(mariadb):
    name = mariadb.empty_database().rpartition("/")[2]
    mariadb.execute("CREATE USER IF NOT EXISTS 'app'@'127.0.0.1' IDENTIFIED BY 'p@ss/w:rd%#?'")
    mariadb.execute("GRANT ALL ON *.* TO 'app'@'127.0.0.1'")
    single = {"db_host": "127.0.0.1", "db_port": mariadb.port, "db_user": "app", "db_name": name}
    database = Database(database_url(Config(**single, db_password="p@ss/w:rd%#?")))
    database.upgrade()
    same = connect(f"mysql://app:p%40ss%2Fw%3Ard%25%23%3F@127.0.0.1:{mariadb.port}/{name}")
    assert same.is_current()
    same.close()
    database.close()


def test_a_url_or_single_settings_go_before_sqlite():
    assert database_url(Config(database_url="mysql://two/x")).host == "two"
    assert database_url(Config(db_host="one")).host == "one"
    assert database_url(Config(data_dir="/there")).database == "/there/openrouter_proxy.db"


def test_the_driver_is_chosen_here_and_not_by_chance():
    for url in ("mysql://h/x", "mariadb://h/x", "mysql+mysqlconnector://h/x"):
        found = database_url(Config(database_url=url))
        assert found.drivername == "mysql+mysqlconnector"
        assert dict(found.query) == {"charset": "utf8mb4", "collation": "utf8mb4_unicode_ci"}
    assert database_url(Config(database_url="mysql+pymysql://h/x")).drivername == "mysql+pymysql"


def test_settings_in_the_url_are_kept_but_not_another_character_set():
    found = database_url(Config(database_url="mysql://h/x?init_command=x&charset=latin1"))
    assert dict(found.query) == {"init_command": "x", "charset": "utf8mb4", "collation": "utf8mb4_unicode_ci"}


def test_a_server_that_calls_itself_mariadb_11_is_served(tmp_path):
    """From version 11 on it does not know the collation that the driver would choose by itself."""
    if not shutil.which("mariadb-install-db"):
        pytest.skip("MySQL has no such disguise")
    server = DatabaseServer(tmp_path / "server", "--version=11.2.2-MariaDB")
    try:
        for driver in DRIVERS:
            database = connect(server.empty_database().replace("mysql:", f"{driver}:"))
            database.upgrade()
            database.transact(lambda tx: new_key(tx, "🔑"))
            assert database.schema_differences() == []
            database.close()
    finally:
        server.stop()


def test_a_database_that_is_not_there_is_a_database_error(tmp_path):
    for url in ("mysql://root@127.0.0.1:1/x", "mysql+pymysql://root@127.0.0.1:1/x", f"sqlite:///{tmp_path}/no/x.db"):
        with pytest.raises(DatabaseError):
            connect(url).is_current()


def test_nothing_but_this_module_knows_the_drivers():
    door = re.compile(r"^\s*(import|from) (mysql|pymysql|sqlite3)\b", re.MULTILINE)
    sources = [path for path in [*ROOT.glob("*.py"), *ROOT.glob("routes/*.py")] if door.search(path.read_text())]
    assert sources == [Path(ROOT / "db.py")]


def test_of_the_wanted_rows_some_are_deleted_and_of_others_none(db):
    rows = [{"name": f"{kind} {number}", "value": number} for kind in "ab" for number in range(5)]
    db.transact(lambda tx: tx.execute(revisions.insert(), rows))
    wanted = revisions.c.name.like("a %")

    def left() -> int:
        with db.reading() as tx:
            assert tx.scalar(sa.select(sa.func.count()).where(revisions.c.name.like("b %"))) == 5
            return tx.scalar(sa.select(sa.func.count()).where(wanted))

    for expected in (2, 0, 0):
        db.transact(lambda tx: delete_some(tx, revisions.c.name, wanted, 3))
        assert left() == expected
