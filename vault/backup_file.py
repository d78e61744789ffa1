"""A file of lines under a passphrase, written and read in pieces: what a backup is kept in.

    magic | salt | (length | sealed piece)* | (length | sealed last piece)

A piece is about a megabyte of JSON lines, compressed and sealed for its number and for being the last or not. So one
that is changed, moved, left out or repeated does not open, nor does a file that ends early. Memory holds one at a time.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from foundation.crypto import PassphraseSeal, SealBroken

MAGIC = b"OpenRouter Proxy backup 1\n"
PIECE_BYTES = 1024 * 1024  # before compression; a line is never split
LARGEST_SEALED = 64 * PIECE_BYTES


class NotABackup(Exception):
    """The file is no backup, is damaged or cut, or was sealed under another passphrase."""


def write(path: Path, passphrase: str, items: Iterable[Any]) -> int:
    """Write a new file, readable by its owner alone, that is there whole or not at all; returns its size in bytes.

    Raises OSError, FileExistsError if there is one by this name.
    """
    if path.exists():
        raise FileExistsError(f"{path} exists")
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    seal = PassphraseSeal.new(passphrase)
    draft.touch(mode=0o600)
    try:
        with draft.open("wb") as file:
            file.write(MAGIC + seal.salt)
            waiting = bytearray()
            for item in items:
                waiting += orjson.dumps(item) + b"\n"
                if len(waiting) >= PIECE_BYTES:
                    _write_piece(file, seal.seal(zlib.compress(waiting, 1), is_last=False))
                    waiting.clear()
            _write_piece(file, seal.seal(zlib.compress(waiting, 1), is_last=True))
            file.flush()
            os.fsync(file.fileno())
            size = file.tell()
        path.hardlink_to(draft)
    finally:
        draft.unlink(missing_ok=True)
    return size


def _write_piece(file: BinaryIO, sealed: bytes) -> None:
    file.write(len(sealed).to_bytes(4) + sealed)


def read(path: Path, passphrase: str) -> Iterator[Any]:
    """The file's items. Raises NotABackup, as late as at its end; OSError."""
    with path.open("rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            raise NotABackup(f"{path} is no backup of this program's")
        seal, is_last = PassphraseSeal(passphrase, file.read(PassphraseSeal.SALT_BYTES)), False
        while not is_last:
            size = int.from_bytes(file.read(4))
            sealed = file.read(size) if 0 < size <= LARGEST_SEALED else b""
            is_last = not file.peek(1)
            try:
                text = zlib.decompress(seal.open(sealed, is_last))
            except SealBroken:
                raise NotABackup(f"{path} does not open: another passphrase, or it is damaged or cut") from None
            yield from map(orjson.loads, text.splitlines())
