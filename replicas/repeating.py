"""Work that is done again and again in a thread of its own, for as long as the process serves."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from db import DatabaseError

log = logging.getLogger("services")


def repeat(work: Callable[[], object], seconds: float, stopping: threading.Event) -> None:
    """Do the work, and again after each pause of so many seconds, until told to stop.

    No fault of one round ends it. Of a database that is away nothing is said here: the watcher of revisions does.
    """
    while not stopping.wait(seconds):
        try:
            work()
        except DatabaseError:
            pass
        except Exception:
            log.exception("background_fault")
