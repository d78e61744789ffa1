"""What takes long, told as steps with their times: one line that counts seconds on a terminal, plain lines elsewhere.

Only the standard library: `make run` shows its first steps before anything is installed.
"""

from __future__ import annotations

import sys
import threading
import time
from types import TracebackType
from typing import TextIO

ON_A_TERMINAL_SECONDS, ELSEWHERE_SECONDS = 0.2, 10.0
CLEAR_LINE = "\r\x1b[K"


class Step:
    """One step, as a context: `with Step("2/4 Installing 38 packages") as step: ...; step.note("12 fetched")`.

    is_alone: False if others write to the same terminal meanwhile, between whose lines nothing should count.
    """

    def __init__(self, title: str, stream: TextIO | None = None, is_alone: bool = True) -> None:
        self._title = title
        self._stream = stream or sys.stdout
        self._counts = is_alone and self._stream.isatty()
        self._note = ""
        self._begun = time.monotonic()
        self._ended = threading.Event()
        self._ticker = threading.Thread(target=self._tick, name="step", daemon=True)

    def __enter__(self) -> Step:
        self._begun = time.monotonic()
        if not self._counts:
            self._say(f"{self._title} ...\n")
        self._ticker.start()
        return self

    def note(self, text: str) -> None:
        """Say how far it is, from the next tick on."""
        self._note = text

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._ticker.join()
        start = CLEAR_LINE if self._counts else ""
        self._say(f"{start}{self._title}: {'ended' if error else 'done'} after {self._seconds()}\n")

    def _tick(self) -> None:
        while not self._ended.wait(ON_A_TERMINAL_SECONDS if self._counts else ELSEWHERE_SECONDS):
            told = f"{self._title}: {self._note + ', ' if self._note else ''}{self._seconds()}"
            self._say(f"{CLEAR_LINE}{told}" if self._counts else f"{told}\n")

    def _seconds(self) -> str:
        passed = time.monotonic() - self._begun
        return f"{passed:.1f} s" if passed < 10 else f"{passed:.0f} s"

    def _say(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()
