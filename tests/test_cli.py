"""The operator's commands: what they change, what they refuse, and what pipes and people get to see."""

from __future__ import annotations

import json
import logging
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from click.testing import Result
from cryptography.fernet import Fernet

import usage_checks
from app import create_app
from clock import Clock
from config import Config
from crypto import sha256_hex
from gateway_processes import GatewayProcess
from pool_keys import KeySource, KeyState
from services import Services, build
from tables import api_keys
from tests.conftest import ENCRYPTION_KEY, SECRET_KEY
from tests.gateway import ROOT, environment, new_derived_key
from usage_checks import Check

KEY, OTHER_KEY = "sk-or-v1-" + "a1b2" * 16, "sk-or-v1-" + "c3d4" * 16
NEW_ENCRYPTION_KEY = Fernet.generate_key().decode()
Command = Callable[..., Result]


@pytest.fixture
def services(empty_database_url: str) -> Iterator[Services]:
    found = build(Config(database_url=empty_database_url, encryption_key=ENCRYPTION_KEY, secret_key=SECRET_KEY))
    yield found
    found.db.close()


@pytest.fixture
def command(services: Services) -> Command:
    """Run a command within this process: what it prints goes to a pipe, so to speak."""
    runner = create_app(services).test_cli_runner()
    return lambda *words, stdin=None: runner.invoke(args=list(words), input=stdin)


def lines(result: Result) -> list[dict[str, Any]]:
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_the_daily_checks_are_shown_newest_first(command, services):
    services.keys.add(KEY, "mine", KeySource.OPERATOR)
    assert lines(command("usage", "checks")) == []
    for day in (1, 2, 3):
        midnight = datetime(2026, 11, day, tzinfo=UTC)
        found = Check(midnight, 1, "mine", KeySource.OPERATOR, 10**9, None if day == 3 else 10**9, 0, None, midnight)
        usage_checks.note(services.db, found, lambda _tx: None)
    shown = lines(command("usage", "checks", "--count", "2"))
    assert [(line["day"], line["key"], line["verdict"]) for line in shown] == [
        ("2026-11-03", "mine", "not known yet"),
        ("2026-11-02", "mine", "equal"),
    ]
    assert len(lines(command("usage", "checks"))) == 3
    assert command("usage", "checks", "--count", "0").exit_code == 2


def refusal(result: Result) -> str:
    assert result.exit_code == 1
    assert result.stdout == ""
    return result.stderr


def test_an_empty_pool_is_shown_as_nothing(command):
    assert lines(command("pool")) == []


def test_a_key_from_standard_input_is_added_and_shown_without_its_text(command, services):
    added = command("pool", "add", stdin=f"{KEY}\n")
    name = f"operator/{sha256_hex(KEY)[:12]}"
    assert lines(added) == [{"name": name, "state": "active"}]
    shown = command("pool")
    [line] = lines(shown)
    assert line.pop("created_at")
    assert line == {
        "name": name,
        "state": "active",
        "enabled": True,
        "health": None,
        "reason": None,
        "until": None,
        "limit_usd": None,
        "remaining_usd": None,
        "used": 0,
        "in_flight": 0,
        "expires_at": None,
        "last_used": None,
        "source": "operator",
        "owner_id": None,
        "hash": sha256_hex(KEY)[:12],
    }
    assert "sk-or" not in added.output + shown.output
    services.pool.reload()
    assert services.pool.usable_count() == 1


def test_a_key_may_be_given_a_name(command):
    assert lines(command("pool", "add", "--name", "Schlüssel 🔑", stdin=KEY))[0]["name"] == "Schlüssel 🔑"
    assert lines(command("pool", "add", "--name", "", stdin=OTHER_KEY))[0]["name"].startswith("operator/")


def test_a_key_on_the_command_line_is_refused(command, services):
    for words in (["pool", "add", KEY], ["pool", "add", "--key", KEY]):
        result = command(*words, stdin="")
        assert result.exit_code == 2
    assert services.keys.rows() == []


@pytest.mark.parametrize("text", [b"", b"\n", b"hunter2", KEY[:12].encode(), KEY.encode() + b" x", b"\xff\xfe", b"\0"])
def test_what_is_not_a_key_is_refused_and_not_repeated(command, services, text):
    told = refusal(command("pool", "add", stdin=text))
    assert told == "Error: That does not look like an OpenRouter key (sk-or-v1-...)\n"
    assert services.keys.rows() == []


@pytest.mark.parametrize("name", ["x" * 191, "a\nb", "a\x1b[31mb"])
def test_a_name_that_cannot_be_stored_or_shown_is_refused(command, services, name):
    assert "at most 190 characters" in refusal(command("pool", "add", "--name", name, stdin=KEY))
    assert services.keys.rows() == []


