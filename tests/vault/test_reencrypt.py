"""Replacing the encryption key while others write, while gateways serve, and while the program is killed."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

import pytest
import sqlalchemy as sa
from cryptography.fernet import Fernet

import tables
from accounts.audit_log import AuditLog
from accounts.recovery_codes import RecoveryCodes
from accounts.refused_log_ins import RefusedLogIns
from config.settings import Config
from db import Database, Transaction
from foundation.clock import Clock
from foundation.counts import Counts
from foundation.crypto import Envelopes, SealBroken
from monitor.watched_keys import WatchedKeys
from pool.keys import PoolKeys
from pool.life import PoolKeySource
from tables import pool_keys
from tests.conftest import ENCRYPTION_KEY, SECRET_KEY
from tests.monitor.test_watched_keys import new_user
from tests.support.gateway import ROOT, environment, run
from tests.support.second_factors import second_factors
from upstream.dial import GuardedDial
from upstream.openrouter.key_facts import KeyAccount
from upstream.registry import Upstreams
from vault.reencrypt import BATCH_ROWS, SEALED, EncryptionKeyUse, count_sealed, reencrypt, survey
from vault.sealed import USERNAME_KEY, open_deployment_key

NEW_KEY, FOREIGN_KEY = Fernet.generate_key().decode(), Fernet.generate_key().decode()
OLD, NEW, BOTH = Envelopes([ENCRYPTION_KEY]), Envelopes([NEW_KEY]), Envelopes([NEW_KEY, ENCRYPTION_KEY])
Fill = Callable[[int], None]


@pytest.fixture
def fill(db: Database) -> Fill:
    """Put so many keys into the pool, sealed with the old key, and the canary."""

    def insert(count: int) -> None:
        keys = PoolKeys(db, OLD, Clock())
        open_deployment_key(db, OLD, USERNAME_KEY, Clock().now())
        keys.add(text_of(1), "key 1", PoolKeySource.OPERATOR)
        columns = [
            column for column in pool_keys.columns if column.name not in {"id", "name", "api_key", "api_key_hash"}
        ]
        like_the_first = sa.select(*columns).where(pool_keys.c.id == 1)

        def write(tx: Transaction) -> None:
            values = tx.execute(like_the_first).one()._asdict()
            more = [
                {"id": number, "name": f"key {number}", "api_key": sealed_by_old(number), **values}
                for number in range(2, count + 1)
            ]
            if more:
                tx.execute(pool_keys.insert(), more)

        db.transact(write)

    return insert


def text_of(row: int) -> str:
    return f"sk-or-v1-{row:064x}"


def sealed_by_old(row: int) -> str:
    return OLD.seal("api_keys", "api_key", row, text_of(row))


def ciphertexts(db: Database) -> dict[int, str]:
    with db.reading() as tx:
        return dict(map(tuple, tx.execute(sa.select(pool_keys.c.id, pool_keys.c.api_key)).all()))


def write(db: Database, row: int, sealed: str | None) -> None:
    change = pool_keys.update().where(pool_keys.c.id == row).values(api_key=sealed)
    db.transact(lambda tx: tx.execute(change))


def opens_everywhere(db: Database, envelopes: Envelopes, rows: int) -> None:
    """Assert that every key's text is there."""
    found = ciphertexts(db)
    assert set(found) == set(range(1, rows + 1))
    for row, sealed in found.items():
        assert envelopes.open("api_keys", "api_key", row, sealed) == text_of(row)


def uses(db: Database, envelopes: Envelopes = BOTH) -> list[tuple[int, bool]]:
    return [(key.rows, key.removable) for key in survey(db, envelopes).keys]


# ── sealing anew


def test_the_canary_comes_first_so_that_a_process_with_old_keys_blames_itself(db, fill):
    fill(3)
    next(reencrypt(db, BOTH))
    with pytest.raises(SealBroken):
        open_deployment_key(db, OLD, USERNAME_KEY, Clock().now())
    opens_everywhere(db, OLD, 3)


def test_everything_opens_with_the_new_key_alone_afterwards(db, fill):
    fill(250)
    key = open_deployment_key(db, OLD, USERNAME_KEY, Clock().now())
    batches = list(reencrypt(db, BOTH))
    assert batches == [(1, 1), (100, 100), (100, 100), (50, 50)]
    opens_everywhere(db, NEW, 250)
    assert open_deployment_key(db, NEW, USERNAME_KEY, Clock().now()) == key


def test_what_is_under_the_new_key_already_is_left_alone(db, fill):
    fill(3)
    list(reencrypt(db, BOTH))
    before = ciphertexts(db)
    assert list(reencrypt(db, BOTH)) == [(1, 0), (3, 0)]
    assert ciphertexts(db) == before


