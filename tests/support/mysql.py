"""A private MySQL server, real and not MariaDB, for tests marked `mysql`; `tests/install-mysql` unpacks it."""

from __future__ import annotations

import shutil

from tests.support.gateway import ROOT
from tests.support.mariadb import DatabaseServer

UNPACKED = ROOT / ".cache" / "mysql"
PASSWORD = "correct-horse-battery-staple"


class MySqlServer(DatabaseServer):
    """One server process, with a copy of the empty data folder that was made when it was unpacked.

    Gateways log in by `caching_sha2_password`, MySQL's default, which sends a password only through TLS.
    """

    account = f"gateway:{PASSWORD}"
    own_options = ("--innodb-redo-log-capacity=32M", "--mysqlx=OFF", "--explain-format=TRADITIONAL")

    def _install(self, options: list[str]) -> list[str]:
        shutil.copytree(UNPACKED / "data", self.folder / "data")
        return [str(UNPACKED / "mysqld")]

    def start(self) -> None:
        super().start()
        self.execute(
            f"CREATE USER IF NOT EXISTS gateway IDENTIFIED BY '{PASSWORD}'", None, "GRANT ALL ON *.* TO gateway"
        )
