"""The files of a journal folder as plain items, for a backup, and back: the next start adopts them as a dead process's.

Taken before the tables: what the drain moves meanwhile is then in both, and counts once all the same.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from billing.journal import LOCK, SEGMENT, make_folder
from billing.set_aside import DAMAGED

PIECE_BYTES = 256 * 1024


def taken(folder: Path) -> Iterator[dict[str, Any]]:
    """{"journal": name, "lines": text} for each piece of each file; whole lines only. Raises OSError."""
    for path in sorted(folder.glob("*")):
        if path.suffix in {SEGMENT, DAMAGED}:
            with suppress(FileNotFoundError), path.open("rb") as file:  # moved into the database by now
                while lines := file.readlines(PIECE_BYTES):
                    whole = b"".join(line for line in lines if line.endswith(b"\n"))
                    yield {"journal": path.name, "lines": whole.decode("latin-1")}


def put_back(folder: Path, items: Iterable[dict[str, Any]], processes: Iterable[str]) -> int:
    """Write the files that the folder has not; returns how many. Raises OSError.

    processes: which have ended without a word, besides those whose files these are. By their `.lock` the next start
    closes what they had begun.
    """
    make_folder(folder)
    drafts: dict[str, Path] = {}
    for item in items:
        name = Path(item["journal"]).name
        if name not in drafts and (folder / name).exists():
            continue  # the host that it was taken on: its own has at least as much
        draft = drafts.setdefault(name, folder / f".{name}.{os.getpid()}")
        draft.touch(mode=0o600)
        with draft.open("ab") as file:
            file.write(item["lines"].encode("latin-1"))
    for name, draft in drafts.items():
        draft.rename(folder / name)
    for process in {*processes, *(name.partition(".")[0] for name in drafts)}:
        (folder / f"{process}{LOCK}").touch(mode=0o600)
    return len(drafts)
