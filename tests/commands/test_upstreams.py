"""`flask --app app upstreams`: keys come from standard input, changes leave the rest alone, `check` really asks."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from config.settings import Config
from services import Services, build
from tests.conftest import ENCRYPTION_KEY, SECRET_KEY
from tests.support.gateway import free_port
from tests.support.scripted_upstream import ScriptedUpstream, json_answer

KEY = "sk-upstream-0123456789abcdef-wxyz"
Command = Callable[..., Result]


@pytest.fixture
def services(migrated_database_url: str, tmp_path: Path) -> Iterator[Services]:
    """As conftest's, but for upstreams on the loopback."""
    secrets = {"encryption_key": ENCRYPTION_KEY, "secret_key": SECRET_KEY}
    settings = {"database_url": migrated_database_url, "data_dir": tmp_path, "allow_private_upstreams": True}
    found = build(Config(**settings, **secrets))
    yield found
    found.db.close()


@pytest.fixture
def command(command: Command) -> Command:
    return lambda *words, key=None: command("upstreams", *words, stdin=key)


def lines(result: Result) -> list[dict[str, Any]]:
    assert result.exit_code == 0, result.output
    assert KEY not in result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_an_upstream_is_added_listed_and_removed(command, services):
    options = ("--base-url", "https://api.example/v1", "--timeout", "7", "--default", "--prefix", "local/=")
    [added] = lines(command("add", "local", *options, "--price", "*=0.5/1.5", key=f"{KEY}\n"))
    expected = {"name": "local", "api_key": "sk-***wxyz", "timeout_seconds": 7, "is_default": True}
    assert added.items() >= expected.items()
    assert (added["model_prefixes"], added["prices"]) == ({"local/": ""}, {"*": {"prompt": 0.5, "completion": 1.5}})
    assert services.upstreams.keys([added["id"]]) == {added["id"]: KEY}
    assert lines(command("list")) == [added]
    assert lines(command("remove", "local")) == [{"name": "local", "state": "removed"}]
    assert lines(command("list")) == []
    entries, total = services.audit.page(1, 10)
    assert total == 2
    assert {(one.actor, one.action, one.subject) for one in entries} == {
        ("cli", "upstream_added", "upstream/local"),
        ("cli", "upstream_removed", "upstream/local"),
    }
    assert KEY not in str(entries)


def test_an_update_changes_what_is_given_and_leaves_the_rest(command, services):
    [added] = lines(command("add", "local", "--base-url", "https://api.example/v1", "--price", "m=1/2", key=KEY))
    [changed] = lines(command("update", "local", "--idle-timeout", "9", "--inactive"))
    assert changed == added | {"idle_timeout_seconds": 9, "is_active": False, "updated_at": changed["updated_at"]}
    [changed] = lines(command("update", str(added["id"]), "--rename", "other", "--new-key", key="sk-another-one-5678"))
    assert (changed["name"], changed["api_key"]) == ("other", "sk-***5678")
    [changed] = lines(command("update", "other", "--no-key", "--base-url", "https://elsewhere.example"))
    assert (changed["base_url"], changed["api_key"]) == ("https://elsewhere.example", None)
    assert changed["prices"] == added["prices"]
    assert lines(command("update", "other", "--prefix", "o/="))[0]["model_prefixes"] == {"o/": ""}
    [changed] = lines(command("update", "other", "--no-prefixes", "--no-prices"))
    assert (changed["model_prefixes"], changed["prices"]) == ({}, {})


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("add", "openrouter", "--base-url", "https://api.example", "--no-key"), "name must"),
        (("add", "local", "--base-url", "https://169.254.169.254", "--no-key"), "base_url can't be used"),
        (("add", "local", "--no-key"), "Missing option '--base-url'"),
        (("add", "local", "--base-url", "https://api.example"), "api_key must"),
        (("add", "x", "--base-url", "https://api.example", "--no-key", "--price", "m=1"), "MODEL=PROMPT/COMPLETION"),
        (("add", "x", "--base-url", "https://api.example", "--no-key", "--prefix", "m"), "must have a ="),
        (("update", "nobody", "--active"), "There is no upstream"),
        (("update", "nobody", "--new-key", "--no-key"), "not both"),
        (("update", "nobody", "--price", "m=1/2", "--no-prices"), "not both"),
        (("remove", "nobody"), "There is no upstream"),
        (("check", "nobody"), "There is no upstream"),
    ],
)
def test_what_can_not_be_is_refused_with_what_is_accepted(command, services, words, complaint):
    result = command(*words, key="")
    assert result.exit_code != 0
    assert complaint in result.output
    assert services.upstreams.rows() == []


def test_check_asks_each_upstream_with_its_key(command):
    upstream = ScriptedUpstream()
    try:
        lines(command("add", "local", "--base-url", upstream.url, key=KEY))
        upstream.play("", json_answer("200 OK", b'{"data":[]}'))
        assert lines(command("check")) == [{"name": "local", "ok": True, "status": 200, "reason": None, "models": 0}]
        for status, reason in (
            ("401 Unauthorized", "it does not take its key"),
            ("302 Found", "it redirects, which is not followed"),
        ):
            upstream.play("", json_answer(status, b"{}", "Location: http://127.0.0.1:1/\r\n"))
            result = command("check", "local")
            assert result.exit_code == 1
            assert json.loads(result.stdout)["reason"] == reason
        lines(command("add", "away", "--base-url", f"http://127.0.0.1:{free_port()}", "--no-key"))
        upstream.play("", json_answer("200 OK", b'{"data":[]}'))
        result = command("check")
        assert result.exit_code == 1
        assert [json.loads(line)["ok"] for line in result.stdout.splitlines()] == [False, True]
        assert KEY not in result.output
    finally:
        upstream.close()
