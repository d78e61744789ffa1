"""The databases of the soak, and what can be done to each: stopped, made read-only, locked."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path

import pymysql

from tests.support.mariadb import DatabaseServer
from tests.support.mysql import MySqlServer

LOG_IN = "soak", "correct-horse-battery-staple"


class Sqlite:
    """A file that both replicas open. It can be locked; there is no server to stop, and root writes to what is read-only.

    Its time is that of the one host, on which a day too much puts off what is to be asked tomorrow.
    """

    missing: tuple[str, ...] = ("database stopped", "database read-only", "clock 26 h ahead")

    def __init__(self, folder: Path) -> None:
        self._file = folder / "soak.db"
        self.urls = [f"sqlite:///{self._file}"] * 2

    stopped = read_only = staticmethod(nullcontext)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Another program writes and does not finish."""
        with closing(sqlite3.connect(self._file, isolation_level=None)) as connection:
            connection.execute("BEGIN EXCLUSIVE")
            yield
            connection.execute("ROLLBACK")

    def close(self) -> None:
        pass


class Server:
    """A server, on which the replicas' account can do nothing but use its database."""

    missing: tuple[str, ...] = ()
    kind = DatabaseServer

    def __init__(self, folder: Path) -> None:
        self.server = self.kind(folder / "server")
        self._make_database(self.server)
        self.urls = [self.url_at(self.server)] * 2

    @staticmethod
    def _make_database(server: DatabaseServer) -> None:
        account = "CREATE USER '{}'@'%' IDENTIFIED BY '{}'".format(*LOG_IN)
        server.execute("CREATE DATABASE soak", None, account, f"GRANT ALL ON soak.* TO '{LOG_IN[0]}'@'%'")

    @staticmethod
    def url_at(server: DatabaseServer) -> str:
        return "mysql://{}:{}@127.0.0.1:{}/soak".format(*LOG_IN, server.port)

    @contextmanager
    def stopped(self) -> Iterator[None]:
        self.server.stop()
        yield
        self.server.start()

    @contextmanager
    def read_only(self) -> Iterator[None]:
        self.server.execute("SET GLOBAL read_only = 1")
        yield
        self.server.execute("SET GLOBAL read_only = 0")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Another connection holds a lock that no writer gets past."""
        with closing(pymysql.connect(host="127.0.0.1", port=self.server.port, user="root")) as connection:
            connection.cursor().execute("FLUSH TABLES WITH READ LOCK")
            yield
            connection.cursor().execute("UNLOCK TABLES")

    def close(self) -> None:
        self.server.stop()


class MySql(Server):
    """A real MySQL."""

    kind = MySqlServer
