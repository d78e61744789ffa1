"""The rotation, against the stand-in: the pool is full and fresh, and no crash or lost answer leaves a key behind."""

from __future__ import annotations

import dataclasses
import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from api_key_manager import ApiKeyManager
from config.settings import Config
from db import Database, database_url
from foundation.crypto import Envelopes
from pool.life import PoolKeySource, PoolKeyState
from replicas.lease import LEASE, LeaseLost, WrongDeployment
from tables import pool_keys, rotator
from tests.conftest import ENCRYPTION_KEY
from tests.support.gateway import ROOT, environment, on_terminal, run, wait_for
from tests.support.rotor import DEPLOYMENT, PREFIX, Account, Rotor, events, unknown
from upstream.openrouter.management_api import ManagementApi, ManagementError
from vault import sealed

# ── a full pool


def test_an_empty_pool_is_filled_with_named_limited_expiring_keys(rotor, account):
    assert rotor.run()
    assert rotor.states() == {"active": 3}
    remote = account.listed()
    assert set(remote) == rotor.names(PoolKeyState.ACTIVE)
    for row in rotor.keys.rows():
        key = remote[row.name]
        assert row.name.startswith(PREFIX)
        assert len(row.name) == len(PREFIX) + 32
        assert (row.source, row.api_key_hash) == (PoolKeySource.MINTED, key["hash"])
        assert (key["limit"], key["limit_reset"], key["disabled"]) == (10, "daily", False)
        expires_at = datetime.fromisoformat(key["expires_at"])
        assert abs(expires_at - row.expires_at) < timedelta(seconds=1)
        assert abs(expires_at - rotor.clock.now() - timedelta(hours=72)) < timedelta(seconds=1)


def test_the_minted_keys_work_and_are_picked(rotor, account):
    rotor.run()
    pool = ApiKeyManager(rotor.keys, rotor.clock)
    pool.reload()
    text = pool.pick().authorization.decode().split()[2]
    assert account.stand_in.chat(text).status_code == 200
    assert pool.usable_count() == 3


def test_limit_reset_and_lifetime_are_settings(new_rotor, account):
    new_rotor(key_limit_usd=None, key_limit_reset="none", pool_size=1, key_lifetime_hours=25).run()
    [key] = account.listed().values()
    assert (key["limit"], key["limit_reset"]) == (None, None)
    left = datetime.fromisoformat(key["expires_at"]) - datetime.now(UTC)
    assert timedelta(hours=24.9) < left < timedelta(hours=25.1)


@pytest.mark.parametrize("limit", [0.1, 1.1, 0.000000001, 1.0000000004, 1.0000000006, 123456.789])
def test_any_limit_is_recognised_when_openrouter_tells_it_back(new_rotor, limit):
    assert new_rotor(pool_size=1, key_limit_usd=limit).run()


def test_a_second_pass_changes_nothing_on_either_side(rotor, account):
    rotor.run()
    before, rows = account.listed(), rotor.keys.rows()
    account.stand_in.control("DELETE", "log")
    rotor.clock.advance(minutes=1)
    assert rotor.steps() == []
    assert rotor.run()
    assert account.calls("POST", "/keys") == account.calls("PATCH", "/keys") == account.calls("DELETE", "/keys") == 0
    assert account.listed() == before
    assert rotor.keys.rows() == [dataclasses.replace(row, remaining_nano=10**10, usage_nano=0) for row in rows]


def test_a_pass_notes_what_openrouter_says_about_limits_and_accounts(rotor, account):
    rotor.run()
    [first, *others] = rotor.keys.rows()
    account.stand_in.chat(rotor.keys.text(first.id))
    rotor.run()
    row = rotor.row(first.name)
    assert row.limit_nano == 10**10
    assert row.remaining_nano == 10**10 - account.stand_in.spent(first.api_key_hash)
    assert len({row.account_id for row in rotor.keys.rows()}) == 1
    assert len(first.account_id) == 64
    assert account.id not in first.account_id
    assert {row.remaining_nano for row in rotor.keys.rows() if row.id != first.id} == {10**10}
    assert len(others) == 2


def test_keys_that_people_brought_count_and_are_never_touched(rotor, account):
    mine = account.make("mine")
    rotor.keys.add(mine["key"], "mine", PoolKeySource.OPERATOR)
    rotor.keys.add(account.stand_in.new_key()["key"], "env/1", PoolKeySource.ENVIRONMENT)  # of another account
    before = account.listed()["mine"]
    assert rotor.run()
    assert len(account.listed()) == 2
    for _ in range(3):
        rotor.settle(days=30)
    assert {"mine", "env/1"} <= rotor.names(PoolKeyState.ACTIVE)
    assert account.listed()["mine"] == before
    assert len(rotor.names(PoolKeyState.ACTIVE)) == 3


