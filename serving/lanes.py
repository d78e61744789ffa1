"""Who may hold a thread: model calls, log-ins and everything else have threads that the others can't take.

A request enters its lane before it does anything that takes time; where there is no room it is answered at once, by
threads that are kept for such answers. Within a lane no address takes more than its share, but that whoever has not
sent its body within a moment makes room for the next one.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator

from foundation.errors import Busy
from serving.slow_bodies import BodyOnItsWay

FULL = "The service has as many requests as it can carry at this moment; try again in a second"


class Place:
    """A request in its lane. body: while it is on its way."""

    __slots__ = ("_lane", "address", "body")

    def __init__(self, lane: Lane, address: str) -> None:
        self._lane = lane
        self.address = address
        self.body: BodyOnItsWay | None = None

    def held(self, body: Iterable[bytes]) -> Iterable[bytes]:
        """An answer's body; the place is left when the server has closed it, or at once if it is whole."""
        if isinstance(body, tuple | list):
            self.leave()
            return body
        return _Held(body, self)

    def leave(self) -> None:
        """The request is over. Only the first call counts; any thread's."""
        self._lane.remove(self)


class Lane:
    """Room for so many requests at once, and for so many of one address."""

    def __init__(self, size: int, of_one_address: int) -> None:
        self._size = size
        self._of_one_address = of_one_address
        self._lock = threading.Lock()
        self._places: dict[Place, None] = {}
        self._of: dict[str, int] = {}

    def taken(self) -> tuple[int, int]:
        """How many requests are in it, and how many it has room for."""
        return len(self._places), self._size

    def enter(self, address: str) -> Place:
        """A place for one request; leave it when that is over. Raises Busy."""
        with self._lock:
            if self._of.get(address, 0) >= self._of_one_address:
                self._make_room(place for place in self._places if place.address == address)
            elif len(self._places) >= self._size:
                self._make_room(self._places)
            place = Place(self, address)
            self._places[place] = None
            self._of[address] = self._of.get(address, 0) + 1
            return place

    def _make_room(self, places: Iterable[Place]) -> None:
        """End the oldest of these whose body has not come whole. Raises Busy if there is none."""
        for place in places:
            if place.body and place.body.is_slow and place.body.end():
                self._remove(place)
                return
        raise Busy(FULL)

    def remove(self, place: Place) -> None:
        """Take a request out; for Place.leave."""
        with self._lock:
            self._remove(place)

    def _remove(self, place: Place) -> None:
        if place not in self._places:
            return
        del self._places[place]
        left = self._of[place.address] - 1
        if left:
            self._of[place.address] = left
        else:
            del self._of[place.address]


class _Held:
    """An answer's body that keeps its request's place until the server has closed it."""

    __slots__ = ("_body", "_place")

    def __init__(self, body: Iterable[bytes], place: Place) -> None:
        self._body = body
        self._place = place

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._body)

    def close(self) -> None:
        """The answer has gone, or nobody wants the rest."""
        try:
            if close := getattr(self._body, "close", None):
                close()
        finally:
            self._place.leave()
