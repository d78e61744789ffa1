"""The journal: nothing half-written, nothing lost by kill -9, a dead process's files are adopted once."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from billing import journal as usage_journal
from billing.journal import UsageJournal
from tests.support.gateway import ROOT


@pytest.fixture
def journal(tmp_path: Path):
    journal = UsageJournal(tmp_path / "journal", "me")
    journal.check()
    journal.open()
    yield journal
    journal.close()


def texts(segments: list[Path]) -> list[object]:
    return [record["text"] for segment in segments for record in usage_journal.read(segment)]


def test_what_was_appended_is_taken_once_in_order(journal):
    for number in range(3):
        journal.append({"text": number})
    [segment] = journal.take()
    assert texts([segment]) == [0, 1, 2]
    journal.append({"text": 3})
    assert texts(journal.take()) == [0, 1, 2, 3]
    segment.unlink()
    assert texts(journal.take()) == [3]


def test_an_idle_journal_makes_no_segments(journal):
    before = sorted(journal.folder.iterdir())
    assert journal.take() == journal.take() == []
    assert sorted(journal.folder.iterdir()) == before


def test_threads_never_write_to_a_segment_that_was_taken(journal):
    taken: list[Path] = []
    done = threading.Event()

    def take() -> None:
        while not done.is_set():
            for segment in journal.take():
                if segment not in taken:
                    taken.append(segment)

    def write(first: int) -> None:
        for number in range(first, first + 500):
            journal.append({"text": number})

    taker = threading.Thread(target=take)
    writers = [threading.Thread(target=write, args=(first,)) for first in range(0, 4000, 500)]
    taker.start()
    sizes = {}
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    done.set()
    taker.join()
    sizes = {segment: segment.stat().st_size for segment in taken}
    everything = texts(journal.take())
    assert sorted(everything) == list(range(4000))
    assert sizes == {segment: segment.stat().st_size for segment in taken}


def test_a_full_disk_refuses_the_record_and_leaves_no_half_of_it(tmp_path):
    program = """
import resource, signal, sys; from billing.journal import UsageJournal, read
from pathlib import Path
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
journal = UsageJournal(Path(sys.argv[1]), "me")
journal.check(); journal.open()
resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
journal.append({"text": "x" * 50})
for _ in range(3):
    try:
        journal.append({"text": "y" * 50})
    except OSError:
        print("refused")
assert journal.append_or_wait({"text": "w"})
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
journal.retry()
journal.append({"text": "z"})
print([record["text"][0] for segment in journal.take() for record in read(segment)])
"""
    ended = subprocess.run(
        [sys.executable, "-c", program, tmp_path], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert ended.stdout.splitlines() == ["refused"] * 3 + ["['x', 'w', 'z']"]
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 100


def test_a_closed_journal_refuses_records_and_leaves_no_empty_files(journal):
    journal.close()
    with pytest.raises(OSError, match="not open"):
        journal.append({"text": 1})
    assert list(journal.folder.iterdir()) == []
    journal.close()


def test_what_was_not_applied_stays_with_its_lock_for_another_to_adopt(journal):
    journal.append({"text": 1})
    journal.close()
    [lock_file] = usage_journal.lock_files(journal.folder)
    with usage_journal.adopt(lock_file) as dead:
        assert dead is not None
        assert (dead.process_id, texts(dead.segments)) == ("me", [1])


def test_a_living_process_is_not_adopted_and_a_killed_one_is(tmp_path):
    program = """
import sys; from billing.journal import UsageJournal
from pathlib import Path
journal = UsageJournal(Path(sys.argv[1]), "other")
journal.check(); journal.open()
for number in range(100):
    journal.append({"text": number})
