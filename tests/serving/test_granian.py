"""granian ends when it is told to: while its workers still load, and whichever thread the system gives a signal to."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.support.gateway import ROOT, environment, free_port, wait_for

LOADS_FOR_EVER = """
import pathlib, threading
pathlib.Path("loading").touch()
threading.Event().wait()
"""
SERVES = """
import pathlib, threading
threading.Thread(target=threading.Event().wait, daemon=True).start()
def app(environ, start_response):
    start_response("200 OK", [])
    return [b""]
pathlib.Path("loading").touch()
"""


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[str], subprocess.Popen[bytes]]]:
    started: list[subprocess.Popen[bytes]] = []

    def begin(application: str) -> subprocess.Popen[bytes]:
        (tmp_path / "application.py").write_text(application)
        command = ["-m", "serving.granian", "--interface", "wsgi", "--port", str(free_port()), "application:app"]
        search_path = os.pathsep.join([str(ROOT), str(tmp_path)])
        server = subprocess.Popen(
            [sys.executable, *command, "--workers-kill-timeout", "120"],
            cwd=tmp_path,
            env=environment(PYTHONPATH=search_path),
            start_new_session=True,
        )
        started.append(server)
        wait_for((tmp_path / "loading").exists)
        return server

    yield begin
    for server in started:
        if server.poll() is None:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


def told(server: subprocess.Popen[bytes]) -> None:
    """By a supervisor."""
    server.send_signal(signal.SIGTERM)


def ctrl_c(server: subprocess.Popen[bytes]) -> None:
    """On a terminal it reaches the worker too."""
    os.killpg(server.pid, signal.SIGINT)


@pytest.mark.parametrize("tell", [told, ctrl_c])
@pytest.mark.parametrize("application", [LOADS_FOR_EVER, SERVES], ids=["loading", "serving"])
def test_the_server_ends_at_once(start, application, tell):
    server = start(application)
    tell(server)
    assert server.wait(60) == 0


def test_many_signals_end_it_as_one_does(start):
    """A handler that a second signal interrupts would wait for itself."""
    server = start(SERVES)
    for _ in range(200):
        if server.poll() is None:
            told(server)
            ctrl_c(server)
    assert server.wait(60) == 0


def takes(thread: Path) -> bool:
    """True if the system may give SIGTERM to this thread."""
    [blocked] = [line for line in (thread / "status").read_text().splitlines() if line.startswith("SigBlk:")]
    return not int(blocked.split()[1], 16) & 1 << (signal.SIGTERM - 1)


def test_one_thread_of_each_process_takes_the_signal_and_no_other_can(start):
    server = start(SERVES)
    for process in [server.pid, *(child.pid for child in psutil.Process(server.pid).children())]:
        threads = list(Path(f"/proc/{process}/task").iterdir())
        assert len(threads) >= 3  # the main one, the one that listens, and another
        assert [takes(thread) for thread in threads].count(True) == 1
        assert not takes(Path(f"/proc/{process}/task/{process}"))
