"""The database: engines for MySQL, MariaDB and SQLite, transactions, migrations.

The only file that knows which database it is.
"""

from __future__ import annotations

import logging
import random
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, SQLAlchemyError

from config.database_tls import tls_options
from config.settings import ROOT, Config
from foundation.clock import Clock
from foundation.counts import Counts
from tables import metadata

log = logging.getLogger("db")
T = TypeVar("T")

SCHEMA_VERSION = "0037"  # the newest file in migrations/versions
OLDEST_VERSION = "oldest_schema_version"
DEADLOCK, LOCK_WAIT = 1213, 1205
CONFLICTS = {DEADLOCK, LOCK_WAIT, 9007, 1105}  # the last two are TiDB's, and Dolt's number for whatever it refuses
SERIALIZATION_FAILURE = "40001"  # the SQLSTATE of all conflicts, where a server has numbers of its own for them
TRIES = 6  # of a transaction that others were in the way of
TRY_SECONDS = 3.0  # after which it is not tried again: somebody may be waiting for it
GONE = {1053, 1927, 3169, 4031}  # server errors that end the connection: shutdown, killed, killed, idle
# A server that has become one, or has left its cluster: the next connection may find the writer.
READER = {1290, 1792, 1836, 1047}
SQLITE_READER = 8
NO_CONNECTION = range(2000, 3000)  # the errors of clients: nobody there, no such host, connection lost
NO_TLS = 2026  # or a certificate that is nobody's: to wait helps nothing
STATEMENT_SECONDS = 10  # of silence after which a server counts as gone
LOCK_WAIT_SECONDS = 2  # for a lock that another connection has; longer than any of our transactions takes
SQLITE_WAIT_SECONDS = 5  # for another process to finish writing
MIGRATION_LOCK = "openrouter_proxy_migrations"
MIGRATION_LOCK_SECONDS = 60

# What other modules catch, so that SQLAlchemy stays behind this door.
Transaction = sa.Connection
DatabaseError = SQLAlchemyError
Duplicate = IntegrityError
BadValue = DataError


class NotAnswering(DatabaseError):
    """The database was away when this process started, and has not been looked at since."""


class UnknownSchema(Exception):
    """The database was migrated by another version of this program, of which this one knows nothing."""


def database_url(config: Config) -> sa.URL:
    """Where the data lives, by DATABASE_URL, else DB_*, else SQLite in DATA_DIR."""
    if config.database_url:
        url = make_url(config.database_url.get_secret_value())
    elif config.db_host:
        password = config.db_password.get_secret_value() if config.db_password else None
        url = sa.URL.create("mysql", config.db_user, password, config.db_host, config.db_port, config.db_name)
    else:
        return sa.URL.create("sqlite", database=str(config.data_dir / "openrouter_proxy.db"))
    if url.drivername.startswith("sqlite"):
        return url
    # SQLAlchemy's "mariadb" dialect would ignore the mysql_* table options; one dialect serves both servers.
    driver = "mysql+pymysql" if url.drivername == "mysql+pymysql" else "mysql+mysqlconnector"
    url = url.set(drivername=driver).update_query_dict({"charset": "utf8mb4"} | tls_options(config, driver))
    if driver == "mysql+mysqlconnector":
        # Without both, the connector picks a collation that MariaDB 11 does not know.
        url = url.update_query_dict({"collation": "utf8mb4_unicode_ci"})
    return url


def _mysql_engine(url: sa.URL, timeout_seconds: int | None) -> sa.Engine:
    options: dict[str, Any] = {"read_timeout": timeout_seconds, "write_timeout": timeout_seconds}
    timeouts: tuple[type[Exception], ...] = ()
    if url.drivername == "mysql+mysqlconnector":
        # The C extension loads or not depending on the OpenSSL beside it: one driver everywhere is worth more.
        options |= {"use_pure": True, "connection_timeout": 5}
        import mysql.connector.errors as connector_errors  # loaded only where MySQL is

        timeouts = (connector_errors.ReadTimeoutError, connector_errors.WriteTimeoutError)
    else:
        options |= {"connect_timeout": 5}
    engine = sa.create_engine(
        url,
        isolation_level="READ COMMITTED",
        pool_size=10,
        max_overflow=5,
        pool_timeout=5,
        pool_recycle=1500,
        pool_pre_ping=True,
        pool_use_lifo=True,
        hide_parameters=True,
        connect_args=options,
    )

    @event.listens_for(engine, "connect")
    def _use_utc(connection: Any, _record: object) -> None:
        with connection.cursor() as cursor:
            if "ssl_ca" in url.query:  # both drivers go on in clear where the server knows no TLS
                cursor.execute("SHOW STATUS LIKE 'Ssl_cipher'")
                if not cursor.fetchone()[1]:
                    raise engine.dialect.loaded_dbapi.OperationalError(
                        "the server speaks no TLS, and DB_SSL_CA wants it verified"
                    )
            cursor.execute("SET time_zone='+00:00'")
            if timeout_seconds:  # a locked server says so before it counts as gone; both are of a session
                cursor.execute(
                    f"SET lock_wait_timeout={LOCK_WAIT_SECONDS}, innodb_lock_wait_timeout={LOCK_WAIT_SECONDS}"
                )

    @event.listens_for(engine, "handle_error")
    def _recognise_disconnect(context: sa.engine.ExceptionContext) -> None:
        # A timed-out read leaves the pure connector with an unread answer, which would fail the next user of the pool.
        cause = context.original_exception
        if isinstance(cause, timeouts) or _number(cause) in GONE | READER:
            context.is_disconnect = True

    return engine


