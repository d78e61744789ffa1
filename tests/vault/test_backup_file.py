"""A backup's file opens as it was written, under its passphrase, or not at all."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from foundation.crypto import PassphraseSeal, SealBroken
from vault import backup_file
from vault.backup_file import MAGIC, NotABackup, read, write

PASSPHRASE = "kettle orbit mustard violin"
ITEMS = [{"number": number, "text": "naïve 密钥 \r\n" * 9} for number in range(200)]
HEAD = len(MAGIC) + PassphraseSeal.SALT_BYTES


@pytest.fixture(autouse=True)
def small_and_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many pieces, and a passphrase that takes a millisecond."""
    monkeypatch.setattr(backup_file, "PIECE_BYTES", 2000)
    monkeypatch.setattr(PassphraseSeal, "MEMORY_KIB", 64)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "backup"
    assert write(path, PASSPHRASE, iter(ITEMS)) == path.stat().st_size
    return path


def pieces(data: bytes) -> list[bytes]:
    found, at = [], HEAD
    while at < len(data):
        size = 4 + int.from_bytes(data[at : at + 4])
        found.append(data[at : at + size])
        at += size
    return found


def test_what_was_written_is_read_and_nobody_else_may(file):
    assert list(read(file, PASSPHRASE)) == ITEMS
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert b"text" not in file.read_bytes()
    assert [path.name for path in file.parent.iterdir()] == ["backup"]
    empty = file.with_name("empty")
    write(empty, PASSPHRASE, [])
    assert list(read(empty, PASSPHRASE)) == []


def test_a_file_is_there_whole_or_not_at_all(file):
    def fails():
        yield from ITEMS
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        write(file.with_name("other"), PASSPHRASE, fails())
    with pytest.raises(FileExistsError):
        write(file, PASSPHRASE, [])
    assert [path.name for path in file.parent.iterdir()] == ["backup"]


def test_nothing_else_opens(file):
    data = file.read_bytes()
    parts = pieces(data)
    assert len(parts) > 4
    flipped = bytearray(data)
    flipped[HEAD + 100] ^= 1
    damaged = {
        "another passphrase": data,
        "flipped": bytes(flipped),
        "cut after a piece": data[:HEAD] + b"".join(parts[:-1]),
        "cut within one": data[:-5],
        "only the head": data[:HEAD],
        "cut in the salt": data[: HEAD - 1],
        "two swapped": data[:HEAD] + b"".join([parts[1], parts[0], *parts[2:]]),
        "one left out": data[:HEAD] + b"".join([parts[0], *parts[2:]]),
        "one twice": data[:HEAD] + b"".join([parts[0], *parts]),
        "more behind": data + parts[0],
        "another file's salt": data[: HEAD - 1] + bytes([data[HEAD - 1] ^ 1]) + data[HEAD:],
        "no backup": b"PK" + data,
        "empty": b"",
        "a length beyond all bounds": data[:HEAD] + b"\xff\xff\xff\xff" + data[HEAD + 4 :],
    }
    for name, content in damaged.items():
        file.write_bytes(content)
        with pytest.raises((NotABackup, SealBroken)):
            list(read(file, "kettle orbit mustard cello" if name == "another passphrase" else PASSPHRASE))
            pytest.fail(name)
