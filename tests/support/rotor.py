"""A rotation over a database of its own and an account at the stand-in, for the tests of rotations."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from api_key_manager import ApiKeyManager
from config.settings import Config
from db import Database, database_url
from foundation.crypto import Envelopes, sha256_hex
from key_rotation import KeyRotation
from pool.keys import PoolKeys
from pool.life import PoolKeyRow, PoolKeyState
from pool.rotation_plan import Step, Timing, plan
from tests.sandbox.conftest import Running
from tests.support.movable_clock import MovableClock
from upstream.openrouter.management_api import ManagementApi

DEPLOYMENT = "11111111-2222-3333-4444-555555555555"
PREFIX = f"gw/{DEPLOYMENT}/"
AT_ONCE = Timing(confirm_pauses_seconds=(0, 0))


class Account:
    """An account at the stand-in, as its owner sees it."""

    def __init__(self, stand_in: Running) -> None:
        self.stand_in = stand_in
        made = stand_in.new_account()
        self.id, self.management_key = made["id"], made["management_key"]

    def manage(self, method: str, path: str, **more: Any) -> Any:
        return self.stand_in.call(method, path, self.management_key, **more).json()

    def listed(self) -> dict[str, dict[str, Any]]:
        """All keys by name."""
        found: dict[str, dict[str, Any]] = {}
        everything = "/keys?include_disabled=true&include_expired=true"
        while page := self.manage("GET", f"{everything}&offset={len(found)}")["data"]:
            found |= {key["name"]: key for key in page}
        return found

    def make(self, name: str) -> Any:
        """A key that no rotation has minted: its text and its hash."""
        return self.manage("POST", "/keys", json={"name": name})

    def fail(self, scenario: str, path: str = "/keys", method: str = "POST", **more: Any) -> None:
        """Make a call fail, once unless told otherwise."""
        rule = {"scenario": scenario, "path": path, "method": method, "account": self.id, "times": 1}
        self.stand_in.control("POST", "faults", **rule | more)

    def calls(self, method: str, path: str) -> int:
        """How many such requests this account's management key has made."""
        log = self.stand_in.control("GET", "log")["requests"]
        mine = [entry for entry in log if entry["key_hash"] == sha256_hex(self.management_key)]
        return sum(entry["method"] == method and entry["path"].startswith(f"/api/v1{path}") for entry in mine)


class Rotor:
    """A rotation over a database of its own, with a clock to set forward."""

    def __init__(self, db: Database, envelopes: Envelopes, account: Account, **settings: Any) -> None:
        self.db, self.envelopes, self.account, self.clock = db, envelopes, account, MovableClock()
        self.clock.time = datetime.now(UTC)  # expiries are in the future for the stand-in too
        self.settings = Config(**{"deployment_id": DEPLOYMENT, "pool_size": 3} | settings)
        self.keys = PoolKeys(db, envelopes, self.clock)
        self.api = ManagementApi(account.stand_in.address, account.management_key)
        self.timing = Timing()
        self.fewest: int | None = None  # usable keys between any two steps

    def rotation(self) -> KeyRotation:
        """What a process of its own would have."""
        parts = self.db, self.envelopes, self.api, self.settings, self.clock
        return KeyRotation(*parts, timing=self.timing, progress=self._sampled)

    def _sampled(self, steps: Sequence[Step]) -> Iterable[Step]:
        for step in steps:
            yield step
            if self.fewest is not None:
                self.fewest = min(self.fewest, self.usable())

    def run(self) -> bool:
        return self.rotation().run_once()

    def steps(self) -> list[Step]:
        return plan(self.rotation().situation())

    def settle(self, **delta: float) -> None:
        """Let time pass, then run passes until nothing is left to do."""
        self.clock.advance(**delta)
        for _ in range(5):
            self.run()
            if not self.steps():
                return
        raise AssertionError(self.steps())

    def usable(self) -> int:
        pool = ApiKeyManager(self.keys, self.clock)
        pool.reload()
        return pool.usable_count()

    def states(self) -> dict[str, int]:
        return dict(Counter(row.state.value for row in self.keys.rows()))

    def names(self, state: PoolKeyState) -> set[str]:
        return {row.name for row in self.keys.rows() if row.state is state}

    def row(self, name: str) -> PoolKeyRow:
        return next(row for row in self.keys.rows() if row.name == name)

    def stored(self, **lifetime: float) -> tuple[str, str]:
        """What a crash after the text was stored leaves behind: the key's name and text."""
        expires_at = self.clock.now() + timedelta(**lifetime or {"hours": 72})
        name = PREFIX + "a" * 32
        row_id = self.keys.intend(name, expires_at, 10 * 10**9, None)
        text = self.api.create(name, 10, "daily", expires_at)
        self.keys.store(row_id, text)
        return name, text


@pytest.fixture
def account(stand_in: Running) -> Iterator[Account]:
    yield Account(stand_in)
    stand_in.control("DELETE", "faults")


@pytest.fixture
def rotor(db: Database, envelopes: Envelopes, account: Account) -> Rotor:
    return Rotor(db, envelopes, account)


@pytest.fixture
def new_rotor(
    tmp_path: Path, envelopes: Envelopes, account: Account, migrated_file: Path
) -> Iterator[Callable[..., Rotor]]:
    """A rotation with other settings, on SQLite; all share one database."""
    file = shutil.copy(migrated_file, tmp_path / "rotor.db")
    db = Database(database_url(Config(database_url=f"sqlite:///{file}")))
    yield lambda **settings: Rotor(db, envelopes, account, **settings)
    db.close()


@pytest.fixture
def one(new_rotor: Callable[..., Rotor]) -> Rotor:
    """A rotation on SQLite, for what the kind of database does not change."""
    return new_rotor()


def events(caplog: pytest.LogCaptureFixture) -> Counter[str]:
    return Counter(record.getMessage() for record in caplog.records if record.name == "rotation")


def unknown(account: Account, count: int) -> dict[str, str]:
    """Keys with our name, as a database that was set back would find them: their hashes by name."""
    names = [PREFIX + f"{number:032x}" for number in range(count)]
    return {name: account.make(name)["data"]["hash"] for name in names}
