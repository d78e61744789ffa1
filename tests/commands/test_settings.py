"""`flask --app app settings`: what is set, where it comes from, and nothing of a secret but that it is set."""

from __future__ import annotations

import json

from tests.conftest import ENCRYPTION_KEY, SECRET_KEY
from tests.support.gateway import on_terminal, run

FLASK = ("-m", "flask", "--app", "app")
SETTINGS = {"SECRET_KEY": SECRET_KEY, "ENCRYPTION_KEY": ENCRYPTION_KEY, "QUOTA_USD": "20"}


def test_what_is_set_is_shown_and_with_all_the_rest(tmp_path):
    ended = run(*FLASK, "settings", **SETTINGS, DATA_DIR=tmp_path)
    rows = {row["name"]: row for row in map(json.loads, ended.stdout.splitlines())}
    assert (rows["QUOTA_USD"]["value"], rows["QUOTA_USD"]["source"]) == ("20", "environment")
    assert rows["SECRET_KEY"]["value"] == "set, secret"
    assert "POOL_SIZE" not in rows
    every = run(*FLASK, "settings", "--all", **SETTINGS, DATA_DIR=tmp_path)
    assert '"POOL_SIZE"' in every.stdout
    assert SECRET_KEY not in ended.stdout + ended.stderr + every.stdout + every.stderr


def test_a_person_gets_a_table(tmp_path):
    shown = on_terminal(*FLASK, "settings", **SETTINGS, DATA_DIR=tmp_path, COLUMNS=100)
    assert (shown.returncode, "│" in shown.stdout, "QUOTA_USD" in shown.stdout) == (0, True, True)
    assert SECRET_KEY not in shown.stdout
