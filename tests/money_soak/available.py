"""The engines of the soak by name, and which of them can be had on this machine."""

from __future__ import annotations

import shutil

from tests.money_soak import galera
from tests.money_soak.dolt import Dolt
from tests.money_soak.engines import MySql, Server, Sqlite
from tests.support.mysql import UNPACKED

ENGINES: dict[str, type[Sqlite | Server]] = {
    "sqlite": Sqlite,
    "mariadb": Server,
    "mysql": MySql,
    "galera": galera.Galera,
    "dolt": Dolt,
}


def why_not(name: str) -> str:
    """Why an engine can't be had here, in a few words; empty if it can."""
    if name in {"mariadb", "galera"} and not shutil.which("mariadb-install-db"):
        return "there is no MariaDB server"
    if name == "galera" and not (galera.library() and shutil.which("rsync")):
        return "there is no Galera library, or no rsync"
    if name == "mysql" and not UNPACKED.exists():
        return "tests/install-mysql has not unpacked a MySQL server"
    if name == "dolt" and not shutil.which("dolt"):
        return "there is no dolt on the PATH"
    return ""
