"""Where settings come from: secrets that are generated, the .env file, and what the real programs say of faults."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
import time

import pytest

from config import sources
from tests.config.test_settings import PRODUCTION, STRONG
from tests.support.gateway import ROOT, environment, free_port, in_processes, run

# ── secrets that development generates


def test_development_generates_secrets_and_keeps_them_for_the_next_start(tmp_path):
    folder = tmp_path / "data"
    first, second = (sources.load({"DATA_DIR": str(folder)}) for _ in range(2))
    assert first == second
    assert len(first.encryption_keys) == 1
    assert len(first.secret_key.get_secret_value()) == 64
    assert len(first.deployment_id) == 36
    assert sources.load({"DATA_DIR": str(tmp_path / "other")}).secret_key != first.secret_key


def test_generated_secrets_are_readable_by_their_owner_only(tmp_path):
    folder = tmp_path / "data"
    before = os.umask(0)
    try:
        sources.load({"DATA_DIR": str(folder)})
    finally:
        os.umask(before)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {
        "secret_key": 0o600,
        "encryption_key": 0o600,
        "deployment_id": 0o600,
    }


def test_a_secret_that_is_set_is_not_generated(tmp_path):
    sources.load({"DATA_DIR": str(tmp_path), "SECRET_KEY": STRONG, "DEPLOYMENT_ID": "here"})
    assert [path.name for path in tmp_path.iterdir()] == ["encryption_key"]


def test_production_generates_nothing(tmp_path):
    sources.load(PRODUCTION | {"DATA_DIR": str(tmp_path / "data")})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"\n", b"dev_secret_key", b"\xff\xff"])
def test_a_damaged_generated_secret_refuses_the_start(tmp_path, content):
    (tmp_path / "secret_key").write_bytes(content)
    with pytest.raises(sources.ConfigError) as raised:
        sources.load({"DATA_DIR": str(tmp_path)})
    assert str(tmp_path) in raised.value.problems[0]
    assert (tmp_path / "secret_key").read_bytes() == content


def test_a_data_folder_that_cannot_be_written_refuses_the_start(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(sources.ConfigError, match="DATA_DIR: cannot keep generated secrets"):
        sources.load({"DATA_DIR": str(tmp_path / "file" / "data")})


def test_processes_that_start_together_agree_on_the_generated_secrets(tmp_path):
    show = "c = sources.load(); print(c.secret_key.get_secret_value(), c.encryption_keys, c.deployment_id)"
    printed = set(in_processes(8, "from config import sources", show, DATA_DIR=tmp_path / "data"))
    assert len(printed) == 1
    assert len(printed.pop().split()) == 3
    assert len(list((tmp_path / "data").iterdir())) == 3


# ── the .env file and the real programs


def printed_port(**settings: object) -> str:
    return run("-c", "from config import sources; print(sources.load().port)", **settings).stdout.strip()


def test_the_env_file_gives_values_and_the_environment_overrides_them(tmp_path):
    (tmp_path / "env").write_text('# comment\nPORT=7001\nAPP_TITLE="A b"\nDB_HOST\n', encoding="utf-8")
    assert printed_port(ENV_FILE=tmp_path / "env", DATA_DIR=tmp_path) == "7001"
    assert printed_port(ENV_FILE=tmp_path / "env", DATA_DIR=tmp_path, PORT=7002) == "7002"


@pytest.mark.parametrize("content", [None, b"\xff\xfe"], ids=["missing", "not-text"])
def test_an_env_file_that_cannot_be_read_is_a_fault(tmp_path, content):
    if content:
        (tmp_path / "env").write_bytes(content)
    refused = run("app.py", ENV_FILE=tmp_path / "env", DATA_DIR=tmp_path / "data")
    assert refused.returncode == 1
    assert f"ENV_FILE: cannot read {tmp_path}/env" in refused.stderr
    assert not (tmp_path / "data").exists()


PROGRAMS = {
    "server": ["app.py"],
    "rotation": ["key_rotation.py", "--once"],
    "gunicorn": ["-m", "gunicorn", "app:app"],
    "flask": ["-m", "flask", "--app", "app", "db", "upgrade"],
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_program_names_all_faults_and_ends_with_1_before_it_listens_or_writes(tmp_path, name):
    (tmp_path / "empty").touch()
    port = free_port()
    env = environment(
        APP_ENV="production",
        SECRET_KEY="dev_secret_key",
        ENCRYPTION_KEY_FILE=tmp_path / "empty",
        KEY_LIFETIME_HOURS="long",
        OPENROUTER_API_KEYS="hunter2",
        DATA_DIR=tmp_path / "data",
        HOST="127.0.0.1",
        PORT=port,
    )
    command = [sys.executable, *PROGRAMS[name]]
    process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while process.poll() is None:
        assert not listens(port)
        time.sleep(0.01)
    printed, complaint = process.communicate()
    assert process.returncode == 1
    assert printed == ""
    wanted = ["SECRET_KEY", "ENCRYPTION_KEY_FILE", "KEY_LIFETIME_HOURS", "OPENROUTER_API_KEYS"]
    wanted += ["OPENROUTER_PROVISION_KEY", "DEPLOYMENT_ID"] if name == "rotation" else []
    assert f"Cannot start: {len(wanted)} problems in the configuration." in complaint
    assert sorted(line.split(":")[0].strip() for line in complaint.splitlines() if line.startswith("  ")) == sorted(
        wanted
    )
    assert "Traceback" not in complaint
    assert "hunter2" not in complaint
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
