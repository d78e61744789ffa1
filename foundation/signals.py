"""What ends a program: SIGTERM and SIGINT, from its first instruction on, as process 1 of a container too.

Python runs a signal's handler in the main thread, as soon as that one runs Python: not while it waits for a name or a
database. And process 1 gets no signal for which it has no handler: told to stop while it starts, it would run on. So
every thread blocks these signals, and one of its own waits for the first of them. What is blocked is kept, also for the
program that exec puts into this one's place.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Set

ENDS = frozenset({signal.SIGTERM, signal.SIGINT})
HAND_OVER = signal.SIGUSR1


class Listener:
    """Waits for one of these signals: calls its handler, if there is one by then, else ends the process.

    To be made before any other thread, and again in a process that was forked. first: called before that.
    """

    def __init__(self, signals: Set[signal.Signals] = ENDS, first: Callable[[], None] = lambda: None) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, ENDS | {HAND_OVER})  # in all threads to come
        for number in ENDS:
            signal.signal(number, signal.SIG_DFL)  # Python's own for Ctrl-C, or those of the process that has forked
        self._thread = threading.Thread(target=_wait_for, args=(signals, first), name="signals", daemon=True)
        self._thread.start()

    def hand_over(self) -> None:
        """Wait no more: from now on signals are kept for the program that exec brings, or for handlers()."""
        signal.pthread_kill(self._thread.ident or 0, HAND_OVER)
        self._thread.join()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {HAND_OVER})


def _wait_for(signals: Set[signal.Signals], first: Callable[[], None]) -> None:
    number = signal.sigwait(signals | {HAND_OVER})
    if number == HAND_OVER:
        return
    first()
    handler = signal.getsignal(number)
    if callable(handler):
        handler(number, None)
    else:
        die(number)


def die(number: int) -> None:
    """End this process by a signal without a handler; process 1, which that does not end, with a shell's exit code."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
    signal.raise_signal(number)
    os._exit(128 + number)


def use_handlers() -> None:
    """For a server with handlers of its own: until it sets them, end at once; what was kept comes now."""
    for number in ENDS:
        if signal.getsignal(number) in {signal.SIG_DFL, signal.default_int_handler}:
            signal.signal(number, _end)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDS)


def _end(number: int, _frame: object) -> None:
    signal.signal(number, signal.SIG_DFL)
    die(number)
