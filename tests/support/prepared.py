"""The project's programs in processes of their own that need not load everything first: forks of one that has.

To load Flask, SQLAlchemy and all of our modules takes a second of a core, and what a command then does a tenth of that.
A fork begins where loading has ended, with its own arguments, environment, standard streams and, if wanted, session; it
runs the program from its first line and ends as any process does.
"""

from __future__ import annotations

import gc
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress


class Preparation:
    """The process that has loaded everything. Ends with the process that made it."""

    def __init__(self, cwd: str, environment: Mapping[str, str]) -> None:
        self._requests, theirs = socket.socketpair()
        command = [sys.executable, "-m", "tests.support.prepared", str(theirs.fileno())]
        self._process = subprocess.Popen(command, cwd=cwd, env=environment, pass_fds=[theirs.fileno()])
        theirs.close()

    def begin(
        self,
        command: list[str],
        environment: Mapping[str, str],
        streams: tuple[int, int, int],
        own_session: bool = False,
    ) -> Begun:
        """Begin `python COMMAND` with these standard streams."""
        ours, theirs = socket.socketpair()
        request = json.dumps([command, dict(environment), own_session]).encode()
        socket.send_fds(self._requests, [len(request).to_bytes(4)], [*streams, theirs.fileno()])
        self._requests.sendall(request)
        theirs.close()
        return Begun(ours)


class Begun:
    """A program that runs: what tests need of `subprocess.Popen`."""

    def __init__(self, told: socket.socket) -> None:
        self._socket, self._told = told, told.makefile()
        self.pid = int(self._told.readline())
        self.returncode: int | None = None  # a signal that ended it is a negative number

    def poll(self) -> int | None:
        """Its exit code, or None while it runs."""
        return self._look(0)

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code. timeout: in seconds; raises subprocess.TimeoutExpired."""
        code = self._look(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with suppress(ProcessLookupError):  # it has just ended, and we are about to be told
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _look(self, timeout: float | None) -> int | None:
        if self.returncode is None and select.select([self._socket], [], [], timeout)[0]:
            self.returncode = int(self._told.readline())
            self._told.close()
            self._socket.close()
        return self.returncode


def prepare() -> None:
    """Load what programs load."""
    import alembic.command
    import alembic.config  # noqa: F401
    import flask.cli  # noqa: F401
    import granian.cli  # noqa: F401
    import gunicorn.app.wsgiapp
    import gunicorn.workers.gthread  # noqa: F401
    import jwt  # noqa: F401
    import mysql.connector  # noqa: F401
    import pymysql  # noqa: F401
    import sqlalchemy.dialects.mysql.mysqlconnector  # noqa: F401

    import app  # noqa: F401
    import commands.groups  # noqa: F401
    import services  # noqa: F401
    import serving.door  # noqa: F401
    import web.api.table
    import web.openapi.readers
    import web.pages.table  # noqa: F401

    gc.freeze()


def command_of_fork(requests: socket.socket) -> list[str] | None:
    """In each fork, the command to run there; None in the process itself, once nobody can ask any more."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # those who wait for programs are waited for by nobody
    while True:
        size, fds, _, _ = socket.recv_fds(requests, 4, 4)
        if not size:
            return None
        command, environment, own_session = json.loads(requests.recv(int.from_bytes(size), socket.MSG_WAITALL))
        if not os.fork():
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            requests.close()
            _wait_for_fork(fds.pop())
            _begin(environment, fds, own_session)
            return command  # type: ignore[no-any-return]
        for fd in fds:
            os.close(fd)


def _wait_for_fork(fd: int) -> None:
    """Fork; the parent tells who the child is and how it ended, and ends with it."""
    child = os.fork()
    if not child:
        os.close(fd)
        return
    os.closerange(0, fd)
    os.write(fd, f"{child}\n".encode())
    _, status = os.waitpid(child, 0)
    os.write(fd, f"{os.waitstatus_to_exitcode(status)}\n".encode())
    os._exit(0)


def _begin(environment: dict[str, str], fds: list[int], own_session: bool) -> None:
    if own_session:
        os.setsid()
    for number, fd in enumerate(fds):
        os.dup2(fd, number)
        os.close(fd)
    os.environ.clear()
    os.environ.update(environment)
    sys.stdin = sys.__stdin__ = open(0)  # noqa: SIM115
    sys.stdout = sys.__stdout__ = open(1, "w", buffering=1 if os.isatty(1) else -1)  # noqa: SIM115
    sys.stderr = sys.__stderr__ = open(2, "w", buffering=1, errors="backslashreplace")  # noqa: SIM115


def main() -> None:
    prepare()
    command = command_of_fork(socket.socket(fileno=int(sys.argv[1])))
    if not command:
        return
    if command[0] == "-c":
        sys.argv = ["-c", *command[2:]]
        exec(compile(command[1], "<string>", "exec"), {"__name__": "__main__"})
    elif command[0] == "-m":
        sys.argv = command[1:]
        runpy.run_module(command[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = command
        runpy.run_path(command[0], run_name="__main__")


if __name__ == "__main__":
    main()
