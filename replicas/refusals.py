"""What the database refuses although it answers: read-only, full, locked, no grant, an unknown statement.

Told once with its words in the log, and by health in a word, which names nobody.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from sqlalchemy.exc import DBAPIError

from db import DatabaseError, error_number
from foundation.logs import event

log = logging.getLogger("db")

# MySQL's and MariaDB's numbers; those below 100 are SQLite's.
WORDS = {
    "read-only": {1290, 1792, 1836, 8},
    "full": {1021, 1026, 1114, 13},
    "locked": {1205, 1213, 5, 6},
    "no-grant": {1044, 1045, 1142, 1143, 1227, 1370},
    "unknown-statement": {1064, 1105, 1149, 1235, 1305},
}


class Refusals:
    """Watches what writes. reason: why the database refuses it at present, in a word; None if it does not."""

    def __init__(self, what: str) -> None:
        self._what = what
        self.reason: str | None = None

    def watch(self, write: Callable[[], object]) -> None:
        """Write. Raises what that raises, after it was noted."""
        try:
            write()
        except DatabaseError as error:
            self._note(error)
            raise
        if self.reason is not None:
            event(log, "database_accepts_again", logging.WARNING, what=self._what)
            self.reason = None

    def _note(self, error: DatabaseError) -> None:
        reason = reason_of(error)
        if reason is None:  # it is away, and the watcher of revisions says so
            return
        if reason != self.reason:
            words = str(error.orig)[:500] if isinstance(error, DBAPIError) else type(error).__name__
            event(log, "database_refuses", logging.ERROR, what=self._what, reason=reason, words=words)
        self.reason = reason


def reason_of(error: DatabaseError) -> str | None:
    """Why the database refuses something, in a word; None if it is away."""
    number = error_number(error)
    if number is None:
        return None
    code = number & 0xFF if number > 0xFFFF or number < 1000 else number  # SQLite's are made more exact above that
    return next((word for word, numbers in WORDS.items() if code in numbers), "refused")
