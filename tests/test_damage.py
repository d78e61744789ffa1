"""Damaged ciphertexts and wrong encryption keys: alarmed about, not used, not touched, and nothing is deleted for them."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from cryptography.fernet import Fernet

import tables
from db import Database, Transaction
from foundation.clock import Clock
from foundation.crypto import Envelopes
from pool.keys import PoolKeys
from pool.life import PoolKeySource
from tables import pool_keys
from tests.conftest import ENCRYPTION_KEY, SECRET_KEY
from tests.sandbox.conftest import Running
from tests.support.gateway import Gateway, refusal_of, run
from vault.sealed import USERNAME_KEY, open_deployment_key

OTHER_KEY = Fernet.generate_key().decode()
CALLS = 12  # with three keys left: enough that a damaged one would have been picked
Damage = Callable[[dict[int, str]], dict[int, str]]


@pytest.fixture(scope="module")
def stand_in(start_stand_in: Callable[..., Running]) -> Running:
    """One whose log no other tests fill."""
    return start_stand_in("--pace-ms", "1")


@pytest.fixture
def accounts_keys(stand_in: Running) -> list[dict[str, str]]:
    """Four keys at the stand-in."""
    account = stand_in.new_account(balance=1000)["id"]
    return [stand_in.new_key(account=account) for _ in range(4)]


@pytest.fixture
def settings(migrated_database_url: str, stand_in: Running) -> dict[str, Any]:
    return {
        "DATABASE_URL": migrated_database_url,
        "SECRET_KEY": SECRET_KEY,
        "ENCRYPTION_KEY": ENCRYPTION_KEY,
        "OPENROUTER_API_URL": stand_in.address,
    }


@pytest.fixture
def pool(db: Database, accounts_keys: list[dict[str, str]]) -> list[int]:
    """The rows of the four keys, in a database that a gateway has used."""
    envelopes = Envelopes([ENCRYPTION_KEY])
    open_deployment_key(db, envelopes, USERNAME_KEY, Clock().now())
    keys = PoolKeys(db, envelopes, Clock())
    return [keys.add(key["key"], f"key {number}", PoolKeySource.MINTED) for number, key in enumerate(accounts_keys)]


def ciphertexts(db: Database) -> dict[int, str]:
    with db.reading() as tx:
        return dict(
            map(tuple, tx.execute(sa.select(pool_keys.c.id, pool_keys.c.api_key).order_by(pool_keys.c.id)).all())
        )


def overwrite(db: Database, changed: dict[int, str]) -> None:
    def write(tx: Transaction) -> None:
        for row, sealed in changed.items():
            tx.execute(pool_keys.update().where(pool_keys.c.id == row).values(api_key=sealed))

    db.transact(write)


def everything(db: Database) -> dict[str, list[tuple[object, ...]]]:
    """All rows of all tables."""
    with db.reading() as tx:
        return {
            name: list(map(tuple, tx.execute(sa.select(table)).all())) for name, table in tables.metadata.tables.items()
        }


def used_hashes(stand_in: Running, accounts_keys: list[dict[str, str]]) -> set[str]:
    """Which of these keys calls have reached the stand-in with. Asserts that nobody ever asked it to change a key."""
    found = stand_in.control("GET", "log")["requests"]
    ours = {key["hash"] for key in accounts_keys}
    changes = [entry for entry in found if entry["method"] != "GET" and any(hashed in entry["path"] for hashed in ours)]
    assert changes == []
    assert [entry["path"] for entry in found if entry["method"] == "DELETE"] == []
    return {entry["key_hash"] for entry in found if entry["path"].endswith("/chat/completions")} & ours


def alarms(gateway: Gateway) -> list[str]:
    """The names of the keys about which the gateway has logged an error."""
    lines = [line for line in gateway.log().splitlines() if "pool_key_unreadable" in line]
    assert all(" ERROR " in line for line in lines)
    return [found[1] for line in lines if (found := re.search(r"key=(key \d)", line))]


def flipped(sealed: str) -> str:
    """With one bit changed in the middle of what is encrypted."""
    data = bytearray(base64.urlsafe_b64decode(sealed))
    data[len(data) // 2] ^= 1
    return base64.urlsafe_b64encode(data).decode()


def swap_two(sealed: dict[int, str]) -> dict[int, str]:
    first, second, *_ = sealed
    return {first: sealed[second], second: sealed[first]}


def flip_one_byte(sealed: dict[int, str]) -> dict[int, str]:
    first, *_ = sealed
    return {first: flipped(sealed[first])}


def seal_one_with_another_key(sealed: dict[int, str]) -> dict[int, str]:
    first, *_ = sealed
    text = Envelopes([ENCRYPTION_KEY]).open("api_keys", "api_key", first, sealed[first])
    return {first: Envelopes([OTHER_KEY]).seal("api_keys", "api_key", first, text)}


def exchange_the_text(sealed: dict[int, str]) -> dict[int, str]:
    """Sealed properly, at its place, by somebody with the key: but it is not the key that the hash names."""
    first, *_ = sealed
    return {first: Envelopes([ENCRYPTION_KEY]).seal("api_keys", "api_key", first, f"sk-or-v1-{1:064x}")}


def cut_short(sealed: dict[int, str]) -> dict[int, str]:
    first, *_ = sealed
    return {first: sealed[first][:60]}


@pytest.mark.parametrize("damage", [swap_two, flip_one_byte, seal_one_with_another_key, exchange_the_text, cut_short])
def test_a_damaged_row_is_alarmed_about_and_left_alone_and_the_others_serve(
    start, stand_in, db, settings, pool, accounts_keys, damage
):
    changed = damage(ciphertexts(db))
    overwrite(db, changed)
    damaged = [number for number, row in enumerate(pool) if row in changed]
    before = ciphertexts(db)

    gateway = start(**settings)
    token = gateway.new_user()
    for _ in range(CALLS):
        assert gateway.chat(token).status_code == 200

    assert sorted(set(alarms(gateway))) == [f"key {number}" for number in damaged]
    health = gateway.get("/api/health").json()["pool"]
    assert (health["usable"], health["known"]) == (4 - len(damaged), 4 - len(damaged))
    hurt = {accounts_keys[number]["hash"] for number in damaged}
    used = used_hashes(stand_in, accounts_keys)
    assert used
    assert not used & hurt
    assert ciphertexts(db) == before


def test_damage_under_a_running_gateway_stops_nothing_and_a_repair_brings_the_key_back(
    start, stand_in, db, settings, pool, accounts_keys
):
    whole = ciphertexts(db)
    gateway = start(**settings)
    token = gateway.new_user()
    overwrite(db, flip_one_byte(whole))
    assert [gateway.chat(token).status_code for _ in range(CALLS)] == [200] * CALLS
    gateway.stop()

    again = start(**settings)
    assert again.get("/api/health").json()["pool"]["usable"] == 3
    overwrite(db, whole)
    again.stop()
    assert start(**settings).get("/api/health").json()["pool"]["usable"] == 4
    used_hashes(stand_in, accounts_keys)


def test_without_any_row_that_opens_calls_are_told_to_wait_and_nothing_is_touched(
    start, stand_in, db, settings, pool, accounts_keys
):
    """As after an encryption key that was removed before everything was sealed anew."""
    overwrite(db, {row: flipped(sealed) for row, sealed in ciphertexts(db).items()})
    before = ciphertexts(db)
    gateway = start(**settings)
    answer = gateway.chat(gateway.new_user())
    assert answer.status_code == 503
    assert "No OpenRouter key is available" in refusal_of(answer)
    assert sorted(set(alarms(gateway))) == [f"key {number}" for number in range(4)]
    assert used_hashes(stand_in, accounts_keys) == set()
    assert ciphertexts(db) == before


@pytest.mark.parametrize(
    "program",
    [["app.py"], ["key_rotation.py", "--once"], ["-m", "flask", "--app", "app", "encryption-keys", "reencrypt"]],
)
def test_with_a_wrong_encryption_key_no_program_starts_writes_or_calls(stand_in, db, settings, pool, program):
    before, calls = everything(db), len(stand_in.control("GET", "log")["requests"])
    wrong = settings | {
        "ENCRYPTION_KEY": OTHER_KEY,
        "DEPLOYMENT_ID": "damage",
        "OPENROUTER_PROVISION_KEY": stand_in.management_key,
    }
    ended = run(*program, **wrong, OPENROUTER_API_KEYS=f"sk-or-v1-{7:064x}")
    assert ended.returncode == 1
    assert "does not open with ENCRYPTION_KEY" in ended.stderr
    assert "Nothing was written" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert everything(db) == before
    assert len(stand_in.control("GET", "log")["requests"]) == calls


def test_the_right_encryption_key_works_again_after_a_wrong_one(start, stand_in, db, settings, pool, accounts_keys):
    assert run("app.py", **settings | {"ENCRYPTION_KEY": OTHER_KEY}).returncode == 1
    gateway = start(**settings)
    assert gateway.chat(gateway.new_user()).status_code == 200
    assert alarms(gateway) == []


def test_the_background_service_deletes_nothing_for_damage(stand_in, db, settings, pool, accounts_keys):
    overwrite(db, swap_two(ciphertexts(db)))
    before = ciphertexts(db)
    rotating = settings | {
        "DEPLOYMENT_ID": "damage",
        "OPENROUTER_PROVISION_KEY": stand_in.management_key,
        "POOL_SIZE": 4,
    }
    ended = run("key_rotation.py", "--once", **rotating)
    assert "Traceback" not in ended.stderr
    used_hashes(stand_in, accounts_keys)
    assert {row: sealed for row, sealed in ciphertexts(db).items() if row in before} == before