print("written", flush=True)
sys.stdin.read()
"""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    process = subprocess.Popen([sys.executable, "-c", program, tmp_path], cwd=ROOT, text=True, **pipes)
    with process:
        assert process.stdout and process.stdout.readline() == "written\n"
        [lock_file] = usage_journal.lock_files(tmp_path)
        with usage_journal.adopt(lock_file) as dead:
            assert dead is None
        process.send_signal(signal.SIGKILL)
        process.wait()
        with usage_journal.adopt(lock_file) as dead:
            assert dead is not None
            assert texts(dead.segments) == list(range(100))
            with usage_journal.adopt(lock_file) as again:
                assert again is None
            usage_journal.forget(tmp_path, "other")
        with usage_journal.adopt(lock_file) as dead:
            assert dead is None


def test_a_damaged_line_is_skipped_reported_and_handed_out(journal, caplog):
    journal.append({"text": 1})
    journal.append({"text": 2})
    [segment] = journal.take()
    first, second = segment.read_bytes().splitlines(keepends=True)
    flipped = first.replace(b'"text":1', b'"text":3')
    bad = [b'{"text": 1.5, "cut\n', b"[]\n", flipped, second[:-8] + b"\n", b'{"half']
    segment.write_bytes(first + b"".join(bad[:-1]) + second + bad[-1])
    unreadable: list[bytes] = []
    assert [record["text"] for record in usage_journal.read(segment, unreadable)] == [1, 2]
    assert unreadable == bad
    reported = [record for record in caplog.records if record.getMessage() == "journal_line_unreadable"]
    assert [record.fields["line"] for record in reported] == [2, 3, 4, 5, 7]


def test_a_journal_of_a_version_without_checksums_is_read(journal):
    journal.append({"text": 1})
    [segment] = journal.take()
    segment.write_bytes(b'{"text":2}\n{"text":3}\n')
    assert texts([segment]) == [2, 3]


@pytest.fixture
def small_disk(tmp_path: Path):
    """A disk of a few hundred kilobytes, which `fill` fills to the last byte."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", folder], check=False)
    if mounted.returncode:
        pytest.skip("this machine lets nobody mount a disk")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def fill(folder: Path) -> Path:
    """Fill the disk; what fills it can be deleted again."""
    file = folder / "filler"
    with pytest.raises(OSError, match="No space"), file.open("ab", buffering=0) as filler:
        while True:
            filler.write(bytes(4096))
    return file


def test_what_a_full_disk_does_not_take_waits_in_its_order_and_nothing_new_begins(small_disk, caplog):
    journal = UsageJournal(small_disk / "journal", "me")
    journal.check()
    journal.open()
    journal.append({"text": 0})
    filler = fill(small_disk)
    number = 0
    while journal.fault is None:  # until the block that the file has begun is full
        number += 1
        assert journal.append_or_wait({"text": number})
    assert journal.append_or_wait({"text": number + 1})
    with pytest.raises(OSError, match="No space"):
        journal.append({"text": "new"})
    journal.retry()
    assert journal.fault == "No space left on device"
    filler.unlink()
    with pytest.raises(OSError, match="No space"):
        journal.append({"text": "new"})  # what waits goes first
    journal.retry()
    assert journal.fault is None
    journal.append({"text": number + 2})
    assert texts(journal.take()) == [*range(number + 3)]
    said = [record.getMessage() for record in caplog.records]
    assert said == ["journal_unwritable", "journal_writable_again"]
    journal.close()


def test_a_journal_opens_on_a_full_disk_and_begins_when_there_is_room(small_disk):
    journal = UsageJournal(small_disk / "journal", "me")
    journal.check()
    filler = fill(small_disk)
    journal.open()
    assert journal.fault == "No space left on device"
    with pytest.raises(OSError, match="No space"):
        journal.append({"text": 1})
    filler.unlink()
    journal.retry()
    journal.append({"text": 2})
    assert texts(journal.take()) == [2]
    journal.close()


def test_what_waits_is_bounded_and_what_is_lost_is_said(small_disk, monkeypatch, caplog):
    monkeypatch.setattr(usage_journal, "WAITING_BYTES", 200)
    journal = UsageJournal(small_disk / "journal", "me")
    journal.check()
    fill(small_disk)
    journal.open()
    assert [journal.append_or_wait({"text": "x" * 60}) for _ in range(3)] == [True, True, False]
    assert [record.getMessage() for record in caplog.records] == ["journal_unwritable", "facts_lost"]
    journal.close()


def test_the_folder_is_for_its_owner_only(journal):
    assert journal.folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in journal.folder.iterdir()} == {0o600}
