"""A private MariaDB server on a free port, started and stopped by the suite."""

from __future__ import annotations

import shutil
import signal
import subprocess
from pathlib import Path

import pymysql
from pymysql.constants.CLIENT import MULTI_STATEMENTS

from config.settings import Config
from db import Database, database_url
from tests.support.gateway import free_port, wait_for


class DatabaseServer:
    """One server process with its data in a folder. more_options: what to start it with besides."""

    account = "root"  # and password, as in a URL: how gateways log in
    # Tests make tables by the thousand.
    own_options = ("--innodb-log-file-size=16M", "--innodb-file-per-table=0", "--loose-sync-frm=0")

    def __init__(self, folder: Path, *more_options: str) -> None:
        self.folder = folder
        self.port = free_port()
        self._made = 0
        self._schema = ""
        data, temporary = folder / "data", folder / "tmp"
        # Of its own: a server that starts deletes what others have in a shared one.
        temporary.mkdir(parents=True, exist_ok=True)
        options = ["--no-defaults", f"--datadir={data}", f"--tmpdir={temporary}", "--user=root"]
        self._command = [
            *self._install(options),
            *options,
            f"--port={self.port}",
            "--bind-address=127.0.0.1",
            f"--socket={folder}/s",
            f"--pid-file={folder}/pid",
            "--innodb-flush-log-at-trx-commit=0",
            "--innodb-buffer-pool-size=64M",
            "--performance-schema=OFF",
            # A server that is killed loses nothing by this, a machine would.
            "--innodb-flush-method=nosync",
            "--skip-log-bin",
            # The defaults that installations in the wild still have: what we store must not depend on them.
            "--character-set-server=latin1",
            "--collation-server=latin1_swedish_ci",
            *self.own_options,
            *more_options,
        ]
        self.start()

    def _install(self, options: list[str]) -> list[str]:
        """Make the data folder; returns the words with which the server is started."""
        install = ["mariadb-install-db", *options, "--auth-root-authentication-method=normal", "--skip-test-db"]
        installed = subprocess.run(install, check=False, capture_output=True, text=True)
        assert installed.returncode == 0, installed.stdout + installed.stderr
        return [shutil.which("mariadbd") or "/usr/sbin/mariadbd"]

    def start(self) -> None:
        """Start the server and wait until it answers."""
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(self._command, stdout=log, stderr=log)
        wait_for(self._answers)

    def _answers(self) -> bool:
        assert self.process.poll() is None, (self.folder / "log").read_text()
        try:
            self.execute("SELECT 1")
        except pymysql.OperationalError:
            return False
        return True

    def execute(self, statement: str, database: str | None = None, *more: str) -> tuple[tuple[object, ...], ...]:
        """Run one statement, and more after it, as root; returns the last one's rows."""
        # Without TLS, for which 40 ms of a core would go into certificates.
        with (
            pymysql.connect(
                host="127.0.0.1",
                port=self.port,
                user="root",
                database=database,
                autocommit=True,
                ssl_disabled=True,
                client_flag=MULTI_STATEMENTS,
            ) as connection,
            connection.cursor() as cursor,
        ):
            cursor.execute(";".join((statement, *more)))
            while cursor.nextset():
                pass
            return tuple(cursor.fetchall())

    def new_database(self) -> str:
        """Make a database as migrations make it, and return its URL."""
        url = self.empty_database()
        self.fill(url)
        return url

    def empty_database(self) -> str:
        """Make an empty database and return its URL."""
        self._made += 1
        self.execute(f"CREATE DATABASE test_{self._made}")
        return f"mysql://{self.account}@127.0.0.1:{self.port}/test_{self._made}"

    def fill(self, url: str) -> None:
        """Give an empty database what migrations would make of it, in a part of their time."""
        if not self._schema:
            template = self.empty_database()
            database = Database(database_url(Config(database_url=template)))
            database.upgrade()
            database.close()
            name = template.rpartition("/")[2]
            tables = [str(row[0]) for row in self.execute("SHOW TABLES", name)]
            filled = [table for table in tables if self.execute(f"SELECT EXISTS (SELECT * FROM {table})", name)[0][0]]
            steps = ["SET foreign_key_checks = 0"]
            steps += [str(self.execute(f"SHOW CREATE TABLE {table}", name)[0][1]) for table in tables]
            self._schema = ";".join(
                [*steps, *(f"INSERT INTO {table} SELECT * FROM {name}.{table}" for table in filled)]
            )
        self.execute(self._schema, url.rpartition("/")[2])

    def stop(self, number: int = signal.SIGTERM) -> None:
        """End the server; its data stay."""
        self.process.send_signal(number)
        self.process.wait(60)