def test_the_longest_name_is_accepted(command):
    assert lines(command("pool", "add", "--name", "🔑" * 190, stdin=KEY))[0]["name"] == "🔑" * 190


@pytest.mark.parametrize(("name", "key"), [("mine", OTHER_KEY), ("other", KEY), ("mine", KEY)])
def test_a_known_key_or_name_is_refused(command, services, name, key):
    command("pool", "add", "--name", "mine", stdin=KEY)
    before = services.keys.rows()
    assert "this key or a key of this name" in refusal(command("pool", "add", "--name", name, stdin=key))
    assert services.keys.rows() == before


def test_a_key_is_disabled_and_enabled_again(command, services):
    command("pool", "add", "--name", "mine", stdin=KEY)
    assert lines(command("pool", "disable", "mine")) == [{"name": "mine", "enabled": False}]
    assert lines(command("pool"))[0]["enabled"] is False
    services.pool.reload()
    assert services.pool.usable_count() == 0
    assert lines(command("pool", "enable", "mine")) == [{"name": "mine", "enabled": True}]
    services.pool.reload()
    assert services.pool.usable_count() == 1


def test_a_minted_key_is_put_down_for_rotation(command, services):
    row_id = services.keys.intend("gw/1/a", datetime.now(UTC) + timedelta(days=1), None, None)
    services.keys.store(row_id, KEY)
    services.keys.switch(row_id, datetime.now(UTC), None)
    assert lines(command("pool", "rotate", "gw/1/a")) == [{"name": "gw/1/a", "rotation": "requested"}]
    assert services.keys.rows()[0].renew_at is not None


def test_a_key_that_nobody_minted_cannot_be_rotated(command, services):
    command("pool", "add", "--name", "mine", stdin=KEY)
    assert "no minted key in use named 'mine'" in refusal(command("pool", "rotate", "mine"))
    assert services.keys.rows()[0].renew_at is None


@pytest.mark.parametrize("word", ["enable", "disable", "rotate"])
def test_an_unknown_name_is_refused(command, word):
    told = refusal(command("pool", word, "nobody"))
    assert told.startswith("Error: There is no ")
    assert told.endswith(" named 'nobody'\n")
    assert command("pool", word).exit_code == 2


def test_every_change_is_logged_and_no_refusal(command, services, caplog):
    caplog.set_level(logging.INFO)
    for words in (["add", "--name", "mine"], ["disable", "mine"], ["enable", "mine"], ["disable", "other"]):
        command("pool", *words, stdin=KEY)
    logged = [(line.message, line.fields) for line in caplog.records if line.name == "cli"]
    assert logged == [(f"pool_key_{what}", {"key": "mine"}) for what in ("added", "disabled", "enabled")]


def test_keys_that_are_over_are_shown_only_if_asked_for_and_the_newest_first(command, services):
    for number, state in enumerate(KeyState):
        row_id = services.keys.add(f"sk-or-v1-{number:064x}", f"key {number}", "operator")
        services.db.transact(partial(set_state, row_id, state))
    newest_first = [state.value for state in reversed(KeyState)]
    assert [line["state"] for line in lines(command("pool", "--all"))] == newest_first
    over = {"deleted", "abandoned", "dead"}
    assert [line["state"] for line in lines(command("pool"))] == [state for state in newest_first if state not in over]


def set_state(row_id, state, tx):
    tx.execute(api_keys.update().where(api_keys.c.id == row_id).values(state=state))


def test_what_gateways_report_is_shown(command, services):
    row_id = services.keys.add(KEY, "mine", "operator")
    told = {"in_flight": 2, "health": "resting", "reason": "429a", "until": "2026-11-21T12:00:00+00:00"}
    GatewayProcess(services.db, Clock()).beat(1, {str(row_id): told})
    [line] = lines(command("pool"))
    assert {name: line[name] for name in told} == told


# ── encryption keys


def test_the_status_names_each_encryption_key_without_showing_it(command, services):
    fingerprint = sha256_hex(f"encryption-key {ENCRYPTION_KEY}")[:8]
    shown = command("keys", "status")
    assert lines(shown) == [{"position": 1, "fingerprint": fingerprint, "rows": 1, "removable": False}]
    assert ENCRYPTION_KEY not in shown.output


