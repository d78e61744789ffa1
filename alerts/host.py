"""What each process reports of its host, for whoever looks at all of them: disk, clock, journal."""

from __future__ import annotations

import platform
import re
import shutil
from typing import Any

from billing.drain import UsageDrain
from billing.journal import UsageJournal
from foundation.clock import Clock

HOST = "host"
"""Its place in a process's report, beside those of keys and upstreams."""
MAX_NAME = 64


def host_name() -> str:
    """This host's name, in characters that go anywhere."""
    return re.sub(r"[^A-Za-z0-9._-]", "-", platform.node())[:MAX_NAME] or "unnamed"


class Host:
    """This process's host."""

    def __init__(self, journal: UsageJournal, drain: UsageDrain, clock: Clock) -> None:
        self._journal = journal
        self._drain = drain
        self._clock = clock
        self._name = host_name()

    def report(self) -> dict[str, dict[str, Any]]:
        """For the process's report."""
        told: dict[str, Any] = {
            "name": self._name,
            "behind_seconds": self._drain.behind_seconds,
            "fault": self._journal.fault,
            "skew_seconds": round(self._clock.skew_seconds, 1),
        }
        try:
            told["free_bytes"] = shutil.disk_usage(self._journal.folder).free
        except OSError:  # the fault says so
            pass
        return {HOST: told}
