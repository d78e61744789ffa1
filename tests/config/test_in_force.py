"""What is said of each setting: its value, where that comes from, and of a secret nothing but that it is set."""

from __future__ import annotations

import json
from typing import Any

import pytest

from config.in_force import SECRET, in_force
from config.settings import SECRET_NAMES, Config
from tests.config.test_settings import STRONG
from tests.support.gateway import run

ASK = """
import json
from dataclasses import asdict
from config import sources
from config.in_force import in_force
print(json.dumps([asdict(row) for row in in_force(sources.load())]))
"""


def rows_of(**settings: Any) -> dict[str, dict[str, str]]:
    """What a program with these settings says, by name."""
    ended = run("-c", ASK, **settings)
    assert ended.returncode == 0, ended.stderr
    return {row["name"]: row for row in json.loads(ended.stdout)}


def test_each_value_says_where_it_comes_from(tmp_path):
    (tmp_path / "secret").write_text(STRONG)
    (tmp_path / "env").write_text("QUOTA_USD=none\nPORT=7000\nTRUSTED_HOSTS=a.example b.example\n")
    rows = rows_of(
        DATA_DIR=tmp_path, ENV_FILE=tmp_path / "env", PORT=7001, SECRET_KEY_FILE=tmp_path / "secret", API_DOCS=" "
    )
    found = {name: (rows[name]["value"], rows[name]["source"]) for name in rows}
    assert found["PORT"] == ("7001", "environment")  # which goes before the file
    assert found["QUOTA_USD"] == ("none", ".env")
    assert found["TRUSTED_HOSTS"] == ("a.example, b.example", ".env")
    assert found["SECRET_KEY"] == (SECRET, "secret file")
    assert found["ENCRYPTION_KEY"] == (SECRET, "generated, in DATA_DIR")
    assert found["API_DOCS"] == ("auto", "default")  # a blank is not a value
    assert (rows["PORT"]["default"], rows["QUOTA_USD"]["default"]) == ("5000", "10")
    first = [row["source"] for row in rows.values()]
    assert first == sorted(first, key=lambda source: source.startswith(("default", "generated")))
    assert STRONG not in json.dumps(rows)


def test_no_secret_is_shown_whatever_it_is_called():
    text = "Zx7Kp3Vt0Lm9Rw2YcQd81"
    given = {name.lower(): text for name in SECRET_NAMES if name not in {"UPSTREAMS", "ENCRYPTION_KEY"}}
    several = {"accepted_secret_keys", "openrouter_api_keys"}
    config = Config.model_construct(**{name: (text,) if name in several else text for name, text in given.items()})
    rows = {row.name: row.value for row in in_force(config)}
    assert text not in str(rows)
    assert {rows[name.upper()] for name in given} == {SECRET}


@pytest.mark.parametrize("name", [field.upper() for field in Config.model_fields])
def test_what_holds_secrets_is_known_as_secret(name):
    is_secret = "Secret" in str(Config.model_fields[name.lower()].annotation)
    assert is_secret == (name in SECRET_NAMES)
