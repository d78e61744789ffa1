"""The journal: what this process knows of money and the database does not yet, in append-only files under DATA_DIR.

    append ──> open segment ──> take ──> closed segments ──> applied by usage_ledger ──> removed

An append is one write to a file, which outlives `kill -9` and needs no database. A process holds a lock on its `.lock`
file for as long as it lives, by which others tell that a journal is a dead process's, and adopt it. Segments may be
applied more than once: the ledger makes each record count once.

The kernel has every record at once, the disk within half a minute: a machine that loses power may lose the last ones.
The daily check against OpenRouter's bill shows what that was. Rejected: fsync for each record takes a thousand times as
long as the record.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from foundation.logs import event

log = logging.getLogger("journal")

SEGMENT, LOCK, DAMAGED = ".jsonl", ".lock", ".damaged"

Record = dict[str, Any]


class UsageJournal:
    """This process's own files: `<process id>.<number>.jsonl`."""

    def __init__(self, folder: Path, process_id: str) -> None:
        self.folder = folder
        self.process_id = process_id
        self._lock = threading.Lock()
        self._holder: int | None = None
        self._segment: int | None = None
        self._path = folder
        self._size = 0
        self._number = 0

    def check(self) -> None:
        """Make the folder. Raises OSError if nothing can be written there."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not os.access(self.folder, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self.folder))

    def open(self) -> None:
        """Begin to write, in the process that serves. Raises OSError."""
        self._holder = os.open(self.folder / (self.process_id + LOCK), os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(self._holder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with self._lock:
            self._begin_segment()

    def _begin_segment(self) -> None:
        number = self._number + 1
        path = self.folder / f"{self.process_id}.{number:010d}{SEGMENT}"
        segment = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        if self._segment is not None:
            os.close(self._segment)
        self._segment, self._path, self._number, self._size = segment, path, number, 0

    def append(self, record: Record) -> None:
        """Write one record down. Raises OSError if it can't be: then nothing of it is in the file."""
        line = orjson.dumps(record) + b"\n"
        # Held while writing: nobody may write to a segment that has been taken.
        with self._lock:
            if self._segment is None:
                raise OSError("the journal is not open")
            written = 0
            try:
                written = os.write(self._segment, line)
            finally:
                if written != len(line):
                    with suppress(OSError):  # half a line would swallow the next one
                        os.ftruncate(self._segment, self._size)
            if written != len(line):
                raise OSError("the disk took only a part of the record")
            self._size += written

    def take(self) -> list[Path]:
        """Close the segment that is being written, if it holds anything; returns all closed ones, oldest first.

        Raises OSError if no new one can be begun; then writing goes on in the old one.
        """
        with self._lock:
            if self._segment is not None and self._size:
                self._begin_segment()
            current = self._path
        return [path for path in segments_of(self.folder, self.process_id) if path != current]

    def close(self) -> None:
        """Stop writing. What was not taken and applied stays for whoever adopts it."""
        with self._lock:
            if self._segment is None:
                return
            os.close(self._segment)
            self._segment = None
            if not self._size:
                self._path.unlink(missing_ok=True)
        if self._holder is not None:
            if not segments_of(self.folder, self.process_id):
                (self.folder / (self.process_id + LOCK)).unlink(missing_ok=True)
            os.close(self._holder)
            self._holder = None


@dataclass(frozen=True)
class DeadJournal:
    """What a process that is no more has left."""

    process_id: str
    segments: list[Path]


@contextmanager
def adopt(lock_file: Path) -> Iterator[DeadJournal | None]:
    """The journal of a dead process, for as long as the context lasts; None if it lives, or another has adopted it.

    What is left of it is removed by `forget`.
    """
    try:
        holder = os.open(lock_file, os.O_RDWR)
    except FileNotFoundError:
        yield None
        return
    try:
        try:
            fcntl.flock(holder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
            return
        # Another process may have finished with it between our two steps, and removed the file.
        if not lock_file.exists() or lock_file.stat().st_ino != os.fstat(holder).st_ino:
            yield None
            return
        process_id = lock_file.name.removesuffix(LOCK)
        yield DeadJournal(process_id, segments_of(lock_file.parent, process_id))
    finally:
        os.close(holder)


def forget(folder: Path, process_id: str) -> None:
    """A dead process's journal has been applied: remove its lock file. Only within `adopt`."""
    (folder / (process_id + LOCK)).unlink(missing_ok=True)


def lock_files(folder: Path) -> list[Path]:
    """One for each process, alive or dead, that has a journal here."""
    return sorted(folder.glob(f"*{LOCK}"))


def segments_of(folder: Path, process_id: str) -> list[Path]:
    """A process's segments, oldest first."""
    return sorted(folder.glob(f"{process_id}.*{SEGMENT}"))


def read(segment: Path) -> Iterator[Record]:
    """The records of a closed segment. Lines that can't be read are reported, and the file is kept to be looked at."""
    damaged = False
    with segment.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            try:
                record = orjson.loads(line)
                if not isinstance(record, dict):
                    raise ValueError
            except ValueError:
                damaged = True
                event(log, "journal_line_unreadable", logging.ERROR, file=segment.name, line=number)
                continue
            yield record
    if damaged:
        keep(segment)


def keep(segment: Path) -> None:
    """Keep a copy of a segment that could not be used whole, as `<name>.damaged`, for people to look at."""
    with suppress(FileExistsError):
        segment.with_suffix(DAMAGED).hardlink_to(segment)
