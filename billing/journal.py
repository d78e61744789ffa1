"""The journal: what this process knows of money and the database does not yet, in append-only files under DATA_DIR.

    append ──> open segment ──> take ──> closed segments ──> applied by usage_ledger ──> removed
       └──> memory, while the disk takes nothing ──> retry ──> open segment

An append is one write to a file, which outlives `kill -9` and needs no database. A process holds a lock on its `.lock`
file for as long as it lives, by which others tell that a journal is a dead process's, and adopt it. Segments may be
applied more than once: the ledger makes each record count once.

What is known of a call that was made is never thrown away: while it can't be written down it waits in memory, and no
new call is made, so that what waits is bounded by the calls that were under way.

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
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from billing.records import Record, line_of, record_of
from foundation.logs import event

log = logging.getLogger("journal")

SEGMENT, LOCK = ".jsonl", ".lock"

WAITING_BYTES = 16 * 1024 * 1024  # in memory, which is some ten thousand calls
# More than the block that a file has begun: a full disk still takes a few bytes.
PROBE = bytes(64 * 1024)


def make_folder(folder: Path) -> None:
    """Make the folder of journals. Raises OSError if nothing can be written there."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))


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
        self._is_open = False
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self.fault: str | None = None
        """Why nothing can be written down at present, in the system's words; None if all is well."""

    def check(self) -> None:
        """Make the folder. Raises OSError if nothing can be written there."""
        make_folder(self.folder)

    def open(self) -> None:
        """Begin to write, in the process that serves; on a full disk, as soon as it takes something (`retry`).

        Raises BlockingIOError if another process writes under this name.
        """
        self._is_open = True
        self.retry()

    def _begin(self) -> None:
        if self._holder is None:
            holder = os.open(self.folder / (self.process_id + LOCK), os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(holder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.close(holder)
                raise
            self._holder = holder
        if self._segment is None:
            self._begin_segment()

    def _begin_segment(self) -> None:
        number = self._number + 1
        path = self.folder / f"{self.process_id}.{number:010d}{SEGMENT}"
        segment = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        if self._segment is not None:
            os.close(self._segment)
        self._segment, self._path, self._number, self._size = segment, path, number, 0

    def append(self, record: Record) -> None:
        """Write one record down. Raises OSError if it can't be, or if others wait: then it is nowhere."""
        line = line_of(record)
        # Held while writing: nobody may write to a segment that has been taken.
        with self._lock:
            self._check_open()
            if self.fault is not None:
                raise OSError(self.fault)
            try:
                self._write(line)
            except OSError as error:
                self._note(error)
                raise

    def append_or_wait(self, record: Record) -> bool:
        """Write one record down; while that can't be it waits in memory. False if it could not even wait."""
        line = line_of(record)
        with self._lock:
            if self.fault is None and self._is_open:
                try:
                    self._write(line)
                    return True
                except OSError as error:
                    self._note(error)
            if self._is_open and self._waiting_bytes + len(line) <= WAITING_BYTES:
                self._waiting.append(line)
                self._waiting_bytes += len(line)
                return True
        event(log, "facts_lost", logging.ERROR, count=1, request_id=record.get("request_id"))
        return False

    def _check_open(self) -> None:
        if not self._is_open:
            raise OSError("the journal is not open")

    def _write(self, line: bytes) -> None:
        assert self._segment is not None  # noqa: S101 - without one there is a fault
        written = 0
        try:
            written = os.write(self._segment, line)
        finally:
            if written != len(line):
                with suppress(OSError):  # half a line would swallow the next one
                    os.ftruncate(self._segment, self._size)
        if written != len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._size += written

    def retry(self) -> None:
        """Write what waits, and see whether the disk takes more. In the background, again and again.

        Raises BlockingIOError if another process writes under this name.
        """
        try:
            with self._lock:
                if not self._is_open:
                    return
                self._begin()
                while self._waiting:
                    self._write(self._waiting[0])
                    self._waiting_bytes -= len(self._waiting.popleft())
            self._probe()
        except BlockingIOError:
            raise
        except OSError as error:
            self._note(error)
            return
        with self._lock:
            if self.fault is not None and not self._waiting:
                event(log, "journal_writable_again", logging.WARNING)
                self.fault = None

    def _probe(self) -> None:
        path = self.folder / f"{self.process_id}.probe"
        probe = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            path.unlink()
            if os.write(probe, PROBE) != len(PROBE):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        finally:
            os.close(probe)

    def _note(self, error: OSError) -> None:
        """Refuse records from now on, until `retry` has found the disk writable."""
        if self.fault is None:
            self.fault = error.strerror or str(error)
            event(log, "journal_unwritable", logging.ERROR, reason=self.fault)

    def waiting(self) -> list[Record]:
        """What has not found its way to the disk, oldest first."""
        with self._lock:
            return [record_of(line) for line in self._waiting]

    def drop_waiting(self) -> None:
        """What waited is in the database."""
        with self._lock:
            self._waiting.clear()
            self._waiting_bytes = 0

    def take(self) -> list[Path]:
        """Close the segment that is being written, if it holds anything; returns all closed ones, oldest first.

        If no new one can be begun, writing goes on in the old one.
        """
        with self._lock:
            if self._segment is not None and self._size:
                try:
                    self._begin_segment()
                except OSError as error:
                    self._note(error)
            current = self._path
        return [path for path in segments_of(self.folder, self.process_id) if path != current]

    def seal(self) -> None:
        """Stop writing; `take` returns everything from now on."""
        with self._lock:
            self._is_open = False
            if self._segment is None:
                return
            os.close(self._segment)
            self._segment = None
            if not self._size:
                self._path.unlink(missing_ok=True)
            self._path = self.folder

    def close(self) -> None:
        """Stop writing. What was not taken and applied stays for whoever adopts it."""
        self.seal()
        if self._waiting:
            event(log, "facts_lost", logging.ERROR, count=len(self._waiting))
            self.drop_waiting()
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


def read(segment: Path, unreadable: list[bytes] | None = None) -> Iterator[Record]:
    """The records of a closed segment. unreadable: takes the lines that are damaged, which are reported."""
    with segment.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            try:
                record = record_of(line)
            except ValueError:
                event(log, "journal_line_unreadable", logging.ERROR, file=segment.name, line=number)
                if unreadable is not None:
                    unreadable.append(line)
                continue
            yield record
