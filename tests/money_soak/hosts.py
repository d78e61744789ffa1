"""Two hosts in one: what a replica has of its own is a port, a disk that can be full, and a clock that can be wrong."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from tests.support.gateway import Gateway, free_port, start_gateway

DISK_BYTES = 32 << 20
SOURCE = Path(__file__).with_name("host_clock.c")


class HostClock:
    """Wrong by as much as it is told, for every process that is started with its environment; see host_clock.c.

    Files have the machine's own time all the same: a journal seems to have waited for as long as the clock is wrong.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / "clock"
        self._library = folder / "host_clock.so"
        self._file.write_bytes(bytes(8))
        command = [compiler(), "-shared", "-fPIC", "-O1", "-o", str(self._library), str(SOURCE), "-ldl"]
        subprocess.run(command, check=True)

    @property
    def environment(self) -> dict[str, str]:
        return {"LD_PRELOAD": str(self._library), "HOST_CLOCK": str(self._file)}

    def set_ahead(self, seconds: int) -> None:
        """From now on; below zero: behind."""
        with self._file.open("r+b") as file:  # in place: the file is mapped
            file.write(seconds.to_bytes(8, "little", signed=True))


def compiler() -> str:
    """The C compiler; empty if there is none, and clocks can't be moved."""
    return shutil.which("cc") or ""


class Disk:
    """A file system of some megabytes, in memory. is_limited: False where mounting is not allowed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(mode=0o700)
        command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES},mode=700", "money-soak", str(folder)]
        self.is_limited = subprocess.run(command, check=False, capture_output=True).returncode == 0

    def fill(self) -> None:
        """Leave not a byte."""
        with suppress(OSError), (self.folder / "full").open("wb", buffering=0) as file:
            while file.write(bytes(4096)):
                pass

    def free(self) -> None:
        (self.folder / "full").unlink(missing_ok=True)

    def unmount(self) -> None:
        if self.is_limited:
            subprocess.run(["umount", "--lazy", str(self.folder)], check=False)


class Replica:
    """A gateway on a host of its own, which may be killed and started again. clock: None for the machine's."""

    def __init__(self, folder: Path, clock: HostClock | None, **settings: Any) -> None:
        self.clock = clock
        self._folder = folder
        self.disk = Disk(folder / "data")
        self._settings = {"PORT": free_port(), "DATA_DIR": self.disk.folder, **settings}
        self._settings |= clock.environment if clock else {}
        self._starts = 0
        try:
            self.start()
        except BaseException:
            self.disk.unmount()
            raise

    def start(self) -> None:
        """Start it, again, and wait until it answers."""
        self._starts += 1
        log = self._folder / f"log-{self._starts}"
        self.gateway: Gateway = start_gateway(log, by_app_py=True, **self._settings)

    def kill(self) -> None:
        """Kill all its processes, so that none of them can say anything any more."""
        workers = psutil.Process(self.gateway.process.pid).children(recursive=True)
        self.gateway.stop(signal.SIGKILL)
        for worker in workers:
            with suppress(ProcessLookupError):
                os.kill(worker.pid, signal.SIGKILL)

    def journals(self) -> int:
        """How many files of the journal wait to be applied."""
        folder = self.disk.folder / "journal"
        return sum(file.stat().st_size > 0 for file in folder.glob("*.jsonl")) if folder.is_dir() else 0

    def close(self) -> None:
        self.gateway.stop()
        self.disk.unmount()
