"""Told to end, a program ends: while it starts, in the middle of exec, and as process 1, which the system spares."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.support.gateway import ROOT, environment, free_port, wait_for

CONTAINER = ["unshare", "--pid", "--fork", "--kill-child"]
AS_USER = ["unshare", "--user", "--map-root-user", *CONTAINER[1:]]
PROGRAMS = {"app.py": "server", "key_rotation.py": "rotation"}
ENDED = {True: 128 + signal.SIGTERM, False: -signal.SIGTERM}


def unshared() -> list[str]:
    """The command before one that is to be process 1."""
    for command in (CONTAINER, AS_USER):
        if subprocess.run([*command, "true"], capture_output=True, check=False).returncode == 0:
            return command
    pytest.skip("no process may have a number space of its own here")


Start = Callable[..., tuple[subprocess.Popen[bytes], psutil.Process]]


@pytest.fixture(params=[True, False], ids=["process-1", "another"])
def is_first(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def start(is_first: bool, tmp_path: Path) -> Iterator[Start]:
    """Starts a Python program as process 1 or as another; returns what was started, and the program."""
    started: list[subprocess.Popen[bytes]] = []

    def begin(*command: str, **settings: object) -> tuple[subprocess.Popen[bytes], psutil.Process]:
        before = unshared() if is_first else []
        env = environment(DATA_DIR=tmp_path / "data", **settings)
        process = subprocess.Popen([*before, sys.executable, *command], cwd=ROOT, env=env)
        started.append(process)
        outer = psutil.Process(process.pid)
        return process, wait_for(outer.children)[0] if is_first else outer

    yield begin
    for process in started:
        if process.poll() is None:
            process.kill()  # and with it, by --kill-child, what is process 1
            process.wait()


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_that_waits_for_its_database_ends_at_once(start, is_first, program):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = {"DB_HOST": "127.0.0.1", "DB_PORT": silent.getsockname()[1], "DB_PASSWORD": "none-that-anybody-has"}
        keys = {"OPENROUTER_PROVISION_KEY": "sk-or-v1-" + "1" * 64}
        process, started = start(program, PORT=free_port(), **address, **keys)
        silent.settimeout(60)
        connection, _ = silent.accept()
        with connection:
            started.send_signal(signal.SIGTERM)
            assert process.wait(30) == ENDED[is_first]


LOADS = """
import sys, threading
sys.path.insert(0, ".")
from foundation.signals import Listener
Listener()
print("loads", flush=True)
threading.Event().wait()
"""


def test_it_ends_from_its_first_instruction_on(start, is_first, capfd):
    process, started = start("-c", LOADS)
    seen = wait_for(lambda: capfd.readouterr().out)
    assert seen == "loads\n"
    started.send_signal(signal.SIGTERM)
    assert process.wait(30) == ENDED[is_first]


HANDS_OVER = """
import os, signal, sys
sys.path.insert(0, ".")
from foundation.signals import Listener
listener = Listener()
listener.hand_over()
os.kill(os.getpid(), signal.SIGTERM)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""
SERVERS = {
    "granian": ["-m", "serving.granian", "--interface", "wsgi", "--port", "0", "app:app"],
    "gunicorn": ["-m", "gunicorn", "--config", str(ROOT / "gunicorn.conf.py"), "app:app"],
}


@pytest.mark.parametrize("server", SERVERS)
def test_a_signal_between_two_programs_reaches_the_second(start, is_first, server):
    """app.py has checked everything and becomes the server, which has no handlers yet."""
    process, _ = start("-c", HANDS_OVER, *SERVERS[server], PORT=free_port())
    assert process.wait(60) == ENDED[is_first]


HANDLED = """
import os, signal, sys, threading
from foundation.signals import Listener
def handler(number, frame):
    with lock:
        print("handled", number, threading.current_thread().name, flush=True)
    ended.set()
lock, ended = threading.Lock(), threading.Event()
listener = Listener(first=lambda: print("first", flush=True))
signal.signal(signal.SIGTERM, handler)
with lock:
    os.kill(os.getpid(), signal.SIGTERM)
ended.wait()
"""


def python(script: str) -> subprocess.CompletedProcess[str]:
    env = environment(PYTHONPATH=ROOT)
    return subprocess.run(
        [sys.executable, "-c", script], env=env, capture_output=True, text=True, check=False, timeout=60
    )


def test_a_handler_that_was_set_is_called_by_the_thread_that_waits_whatever_lock_the_main_one_holds():
    ended = python(HANDLED)
    assert (ended.stdout, ended.returncode) == (f"first\nhandled {signal.SIGTERM:d} signals\n", 0)


USES_HANDLERS = """
import os, signal
from foundation.signals import Listener, use_handlers
Listener().hand_over()
def of_the_server(number, frame):
    print("handled", number, flush=True)
{before}
os.kill(os.getpid(), signal.SIGTERM)
use_handlers()
print("runs on")
"""


def test_a_server_with_handlers_of_its_own_keeps_them_and_gets_what_was_kept():
    ended = python(USES_HANDLERS.format(before="signal.signal(signal.SIGTERM, of_the_server)"))
    assert (ended.stdout, ended.returncode) == (f"handled {signal.SIGTERM:d}\nruns on\n", 0)
    ended = python(USES_HANDLERS.format(before=""))
    assert (ended.stdout, ended.returncode) == ("", -signal.SIGTERM)


def test_what_the_hand_over_needs_is_free_again():
    shown = "import signal; from foundation.signals import *; Listener().hand_over()\n"
    shown += "print(sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])))"
    assert python(shown).stdout == f"{sorted({signal.SIGINT, signal.SIGTERM})}\n"
