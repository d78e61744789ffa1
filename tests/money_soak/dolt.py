"""Dolt: it speaks MySQL's language and locks nothing, but refuses to commit what conflicts, as distributed ones do."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.money_soak.engines import Server
from tests.support.gateway import free_port
from tests.support.mariadb import DatabaseServer


class DoltServer(DatabaseServer):
    """One server process with its data in a folder; `dolt` must be on the PATH."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        (folder / "data").mkdir(parents=True)
        listener = f"listener: {{host: 127.0.0.1, port: {self.port}, max_connections: 200}}"
        (folder / "config.yaml").write_text(f"log_level: error\n{listener}\ndata_dir: {folder}/data\n")
        program = shutil.which("dolt") or "dolt"
        # Its own settings are at home, where it wants to know who commits.
        self._command = ["env", f"HOME={folder}", program, "sql-server", f"--config={folder}/config.yaml"]
        self.start()


class Dolt(Server):
    """Without accounts, and without what would make it read-only."""

    missing = ("database read-only", "database locked")
    kind = DoltServer

    @staticmethod
    def _make_database(server: DatabaseServer) -> None:
        server.execute("CREATE DATABASE soak")

    @staticmethod
    def url_at(server: DatabaseServer) -> str:
        return f"mysql://root@127.0.0.1:{server.port}/soak"
