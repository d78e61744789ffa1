"""`backup` and `restore`, rehearsed: taken while people call, restored in another engine, and everything is as it was."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.sandbox.conftest import Running
from tests.support.billing import Billing, user_of
from tests.support.gateway import Gateway, environment, new_derived_key, run, wait_for

PASSPHRASE = "kettle orbit mustard violin lantern"


@pytest.fixture
def passphrase(tmp_path: Path) -> Path:
    file = tmp_path / "passphrase"
    file.write_text(f"{PASSPHRASE}\n")
    return file


@pytest.fixture
def billing(
    start: Callable[..., Gateway], stand_in: Running, empty_database_url: str, tmp_path: Path
) -> Iterator[Billing]:
    billing = Billing(start, stand_in, empty_database_url, tmp_path)
    yield billing
    billing.close()


def flask(*words: object, **settings: Any) -> Any:
    return run("-m", "flask", "--app", "app", *map(str, words), **settings)


@pytest.mark.mysql
def test_a_backup_under_load_is_restored_in_another_engine(
    billing, start, stand_in, mariadb, passphrase, tmp_path, request
):
    gateway = billing.gateway()
    account = {"username": "ann@example.com", "derived_key": new_derived_key()}
    assert gateway.post("/register", account).status_code == 201
    token = gateway.post("/login", account).json()["token"]
    ending = threading.Event()

    def call() -> None:
        while not ending.is_set():
            assert gateway.chat(token, max_tokens=10).status_code == 200

    callers = [threading.Thread(target=call) for _ in range(2)]
    for caller in callers:
        caller.start()
    settings = {name: value for name, value in gateway.settings.items() if name not in environment()}
    file = tmp_path / "backup"
    try:
        taken = flask("backup", file, "--passphrase-file", passphrase, **settings)
        assert taken.returncode == 0, taken.stderr
        in_use = flask("restore", file, "--passphrase-file", passphrase, "--replace", **settings)
        assert (in_use.returncode, "stop all of them" in in_use.stderr) == (1, True)
    finally:
        ending.set()
        for caller in callers:
            caller.join()
    assert "usage_ledger" in taken.stderr  # how far it is
    assert gateway.stop() == 0
    url = f"sqlite:///{tmp_path}/restored.db"
    if "sqlite" in request.node.name:
        url = mariadb.empty_database()
    elsewhere = settings | {"DATABASE_URL": url, "DATA_DIR": tmp_path / "elsewhere"}
    wrong = tmp_path / "wrong"
    wrong.write_text("kettle orbit mustard violin lamp")
    refused = flask("restore", file, "--passphrase-file", wrong, **elsewhere)
    assert (refused.returncode, "does not open" in refused.stderr, "Traceback" in refused.stderr) == (1, True, False)
    other_key = elsewhere | {
        "ENCRYPTION_KEY": "b2xkLWZhc2hpb25lZC1idXQtMzItYnl0ZXMtbG9uZyE=",
        "DATABASE_URL": f"sqlite:///{tmp_path}/key.db",
    }
    refused = flask("restore", file, "--passphrase-file", passphrase, **other_key)
    assert (refused.returncode, "another ENCRYPTION_KEY" in refused.stderr) == (1, True)
    restored = flask("restore", file, "--passphrase-file", passphrase, **elsewhere)
    assert restored.returncode == 0, restored.stderr
    again = flask("restore", file, "--passphrase-file", passphrase, **elsewhere)
    assert (again.returncode, "--replace" in again.stderr) == (1, True)
    made = billing.bill()
    billing._db, billing._url = None, url
    second = billing.gateway(folder=tmp_path / "elsewhere")
    assert second.get("/api/health").json()["status"] == "ok"
    login = second.post("/login", account)
    assert login.status_code == 200
    last = second.chat(token, max_tokens=10)
    assert last.status_code == 200  # who was logged in still is
    assert user_of(login.json()["token"]) == user_of(token)
    wait_for(lambda: last.headers["X-Request-Id"] in {row.request_id for row in billing.at_rest()})
    assert second.stop() == 0  # after which nothing moves any more
    rows = billing.rows()
    spent = sum(row.cost_nano for row in rows if row.cost_nano)
    assert 0 < spent <= billing.bill() > made
    assert billing.quota(user_of(token)).spent_nano == spent
    held = flask("audit", "list", **elsewhere).stdout
    assert "restored" in held
    assert PASSPHRASE not in second.log() + taken.stdout + taken.stderr


def test_a_guessable_passphrase_and_a_file_that_is_there_are_refused(passphrase, tmp_path):
    settings = {"DATA_DIR": tmp_path / "data"}
    (tmp_path / "there").touch()
    weak = tmp_path / "weak"
    weak.write_text("password123")
    for file, words, reason in ((tmp_path / "new", weak, "guessable"), (tmp_path / "there", passphrase, "exists")):
        refused = flask("backup", file, "--passphrase-file", words, **settings)
        assert (refused.returncode, reason in refused.stderr, "Traceback" in refused.stderr) == (1, True, False), (
            refused.stderr
        )
    assert not (tmp_path / "new").exists()
    nowhere = flask("backup", tmp_path / "no/such/folder", "--passphrase-file", passphrase, **settings)
    assert (nowhere.returncode, "Traceback" in nowhere.stderr) == (1, False), nowhere.stderr
