"""The systemd units: systemd's own checks, and their commands against what the project has."""

from __future__ import annotations

import configparser
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from config.settings import LAST_WORDS_SECONDS, Config
from tests.support.gateway import ROOT
from tests.support.rows import each_row

UNITS = sorted((ROOT / "deploy/systemd").glob("*.service"))
UNIT = each_row("unit", UNITS, ids=lambda path: path.name)
MOST_EXPOSED = 1.5
"""On systemd's scale from 0 to 10; an ordinary service has 9.6."""


def service(unit: Path) -> dict[str, str]:
    parser = configparser.RawConfigParser(strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(unit.read_text())
    return dict(parser["Service"])


def analyze(*arguments: object) -> subprocess.CompletedProcess[str]:
    if not shutil.which("systemd-analyze"):
        pytest.skip("no systemd-analyze here")
    command = ["systemd-analyze", *map(str, arguments)]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)


def test_systemd_finds_no_fault(tmp_path):
    for unit in UNITS:  # where they are installed there is an interpreter at that place
        (tmp_path / unit.name).write_text(re.sub(r"/opt/\S+/python", "/usr/bin/env", unit.read_text()))
    done = analyze("verify", "--man=no", *tmp_path.glob("*.service"))
    assert (done.returncode, [line for line in done.stderr.splitlines() if "openrouter-proxy" in line]) == (0, [])


@UNIT
def test_hardly_anything_is_left_to_take_away(unit):
    done = analyze("security", "--offline=true", "--no-pager", unit)
    [exposure] = re.findall(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
    assert float(exposure) <= MOST_EXPOSED


@UNIT
def test_runs_one_of_our_programs_with_files_and_time_enough(unit):
    found = service(unit)
    python, program = shlex.split(found["ExecStart"])
    assert python == f"{found['WorkingDirectory']}/.venv/bin/python"
    assert (ROOT / program).exists()
    assert int(found["LimitNOFILE"]) >= 20_000
    environment = dict(pair.split("=", 1) for pair in found["Environment"].split())
    assert environment["APP_ENV"] == "production"
    assert environment["DATA_DIR"] == f"/var/lib/{found['StateDirectory']}"
    if program == "app.py":
        drain = Config.model_fields["drain_seconds"].default
        assert int(found["TimeoutStopSec"]) > drain + LAST_WORDS_SECONDS
        assert "rotation" not in found["EnvironmentFile"], "the management key is for the rotation alone"
