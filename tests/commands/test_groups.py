"""The command line as a whole: every command is there, says what it is for, and works from a shell."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest

from tests.support.gateway import ROOT, environment
from tests.support.operator_commands import KEY, lines


def test_an_upgrade_of_what_is_current_changes_nothing(command, services):
    assert lines(command("db", "upgrade")) == [{"database": services.db.kind, "schema": "current"}]
    assert services.db.is_current()


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["pool"],
        ["db"],
        ["keys"],
        ["keys", "create"],
        ["encryption-keys"],
        ["pool", "add"],
        ["quota"],
        ["quota", "set"],
    ],
)
def test_every_command_says_what_it_is_for(command, words):
    shown = command(*words, "--help")
    assert shown.exit_code == 0
    assert not re.findall(r"^  [a-z]+\s*$", shown.stdout, re.MULTILINE)


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