def test_values_are_sealed_anew_and_the_old_key_is_called_removable(empty_database_url):
    old = build(config_with(empty_database_url, ENCRYPTION_KEY))
    old.keys.add(KEY, "mine", "operator")
    old.db.close()
    both = build(config_with(empty_database_url, f"{NEW_ENCRYPTION_KEY} {ENCRYPTION_KEY}"))
    runner = create_app(both).test_cli_runner()
    new_use, old_use = lines(runner.invoke(args=["keys", "status"]))
    assert (new_use["rows"], new_use["removable"], old_use["rows"], old_use["removable"]) == (0, False, 2, False)
    *progress, new_use, old_use = lines(runner.invoke(args=["keys", "reencrypt"]))
    assert progress == [{"done": 1, "of": 2, "resealed": 1}, {"done": 2, "of": 2, "resealed": 1}]
    assert (new_use["rows"], new_use["removable"], old_use["rows"], old_use["removable"]) == (2, False, 0, True)
    both.db.close()
    alone = build(config_with(empty_database_url, NEW_ENCRYPTION_KEY))
    assert alone.keys.text(1) == KEY
    alone.db.close()


def test_a_value_that_does_not_open_is_told_and_the_exit_code_is_1(command, services):
    row_id = services.keys.add(KEY, "mine", "operator")
    services.db.transact(lambda tx: tx.execute(api_keys.update().values(api_key="gAAAA-damaged")))
    for word in ("status", "reencrypt"):
        result = command("keys", word)
        assert result.exit_code == 1
        told = json.loads(result.stdout.splitlines()[-1])
        assert told == {"unreadable": f"api_keys.api_key of row {row_id} does not open with ENCRYPTION_KEY"}


def config_with(url: str, encryption_key: str) -> Config:
    return Config(database_url=url, encryption_key=encryption_key, secret_key=SECRET_KEY)


def test_an_upgrade_of_what_is_current_changes_nothing(command, services):
    assert lines(command("db", "upgrade")) == [{"database": services.db.kind, "schema": "current"}]
    assert services.db.is_current()


# ── quotas


def test_a_quota_is_set_shown_listed_and_reset(command, services):
    subject = f"user/{services.auth.register('owner', new_derived_key())}"
    words = ["--limit", "2.5", "--soft", "0.1", "--period", "week", "--recovery", "steady"]
    [given] = lines(command("quota", "set", subject, *words))
    assert given == {
        "subject": subject,
        "limit_usd": 2.5,
        "soft_limit_usd": 0.1,
        "spent_usd": 0.0,
        "reserved_usd": 0.0,
        "remaining_usd": 2.5,
        "period": "week",
        "recovery": "steady",
        "resets_at": None,
        "soft_limit_passed": False,
    }
    assert lines(command("quota", "show", subject)) == lines(command("quota", "list")) == [given]
    lines(command("quota", "set", "key/7", "--limit", "1"))
    assert [line["subject"] for line in lines(command("quota", "list"))] == ["key/7", subject]
    assert [line["subject"] for line in lines(command("quota", "list", "--page", "2", "--page-size", "1"))] == [subject]
    assert lines(command("quota", "reset", subject)) == [{"subject": subject, "limit_usd": None}]
    assert refusal(command("quota", "show", subject)) == f"Error: {subject} has no quota\n"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["set", "user/999999", "--limit", "1"], "There is no user 999999"),
        (["show", "user/999999"], "There is no user 999999"),
        (["reset", "user/999999"], "There is no user 999999"),
        (["set", "group/1"], "user/<id> or key/<id>"),
        (["set", "key/7", "--limit", "-1"], "--limit must be an amount of dollars from 0 to 1000000000, or none"),
        (["set", "key/7", "--limit", "1e30"], "--limit must be"),
        (["set", "key/7", "--soft", "nan"], "--soft must be"),
        (["set", "key/7", "--limit", "1", "--soft", "2"], "soft limit must not be above"),
    ],
)
def test_a_quota_that_makes_no_sense_is_refused(command, services, words, told):
    assert told in refusal(command("quota", *words))
    assert lines(command("quota", "list")) == []


@pytest.mark.parametrize("words", [[], ["pool"], ["db"], ["keys"], ["pool", "add"], ["quota"], ["quota", "set"]])
def test_every_command_says_what_it_is_for(command, words):
    shown = command(*words, "--help")
    assert shown.exit_code == 0
    assert not re.findall(r"^  [a-z]+\s*$", shown.stdout, re.MULTILINE)


# ── as programs


def flask(*words: str, stdin: str = "", **settings: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "flask", "--app", "app", *words]
    pipes = {"input": stdin, "capture_output": True, "text": True}
    return subprocess.run(command, check=False, cwd=ROOT, env=environment(**settings), timeout=60, **pipes)


