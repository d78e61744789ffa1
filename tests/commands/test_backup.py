"""`backup` and `restore`, rehearsed: taken while people call, restored in another engine, and everything is as it was."""

from __future__ import annotations

import signal
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest
import sqlalchemy as sa

from tables import caller_rollups, rotator, usage_rollups
from tests.sandbox.conftest import Running
from tests.support.billing import FINAL, Billing, user_of
from tests.support.gateway import Gateway, environment, new_derived_key, run, wait_for

PASSPHRASE = "kettle orbit mustard violin lantern"
OTHER_KEY = "b2xkLWZhc2hpb25lZC1idXQtMzItYnl0ZXMtbG9uZyE="


@pytest.fixture
def passphrase(tmp_path: Path) -> Path:
    file = tmp_path / "passphrase"
    file.write_text(f"{PASSPHRASE}\n")
    return file


def new_database(kind: str, file: Path, request: pytest.FixtureRequest) -> str:
    """The URL of a database that nobody has used yet; servers' tables are there already, which would take long."""
    return f"sqlite:///{file}" if kind == "sqlite" else request.getfixturevalue(kind).new_database()


@pytest.fixture
def billing(
    start: Callable[..., Gateway], stand_in: Running, source: str, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Billing]:
    billing = Billing(start, stand_in, new_database(source, tmp_path / "source.db", request), tmp_path)
    yield billing
    billing.close()


def flask(*words: object, **settings: Any) -> Any:
    return run("-m", "flask", "--app", "app", *map(str, words), **settings)


def refusal(*words: object, **settings: Any) -> str:
    """What a command says that refuses, in words of ours."""
    done = flask(*words, **settings)
    assert (done.returncode, "Traceback" in done.stderr) == (1, False), done.stderr
    return str(done.stderr)


@contextmanager
def calling(gateway: Gateway, *credentials: str) -> Iterator[list[str]]:
    """Somebody calls with each of these all the time; yields the ids of the answered requests."""
    ending, answered = threading.Event(), []

    def call(credential: str) -> None:
        while not ending.is_set():
            answer = gateway.chat(credential, max_tokens=10)
            assert answer.status_code == 200, answer.text
            answered.append(answer.headers["X-Request-Id"])

    callers = [threading.Thread(target=call, args=(credential,)) for credential in credentials]
    for caller in callers:
        caller.start()
    try:
        yield answered
    finally:
        ending.set()
        for caller in callers:
            caller.join()


def costs(billing: Billing) -> dict[tuple[str, int], tuple[int, int | None]]:
    """Who paid what for each call, in nano-dollars."""
    return {(row.request_id, row.attempt): (row.user_id, row.cost_nano) for row in billing.at_rest()}


def check_sums(billing: Billing, user_ids: list[int]) -> None:
    """Sums, quotas and ledger agree to the nano-dollar, and nobody holds any more of a quota."""
    rows = billing.rows()
    assert {row.state for row in rows} <= FINAL
    spent = sum(row.cost_nano or 0 for row in rows)
    for table, of_all in (
        (usage_rollups, usage_rollups.c.user_id == 0),
        (caller_rollups, caller_rollups.c.kind == "u"),
    ):
        for period in "hd":
            summed = sa.select(sa.func.sum(table.c.cost_nano)).where(table.c.period == period, of_all)
            with billing.db.reading() as tx:
                assert tx.scalar(summed) == spent, (table.name, period)
    for user_id in user_ids:
        quota = billing.quota(user_id)
        of_user = sum(row.cost_nano or 0 for row in rows if row.user_id == user_id)
        assert (quota.spent_nano, quota.reserved_nano) == (of_user, 0)


