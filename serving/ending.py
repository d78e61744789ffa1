"""Whether this process's server has been told to end. The calls of clients then finish; what lasts for itself stops.

    announce ──> not ready, still takes connections ──> DRAIN_DELAY_SECONDS ──> tell ──> DRAIN_SECONDS ──> is_here

The servers' handlers of signals tell, and there a lock may be held already by what the signal has interrupted: so it is
a mere flag that is looked at, and no threading.Event.
"""

from __future__ import annotations

import time


class _ServerEnd:
    delay_seconds = 0.0
    announced_at: float | None = None
    told_at: float | None = None
    """Both in monotonic seconds."""


_end = _ServerEnd()


def delay_by(seconds: float) -> None:
    """Take connections for so long after the end was announced: until whoever shares out calls has noticed."""
    _end.delay_seconds = seconds


def announce() -> None:
    """This process is not ready for more calls, and still carries them. Once is enough."""
    if _end.announced_at is None:
        _end.announced_at = time.monotonic()


def is_announced() -> bool:
    """True once that was told: nobody should be sent here, and connections are not kept for another request."""
    return _end.announced_at is not None


def is_due() -> bool:
    """True once the end was announced and the delay is over."""
    return _end.announced_at is not None and time.monotonic() >= _end.announced_at + _end.delay_seconds


def approach() -> None:
    """Announce the end, wait for the delay, tell it: in a thread that has nothing else to do."""
    announce()
    time.sleep(_end.delay_seconds)
    tell()


def tell() -> None:
    """No more connections are taken. Once is enough."""
    announce()
    if _end.told_at is None:
        _end.told_at = time.monotonic()


def is_near() -> bool:
    """True once that was told."""
    return _end.told_at is not None


def is_here(drain_seconds: float) -> bool:
    """True once calls have had so many seconds to finish since then."""
    return _end.told_at is not None and time.monotonic() >= _end.told_at + drain_seconds
