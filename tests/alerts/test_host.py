"""What a process reports of its host."""

from __future__ import annotations

import re
import shutil
from types import SimpleNamespace
from typing import Any

from alerts.host import Host, host_name


def host(folder: Any, fault: str | None = None) -> Host:
    journal, drain = SimpleNamespace(folder=folder, fault=fault), SimpleNamespace(behind_seconds=7)
    return Host(journal, drain, SimpleNamespace(skew_seconds=-12.34))  # type: ignore[arg-type]


def test_disk_journal_and_clock_are_told(tmp_path):
    told = host(tmp_path, fault="No space left on device").report()["host"]
    free = told.pop("free_bytes")
    assert abs(free - shutil.disk_usage(tmp_path).free) < 1e9
    assert told == {
        "name": host_name(),
        "behind_seconds": 7,
        "fault": "No space left on device",
        "skew_seconds": -12.3,
    }


def test_a_disk_that_is_gone_says_nothing_of_its_room_and_hinders_no_report(tmp_path):
    assert "free_bytes" not in host(tmp_path / "gone").report()["host"]


def test_its_name_goes_anywhere():
    assert re.fullmatch(r"[A-Za-z0-9._-]{1,64}", host_name())
