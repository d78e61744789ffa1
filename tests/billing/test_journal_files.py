"""The files of a journal folder in a backup: whole lines, and nothing of a host's own is overwritten."""

from __future__ import annotations

import stat
from pathlib import Path

from billing import journal_files
from billing.journal_files import put_back, taken


def test_files_come_back_as_they_were_but_for_half_a_line(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(journal_files, "PIECE_BYTES", 10)
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    (here / "a.1.jsonl").write_bytes(b'{"one":"\xc3\xa9"}\n{"two":2}\n{"ha')
    (here / "a.2.damaged").write_bytes(b"x\n" * 50)
    (here / "a.lock").touch()
    assert put_back(there, taken(here), ["b"]) == 2
    assert {path.name: path.read_bytes() for path in there.iterdir()} == {
        "a.1.jsonl": b'{"one":"\xc3\xa9"}\n{"two":2}\n',
        "a.2.damaged": b"x\n" * 50,
        "a.lock": b"",
        "b.lock": b"",
    }
    assert {stat.S_IMODE(path.stat().st_mode) for path in there.iterdir()} == {0o600}


def test_what_is_there_stays_and_no_name_leads_out_of_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "journal"
    folder.mkdir()
    (folder / "a.1.jsonl").write_text("longer\n")
    items = [{"journal": "a.1.jsonl", "lines": "x\n"}, {"journal": "../out.jsonl", "lines": "y\n"}]
    assert put_back(folder, items, []) == 1
    assert (folder / "a.1.jsonl").read_text() == "longer\n"
    assert [path.name for path in tmp_path.iterdir()] == ["journal"]
    assert (folder / "out.jsonl").read_text() == "y\n"