def test_a_persons_key_that_is_disabled_at_openrouter_is_made_up_for_and_stays_theirs(rotor, account):
    mine = account.make("mine")
    rotor.keys.add(mine["key"], "mine", PoolKeySource.OPERATOR)
    account.manage("PATCH", f"/keys/{mine['data']['hash']}", json={"disabled": True})
    rotor.run()
    assert rotor.states() == {"active": 4}
    account.manage("PATCH", f"/keys/{mine['data']['hash']}", json={"disabled": True})
    before = account.listed()["mine"]
    rotor.fewest = 99
    rotor.settle(hours=25)
    assert account.listed()["mine"] == before
    assert "mine" in rotor.names(PoolKeyState.ACTIVE)
    assert len(rotor.names(PoolKeyState.ACTIVE)) == rotor.fewest == 4  # theirs, which the copies in memory can't know


def test_a_disabled_key_is_replaced_and_left_alone_until_it_is_due(rotor, account):
    rotor.run()
    disabled = rotor.keys.rows()[0]
    rotor.keys.set_enabled(disabled.name, False)
    assert rotor.run()
    assert rotor.states() == {"active": 4}
    rotor.settle(hours=23)
    assert rotor.row(disabled.name).state is PoolKeyState.ACTIVE
    assert not account.listed()[disabled.name]["disabled"]
    rotor.settle(hours=2)
    assert rotor.row(disabled.name).state is PoolKeyState.DRAINING


def test_foreign_keys_and_those_of_other_deployments_are_never_touched(rotor, account):
    names = ["mine", "gw/another-deployment/" + "0" * 32, f"gw/{DEPLOYMENT}x/" + "0" * 32, f"gw/{DEPLOYMENT}"]
    for name in names:
        account.make(name)
    before = account.listed()
    rotor.run()
    for hours in (1, 25, 2, 48):
        rotor.settle(hours=hours)
    assert {name: account.listed()[name] for name in names} == before
    assert not {row.name for row in rotor.keys.rows()} & set(names)


# ── crashes, and other rotators


class Killed(BaseException):
    """What ends a process without its saying so."""


class Deadly(ManagementApi):
    """The API, but this call of this method is the process's last: it never comes back, or never goes out."""

    def __init__(self, api: ManagementApi, method: str, number: int, after: bool) -> None:
        self.__dict__ |= api.__dict__
        self.method, self.left, self.after = method, number, after
        for name in ("list_keys", "create", "ask", "disable", "delete"):
            setattr(self, name, self._watched(name, getattr(super(), name)))

    def _watched(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*arguments: Any) -> Any:
            self.left -= name == self.method
            dies = name == self.method and self.left == 0
            if dies and not self.after:
                raise Killed
            answer = call(*arguments)
            if dies:
                raise Killed
            return answer

        return watched


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("method", ["list_keys", "create", "ask", "disable", "delete"])
def test_a_crash_at_any_call_is_repaired_and_never_leaves_fewer_keys(one, account, method, number, after):
    one.run()
    one.fewest = 99
    whole = one.api
    one.api = Deadly(whole, method, number, after)
    died = False
    for delta in ({"hours": 25}, {"minutes": 2}, {"minutes": 61}, {"minutes": 6}, {"hours": 2}, {"hours": 2}):
        one.clock.advance(**delta)
        try:
            one.run()
        except Killed:
            died, one.api = True, whole
    assert died
    assert one.fewest == one.usable() == 3
    one.settle()
    assert set(account.listed()) == one.names(PoolKeyState.ACTIVE)
    assert one.states()["active"] == 3


def test_while_another_process_rotates_a_pass_does_nothing(rotor, account, caplog):
    leader, other = rotor.rotation(), rotor.rotation()
    assert leader._lease.take()
    caplog.set_level("INFO")
    assert not other.run_once()
    assert rotor.states() == {}
    assert events(caplog) == {"another_process_rotates": 1}
    assert account.calls("GET", "/keys") == 0
    rotor.clock.advance(seconds=LEASE.total_seconds())
    assert other.run_once()


