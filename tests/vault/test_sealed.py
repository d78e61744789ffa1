"""The deployment's own secret: made once by however many processes, and a canary for a wrong ENCRYPTION_KEY."""

from __future__ import annotations

import pytest
import sqlalchemy as sa
from cryptography.fernet import Fernet

from config.settings import Config
from db import Database, database_url
from foundation.crypto import Envelopes, SealBroken
from tables import sealed_secrets
from tests.conftest import ENCRYPTION_KEY
from tests.support.gateway import in_processes
from vault import sealed as module
from vault.sealed import REFRESH_KEY, USERNAME_KEY, check_canary, open_deployment_key

WRONG = Envelopes([Fernet.generate_key().decode()])


def rows(db: Database) -> list[tuple[object, ...]]:
    with db.reading() as tx:
        return list(map(tuple, tx.execute(sa.select(sealed_secrets)).all()))


def test_the_key_is_32_random_bytes_made_once(db, envelopes, clock):
    key = open_deployment_key(db, envelopes, USERNAME_KEY, clock.now())
    assert len(key) == 32
    assert len(set(key)) > 10
    before = rows(db)
    clock.advance(days=1)
    assert open_deployment_key(db, envelopes, USERNAME_KEY, clock.now()) == key
    assert rows(db) == before


def test_the_key_is_stored_sealed(db, envelopes, clock):
    key = open_deployment_key(db, envelopes, USERNAME_KEY, clock.now())
    [(name, sealed, made_at)] = rows(db)
    assert (name, made_at) == (module.USERNAME_KEY, clock.now())
    assert sealed.startswith("gAAAA")
    assert key.hex() not in sealed


def test_each_name_has_a_key_of_its_own(db, envelopes, clock):
    one, other = (open_deployment_key(db, envelopes, name, clock.now()) for name in (USERNAME_KEY, REFRESH_KEY))
    assert one != other
    assert [open_deployment_key(db, envelopes, name, clock.now()) for name in (REFRESH_KEY, USERNAME_KEY)] == [
        other,
        one,
    ]


def test_a_database_sealed_with_this_key_passes(db, envelopes, clock):
    open_deployment_key(db, envelopes, USERNAME_KEY, clock.now())
    check_canary(db, envelopes)


def test_a_database_sealed_with_an_old_key_passes(db, envelopes, clock):
    key = open_deployment_key(db, envelopes, USERNAME_KEY, clock.now())
    with_newer = Envelopes([Fernet.generate_key().decode(), ENCRYPTION_KEY])
    check_canary(db, with_newer)
    assert open_deployment_key(db, with_newer, USERNAME_KEY, clock.now()) == key


def test_a_wrong_key_is_refused_and_changes_nothing(db, envelopes, clock):
    open_deployment_key(db, envelopes, USERNAME_KEY, clock.now())
    before = rows(db)
    for attempt in (lambda: check_canary(db, WRONG), lambda: open_deployment_key(db, WRONG, USERNAME_KEY, clock.now())):
        with pytest.raises(SealBroken, match="does not open with ENCRYPTION_KEY"):
            attempt()
    assert rows(db) == before


def test_a_ciphertext_from_elsewhere_is_refused(db, envelopes, clock):
    open_deployment_key(db, envelopes, USERNAME_KEY, clock.now())
    foreign = envelopes.seal("api_keys", "api_key", 1, "x")
    db.transact(lambda tx: tx.execute(sealed_secrets.update().values(value_encrypted=foreign)))
    with pytest.raises(SealBroken, match="another place"):
        check_canary(db, envelopes)


def test_an_empty_database_passes_and_stays_empty(empty_database_url, envelopes):
    db = Database(database_url(Config(database_url=empty_database_url)))
    check_canary(db, envelopes)
    assert not db.has_table("sealed_secrets")
    db.close()


def test_a_migrated_database_without_the_row_passes(db, envelopes):
    check_canary(db, envelopes)
    assert rows(db) == []


PREPARE = f"""
import db; from foundation import clock, crypto; from config import settings; from vault import sealed
database = db.Database(db.database_url(settings.Config(database_url=sys.argv[1])))
database.is_current()
envelopes = crypto.Envelopes([{ENCRYPTION_KEY!r}])
"""


def test_processes_that_start_together_make_one_key(db, empty_database_url):
    race = "print(sealed.open_deployment_key(database, envelopes, sealed.USERNAME_KEY, clock.Clock().now()).hex())"
    printed = in_processes(4, PREPARE, race, empty_database_url)
    assert len(set(printed)) == 1
    assert len(printed[0].strip()) == 64
    assert len(rows(db)) == 1