def _use_wal(connection: sqlite3.Connection) -> None:
    """Switch to write-ahead logging. While another process does so, SQLite says "locked" without waiting itself."""
    until = time.monotonic() + SQLITE_WAIT_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError:
            if time.monotonic() >= until:
                raise
            time.sleep(0.01)


def _sqlite_engine(url: sa.URL) -> sa.Engine:
    engine = sa.create_engine(url, hide_parameters=True, pool_size=10, max_overflow=5, pool_timeout=5)

    @event.listens_for(engine, "connect")
    def _set_pragmas(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # the driver's own deferred BEGIN loses updates between processes
        for pragma in (f"busy_timeout={SQLITE_WAIT_SECONDS * 1000}", "synchronous=NORMAL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")
        _use_wal(connection)

    @event.listens_for(engine, "handle_error")
    def _drop_reader(context: sa.engine.ExceptionContext) -> None:
        if getattr(context.original_exception, "sqlite_errorcode", 0) & 0xFF == SQLITE_READER:
            context.is_disconnect = True

    @event.listens_for(engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        reading = connection.get_execution_options().get("reading")
        connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")

    return engine


class Database:
    """One engine and the two ways to use it. Threads share it; each transaction has a connection of its own."""

    def __init__(self, url: sa.URL, timeout_seconds: int | None = STATEMENT_SECONDS) -> None:
        self.kind = "sqlite" if url.drivername.startswith("sqlite") else "mysql"
        self._url = url
        self._engine = _sqlite_engine(url) if self.kind == "sqlite" else _mysql_engine(url, timeout_seconds)
        self.refusal: str | None = None
        """In a word why it takes no writes at present, as far as `replicas.refusals` has found."""
        self.is_shut = False
        """True: every use raises NotAnswering, so that nothing is written before it is known whose database it is."""
        self.counts = Counts()
        """Takes how long transactions took, the wait for a connection included."""

    def another(self, timeout_seconds: int | None = STATEMENT_SECONDS) -> Database:
        """The same database, open, with connections of its own. timeout_seconds: of a statement; None for any time."""
        return Database(self._url, timeout_seconds)

    @contextmanager
    def reading(self, one_moment: bool = False) -> Iterator[Transaction]:
        """A transaction that only reads; on SQLite it waits for no writers. one_moment: all as at its first word."""
        self._check_open()
        options = {"isolation_level": "REPEATABLE READ"} if one_moment and self.kind == "mysql" else {}
        with (
            self._timed("read"),
            self._engine.connect().execution_options(reading=True, **options) as connection,
            connection.begin(),
        ):
            yield connection

    def transact(self, work: Callable[[Transaction], T]) -> T:
        """Run `work` in one transaction and return its result; again, some times, after a conflict with another one.

        work: must have no effect outside the database, because it may run more than once. A conflict may show at the
        commit only, where servers compare what two transactions wrote. A server that takes no writes (any more) loses
        its connection, because the next one may be to another server.
        """
        self._check_open()
        begun = time.monotonic()
        for tried in range(1, TRIES + 1):
            try:
                with self._timed("write"), self._engine.begin() as tx:
                    return work(tx)
            except DBAPIError as error:
                is_over = tried == TRIES or time.monotonic() - begun > TRY_SECONDS
                if is_over or not _may_pass_again(error):
                    raise
                # Two that were in each other's way must not meet again.
                time.sleep(random.uniform(0.5, 1) * 0.02 * tried)  # noqa: S311 - no secret
        raise AssertionError("unreachable")

    @contextmanager
    def _timed(self, use: str) -> Iterator[None]:
        begun = time.monotonic()
        try:
            yield
        finally:
            self.counts.observe(time.monotonic() - begun, "database", use)

    def _check_open(self) -> None:
        if self.is_shut:
            raise NotAnswering("the database has not answered yet")

    def has_table(self, name: str) -> bool:
        """True if the table exists: False before the first migration."""
        with self.reading() as tx:
            return sa.inspect(tx).has_table(name)

    def upgrade(self) -> None:
        """Bring the schema up to date. Of replicas that start together one migrates while the others wait.

        Raises UnknownSchema if the schema is a newer version's, TimeoutError.
        """
        if self.kind == "sqlite":
            self.transact(self._migrate)  # BEGIN IMMEDIATE is the lock, and SQLite's DDL is transactional
            return
        # Without time limit: to wait for the lock, or to change a large table, takes as long as it takes.
        engine = _mysql_engine(self._url, None)
        try:
            with engine.connect() as holder:  # the lock belongs to this connection, the migration to another
                name, seconds = MIGRATION_LOCK, MIGRATION_LOCK_SECONDS
                if holder.scalar(sa.text("SELECT GET_LOCK(:n, :s)"), {"n": name, "s": seconds}) != 1:
                    raise TimeoutError(f"another process has been migrating the database for {seconds} s")
                try:
                    with engine.connect() as connection:
                        self._migrate(connection)
                        connection.commit()
                finally:  # not every server lets go of it with the connection
                    holder.execute(sa.text("SELECT RELEASE_LOCK(:n)"), {"n": name})
        finally:
            engine.dispose()

    def is_current(self) -> bool:
        """True if the schema is this version's, or a newer one's that it can work with (docs/upgrading.md)."""
        if not self.has_table("alembic_version"):
            return False
        with self.reading() as tx:
            found = tx.scalar(sa.text("SELECT version_num FROM alembic_version")) or ""
            if not (found.isdigit() and found > SCHEMA_VERSION):
                return bool(found == SCHEMA_VERSION)
            needed = tx.scalar(sa.text("SELECT value FROM revisions WHERE name = :n"), {"n": OLDEST_VERSION})
        return needed is None or needed <= int(SCHEMA_VERSION)

    def _migrate(self, connection: Transaction) -> None:
        from alembic import command
        from alembic.config import Config as AlembicConfig
        from alembic.util import CommandError

        alembic = AlembicConfig()
        alembic.set_main_option("script_location", str(ROOT / "migrations"))
        alembic.attributes["connection"] = connection
        try:
            command.upgrade(alembic, SCHEMA_VERSION)
        except CommandError as error:
            raise UnknownSchema(f"the database belongs to another version of this program ({error})") from None

    def schema_differences(self) -> list[Any]:
        """What the tables above and the migrated database disagree on; empty when all is well."""
        from alembic.autogenerate import compare_metadata
        from alembic.migration import MigrationContext

        with self._engine.connect() as connection:
            return list(compare_metadata(MigrationContext.configure(connection, opts={"compare_type": True}), metadata))

    def set_clock(self, clock: Clock) -> None:
        """Set a clock by the database's. Raises DatabaseError."""
        with self.reading() as tx:
            set_clock(clock, tx)

    def close(self) -> None:
        """Close all pooled connections."""
        self._engine.dispose()


def is_away(error: DatabaseError) -> bool:
    """True if there was no connection to the database, or it was lost; False for what it refuses."""
    if isinstance(error, NotAnswering):
        return True
    number = _errno(error) if isinstance(error, DBAPIError) else None
    return number in GONE or (number in NO_CONNECTION and number != NO_TLS)


def error_number(error: DatabaseError) -> int | None:
    """The server's number of what it refuses, SQLite's own code; None if it is away, or it was no server's word."""
    if not isinstance(error, DBAPIError) or is_away(error):
        return None
    return getattr(error.orig, "sqlite_errorcode", None) or _errno(error)


def utc_now(tx: Transaction) -> datetime:
    """The database's time, aware, in UTC: one clock for all hosts."""
    if tx.dialect.name == "mysql":
        now: datetime = tx.execute(sa.text("SELECT UTC_TIMESTAMP(6)")).scalar_one()
        return now.replace(tzinfo=UTC)
    return datetime.now(UTC)  # SQLite is this host


def set_clock(clock: Clock, tx: Transaction) -> None:
    """Set the clock by the database's: one for the processes of all hosts."""
    asked_at = clock.monotonic()
    clock.set_by(utc_now(tx), asked_at, clock.monotonic())


def delete_some(tx: Transaction, key: sa.Column[Any], wanted: sa.ColumnElement[bool], most: int) -> None:
    """Delete at most so many of the wanted rows: by their primary key, because DELETE with LIMIT is MySQL's alone."""
    if found := list(tx.scalars(sa.select(key).where(wanted).limit(most))):
        tx.execute(key.table.delete().where(key.in_(found)))


def inserted_id(result: sa.CursorResult[Any]) -> int:
    """The number that the database gave the row just inserted."""
    key = result.inserted_primary_key
    assert key is not None  # noqa: S101 - every insert of one row has one
    return int(key[0])


def _errno(error: DBAPIError) -> int | None:
    return _number(error.orig)


def _number(original: BaseException | None) -> int | None:
    # Exception classes differ by driver for one and the same server error; numbers do not.
    number = getattr(original, "errno", None) or (original.args[0] if original and original.args else None)
    return number if isinstance(number, int) else None


def _may_pass_again(error: DBAPIError) -> bool:
    if getattr(error.orig, "sqlstate", None) == SERIALIZATION_FAILURE:
        return True
    return _errno(error) in CONFLICTS | READER
