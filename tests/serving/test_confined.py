"""A gateway in a bare container: process 1, a root file system that can't be written to, and no name that resolves."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import requests

from tests.support.gateway import ANY_NUMBER, ROOT, Gateway, environment, free_port, wait_for
from tests.support.rows import each_row

# Everything becomes read-only but the folder in $0, as with `read_only: true` and a volume in the compose files.
CONFINE = 'mount --bind "$0" "$0" && mount -o remount,ro,bind / && ! touch app.py 2>/dev/null && exec "$@"'
APART = ["unshare", "--mount", "--pid", "--fork", "--kill-child"]


@contextmanager
def confined(folder: Path, **settings: object) -> Iterator[Gateway]:
    """`python app.py` that may write below `folder` alone, as process 1."""
    if subprocess.run(
        [*APART, "sh", "-c", CONFINE, folder, "true"], cwd=ROOT, capture_output=True, check=False
    ).returncode:
        pytest.skip("no process may have mounts of its own here")
    env = environment(DATA_DIR=folder / "data", TMPDIR=folder, PORT=free_port(), **ANY_NUMBER, **settings)
    with (folder / "log").open("wb") as log:
        command = [*APART, "sh", "-c", CONFINE, folder, sys.executable, "app.py"]
        process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=log, stderr=log)
    gateway = Gateway(process, int(env["PORT"]), folder / "log", env)

    def answers() -> bool:
        assert process.poll() is None, gateway.log()
        try:
            return gateway.get("/livez").status_code == 200
        except requests.RequestException:
            return False

    try:
        wait_for(answers)
        yield gateway
    finally:
        if process.poll() is None:
            process.kill()  # and with it, by --kill-child, what is process 1
            process.wait()


@each_row("server", ["granian", "gunicorn"])
def test_as_process_1_on_a_read_only_root_without_names_it_serves_says_what_is_missing_and_ends(
    tmp_path: Path, server: str
) -> None:
    folder = tmp_path / server
    folder.mkdir()
    nowhere = {
        "OPENROUTER_API_URL": "https://no.such.host.invalid/api/v1",
        "OPENROUTER_API_KEYS": f"sk-or-v1-{'a' * 64}",
    }
    with confined(folder, SERVER=server, SERVER_THREADS=16, **nowhere) as gateway:
        caller, another = gateway.new_user(), gateway.new_user()
        failed = gateway.chat(caller)
        assert failed.status_code == 502
        assert "could not be reached" in failed.json()["error"]["message"]
        assert "invalid" not in failed.text
        wait_for(lambda: "upstream_away" in gateway.log())
        refused = gateway.chat(another)
        assert (refused.status_code, refused.json()["error"]["type"]) == (503, "service_busy")
        assert int(refused.headers["Retry-After"]) >= 1
        health = gateway.get("/api/health").json()
        assert (health["status"], health["openrouter"]["status"]) == ("degraded", "unreachable")
        assert health["database"]["status"] == "ok"
        assert gateway.get("/livez").status_code == 200
        assert "Read-only file system" not in gateway.log()
        first = wait_for(psutil.Process(gateway.process.pid).children)[0]
        first.send_signal(signal.SIGTERM)
        assert gateway.process.wait(60) == 0
