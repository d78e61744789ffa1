"""The processes of a benchmark: pins them to cores, starts and ends them, reads their CPU time and memory."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).parents[1]
STOP_SECONDS = 20
OPEN_FILES = 65_536


@dataclass(frozen=True)
class Cores:
    """Which core carries the gateway and which one all else; None where processes can't be pinned apart."""

    gateway: int | None
    load: int | None

    @classmethod
    def choose(cls) -> Cores:
        """The first two cores that this process may use."""
        usable = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_setaffinity") else []
        return cls(*usable[:2]) if len(usable) >= 2 else cls(None, None)

    @property
    def note(self) -> str:
        """How the processes are placed, for the report."""
        if self.gateway is None:
            return "NOT pinned: one core, or a system without sched_setaffinity; the figures compare badly"
        return f"gateway on core {self.gateway}, load and stand-in on core {self.load}"


def pin(core: int | None) -> None:
    """Keep this process, and those that it starts from now on, on one core."""
    if core is not None:
        os.sched_setaffinity(0, {core})


@dataclass
class Program:
    """A program that we started, with its child processes."""

    process: subprocess.Popen[bytes]

    def tree(self) -> list[psutil.Process]:
        """Its processes that are alive."""
        try:
            top = psutil.Process(self.process.pid)
            return [top, *top.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def cpu_seconds(self) -> float:
        """User and system time of the whole tree until now."""
        times = [process.cpu_times() for process in self.tree()]
        return sum(t.user + t.system for t in times)

    def memory_mb(self) -> dict[str, float]:
        """Resident memory of the tree: RSS counts shared pages once a process, PSS once (Linux only)."""
        infos = []
        for process in self.tree():
            with contextlib.suppress(psutil.NoSuchProcess):  # it has just ended
                infos.append(process.memory_full_info())
        sums = {"rss_mb": sum(i.rss for i in infos) / 1e6}
        if infos and hasattr(infos[0], "pss"):
            sums["pss_mb"] = sum(i.pss for i in infos) / 1e6
        return sums

    def stop(self) -> None:
        """End it, and what it started."""
        tree = self.tree()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            pass
        for process in tree:
            if process.is_running():  # the same process, not another one with its number
                process.kill()
        self.process.wait()


def start(arguments: list[str], core: int | None, back_to: int | None, **popen: Any) -> Program:
    """Start a Python program of the project on one core, and return this process to another."""
    return start_program([sys.executable, *arguments], core, back_to, cwd=ROOT, **popen)


def start_program(command: list[str], core: int | None, back_to: int | None, **popen: Any) -> Program:
    """Start any program on one core, and return this process to another."""
    pin(core)
    try:
        return Program(subprocess.Popen(command, **popen))
    finally:
        pin(back_to)


def bare_environment(**settings: object) -> dict[str, str]:
    """The environment of a child: nothing of the developer's own configuration, then these settings."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
    kept |= {"ENV_FILE": os.devnull, "FLASK_SKIP_DOTENV": "1"}
    return kept | {name: str(value) for name, value in settings.items()}


def raise_open_files() -> None:
    """Let this process, and those that it starts, open as many files as the system lets them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))


def free_port() -> int:
    """A port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