class Sleepy(ManagementApi):
    """The API, but during its first create another process becomes the leader."""

    def __init__(self, rotor: Rotor) -> None:
        self.__dict__ |= rotor.api.__dict__
        self.rotor: Rotor | None = rotor
        self.other = rotor.rotation()

    def create(self, *arguments: Any) -> str:
        text = super().create(*arguments)
        if self.rotor:
            self.rotor.clock.advance(seconds=LEASE.total_seconds() + 1)
            self.rotor = None
            assert self.other.run_once()
        return text


def test_a_leader_that_slept_writes_nothing_more(rotor, account):
    rotor.api = Sleepy(rotor)
    with pytest.raises(LeaseLost):
        rotor.run()
    assert rotor.states() == {"intent": 1, "active": 3}
    assert len(account.listed()) == 4
    rotor.settle(minutes=6)
    assert set(account.listed()) == rotor.names(PoolKeyState.ACTIVE)


def test_the_lease_is_given_back_even_when_the_pass_fails(one, account):
    account.fail("500", method="GET")
    with pytest.raises(ManagementError):
        one.run()
    assert one.run()  # a rotation of its own


# ── copies of a database


def test_a_copied_database_is_refused_until_it_is_claimed(new_rotor, account):
    new_rotor().run()
    before = account.listed()
    copy = new_rotor(deployment_id="copy")
    rows = copy.keys.rows()
    for attempt in (copy.run, copy.steps):
        with pytest.raises(WrongDeployment, match="--claim"):
            attempt()
    assert copy.keys.rows() == rows
    assert sorted(copy.rotation().claim()) == sorted(before)
    assert copy.states() == {"dead": 3}
    assert copy.usable() == 0
    assert copy.run()
    assert copy.states() == {"dead": 3, "active": 3}
    copy.settle(hours=30)
    assert {name: account.listed()[name] for name in before} == before


def test_claiming_keeps_the_keys_that_people_brought(new_rotor, account):
    rotor = new_rotor()
    rotor.keys.add(account.make("mine")["key"], "mine", PoolKeySource.OPERATOR)
    rotor.run()
    copy = new_rotor(deployment_id="copy")
    assert len(copy.rotation().claim()) == 2
    assert copy.names(PoolKeyState.ACTIVE) == {"mine"}


def test_a_database_that_is_being_rotated_cannot_be_claimed(new_rotor):
    rotor = new_rotor()
    rotor.run()
    leader = rotor.rotation()
    leader._lease.take()
    copy = new_rotor(deployment_id="copy")
    with pytest.raises(LeaseLost):
        copy.rotation().claim()
    leader._lease.release()
    assert rotor.run()
    assert rotor.states() == {"active": 3}


def test_keys_minted_under_another_deployment_id_are_used_up_and_not_renewed(new_rotor, account):
    """A database from before deployments were told apart."""
    rotor = new_rotor()
    rotor.run()
    rotor.db.transact(lambda tx: tx.execute(rotator.update().values(deployment_hash=None)))
    other = new_rotor(deployment_id="other")
    other.settle(hours=30)
    assert other.states() == {"active": 3}
    other.settle(hours=42)
    assert len(other.names(PoolKeyState.ACTIVE)) == 6
    assert other.usable() == 3
    assert sum(name.startswith("gw/other/") for name in account.listed()) == 3
    assert not any(key["disabled"] for key in account.listed().values())


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
def program_on_each(migrated_database_url: str, account: Account, tmp_path: Path) -> dict[str, Any]:
    return settings_of(migrated_database_url, account, tmp_path)


def opened(program: dict[str, Any]) -> Database:
    return Database(database_url(Config(database_url=program["DATABASE_URL"])))


def all_rows(program: dict[str, Any]) -> list[dict[str, Any]]:
    db = opened(program)
    with db.reading() as tx:
        found = [row._asdict() for row in tx.execute(sa.select(pool_keys).order_by(pool_keys.c.id))]
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
    assert ended.stderr.splitlines()[-1].endswith("GET /keys: no answer (ConnectionError)")


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
    sealed.open_deployment_key(db, Envelopes([ENCRYPTION_KEY]), sealed.USERNAME_KEY, datetime.now(UTC))
    db.close()
    ended = run("key_rotation.py", "--once", **program)
    assert ended.returncode == 1
    [line] = ended.stderr.splitlines()
    assert "does not open with ENCRYPTION_KEY" in line
    assert all_rows(program) == []
    assert account.listed() == {}


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
        return self.process.wait(60)


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
    assert [line["state"] for line in lines] == [state.value for state in PoolKeyState]
    assert {line["state"]: line["keys"] for line in lines if line["keys"]} == {"active": 2}
    first = min(row["expires_at"] for row in all_rows(program))
    [active] = [line for line in lines if line["keys"]]
    assert active["first_expires_at"] == first.isoformat(timespec="seconds")


