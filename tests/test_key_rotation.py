"""The rotation, against the stand-in: the pool is full and fresh, and no crash or lost answer leaves a key behind."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

import sealed_secrets
from config import Config
from crypto import Envelopes, sha256_hex
from db import Database, api_keys, database_url
from key_rotation import KeyRotation
from management_api import ManagementApi, ManagementError
from pool_keys import KeySource, KeyState, PoolKeys
from tests.conftest import ENCRYPTION_KEY, MovableClock
from tests.gateway import ROOT, environment, run, wait_for
from tests.sandbox.conftest import Running

DEPLOYMENT = "11111111-2222-3333-4444-555555555555"
PREFIX = f"gw/{DEPLOYMENT}/"


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
        while page := self.manage("GET", f"/keys?include_disabled=true&include_expired=true&offset={len(found)}")[
            "data"
        ]:
            found |= {key["name"]: key for key in page}
        return found

    def fail(self, scenario: str, path: str = "/keys", method: str = "POST", **more: Any) -> None:
        """Make a management call fail, once unless told otherwise."""
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
        self.db, self.account, self.clock = db, account, MovableClock()
        self.clock.time = datetime.now(UTC)  # expiries are in the future for the stand-in too
        self.settings = Config(deployment_id=DEPLOYMENT, **{"pool_size": 3} | settings)
        self.pool = PoolKeys(db, envelopes, self.clock)
        self.api = ManagementApi(account.stand_in.address, account.management_key)
        self.rotation = KeyRotation(db, envelopes, self.api, self.settings, self.clock)

    def run(self) -> bool:
        return self.rotation.run_once()

    def states(self) -> dict[str, int]:
        return dict(Counter(row.state.value for row in self.pool.rows()))

    def names(self, state: KeyState) -> set[str]:
        return {row.name for row in self.pool.rows() if row.state is state}


@pytest.fixture
def account(stand_in: Running) -> Iterator[Account]:
    yield Account(stand_in)
    stand_in.control("DELETE", "faults")


@pytest.fixture
def rotor(db: Database, envelopes: Envelopes, account: Account) -> Rotor:
    return Rotor(db, envelopes, account)


@pytest.fixture
def new_rotor(tmp_path: Path, envelopes: Envelopes, account: Account) -> Iterator[Callable[..., Rotor]]:
    """A rotation with other settings, on SQLite."""
    db = Database(database_url(Config(database_url=f"sqlite:///{tmp_path}/rotor.db")))
    db.upgrade()
    yield lambda **settings: Rotor(db, envelopes, account, **settings)
    db.close()


# ── minting


def test_an_empty_pool_is_filled_with_named_limited_expiring_keys(rotor, account):
    assert rotor.run()
    assert rotor.states() == {"active": 3}
    remote = account.listed()
    assert set(remote) == rotor.names(KeyState.ACTIVE)
    for row in rotor.pool.rows():
        key = remote[row.name]
        assert row.name.startswith(PREFIX)
        assert len(row.name) == len(PREFIX) + 32
        assert (row.source, row.api_key_hash) == (KeySource.MINTED, key["hash"])
        assert (key["limit"], key["limit_reset"], key["disabled"]) == (10, "daily", False)
        expires_at = datetime.fromisoformat(key["expires_at"])
        assert abs(expires_at - row.expires_at) < timedelta(seconds=1)
        assert abs(expires_at - rotor.clock.now() - timedelta(hours=72)) < timedelta(seconds=1)


def test_the_minted_keys_work_and_are_picked(rotor, account):
    rotor.run()
    rotor.pool.reload()
    text = rotor.pool.pick().authorization.decode().split()[2]
    assert account.stand_in.chat(text).status_code == 200
    assert rotor.pool.usable_count() == 3


def test_limit_reset_and_lifetime_are_settings(new_rotor, account):
    new_rotor(key_limit_usd=None, key_limit_reset="none", pool_size=1, key_lifetime_hours=25).run()
    [key] = account.listed().values()
    assert (key["limit"], key["limit_reset"]) == (None, None)
    left = datetime.fromisoformat(key["expires_at"]) - datetime.now(UTC)
    assert timedelta(hours=24.9) < left < timedelta(hours=25.1)


def test_a_second_pass_mints_nothing_and_asks_openrouter_nothing(rotor, account):
    rotor.run()
    before = account.listed()
    account.stand_in.control("DELETE", "log")
    assert rotor.run()
    assert account.calls("POST", "/keys") == account.calls("GET", "/keys") == account.calls("DELETE", "/keys") == 0
    assert account.listed() == before


def test_keys_that_people_brought_count_and_are_never_renewed(rotor, account):
    rotor.pool.add("sk-or-v1-" + "a" * 64, "mine", KeySource.OPERATOR)
    rotor.pool.add("sk-or-v1-" + "b" * 64, "env/1", KeySource.ENVIRONMENT)
    assert rotor.run()
    assert len(account.listed()) == 1
    rotor.clock.advance(days=30)
    rotor.run()
    rotor.clock.advance(days=30)
    rotor.run()
    assert {"mine", "env/1"} <= rotor.names(KeyState.ACTIVE)


def test_a_disabled_key_is_replaced_and_left_alone(rotor, account):
    rotor.run()
    disabled = rotor.pool.rows()[0]
    rotor.pool.set_enabled(disabled.name, False)
    assert rotor.run()
    assert rotor.states() == {"active": 4}
    rotor.clock.advance(hours=30)
    rotor.run()
    assert disabled.name in rotor.names(KeyState.ACTIVE)
    assert disabled.name in account.listed()


# ── what fails


@pytest.mark.parametrize("scenario", ["302", "500", "502-html", "429c", "402d", "401b", "403g", "drop"])
def test_a_failed_create_ends_the_pass_and_the_next_one_fills_the_pool(rotor, account, scenario):
    account.fail(scenario)
    with pytest.raises(ManagementError) as raised:
        rotor.run()
    assert account.management_key not in str(raised.value)
    assert rotor.states() == {"intent": 1}
    assert rotor.run()
    assert rotor.states() == {"intent": 1, "active": 3}


def test_a_pass_that_fails_halfway_keeps_what_it_has_done(rotor, account):
    account.fail("stream", times=2)  # the first two get what they ask for
    account.fail("500")
    with pytest.raises(ManagementError, match="status 500"):
        rotor.run()
    assert rotor.states() == {"active": 2, "intent": 1}
    assert len(account.listed()) == 2
    rotor.run()
    assert len(rotor.names(KeyState.ACTIVE)) == 3


def test_a_key_whose_create_answer_was_lost_is_deleted_after_five_minutes(rotor, account):
    """OpenRouter made the key, and nobody has its text."""
    account.fail("drop", after=True)
    with pytest.raises(ManagementError, match="no answer"):
        rotor.run()
    [orphan] = account.listed()
    assert {orphan} == rotor.names(KeyState.INTENT)
    assert rotor.run()
    rotor.clock.advance(minutes=4, seconds=59)
    assert rotor.run()
    assert orphan in account.listed()
    rotor.clock.advance(seconds=2)
    assert rotor.run()
    assert orphan not in account.listed()
    assert rotor.names(KeyState.ABANDONED) == {orphan}
    assert set(account.listed()) == rotor.names(KeyState.ACTIVE)


def test_an_orphan_is_found_among_hundreds_of_keys_and_no_foreign_key_is_touched(rotor, account):
    account.fail("drop", after=True)
    with pytest.raises(ManagementError):
        rotor.run()
    [orphan] = account.listed()
    foreign = [f"foreign {number}" for number in range(205)]  # newer ones stand before it: it is on the third page
    foreign += ["gw/another-deployment/" + "0" * 32, PREFIX + "f" * 32]
    for name in foreign:
        account.manage("POST", "/keys", json={"name": name})
    rotor.clock.advance(minutes=6)
    assert rotor.run()
    assert set(account.listed()) == set(foreign) | rotor.names(KeyState.ACTIVE)
    assert rotor.names(KeyState.ABANDONED) == {orphan}


def test_an_intent_that_openrouter_never_saw_is_given_up(rotor, account):
    account.fail("500")
    with pytest.raises(ManagementError):
        rotor.run()
    rotor.clock.advance(minutes=6)
    assert rotor.run()
    assert rotor.states() == {"abandoned": 1, "active": 3}
    assert account.calls("DELETE", "/keys") == 0


@pytest.mark.parametrize("scenario", ["500", "429c", "drop"])
def test_a_list_that_fails_deletes_and_abandons_nothing(rotor, account, scenario):
    account.fail("drop", after=True)
    with pytest.raises(ManagementError):
        rotor.run()
    for number in range(101):
        account.manage("POST", "/keys", json={"name": f"foreign {number}"})
    before = account.listed()
    rotor.clock.advance(minutes=6)
    account.fail("stream", method="GET")  # the first page comes
    account.fail(scenario, method="GET")
    with pytest.raises(ManagementError):
        rotor.run()
    assert before.keys() <= account.listed().keys()
    assert rotor.names(KeyState.ABANDONED) == set()
    assert len(rotor.names(KeyState.ACTIVE)) == 3  # an old intent that can't be settled keeps nothing from being minted
    assert rotor.run()
    assert len(rotor.names(KeyState.ABANDONED)) == 1


def test_a_key_that_was_stored_but_never_used_is_completed(rotor, account):
    """A crash after the text was stored."""
    expires_at = rotor.clock.now() + timedelta(hours=72)
    name = PREFIX + "a" * 32
    row_id = rotor.pool.intend(name, expires_at)
    rotor.pool.store(row_id, rotor.api.create(name, 10, "daily", expires_at))
    assert rotor.run()
    assert name in rotor.names(KeyState.ACTIVE)
    assert len(account.listed()) == 3


def test_a_stored_key_that_openrouter_refuses_is_given_up_and_replaced(rotor, account):
    """It may have expired while the service was down; it must not stop the rotation for ever."""
    expires_at = rotor.clock.now() + timedelta(hours=72)
    name = PREFIX + "a" * 32
    row_id = rotor.pool.intend(name, expires_at)
    text = rotor.api.create(name, 10, "daily", expires_at)
    rotor.pool.store(row_id, text)
    account.manage("DELETE", f"/keys/{sha256_hex(text)}")
    assert rotor.run()
    assert rotor.states() == {"stored": 1, "active": 3}
    rotor.clock.advance(minutes=6)
    assert rotor.run()
    assert rotor.states() == {"abandoned": 1, "active": 3}


def test_a_new_key_that_openrouter_does_not_know_yet_is_asked_about_again(rotor, account):
    account.stand_in.control("POST", "faults", scenario="401b", path="/key", method="GET", times=2)
    assert rotor.run()
    assert rotor.states() == {"active": 3}


def test_a_new_key_that_openrouter_goes_on_refusing_waits_and_no_other_is_tried(rotor, account, monkeypatch):
    monkeypatch.setattr("key_rotation.CONFIRM_PAUSES_SECONDS", (0, 0))
    account.stand_in.control("POST", "faults", scenario="401b", path="/key", method="GET", times=2)
    with pytest.raises(ManagementError, match="key just minted"):
        rotor.run()
    assert rotor.states() == {"stored": 1}
    assert rotor.run()
    assert rotor.states() == {"active": 3}


def test_a_new_key_that_cannot_be_checked_now_is_checked_in_the_next_pass(rotor, account):
    account.stand_in.control("POST", "faults", scenario="500", path="/key", method="GET", times=1)
    with pytest.raises(ManagementError, match="status 500"):
        rotor.run()
    assert rotor.states() == {"stored": 1}
    assert rotor.run()
    assert rotor.states() == {"active": 3}
    assert len(account.listed()) == 3


def test_a_damaged_stored_key_is_left_alone_and_does_not_stop_the_rotation(rotor, caplog):
    row_id = rotor.pool.intend(PREFIX + "a" * 32, rotor.clock.now() + timedelta(hours=72))
    rotor.pool.store(row_id, "sk-or-v1-" + "a" * 64)
    damage = api_keys.update().values(api_key="gAAAAdamaged")
    rotor.db.transact(lambda tx: tx.execute(damage))
    assert rotor.run()
    assert rotor.states() == {"stored": 1, "active": 3}
    assert "key_unreadable" in [record.getMessage() for record in caplog.records]


class Odd(ManagementApi):
    """An API whose answers are valid JSON, and not what was expected."""

    def __init__(self, answer: dict[str, Any]) -> None:
        super().__init__("https://127.0.0.1:1", "x")
        self.answer = answer

    def _call(self, *_: object, **__: object) -> dict[str, Any]:
        return self.answer


TEXT = "sk-or-v1-" + "a" * 64


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"key": None},
        {"key": 7, "data": {"hash": "x"}},
        {"key": "hunter2", "data": {"hash": sha256_hex("hunter2")}},
        {"key": TEXT + "\r\nX-Evil: 1", "data": {"hash": sha256_hex(TEXT + "\r\nX-Evil: 1")}},
        {"key": TEXT},
        {"key": TEXT, "data": []},
        {"key": TEXT, "data": {"hash": "0" * 64}},
        {"key": TEXT, "data": {"hash": sha256_hex(TEXT).upper()}},
    ],
    ids=str,
)
def test_a_created_key_that_is_none_or_not_under_its_hash_is_refused(answer):
    with pytest.raises(ManagementError) as raised:
        Odd(answer).create("name", 1, None, datetime.now(UTC))
    assert TEXT not in str(raised.value)
    assert "hunter2" not in str(raised.value)


def test_a_created_key_under_its_hash_is_accepted():
    assert Odd({"key": TEXT, "data": {"hash": sha256_hex(TEXT)}}).create("n", 1, None, datetime.now(UTC)) == TEXT


@pytest.mark.parametrize("data", ["keys", 7, [1], [{"name": "x"}], [{"hash": "x"}], {"a": 1}, [None], True], ids=str)
def test_a_list_that_is_none_is_refused(data):
    with pytest.raises(ManagementError, match="no list of keys"):
        Odd({"data": data}).hashes_by_name()


@pytest.mark.parametrize("answer", [{}, {"data": []}, {"data": None}], ids=str)
def test_an_empty_list_has_no_keys(answer):
    assert Odd(answer).hashes_by_name() == {}


# ── renewal


def test_due_keys_are_replaced_first_then_drained_then_deleted(rotor, account):
    rotor.run()
    first = rotor.names(KeyState.ACTIVE)
    rotor.clock.advance(hours=23, minutes=59)
    rotor.run()
    assert rotor.states() == {"active": 3}
    rotor.clock.advance(minutes=2)
    assert rotor.run()
    assert rotor.states() == {"active": 3, "draining": 3}
    assert rotor.names(KeyState.DRAINING) == first
    assert first <= set(account.listed())
    rotor.pool.reload()
    assert rotor.pool.usable_count() == 3
    rotor.clock.advance(hours=1, minutes=59)
    rotor.run()
    assert first <= set(account.listed())
    rotor.clock.advance(minutes=2)
    assert rotor.run()
    assert rotor.names(KeyState.DELETED) == first
    assert set(account.listed()) == rotor.names(KeyState.ACTIVE)
    assert rotor.states() == {"active": 3, "deleted": 3}


def test_no_key_is_drained_while_its_successor_cannot_be_minted(rotor, account):
    rotor.run()
    rotor.clock.advance(hours=25)
    account.fail("500", times=None)
    for _ in range(3):
        with pytest.raises(ManagementError):
            rotor.run()
    assert rotor.states()["active"] == 3
    assert "draining" not in rotor.states()
    rotor.pool.reload()
    assert rotor.pool.usable_count() == 3


@pytest.mark.parametrize("scenario", ["500", "429c", "drop"])
def test_a_delete_that_fails_is_done_by_the_next_pass(rotor, account, scenario):
    rotor.run()
    rotor.clock.advance(hours=25)
    rotor.run()
    rotor.clock.advance(hours=3)
    account.fail(scenario, method="DELETE")
    with pytest.raises(ManagementError):
        rotor.run()
    assert rotor.states() == {"active": 3, "draining": 3}
    rotor.run()
    assert rotor.states() == {"active": 3, "deleted": 3}


def test_a_delete_whose_answer_was_lost_counts_when_the_key_is_gone(rotor, account):
    rotor.run()
    rotor.clock.advance(hours=25)
    rotor.run()
    rotor.clock.advance(hours=3)
    account.fail("drop", method="DELETE", after=True)
    with pytest.raises(ManagementError):
        rotor.run()
    rotor.run()
    assert rotor.states() == {"active": 3, "deleted": 3}
    assert set(account.listed()) == rotor.names(KeyState.ACTIVE)


def test_keys_that_are_about_to_expire_are_replaced_though_not_due(new_rotor, account):
    new_rotor(key_lifetime_hours=25, key_rotation_interval_hours=24).run()
    rotor = new_rotor(key_lifetime_hours=100, key_rotation_interval_hours=90)
    rotor.clock.advance(hours=24, minutes=51)
    assert rotor.run()
    assert rotor.states() == {"active": 3, "draining": 3}


def test_a_smaller_pool_keeps_its_keys_until_they_are_due(new_rotor):
    new_rotor(pool_size=4).run()
    rotor = new_rotor(pool_size=2)
    rotor.run()
    assert rotor.states() == {"active": 4}
    rotor.clock.advance(hours=25)
    rotor.run()
    assert rotor.states() == {"active": 2, "draining": 4}


# ── the program


def settings_of(url: str, account: Account, folder: Path) -> dict[str, Any]:
    """The environment of key_rotation.py on an empty database."""
    return {
        "DATABASE_URL": url,
        "DATA_DIR": folder / "data",
        "OPENROUTER_API_URL": account.stand_in.address,
        "OPENROUTER_PROVISION_KEY": account.management_key,
        "DEPLOYMENT_ID": DEPLOYMENT,
        "POOL_SIZE": 2,
        "LOG_LEVEL": "DEBUG",
    }


@pytest.fixture
def program(account: Account, tmp_path: Path) -> dict[str, Any]:
    return settings_of(f"sqlite:///{tmp_path}/x.db", account, tmp_path)


@pytest.fixture
def program_on_each(empty_database_url: str, account: Account, tmp_path: Path) -> dict[str, Any]:
    return settings_of(empty_database_url, account, tmp_path)


def opened(program: dict[str, Any]) -> Database:
    return Database(database_url(Config(database_url=program["DATABASE_URL"])))


def all_rows(program: dict[str, Any]) -> list[dict[str, Any]]:
    db = opened(program)
    with db.reading() as tx:
        found = [row._asdict() for row in tx.execute(sa.select(api_keys).order_by(api_keys.c.id))]
    db.close()
    return found


def test_once_fills_the_pool_ends_with_0_and_shows_no_secret(program_on_each, account):
    program = program_on_each
    ended = run("key_rotation.py", "--once", **program)
    assert (ended.returncode, ended.stdout) == (0, "")
    assert [row["state"] for row in all_rows(program)] == ["active", "active"]
    assert len(account.listed()) == 2
    assert ended.stderr.count("key_minted") == ended.stderr.count("key_active") == 2
    for shown in (ended.stderr, str(all_rows(program))):
        assert account.management_key not in shown
        assert "sk-or-v1" not in shown
    assert run("key_rotation.py", "--once", **program).returncode == 0
    assert len(account.listed()) == 2


def test_neither_the_management_key_nor_a_minted_one_is_in_any_file(program, account, tmp_path):
    run("key_rotation.py", "--once", **program)
    kept = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert PREFIX.encode() in kept
    assert b"sk-or-v1" not in kept
    assert account.management_key.removeprefix("sk-or-v1-").encode() not in kept


@pytest.mark.parametrize("scenario", ["500", "429c", "402d", "drop"])
def test_once_ends_with_1_and_one_clear_line_when_openrouter_fails(program, account, scenario):
    account.fail(scenario)
    ended = run("key_rotation.py", "--once", **program | {"LOG_LEVEL": "ERROR"})
    assert ended.returncode == 1
    [line] = ended.stderr.splitlines()
    assert line.startswith("OpenRouter's management API failed: POST /keys: ")
    assert (f"status {scenario[:3]}" if scenario != "drop" else "no answer") in line


def test_once_ends_with_1_when_nobody_listens(program):
    ended = run("key_rotation.py", "--once", **program | {"OPENROUTER_API_URL": "http://127.0.0.1:1/api/v1"})
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1].endswith("POST /keys: no answer (ConnectionError)")


def test_a_database_that_is_away_ends_it_with_1_and_one_clear_line(program, account):
    ended = run("key_rotation.py", "--once", **program | {"DATABASE_URL": "mysql://root:geheim12@127.0.0.1:1/x"})
    assert ended.returncode == 1
    [line] = ended.stderr.splitlines()
    assert line.startswith("Cannot start: the database does not answer (")
    assert "geheim12" not in line
    assert account.listed() == {}


def test_a_wrong_encryption_key_ends_it_before_openrouter_is_asked(program, account):
    db = opened(program)
    db.upgrade()
    sealed_secrets.username_key(db, Envelopes([ENCRYPTION_KEY]), datetime.now(UTC))
    db.close()
    ended = run("key_rotation.py", "--once", **program)
    assert ended.returncode == 1
    [line] = ended.stderr.splitlines()
    assert "does not open with ENCRYPTION_KEY" in line
    assert all_rows(program) == []
    assert account.listed() == {}


# The program dies when it comes to a step.
CRASH = """
import os, sys, key_rotation
key_rotation.ApiKeyManager.{step} = lambda *_: os._exit(137)
sys.argv = ["key_rotation.py", "--once"]
key_rotation.main()
"""


@pytest.mark.parametrize(("step", "state"), [("store", "intent"), ("stored_text", "stored"), ("move", "stored")])
def test_a_crash_between_two_steps_is_repaired(program, account, step, state):
    assert run("-c", CRASH.format(step=step), **program).returncode == 137
    assert [row["state"] for row in all_rows(program)] == [state]
    assert len(account.listed()) == 1
    assert run("key_rotation.py", "--once", **program).returncode == 0
    db = opened(program)
    intents = api_keys.update().where(api_keys.c.state == "intent")
    db.transact(lambda tx: tx.execute(intents.values(created_at=datetime.now(UTC) - timedelta(minutes=6))))
    db.close()
    assert run("key_rotation.py", "--once", **program).returncode == 0
    names = {row["name"] for row in all_rows(program) if row["state"] == "active"}
    assert set(account.listed()) == names
    assert len(names) == 2


class Service:
    """`python key_rotation.py`, running."""

    def __init__(self, log: Path, settings: dict[str, Any]) -> None:
        self._log = log
        with log.open("wb") as out:
            command = [sys.executable, "key_rotation.py"]
            self.process = subprocess.Popen(command, cwd=ROOT, env=environment(**settings), stdout=out, stderr=out)

    def log(self) -> str:
        return self._log.read_text()

    def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(20)


@pytest.fixture
def start_service(program: dict[str, Any], tmp_path: Path) -> Iterator[Callable[[], Service]]:
    started: list[Service] = []

    def begin() -> Service:
        started.append(Service(tmp_path / "log", program))
        return started[-1]

    yield begin
    for service in started:
        service.process.kill()
        service.process.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_service_fills_the_pool_and_ends_cleanly_when_told(start_service, number):
    service = start_service()
    wait_for(lambda: service.log().count("key_active") == 2)
    assert service.end(number) == 0
    assert "Traceback" not in service.log()


def test_a_service_that_is_told_to_end_finishes_its_pass_first(start_service, account):
    account.fail("stream", delay_ms=300, times=2)
    service = start_service()
    wait_for(lambda: "key_active" in service.log())
    assert service.end() == 0
    assert service.log().count("key_active") == 2
    assert len(account.listed()) == 2


def test_the_service_outlives_a_failed_pass_and_says_so_in_one_line(start_service, account):
    account.fail("500")
    service = start_service()
    wait_for(lambda: "pass_failed" in service.log())
    assert "Traceback" not in service.log()
    assert service.process.poll() is None
    assert service.end() == 0


# ── status


def test_status_on_a_pipe_is_one_json_line_a_state(program, account):
    run("key_rotation.py", "--once", **program)
    shown = run("key_rotation.py", "--status", **program | {"OPENROUTER_PROVISION_KEY": ""})
    assert (shown.returncode, shown.stderr) == (0, "")
    lines = [json.loads(line) for line in shown.stdout.splitlines()]
    assert [line["state"] for line in lines] == [state.value for state in KeyState]
    assert {line["state"]: line["keys"] for line in lines if line["keys"]} == {"active": 2}
    first = min(row["expires_at"] for row in all_rows(program))
    [active] = [line for line in lines if line["keys"]]
    assert active["first_expires_at"] == first.isoformat(timespec="seconds")


def on_a_terminal(*command: str, **settings: object) -> str:
    """What a program shows to a person."""
    reading, writing = pty.openpty()
    env = environment(**settings, COLUMNS=100, TERM="dumb")
    process = subprocess.Popen([sys.executable, *command], cwd=ROOT, env=env, stdout=writing, stderr=writing)
    os.close(writing)
    shown = b""
    try:
        while data := os.read(reading, 4096):
            shown += data
    except OSError:  # how a terminal ends
        pass
    os.close(reading)
    assert process.wait(20) == 0
    return shown.decode()


def test_status_on_a_terminal_is_a_table(program):
    shown = on_a_terminal("key_rotation.py", "--status", **program)
    assert "Key pool" in shown
    assert "first expires at" in shown
    assert all(state.value in shown for state in KeyState)


def test_once_and_status_together_are_refused():
    ended = run("key_rotation.py", "--once", "--status")
    assert ended.returncode == 2
    assert "not allowed with" in ended.stderr
