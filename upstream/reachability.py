"""Whether an upstream can be reached: learnt from calls, and asked when in doubt.

    there ──three failures in a row──> in doubt ──our own question fails too──> away
      ^──────────────── an answer, to a call or to a question ──────────────────┘

One model or one request can be the reason why a connection ends, or why the edge answers; so nobody else is refused
for that before we have asked ourselves. Who asks is a thread that lives as long as there is doubt.
"""

from __future__ import annotations

import logging
import math
import threading
import time

from config.version import USER_AGENT
from foundation.deadline import Deadline, TimeIsUp
from foundation.errors import Busy
from foundation.logs import event
from upstream.connection import NoFilesLeft, UpstreamError
from upstream.http import UpstreamHttp

log = logging.getLogger("upstreams")

FAILURES = 3  # in a row: as many as one call makes
QUESTION_SECONDS = 5.0
FIRST_PAUSE_SECONDS, MAX_PAUSE_SECONDS = 1.0, 5.0
HEADERS = b"Accept: application/json\r\nAccept-Encoding: identity\r\nUser-Agent: %b\r\n" % USER_AGENT.encode()


class Reachability:
    """Of one upstream. name: how clients and the log call it."""

    def __init__(self, http: UpstreamHttp, name: str) -> None:
        self.is_away = False
        self._http = http
        self._name = name
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._failures = 0
        self._is_asking = False
        self._ask_at = 0.0

    def check(self) -> None:
        """Raises Busy while the upstream is away."""
        if self.is_away:
            wait = math.ceil(max(self._ask_at - time.monotonic(), 0.0)) + 1
            raise Busy(f"The upstream {self._name} can't be reached at present; try again shortly", wait)

    def note_answer(self) -> None:
        """Learn that a call was answered, if only with a refusal."""
        if not self._failures:
            return
        with self._lock:
            self._failures, was_away, self.is_away = 0, self.is_away, False
        if was_away:
            event(log, "upstream_back", logging.WARNING, upstream=self._name)

    def note_failure(self) -> None:
        """Learn that a call did not reach it, or that nothing but its edge answered."""
        with self._lock:
            self._failures += 1
            is_due = self._failures >= FAILURES and time.monotonic() >= self._ask_at
            if self._is_asking or not is_due:
                return
            self._is_asking = True
        threading.Thread(target=self._ask_until_answered, name="ask-upstream", daemon=True).start()

    def _ask_until_answered(self) -> None:
        pause_seconds = FIRST_PAUSE_SECONDS
        while not self._closing.is_set():
            if self._is_answered():
                self.note_answer()
            with self._lock:
                self._ask_at = time.monotonic() + pause_seconds
                if not self._failures:  # or a call was answered meanwhile
                    self._is_asking = False
                    return
                is_news, self.is_away = not self.is_away, True
            if is_news:
                event(log, "upstream_away", logging.ERROR, upstream=self._name)
            self._closing.wait(pause_seconds)
            pause_seconds = min(pause_seconds * 2, MAX_PAUSE_SECONDS)

    def _is_answered(self) -> bool:
        """Ask for what nothing needs to authorize: a refusal is an answer too. The edge's own is none."""
        exchange = self._http.exchange(self._http.request_line("GET", "/key") + HEADERS, b"")
        try:
            exchange.wait_head(Deadline(QUESTION_SECONDS))
        except NoFilesLeft:  # so nothing was learnt
            return not self.is_away
        except (UpstreamError, TimeIsUp):
            return False
        finally:
            exchange.close()
        return exchange.status < 500 or "json" in exchange.headers.get("content-type", "")

    def close(self) -> None:
        """Ask no more."""
        self._closing.set()
