"""Which encryption keys are in use, and everything put under the newest."""

from __future__ import annotations

import json
import re

from cryptography.fernet import Fernet

from app import create_command_line
from config.settings import Config
from foundation.crypto import sha256_hex
from services import build
from tables import pool_keys
from tests.conftest import ENCRYPTION_KEY, SECRET_KEY
from tests.support.operator_commands import KEY, lines

NEW_ENCRYPTION_KEY = Fernet.generate_key().decode()


def config_with(url: str, encryption_key: str) -> Config:
    return Config(database_url=url, encryption_key=encryption_key, secret_key=SECRET_KEY)


def test_the_status_names_each_encryption_key_without_showing_it(command, services):
    fingerprint = sha256_hex(f"encryption-key {ENCRYPTION_KEY}")[:8]
    shown = command("encryption-keys", "status")
    assert lines(shown) == [{"position": 1, "fingerprint": fingerprint, "rows": 3, "removable": False}]
    assert ENCRYPTION_KEY not in shown.output


def test_values_are_sealed_anew_and_the_old_key_is_called_removable(empty_database_url):
    old = build(config_with(empty_database_url, ENCRYPTION_KEY))
    old.pool_keys.add(KEY, "mine", "operator")
    old.db.close()
    both = build(config_with(empty_database_url, f"{NEW_ENCRYPTION_KEY} {ENCRYPTION_KEY}"))
    runner = create_command_line(both).test_cli_runner()
    new_use, old_use = lines(runner.invoke(args=["encryption-keys", "status"]))
    assert (new_use["rows"], new_use["removable"], old_use["rows"], old_use["removable"]) == (0, False, 4, False)
    *progress, new_use, old_use = lines(runner.invoke(args=["encryption-keys", "reencrypt"]))
    assert progress == [{"done": 3, "of": 4, "resealed": 3}, {"done": 4, "of": 4, "resealed": 1}]
    assert (new_use["rows"], new_use["removable"], old_use["rows"], old_use["removable"]) == (4, False, 0, True)
    both.db.close()
    alone = build(config_with(empty_database_url, NEW_ENCRYPTION_KEY))
    assert alone.pool_keys.text(1) == KEY
    alone.db.close()


def test_a_value_that_does_not_open_is_told_and_the_exit_code_is_1(command, services):
    row_id = services.pool_keys.add(KEY, "mine", "operator")
    services.db.transact(lambda tx: tx.execute(pool_keys.update().values(api_key="gAAAA-damaged")))
    for word in ("status", "reencrypt"):
        result = command("encryption-keys", word)
        assert result.exit_code == 1
        told = json.loads(result.stdout.splitlines()[-1])
        assert told == {"unreadable": f"api_keys.api_key of row {row_id} does not open with ENCRYPTION_KEY"}


def test_a_person_sees_how_far_the_sealing_is(services, on_screen):
    shown = on_screen("encryption-keys", "reencrypt", ENCRYPTION_KEY=f"{NEW_ENCRYPTION_KEY} {ENCRYPTION_KEY}").stdout
    assert re.search(r"Sealing .*100%", shown)
    assert "Encryption keys, newest first" in shown
    assert not re.search(r"^\{", shown, re.MULTILINE)
    assert NEW_ENCRYPTION_KEY not in shown
