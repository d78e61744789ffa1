"""Answers to exact repeats of a call, for client keys that want that: kept for minutes, in this process's memory alone.

A repeat is a call with the same client key, on the same path, that would send the same bytes to the same place. All
that is asked of a call before it goes up has been asked of a repeat, too. Nobody else's call is answered from here.

    repeat_of ──> find ──┬─> an answer, and nothing goes up
                         └─> None; then `recorded`: what goes to the client is kept if it comes to a good end
"""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator

import msgspec

from accounts.client_keys import TEXT_SCOPES
from config.settings import Config
from formats.event_stream import KEEPALIVE
from formats.server_tools import uses_server_tools
from gateway.answer import Headers, ProxyAnswer
from gateway.request import ProxyRequest
from gateway.route import Route

MAX_ANSWER_BYTES = 1024 * 1024  # of one answer: so much is held beside those that are kept, for each call under way
ROW_BYTES = 1024  # what an answer takes beside its body, about
DIRECTIVE = re.compile(r'([a-z-]+)(?:="?([0-9]*)"?)?')
NO_AGE = -1.0


class KeptAnswer(msgspec.Struct, frozen=True):
    """A whole answer as its client got it. user_id: whose it is. kept_at: in monotonic seconds."""

    user_id: int
    headers: Headers
    body: bytes
    kept_at: float

    @property
    def size(self) -> int:
        """The memory that it takes, about."""
        return len(self.body) + ROW_BYTES


class _Share:
    """What one user has here: names of answers, the oldest first, and the memory that they take."""

    __slots__ = ("names", "size")

    def __init__(self) -> None:
        self.names: dict[bytes, None] = {}
        self.size = 0


class ResponseCache:
    """The answers that this process keeps. monotonic: the time."""

    def __init__(self, config: Config, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._seconds = config.response_cache_seconds
        self._most = config.response_cache_bytes
        self._most_of_user = min(config.response_cache_user_bytes, config.response_cache_bytes)
        self._monotonic = monotonic
        self._kept: dict[bytes, KeptAnswer] = {}  # the oldest first: all stay for the same time
        self._shares: dict[int, _Share] = {}
        self._size = 0
        self._lock = threading.Lock()

    def repeat_of(self, request: ProxyRequest, route: Route) -> Repeat | None:
        """The call as one that may be answered from here; None for one that may not, as nearly all."""
        key = request.caller.client_key
        if key is None or not key.response_cache or not self._seconds or request.api.name not in TEXT_SCOPES:
            return None
        body = route.body
        if body.others or any(":online" in name for name in body.names) or uses_server_tools(request.body.data):
            return None
        return Repeat(self, request, route)

    def find(self, name: bytes, max_age: float) -> tuple[KeptAnswer, float] | None:
        """The answer of this name and its age, if it is no older than that."""
        kept = self._kept.get(name)
        if kept is None:
            return None
        age = self._monotonic() - kept.kept_at
        return (kept, age) if age < self._seconds and age <= max_age else None

    def keep(self, name: bytes, user_id: int, headers: Headers, body: bytes) -> None:
        """Keep an answer, in the place of older ones where there is no room."""
        kept = KeptAnswer(user_id, headers, body, self._monotonic())
        if kept.size > self._most_of_user:
            return
        with self._lock:
            if name in self._kept:
                self._drop(name)
            share = self._shares.setdefault(user_id, _Share())
            self._kept[name], share.names[name] = kept, None
            self._size, share.size = self._size + kept.size, share.size + kept.size
            while share.size > self._most_of_user:
                self._drop(next(iter(share.names)))
            while self._size > self._most:
                self._drop(next(iter(self._kept)))

    def drop_old(self) -> None:
        """Forget what is too old to be an answer."""
        with self._lock:
            while self._kept:
                name, kept = next(iter(self._kept.items()))
                if self._monotonic() - kept.kept_at < self._seconds:
                    return
                self._drop(name)

    def _drop(self, name: bytes) -> None:
        kept = self._kept.pop(name)
        share = self._shares[kept.user_id]
        del share.names[name]
        share.size -= kept.size
        self._size -= kept.size
        if not share.names:
            del self._shares[kept.user_id]


class Repeat:
    """One call that may be answered by what an equal one was answered."""

    def __init__(self, cache: ResponseCache, request: ProxyRequest, route: Route) -> None:
        self._cache = cache
        self._user_id = request.caller.user_id
        self._name = _name_of(request, route)
        self._max_age, self._may_keep = _wishes(request.cache_control)

    def find(self) -> ProxyAnswer | None:
        """What an equal call was answered, if that is here and the client takes it."""
        if (found := self._cache.find(self._name, self._max_age)) is None:
            return None
        kept, age = found
        told = [("X-Cache", "HIT"), ("Age", str(int(age))), ("Content-Length", str(len(kept.body)))]
        return ProxyAnswer(200, kept.headers + told, (kept.body,))

    def recorded(self, answer: ProxyAnswer, is_good: Callable[[], bool]) -> ProxyAnswer:
        """The answer of a call that went up, which is kept on its way. is_good: asked when it has passed."""
        headers = [*answer.headers, ("X-Cache", "MISS")]
        if not self._may_keep or answer.status != 200:
            return ProxyAnswer(answer.status, headers, answer.body)
        kept = [header for header in answer.headers if header[0] != "Content-Length"]

        def keep(body: bytes) -> None:
            if is_good():
                self._cache.keep(self._name, self._user_id, kept, body)

        if isinstance(answer.body, tuple):  # whole
            keep(b"".join(answer.body))
            return ProxyAnswer(200, headers, answer.body)
        return ProxyAnswer(200, headers, RecordedBody(answer.body, keep))


class RecordedBody:
    """A body on its way to the client; keep: gets it as one text if it came to its end and is not too long."""

    __slots__ = ("_body", "_keep")

    def __init__(self, body: Iterable[bytes], keep: Callable[[bytes], None]) -> None:
        self._body = body
        self._keep = keep

    def __iter__(self) -> Iterator[bytes]:
        held: list[bytes] = []
        size = 0
        for piece in self._body:
            size += len(piece)
            if size > MAX_ANSWER_BYTES:
                held.clear()
            elif piece != KEEPALIVE:
                held.append(piece)
            yield piece
        if size <= MAX_ANSWER_BYTES:
            self._keep(b"".join(held))

    def close(self) -> None:
        """The client has it all, or wants no more."""
        if close := getattr(self._body, "close", None):
            close()


def _name_of(request: ProxyRequest, route: Route) -> bytes:
    """A hash of all that could make another answer: whose call it is, where it goes, and each byte that goes there."""
    caller = request.caller
    whose = f"{caller.user_id}/{caller.client_key_id}/{request.api.name}/{route.to.name}/{len(request.headers)}\n"
    digest = hashlib.sha256(whose.encode())
    for piece in (request.headers, *request.body.pieces):
        digest.update(piece)
    return digest.digest()


def _wishes(cache_control: str) -> tuple[float, bool]:
    """How old an answer may be, and whether the one that comes may be kept, by what the client says (RFC 9111)."""
    if not cache_control:
        return float("inf"), True
    said = {found.group(1): found.group(2) for found in DIRECTIVE.finditer(cache_control.lower())}
    if "no-store" in said or "no-cache" in said:
        return NO_AGE, "no-store" not in said
    return float(said["max-age"] or NO_AGE) if "max-age" in said else float("inf"), True
