"""granian ends when it is told to, though its workers still load."""

import os
import signal
import subprocess
import sys

import pytest

from tests.gateway import ROOT, environment, free_port, wait_for

LOADS_FOR_EVER = """
import os, pathlib, threading
pathlib.Path("loading").touch()
threading.Event().wait()
"""


@pytest.mark.parametrize("tell", [lambda pid: os.kill(pid, signal.SIGTERM), lambda pid: os.killpg(pid, signal.SIGINT)])
def test_told_to_end_while_its_worker_loads_the_server_ends_at_once(tmp_path, tell):
    """By a supervisor, or by Ctrl-C, which reaches the worker too."""
    (tmp_path / "loads_for_ever.py").write_text(LOADS_FOR_EVER)
    command = ["-m", "granian_server", "--interface", "wsgi", "--port", str(free_port()), "loads_for_ever:app"]
    search_path = os.pathsep.join([str(ROOT), str(tmp_path)])
    server = subprocess.Popen(
        [sys.executable, *command, "--workers-kill-timeout", "120"],
        cwd=tmp_path,
        env=environment(PYTHONPATH=search_path),
        start_new_session=True,
    )
    wait_for((tmp_path / "loading").exists)
    try:
        tell(server.pid)
        assert server.wait(30) == 0
    finally:
        if server.returncode is None:
            os.killpg(server.pid, signal.SIGKILL)