def test_status_says_by_its_exit_code_whether_the_pool_is_full(program):
    assert run("key_rotation.py", "--status", **program).returncode == 1
    run("key_rotation.py", "--once", **program)
    assert run("key_rotation.py", "--status", **program).returncode == 0
    assert run("key_rotation.py", "--status", **program | {"POOL_SIZE": 3}).returncode == 1


def test_status_on_a_terminal_is_a_table(program):
    shown = on_terminal("key_rotation.py", "--status", **program).stdout
    assert "Key pool" in shown
    assert "first_expires_at" in shown
    assert all(state.value in shown for state in PoolKeyState)


def test_a_pass_on_a_terminal_shows_its_progress_and_prints_nothing_into_a_pipe(program):
    assert (
        "Rotating"
        in on_terminal("key_rotation.py", "--once", **program | {"LOG_LEVEL": "ERROR", "TERM": "xterm"}).stdout
    )
    reading, writing = pty.openpty()
    env = environment(**program | {"POOL_SIZE": 3})
    command = [sys.executable, "key_rotation.py", "--once"]
    ended = subprocess.run(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=writing, timeout=60, check=True)
    os.close(writing), os.close(reading)
    assert ended.stdout == b""


# ── what operators ask for


def test_a_dry_run_prints_the_steps_and_changes_nothing(program, account):
    run("key_rotation.py", "--once", **program)
    unknown(account, 1)
    rows, keys = all_rows(program), account.listed()
    account.stand_in.control("DELETE", "log")
    shown = run("key_rotation.py", "--dry-run", **program | {"POOL_SIZE": 4})
    assert (shown.returncode, shown.stderr) == (0, "")
    assert [json.loads(line) for line in shown.stdout.splitlines()] == [
        {"step": "mint", "key": None, "owner": None}
    ] * 2
    assert all_rows(program) == rows
    assert account.listed() == keys
    assert [account.calls(method, "/keys") for method in ("POST", "PATCH", "DELETE")] == [0, 0, 0]
    shown = on_terminal("key_rotation.py", "--dry-run", **program | {"POOL_SIZE": 4}).stdout
    assert "The next pass" in shown
    assert shown.count("mint") == 2
    assert "nothing to do" in on_terminal("key_rotation.py", "--dry-run", **program).stdout


def test_now_renews_one_key(program, account):
    run("key_rotation.py", "--once", **program)
    [first, second] = all_rows(program)
    ended = run("key_rotation.py", "--now", first["name"], **program)
    assert ended.returncode == 0, ended.stderr
    assert [row["state"] for row in all_rows(program)] == ["draining", "active", "active"]
    noted = {name: all_rows(program)[1][name] for name in ("remaining_nano", "usage_nano")}
    assert all_rows(program)[1] == second | noted
    assert len(account.listed()) == 3


def test_now_with_an_unknown_name_ends_with_1_and_one_clear_line(program, account):
    ended = run("key_rotation.py", "--now", "nobody's", **program)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr == 'There is no minted key in use named "nobody\'s"\n'
    assert account.listed() == {}


def test_a_cloned_database_is_refused_until_claimed(program, account):
    run("key_rotation.py", "--once", **program)
    names = sorted(account.listed())
    clone = program | {"DEPLOYMENT_ID": "clone"}
    for option in ("--once", "--dry-run"):
        refused = run("key_rotation.py", option, **clone)
        assert refused.returncode == 1
        assert refused.stderr.splitlines()[-1].startswith("this database belongs to a deployment with another")
    claimed = run("key_rotation.py", "--claim", **clone)
    assert claimed.returncode == 0
    assert sorted(json.loads(line)["key"] for line in claimed.stdout.splitlines()) == names
    assert run("key_rotation.py", "--once", **clone).returncode == 0
    assert [row["state"] for row in all_rows(program)] == ["dead", "dead", "active", "active"]
    assert set(names) < set(account.listed())


@pytest.mark.parametrize("other", ["--status", "--dry-run", "--now=x", "--claim"])
def test_two_modes_together_are_refused(other):
    ended = run("key_rotation.py", "--once", other)
    assert ended.returncode == 2
    assert "not allowed with" in ended.stderr
