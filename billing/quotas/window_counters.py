"""How often something happened in the current minute or hour: counted in this process, or in Redis for all replicas.

Windows are the minutes and hours of the clock, and a window's number is part of a counter's name. So its end is known
without asking, and counting is one step. (A sliding window would forbid two full minutes' worth around a border, but
one that was overrun, as token windows are, can then keep somebody out for more than a minute.)

In Redis it is `limits` that counts. Its memory storage is not used: it starts a thread with nearly every count, which
takes 0.2 ms, reads the clock by itself, and loses counts when threads meet at a new counter.
"""

from __future__ import annotations

import logging
import math
import threading
from typing import TYPE_CHECKING, Literal, NamedTuple

from foundation.clock import Clock
from foundation.logs import event

if TYPE_CHECKING:
    from limits.errors import StorageError
    from limits.storage import RedisStorage

log = logging.getLogger("rate_limits")

MINUTE, HOUR = 60, 3600  # seconds
REDIS_TIMEOUT_SECONDS = 0.5  # what a call in flight can lose when Redis hangs; those after it don't ask
CHECK_SECONDS = 1.0
WARN_SECONDS = 60.0
# Nothing but these counters is kept in Redis: one database of it (redis://host/1) for one installation.
KEY_PREFIX = "openrouter-proxy/window"

CacheStatus = Literal["ok", "unreachable", "off"]


class Window(NamedTuple):
    """A minute or an hour, counted from 1970."""

    seconds: int
    number: int


class _MemoryCounters:
    """Counters of the last two windows of each length. Bounded by what one process can be asked in them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._windows: dict[Window, dict[str, int]] = {}

    def add(self, window: Window, name: str, amount: int) -> int:
        with self._lock:
            counts = self._windows.get(window)
            if counts is None:
                counts = self._windows[window] = {}
                # A thread may still be counting in the one before.
                for old in [known for known in self._windows if known.seconds == window.seconds][:-2]:
                    del self._windows[old]
            count = counts[name] = counts.get(name, 0) + amount
            return count

    def get(self, window: Window, name: str) -> int:
        return self._windows.get(window, {}).get(name, 0)


class WindowCounters:
    """Named counters that begin anew with each minute, or each hour, of the clock.

    redis_url: shared by all processes that name it. While Redis does not answer, each process counts for itself: the
    service neither stops nor stands open. `start` begins to use Redis, and to look after it.
    """

    def __init__(self, redis_url: str | None, clock: Clock) -> None:
        self._clock = clock
        self._memory = _MemoryCounters()
        self._redis: RedisStorage | None = None
        self._losses: tuple[type[StorageError], ...] = ()
        if redis_url:
            self._redis, self._losses = _connect(redis_url)
        self._redis_is_up = False  # until it has answered: nobody's request waits for a Redis that is down
        self._warned_at = -math.inf
        self._state_lock = threading.Lock()

    @property
    def status(self) -> CacheStatus:
        """Whether Redis counts; as far as known, without asking it."""
        return "off" if self._redis is None else "ok" if self._redis_is_up else "unreachable"

    def window(self, seconds: int = MINUTE) -> tuple[Window, int]:
        """The current window of this length, and the whole seconds after which it is surely over, at least 1."""
        number, passed = divmod(self._clock.timestamp(), seconds)
        return Window(seconds, int(number)), math.ceil(seconds - passed)

    def add(self, window: Window, name: str, amount: int = 1) -> int:
        """Count; returns the counter after that. Exact for any number of threads, and of processes with Redis."""
        if self._redis and self._redis_is_up:
            try:
                return self._redis.incr(_in_redis(window, name), 2 * window.seconds, amount)
            except self._losses as error:
                self._note_loss(error)
        return self._memory.add(window, name, amount)

    def get(self, window: Window, name: str) -> int:
        """The counter as it stands."""
        if self._redis and self._redis_is_up:
            try:
                return self._redis.get(_in_redis(window, name))
            except self._losses as error:
                self._note_loss(error)
        return self._memory.get(window, name)

    def start(self, stopping: threading.Event) -> None:
        """Begin to look once a second whether Redis answers, until `stopping`."""
        if self._redis:
            threading.Thread(target=self._watch, args=(stopping,), name="redis-watch", daemon=True).start()

    def _watch(self, stopping: threading.Event) -> None:
        self.check()
        while not stopping.wait(CHECK_SECONDS):
            self.check()

    def check(self) -> None:
        """Ask Redis whether it answers, and count there if it does."""
        if not self._redis:
            return
        try:
            self._redis.get("check")
        except self._losses as error:
            self._note_loss(error)
            return
        with self._state_lock:
            was_up, self._redis_is_up = self._redis_is_up, True
        if not was_up:
            event(log, "redis_in_use")

    def _note_loss(self, error: StorageError) -> None:
        now = self._clock.monotonic()
        with self._state_lock:
            self._redis_is_up = False
            if now - self._warned_at < WARN_SECONDS:
                return
            self._warned_at = now
        # The error's text can hold the address and user of REDIS_URL.
        event(log, "redis_unreachable", logging.WARNING, error=type(error.storage_error).__name__)


def _in_redis(window: Window, name: str) -> str:
    return f"{window.seconds}/{window.number}/{name}"


def _connect(redis_url: str) -> tuple[RedisStorage, tuple[type[StorageError], ...]]:
    """A storage that has not connected yet, and what it raises. Loaded only where Redis is."""
    from limits.errors import StorageError
    from limits.storage import RedisStorage
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    storage = RedisStorage(
        redis_url,
        key_prefix=KEY_PREFIX,
        wrap_exceptions=True,
        socket_timeout=REDIS_TIMEOUT_SECONDS,
        socket_connect_timeout=REDIS_TIMEOUT_SECONDS,
        # By itself the client tries four times, up to ten seconds apart, while a call waits.
        retry=Retry(NoBackoff(), 0),  # type: ignore[arg-type]
    )
    return storage, (StorageError,)