def test_only_the_ciphertext_changes(db, fill):
    fill(3)

    def others() -> list[tuple[object, ...]]:
        columns = [column for column in pool_keys.columns if column.name != "api_key"]
        with db.reading() as tx:
            return [
                *map(tuple, tx.execute(sa.select(*columns)).all()),
                *map(tuple, tx.execute(sa.select(tables.revisions)).all()),
            ]

    before = others()
    list(reencrypt(db, BOTH))
    assert others() == before


def test_rows_without_a_text_are_passed_by(db, fill):
    fill(3)
    write(db, 2, None)
    assert count_sealed(db) == 3
    assert list(reencrypt(db, BOTH)) == [(1, 1), (2, 2)]
    assert ciphertexts(db)[2] is None


def test_an_empty_database_is_done(db):
    assert list(reencrypt(db, BOTH)) == []
    assert survey(db, BOTH).is_done


@pytest.mark.parametrize(
    "broken", ["gAAAA", "", Envelopes([FOREIGN_KEY]).seal("api_keys", "api_key", 2, "x"), sealed_by_old(3)]
)
def test_what_does_not_open_stays_as_it_is_and_is_told(db, fill, broken):
    fill(3)
    write(db, 2, broken)
    assert list(reencrypt(db, BOTH)) == [(1, 1), (3, 2)]
    found = survey(db, BOTH)
    assert ciphertexts(db)[2] == broken
    assert len(found.broken) == 1
    assert "api_keys.api_key of row 2" in found.broken[0]
    assert not found.is_done


class Interrupted(Envelopes):
    """Calls back before it first seals a key: a batch has been read by then and not been written."""

    def __init__(self, meanwhile: Callable[[], None]) -> None:
        super().__init__([NEW_KEY, ENCRYPTION_KEY])
        self._meanwhile = [meanwhile]

    def seal(self, table: str, column: str, row: int | str, value: str) -> str:
        while self._meanwhile and table == "api_keys":
            self._meanwhile.pop()()
        return super().seal(table, column, row, value)


@pytest.mark.parametrize("written", [None, "other", "CASE"])
def test_what_somebody_else_writes_meanwhile_is_not_overwritten(db, fill, written):
    fill(3)
    if written == "other":
        written = NEW.seal("api_keys", "api_key", 2, "another text")
    elif written == "CASE":
        written = ciphertexts(db)[2].swapcase()
    assert list(reencrypt(db, Interrupted(lambda: write(db, 2, written)))) == [(1, 1), (3, 2)]
    assert ciphertexts(db)[2] == written


# ── which keys are needed


def test_a_key_is_removable_once_nothing_needs_it(db, fill):
    fill(3)
    three = Envelopes([NEW_KEY, FOREIGN_KEY, ENCRYPTION_KEY])
    assert survey(db, three).keys == [
        EncryptionKeyUse(1, three.fingerprints[0], 0, False),
        EncryptionKeyUse(2, three.fingerprints[1], 0, True),
        EncryptionKeyUse(3, three.fingerprints[2], 4, False),
    ]
    assert not survey(db, three).is_done
    next(reencrypt(db, BOTH))
    assert uses(db) == [(1, False), (3, False)]
    list(reencrypt(db, BOTH))
    assert uses(db) == [(4, False), (0, True)]
    assert survey(db, BOTH).is_done


def test_the_only_key_is_never_removable(db, fill):
    assert uses(db, OLD) == [(0, False)]
    fill(1)
    assert uses(db, OLD) == [(2, False)]


def test_no_key_is_called_removable_while_something_does_not_open(db, fill):
    fill(2)
    write(db, 1, sealed_by_old(2))
    list(reencrypt(db, BOTH))
    assert uses(db) == [(2, False), (0, False)]


def test_no_sealed_column_is_forgotten(db, fill):
    """Wherever a ciphertext lies in the database, this module knows the column."""
    fill(1)
    upstreams = Upstreams(db, OLD, Clock(), GuardedDial(allow_private=False))
    upstreams.add(upstreams.check({"name": "one", "base_url": "https://8.8.8.8"}), "sk-key")
    a_watched_key(db)
    codes, refused = RecoveryCodes(db, Clock()), RefusedLogIns(AuditLog(db, Clock()), Counts())
    second_factors(db, OLD, Clock(), codes, refused).begin(new_user(db, Clock()))
    holding = set()
    with db.reading() as tx:
        for table in tables.metadata.tables.values():
            for row in tx.execute(sa.select(table)).all():
                holding |= {
                    (table.name, name) for name, value in row._asdict().items() if str(value).startswith("gAAAA")
                }
    assert holding == {(column.table.name, column.name) for _, column in SEALED}


def a_watched_key(db: Database) -> int:
    """A key that somebody watches, sealed with the old key; returns its row's id."""
    keys = WatchedKeys(db, OLD, Clock(), Config())
    return keys.add(new_user(db, Clock()), "laptop", text_of(7), KeyAccount(None, None, None, 0, 0)).id


