"""The database that pages are measured on: a generated ledger, the users and keys that it names, and an audit log."""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from bench.ledger_rows import BIG_USER, SMALL_USER, Filling
from bench.processes import Cores
from bench.set_up import Bench, ask
from tests.support.mariadb import DatabaseServer

USERS = 998  # that the ledger knows
AUDIT_ENTRIES = 100 * USERS
MARIADB_OPTIONS = ("--innodb-log-file-size=512M", "--default-time-zone=+00:00")
NAME = "test_1"  # DatabaseServer's name for its first database

# Those whose pages are measured have registered; nobody logs in as one of the others.
PEOPLE = (
    "INSERT IGNORE INTO users (id, username_hash, key_hash, state, created_at, updated_at) "
    f"SELECT seq, SHA2(seq, 256), 'none', 'active', UTC_TIMESTAMP(6), UTC_TIMESTAMP(6) FROM seq_1_to_{USERS}",
    f"UPDATE users SET role = 'admin' WHERE id = {BIG_USER}",
    "INSERT INTO client_keys (id, user_id, key_hash, key_hint, name, description, created_at, updated_at, revision) "
    "SELECT seq, 1 + (seq - 1) DIV 2, SHA2(CONCAT('key', seq), 256), 'sk-gw...0000', CONCAT('program ', seq), '', "
    f"UTC_TIMESTAMP(6), UTC_TIMESTAMP(6), 0 FROM seq_1_to_{2 * USERS}",
    # The ledger's pool has five new keys every day; all but the newest are gone.
    "INSERT IGNORE INTO api_keys (id, name, state, source, enabled, created_at, updated_at, use_count) "
    "SELECT DISTINCT pool_key_id, CONCAT('minted/', pool_key_id), 'deleted', 'minted', 0, UTC_TIMESTAMP(6), "
    "UTC_TIMESTAMP(6), 0 FROM usage_rollups WHERE period = 'd' AND user_id = 0",
    "INSERT INTO audit_log (at, actor, action, subject, user_id, address, request_id, details) "
    f"SELECT UTC_TIMESTAMP(6) - INTERVAL {AUDIT_ENTRIES} - seq MINUTE, CONCAT('user/', 1 + seq % {USERS}), "
    "ELT(1 + seq % 4, 'logged_in', 'page_session_begun', 'client_key_changed', 'profile_changed'), "
    f"CONCAT('session/', MD5(seq)), 1 + seq % {USERS}, '192.0.2.1', MD5(-seq), '{{}}' FROM seq_1_to_{AUDIT_ENTRIES}",
    "ANALYZE TABLE usage_ledger, usage_rollups, users, client_keys, api_keys, audit_log",
)


class World:
    """A MariaDB in a folder, and all that a gateway needs to go on with what is in it.

    accounts: of the users BIG_USER, who is an admin, and SMALL_USER, to log in with.
    """

    def __init__(self, folder: Path, cores: Cores, buffer_pool: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._notes = folder / "world.json"
        self.server = DatabaseServer(folder / "mariadb", *MARIADB_OPTIONS, f"--innodb-buffer-pool-size={buffer_pool}")
        password = secrets.token_hex(16)  # in production there is one
        self.server.execute(
            f"CREATE OR REPLACE USER bench@'127.0.0.1' IDENTIFIED BY '{password}'",
            None,
            "GRANT ALL ON *.* TO bench@'127.0.0.1'",
        )
        self.url = f"mysql://bench:{password}@127.0.0.1:{self.server.port}/{NAME}"
        self.rows = 0
        self.accounts: dict[int, dict[str, str]] = {}
        self.bench = Bench(cores, folder, server_threads=32)
        # The measure comes from one address and asks much more than a person does.
        self.bench.settings = {"DATABASE_URL": self.url, "ADMIN_RATE_LIMIT_PER_MINUTE": 0}
        if self._notes.exists():
            self._recall()

    def execute(self, statement: str, *more: str) -> tuple[tuple[Any, ...], ...]:
        """Run statements; returns the last one's rows."""
        return self.server.execute(statement, NAME, *more)

    def fill(self, rows: int, tell: Callable[[str], None]) -> None:
        """Fill the database, whose first gateway this starts. The stand-in has to run."""
        self.server.execute(f"DROP DATABASE IF EXISTS {NAME}")  # of a run that was interrupted
        self.server.new_database()
        program, port, _seconds = self.bench.start_gateway("granian")
        try:
            for user_id in (BIG_USER, SMALL_USER):
                self.execute(f"ALTER TABLE users AUTO_INCREMENT = {user_id}")
                key = base64.urlsafe_b64encode(secrets.token_bytes(48)).decode()
                self.accounts[user_id] = {"username": f"{secrets.token_hex(8)}@bench.test", "derived_key": key}
                ask(port, "/register", self.accounts[user_id], expect=201)
        finally:
            program.stop()
        tomorrow = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
        Filling("mysql", rows, tomorrow).fill(self.execute, tell)
        for statement in PEOPLE:
            self.execute(statement)
        self.rows = rows
        self._note()

    def close(self) -> None:
        """End the MariaDB, however it is."""
        with suppress(ProcessLookupError):
            self.server.stop()

    def _note(self) -> None:
        bench = self.bench
        secret = {"secret_key": bench.secret_key, "encryption_key": bench.encryption_key, "pool_keys": bench.pool_keys}
        self._notes.write_text(json.dumps(secret | {"rows": self.rows, "accounts": self.accounts}))

    def _recall(self) -> None:
        noted = json.loads(self._notes.read_text())
        self.rows = noted["rows"]
        self.accounts = {int(user_id): account for user_id, account in noted["accounts"].items()}
        for name in ("secret_key", "encryption_key", "pool_keys"):
            setattr(self.bench, name, noted[name])