def test_the_commands_work_from_a_shell_and_show_no_key(tmp_path):
    settings = {"DATA_DIR": tmp_path, "LOG_LEVEL": "DEBUG"}
    upgraded, added, listed = (
        flask(*words, stdin=KEY, **settings) for words in (["db", "upgrade"], ["pool", "add"], ["pool"])
    )
    assert [one.returncode for one in (upgraded, added, listed)] == [0, 0, 0]
    assert json.loads(upgraded.stdout)["schema"] == "current"
    assert json.loads(listed.stdout)["name"] == json.loads(added.stdout)["name"]
    for one in (upgraded, added, listed):
        assert KEY not in one.stdout + one.stderr
    refused = flask("pool", "add", stdin=KEY, **settings)
    assert (refused.returncode, refused.stdout) == (1, "")


def test_a_person_is_asked_for_the_key_unseen_and_gets_a_table(tmp_path):
    reading, writing = pty.openpty()
    env = environment(DATA_DIR=tmp_path, COLUMNS=120, TERM="dumb")
    command = [sys.executable, "-m", "flask", "--app", "app", "pool", "add", "--name", "mine"]
    streams = dict.fromkeys(("stdin", "stdout", "stderr"), writing)
    process = subprocess.Popen(command, cwd=ROOT, env=env, start_new_session=True, **streams)
    os.close(writing)
    shown = b""
    while b"OpenRouter key: " not in shown:
        shown += os.read(reading, 4096)
    os.write(reading, KEY.encode() + b"\n")
    try:
        while data := os.read(reading, 4096):
            shown += data
    except OSError:  # how a terminal ends
        pass
    os.close(reading)
    assert process.wait(20) == 0
    assert b"Added" in shown
    assert b"mine" in shown
    assert KEY.encode() not in shown


def on_terminal(*words: str, **settings: object) -> str:
    """What a person sees of a command that asks nothing."""
    reading, writing = pty.openpty()
    env = environment(COLUMNS=200, TERM="xterm", **settings)
    command = [sys.executable, "-m", "flask", "--app", "app", *words]
    streams = dict.fromkeys(("stdin", "stdout", "stderr"), writing)
    process = subprocess.Popen(command, cwd=ROOT, env=env, start_new_session=True, **streams)
    os.close(writing)
    shown = b""
    try:
        while data := os.read(reading, 4096):
            shown += data
    except OSError:  # how a terminal ends
        pass
    os.close(reading)
    assert process.wait(20) == 0, shown
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())  # without its colours


def test_a_person_sees_the_pool_as_a_table(empty_database_url):
    services = build(config_with(empty_database_url, ENCRYPTION_KEY))
    row_id = services.keys.add(KEY, "mine [/and] yours", "operator")
    services.keys.set_enabled("mine [/and] yours", False)
    services.keys.set_limits({row_id: (10_000_000_000, 2_500_000_000)})
    GatewayProcess(services.db, Clock()).beat(1, {str(row_id): {"health": "resting", "reason": "429a", "in_flight": 7}})
    services.db.close()
    shown = on_terminal("pool", DATABASE_URL=empty_database_url, SECRET_KEY=SECRET_KEY, ENCRYPTION_KEY=ENCRYPTION_KEY)
    assert "Key pool: 0 usable, 5 wanted, 1 gateways" in shown
    [line] = [line for line in shown.splitlines() if "yours" in line]
    cells = [cell.strip() for cell in line.split("│")[1:-1]]
    assert cells == [
        "mine [/and] yours",
        "active, not enabled",
        "resting 429a",
        "",
        "$10.00",
        "$2.50",
        "0",
        "7",
        "",
        "",
    ]


def test_users_own_keys_are_shown_to_who_asks_for_them(command, services):
    assert lines(command("pool", "add", stdin=KEY))
    row_id = services.keys.intend("own", datetime(2027, 1, 1, tzinfo=UTC), None, None, 17)
    services.keys.store(row_id, OTHER_KEY)
    assert [line["owner_id"] for line in lines(command("pool"))] == [None]
    assert [line["owner_id"] for line in lines(command("pool", "--owner", "any"))] == [17, None]
    assert [line["name"] for line in lines(command("pool", "--owner", "17"))] == ["own"]
    assert lines(command("pool", "--owner", "18", "--all")) == []
    refused = command("pool", "--owner", "me")
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert "must be shared, any, or a user's id" in refused.stderr


def test_a_person_sees_how_far_the_sealing_is(empty_database_url):
    services = build(config_with(empty_database_url, ENCRYPTION_KEY))
    services.db.close()
    keys = f"{NEW_ENCRYPTION_KEY} {ENCRYPTION_KEY}"
    settings = {"DATABASE_URL": empty_database_url, "SECRET_KEY": SECRET_KEY, "ENCRYPTION_KEY": keys}
    shown = on_terminal("keys", "reencrypt", **settings)
    assert re.search(r"Sealing .*100%", shown)
    assert "Encryption keys, newest first" in shown
    assert not re.search(r"^\{", shown, re.MULTILINE)
    assert NEW_ENCRYPTION_KEY not in shown
