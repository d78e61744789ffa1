"""Whether this process's server has been told to end. The calls of clients then finish; what lasts for itself stops.

The servers' handlers of signals tell, and there a lock may be held already by what the signal has interrupted: so it is
a mere flag that is looked at, and no threading.Event.
"""

from __future__ import annotations

import time


class _ServerEnd:
    told_at: float | None = None
    """In monotonic seconds."""


_end = _ServerEnd()


def tell() -> None:
    """No more connections are taken. Once is enough."""
    if _end.told_at is None:
        _end.told_at = time.monotonic()


def is_near() -> bool:
    """True once that was told."""
    return _end.told_at is not None


def is_here(drain_seconds: float) -> bool:
    """True once calls have had so many seconds to finish since then."""
    return _end.told_at is not None and time.monotonic() >= _end.told_at + drain_seconds
