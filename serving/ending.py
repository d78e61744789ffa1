"""Whether this process's server has been told to end. The calls of clients then finish; what lasts for itself stops.

The servers' handlers of signals tell, and there a lock may be held already by what the signal has interrupted: so it is
a mere flag that is looked at, and no threading.Event.
"""

from __future__ import annotations


class _ServerEnd:
    is_near = False


_end = _ServerEnd()


def tell() -> None:
    """No more connections are taken. Once is enough."""
    _end.is_near = True


def is_near() -> bool:
    """True once that was told."""
    return _end.is_near