@pytest.mark.parametrize(
    ("source", "target"), [("sqlite", "mariadb"), ("sqlite", "mysql"), ("mariadb", "sqlite"), ("mysql", "sqlite")]
)
def test_a_backup_under_load_is_restored_in_another_engine(billing, target, passphrase, tmp_path, request):
    gateway = billing.gateway()
    account = {"username": "ann@example.com", "derived_key": new_derived_key()}
    assert gateway.post("/register", account).status_code == 201
    tokens = [gateway.post("/login", account).json()["token"], gateway.new_user()]
    client_key = gateway.post("/api/api-keys", {"name": "program"}, tokens[1]).json()["key"]
    settings = {name: value for name, value in gateway.settings.items() if name not in environment()}
    file = tmp_path / "backup"
    with calling(gateway, tokens[0], client_key) as answered:
        wait_for(lambda: len(answered) >= 10)
        earlier = set(answered)
        taken = flask("backup", file, "--passphrase-file", passphrase, **settings)
        assert taken.returncode == 0, taken.stderr
        in_use = refusal("restore", file, "--passphrase-file", passphrase, "--replace", **settings)
        assert "stop all of them" in in_use
    assert "usage_ledger" in taken.stderr  # how far it is
    before = costs(billing)
    assert gateway.stop() == 0

    url = new_database(target, tmp_path / "restored.db", request)
    elsewhere = settings | {"DATABASE_URL": url, "DATA_DIR": tmp_path / "elsewhere"}
    check_refusals(file, passphrase, tmp_path, elsewhere)
    restored = flask("restore", file, "--passphrase-file", passphrase, **elsewhere)
    assert restored.returncode == 0, restored.stderr
    assert "--replace" in refusal("restore", file, "--passphrase-file", passphrase, **elsewhere)
    billing.moved(url)
    with billing.db.reading() as tx:
        assert tx.scalar(sa.select(rotator.c.deletions_held_until)) > datetime.now(UTC) + timedelta(hours=23)

    second = billing.gateway(folder=tmp_path / "elsewhere")
    assert second.get("/api/health").json()["status"] == "ok"
    login = second.post("/login", account)
    assert login.status_code == 200
    assert user_of(login.json()["token"]) == user_of(tokens[0])
    for credential in (*tokens, client_key):  # who was logged in still is
        last = second.chat(credential, max_tokens=10)
        assert last.status_code == 200
        wait_for(lambda last=last: last.headers["X-Request-Id"] in {row.request_id for row in billing.at_rest()})
    assert second.stop() == 0  # after which nothing moves any more
    after = costs(billing)
    assert earlier <= {request_id for request_id, _ in after}
    under_way = [call for call in after if call in before and after[call] != before[call]]  # closed as after a crash
    assert len(under_way) <= 2
    assert not earlier & {request_id for request_id, _ in under_way}
    assert {after[call][1] for call in under_way} <= {None}
    check_sums(billing, [user_of(token) for token in tokens])
    assert "restored" in flask("audit", "list", **elsewhere).stdout
    assert PASSPHRASE not in second.log() + taken.stdout + taken.stderr


@pytest.mark.parametrize("source", ["sqlite"])
def test_a_cost_that_only_the_journal_of_a_dead_process_has_is_restored(billing, passphrase, tmp_path):
    gateway = billing.gateway()
    token, other = gateway.new_user(), gateway.new_user()
    assert [gateway.chat(one, max_tokens=10).status_code for one in (token, other)] == [200, 200]
    billing.at_rest()
    locked = sqlite3.connect(tmp_path / "source.db", isolation_level=None)
    locked.execute("BEGIN IMMEDIATE")  # so that nothing gets from the journal into the ledger
    late = [gateway.chat(one, max_tokens=10) for one in (token, other, token)]
    assert {answer.status_code for answer in late} == {200}
    workers = psutil.Process(gateway.process.pid).children(recursive=True)
    for process in (gateway.process, *workers):
        process.send_signal(signal.SIGKILL)
    for process in (gateway.process, *workers):
        process.wait(60)
    locked.close()
    wanted = {answer.headers["X-Request-Id"]: answer.json()["usage"]["cost"] for answer in late}
    assert not wanted.keys() & {row.request_id for row in billing.rows()}

    settings = {name: value for name, value in gateway.settings.items() if name not in environment()}
    file, url = tmp_path / "backup", f"sqlite:///{tmp_path}/restored.db"
    assert flask("backup", file, "--passphrase-file", passphrase, **settings).returncode == 0
    elsewhere = settings | {"DATABASE_URL": url, "DATA_DIR": tmp_path / "elsewhere"}
    assert flask("restore", file, "--passphrase-file", passphrase, **elsewhere).returncode == 0
    billing.moved(url)
    second = billing.gateway(folder=tmp_path / "elsewhere")
    wait_for(lambda: wanted.keys() <= {row.request_id for row in billing.rows()})
    assert second.stop() == 0
    found = {row.request_id: row.cost_nano for row in billing.at_rest() if row.request_id in wanted}
    assert found == {request_id: round(cost * 10**9) for request_id, cost in wanted.items()}
    check_sums(billing, [user_of(one) for one in (token, other)])


def check_refusals(file: Path, passphrase: Path, folder: Path, settings: dict[str, Any]) -> None:
    """Another passphrase or another ENCRYPTION_KEY restores nothing."""
    wrong = folder / "wrong"
    wrong.write_text("kettle orbit mustard violin lamp")
    assert "does not open" in refusal("restore", file, "--passphrase-file", wrong, **settings)
    other_key = settings | {"ENCRYPTION_KEY": OTHER_KEY, "DATABASE_URL": f"sqlite:///{folder}/key.db"}
    assert "another ENCRYPTION_KEY" in refusal("restore", file, "--passphrase-file", passphrase, **other_key)


def test_a_guessable_passphrase_and_a_file_that_is_there_are_refused(passphrase, tmp_path):
    settings = {"DATA_DIR": tmp_path / "data"}
    (tmp_path / "there").touch()
    weak = tmp_path / "weak"
    weak.write_text("password123")
    for file, words, reason in ((tmp_path / "new", weak, "guessable"), (tmp_path / "there", passphrase, "exists")):
        assert reason in refusal("backup", file, "--passphrase-file", words, **settings)
    assert not (tmp_path / "new").exists()
    assert refusal("backup", tmp_path / "no/such/folder", "--passphrase-file", passphrase, **settings)