def test_watched_keys_open_with_the_new_key_alone_afterwards(db, fill):
    fill(1)
    row_id = a_watched_key(db)
    list(reencrypt(db, BOTH))
    assert survey(db, BOTH).is_done
    with db.reading() as tx:
        sealed = tx.scalar(sa.select(tables.watched_keys.c.api_key))
    assert NEW.open("personal_keys", "api_key", row_id, sealed) == text_of(7)


def test_the_registry_names_each_row_as_its_seal_does(db, fill):
    fill(1)
    assert [(name.table is column.table) for name, column in SEALED] == [True] * len(SEALED)
    assert survey(db, OLD).broken == []


# ── killed, and beside others

ROWS = 2000
STEP_BY_STEP = """
import sys
import db; from config import settings; from foundation import crypto; from vault import reencrypt
database = db.Database(db.database_url(settings.Config(database_url=sys.argv[1])))
for looked_at, resealed in reencrypt.reencrypt(database, crypto.Envelopes(sys.argv[2:])):
    print(looked_at, resealed, flush=True)
    sys.stdin.readline()
"""


def sealed_in(batches: int) -> int:
    """How many values so many batches seal: the canary alone, then full batches of keys."""
    return 1 + (batches - 1) * BATCH_ROWS if batches else 0


def killed_after(batches: int, url: str) -> None:
    """Run it in a process of its own for so many batches, and kill that somewhere in the next."""
    command = [sys.executable, "-c", STEP_BY_STEP, url, NEW_KEY, ENCRYPTION_KEY]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=ROOT, env=environment(), **pipes) as process:
        assert process.stdin
        assert process.stdout
        for _ in range(batches):
            assert process.stdout.readline()
            process.stdin.write("go on\n")
            process.stdin.flush()
        process.kill()


@pytest.fixture
def watching(db: Database, fill: Fill) -> Iterator[None]:
    """Open every key's text over and over again while the test runs."""
    fill(ROWS)
    stopping, faults = threading.Event(), []

    def watch() -> None:
        try:
            opens_everywhere(db, BOTH, ROWS)
            while not stopping.wait(0.05):
                opens_everywhere(db, BOTH, ROWS)
        except (AssertionError, SealBroken) as fault:
            faults.append(fault)

    thread = threading.Thread(target=watch)
    thread.start()
    yield
    stopping.set()
    thread.join()
    assert faults == []


def test_killed_at_any_point_it_loses_nothing_and_goes_on_when_run_again(db, watching, empty_database_url):
    done = 0
    for batches in (0, 1, 3, 2, 7):
        killed_after(batches, empty_database_url)
        opens_everywhere(db, BOTH, ROWS)
        (under_new, _), (under_old, removable) = uses(db)
        # A run passes by what earlier ones did; the batch in which it is killed is done as a whole or not at all.
        assert max(done, sealed_in(batches)) <= under_new <= max(done, sealed_in(batches + 1))
        assert under_new in {sealed_in(number) for number in range(9)}
        assert (under_new + under_old, removable) == (ROWS + 1, False)
        done = under_new
    settings = {
        "DATABASE_URL": empty_database_url,
        "SECRET_KEY": SECRET_KEY,
        "ENCRYPTION_KEY": f"{NEW_KEY},{ENCRYPTION_KEY}",
    }
    ended = run("-m", "flask", "--app", "app", "encryption-keys", "reencrypt", **settings)
    assert ended.returncode == 0, ended.stderr
    lines = [json.loads(line) for line in ended.stdout.splitlines()]
    assert sum(line["resealed"] for line in lines[:-2]) == ROWS + 1 - done
    assert [(line["position"], line["rows"], line["removable"]) for line in lines[-2:]] == [
        (1, ROWS + 3, False),  # those of usernames, refresh tokens and the domain; the start made the last two
        (2, 0, True),
    ]
    opens_everywhere(db, NEW, ROWS)
    assert NEW_KEY not in ended.stdout + ended.stderr


def test_a_running_gateway_serves_on_and_starts_with_the_new_key_alone(start, stand_in, migrated_database_url):
    key = stand_in.new_key()["key"]
    shared = {"DATABASE_URL": migrated_database_url, "SECRET_KEY": SECRET_KEY, "OPENROUTER_API_URL": stand_in.address}
    old = start(**shared, ENCRYPTION_KEY=ENCRYPTION_KEY, OPENROUTER_API_KEYS=key)
    token = old.new_user()
    old.stop()
    both = {**shared, "ENCRYPTION_KEY": f"{NEW_KEY} {ENCRYPTION_KEY}"}
    serving = start(**both)
    assert serving.chat(token).status_code == 200
    ended = run("-m", "flask", "--app", "app", "encryption-keys", "reencrypt", **both)
    assert ended.returncode == 0, ended.stderr
    assert serving.chat(token).status_code == 200
    serving.stop()
    new = start(**shared, ENCRYPTION_KEY=NEW_KEY)
    assert new.chat(token).status_code == 200
    assert "ERROR" not in serving.log() + new.log()
