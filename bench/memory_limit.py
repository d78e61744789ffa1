"""A bound on the memory of a program and its children, as of a container: a control group, where one can be made."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
# Version 2 has one tree; version 1 one for each kind of thing. The file with the bound, and what counts kills for it.
KINDS = {
    "": (CGROUPS, "memory.max", "memory.events"),
    "memory": (CGROUPS / "memory", "memory.limit_in_bytes", "memory.oom_control"),
}
PATIENCE_SECONDS = 10.0


class Group:
    """A control group for one program."""

    def __init__(self, folder: Path, events: str) -> None:
        self._folder = folder
        self._events = events

    def take(self, pid: int) -> None:
        """Put a process in, and the children that it will have."""
        (self._folder / "cgroup.procs").write_text(str(pid), encoding="ascii")

    def kills(self) -> int:
        """How often a process was killed because there was no memory left."""
        lines = (self._folder / self._events).read_text(encoding="ascii").splitlines()
        return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))


@contextlib.contextmanager
def group(megabytes: int) -> Iterator[Group | None]:
    """A group with this bound; None where none can be made. It must be empty again at the end."""
    made = _make(megabytes)
    try:
        yield made and Group(*made)
    finally:
        if made:
            _remove(made[0])


def _make(megabytes: int) -> tuple[Path, str] | None:
    for parent, bound, events in _own():
        folder = parent / f"bench-{os.getpid()}"
        try:
            folder.mkdir()
        except OSError:
            continue
        if (folder / bound).exists() and (folder / events).exists():
            (folder / bound).write_text(str(megabytes * 1_000_000), encoding="ascii")
            return folder, events
        folder.rmdir()  # memory is not among what this tree bounds
    return None


def _own() -> Iterator[tuple[Path, str, str]]:
    """The groups that this process is in: the new one comes below them, and what bounds them holds for it too."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines():
            _number, kind, path = line.split(":", 2)
            if kind in KINDS:
                tree, bound, events = KINDS[kind]
                yield tree / path.lstrip("/"), bound, events


def _remove(folder: Path) -> None:
    """Processes that were killed leave their group a little later."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        try:
            folder.rmdir()
            return
        except OSError:
            time.sleep(0.05)
