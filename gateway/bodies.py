"""The bodies of calls in flight, and the memory that they share.

A body is there until no further try can need it. What all of them take together is bounded, and a user may have as much
as is still free: one user alone fills a half, two a third each, and a small call of somebody else's finds room.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

from foundation.errors import TooManyRequests
from foundation.json_members import Text
from upstream.http import Buffer

RETRY_AFTER_SECONDS = 2
Pieces = Sequence[Buffer]


class BodyBudget:
    """So many bytes for all bodies in this process; `open` a body for each call."""

    def __init__(self, total: int) -> None:
        self.total = total
        self._lock = threading.Lock()
        self._free = total
        self._held: dict[int, int] = {}
        """By user."""

    def open(self, user_id: int) -> HeldBody:
        """A body of this user's, empty so far."""
        return HeldBody(b"", self, user_id)

    @property
    def largest(self) -> int:
        """What one body may have: so much fits while nothing else is in flight, also if it comes in parts."""
        return self.total // 2

    @property
    def held(self) -> int:
        """How many bytes are taken at this moment."""
        return self.total - self._free

    def take(self, user_id: int, size: int) -> None:
        """Take so many bytes of the budget. Raises TooManyRequests."""
        with self._lock:
            held = self._held.get(user_id, 0)
            if held + size > self._free:
                whose = "Your requests" if held else "Other requests"
                raise TooManyRequests(
                    f"{whose} in flight have too many bytes for one of this size; try again shortly",
                    RETRY_AFTER_SECONDS,
                )
            self._free -= size
            self._held[user_id] = held + size

    def give_back(self, user_id: int, size: int) -> None:
        """The reverse of `take`."""
        with self._lock:
            self._free += size
            self._held[user_id] -= size
            if not self._held[user_id]:
                del self._held[user_id]


class HeldBody:
    """One call's body. size: its bytes, also when they are gone. pieces: what goes up of it."""

    __slots__ = ("_budget", "_lock", "_taken", "_user_id", "data", "pieces", "size")

    def __init__(self, data: Text, budget: BodyBudget | None = None, user_id: int = 0) -> None:
        self.data = data
        self.size = len(data)
        self.pieces: Pieces = ()
        self._budget = budget
        self._user_id = user_id
        self._taken = 0
        self._lock = threading.Lock()

    def take(self, size: int) -> None:
        """Make room for so many bytes more, before they are read. Raises TooManyRequests."""
        if self._budget and size:
            self._budget.take(self._user_id, size)
            self._taken += size

    def fill(self, data: Text) -> None:
        """This is what was read."""
        self.data, self.size = data, len(data)

    def let_go(self) -> None:
        """Nobody needs it any more. Only the first call counts; any thread's."""
        with self._lock:
            self.data, self.pieces = b"", ()
            taken, self._taken = self._taken, 0
        if self._budget and taken:
            self._budget.give_back(self._user_id, taken)
