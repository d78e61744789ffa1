"""Records that no row can hold, kept beside the journal until somebody has mended them: `<segment's name>.damaged`.

Each line is a record as it was written; a damaged one still has its checksum, which whoever mends the line removes.
Repeated repairs are harmless: the ledger makes each record count once.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson

from billing.ledger import UsageLedger
from billing.records import Record, record_of

DAMAGED = ".damaged"
MENDED_WITHIN_SECONDS = 365 * 86_400.0  # a call counts where it began, and not when somebody came to mend it


@dataclass(frozen=True)
class Kept:
    """One line that is set aside. line: its number in the file, from 1. reason: why it can't be applied as it is."""

    file: str
    line: int
    reason: str
    text: str


def keep(segment: Path, unreadable: Sequence[bytes], unusable: Sequence[Record]) -> None:
    """Set these lines and records of a segment aside. Raises OSError."""
    lines = [line.removesuffix(b"\n") for line in unreadable] + [orjson.dumps(record) for record in unusable]
    if lines:
        _write(segment.with_suffix(DAMAGED), lines)


def count(folder: Path) -> int:
    """How many lines are set aside."""
    return sum(1 for file in _files(folder) for line in file.read_bytes().splitlines() if line.strip())


def repair(folder: Path, ledger: UsageLedger) -> tuple[int, list[Kept]]:
    """Apply what can be applied by now; how many records that was, and what is left. Raises DatabaseError, OSError."""
    applied, left = 0, []
    for file in _files(folder):
        kept = list(_apply(file, ledger))
        applied += sum(1 for line in file.read_bytes().splitlines() if line.strip()) - len(kept)
        if kept:
            _write(file, [each.text.encode() for each in kept])
        else:
            file.unlink()
        left += kept
    return applied, left


def _apply(file: Path, ledger: UsageLedger) -> Iterator[Kept]:
    """Apply a file's lines; what can't be applied."""
    records: list[Record] = []
    left: list[tuple[str, str]] = []
    for line in file.read_bytes().splitlines():
        try:
            if line.strip():
                records.append(record_of(line))
        except ValueError as fault:
            left.append((line.decode(errors="backslashreplace"), str(fault)))
    for unusable in ledger.apply(file.name.partition(".")[0], records, MENDED_WITHIN_SECONDS):
        left.append((orjson.dumps(unusable.record).decode(), unusable.reason))
    for number, (text, reason) in enumerate(left, 1):
        yield Kept(file.name, number, reason, text)


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"*{DAMAGED}"))


def _write(path: Path, lines: Sequence[bytes]) -> None:
    """Replace a file as a whole, on the disk before its old name is gone."""
    partial = path.with_suffix(".partial")
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(b"".join(line + b"\n" for line in lines))
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
