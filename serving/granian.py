"""granian's command line, with processes that are told to end by signals which always arrive.

Python runs a signal's handler in the main thread, as soon as that one runs Python. granian's main threads sleep in a
lock, and the system may give a signal to any thread: then nothing wakes the main one, and the service runs on. And a
second signal within the first one's handler waits for ever for a lock that the first one holds. So every thread blocks
these signals, and one of its own waits for the first of them.
"""

import os
import signal
import threading
from collections.abc import Set

from granian.cli import entrypoint

from serving import ending

ENDS = frozenset({signal.SIGTERM, signal.SIGINT})


def _wait_for(signals: Set[signal.Signals]) -> None:
    number = signal.sigwait(signals)
    ending.tell()
    handler = signal.getsignal(number)
    if callable(handler):
        handler(number, None)
    else:  # granian has not set its own by now: the application is still loading, and nobody is being served
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
        signal.raise_signal(number)


def _listen_for(signals: Set[signal.Signals]) -> None:
    for number in ENDS:
        signal.signal(number, signal.SIG_DFL)  # a worker is forked with its parent's handlers
    threading.Thread(target=_wait_for, args=(signals,), name="signals", daemon=True).start()


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDS)  # in all threads to come, and in the workers
    _listen_for(ENDS)
    # Ctrl-C reaches the workers too, where nothing takes it: the parent ends them.
    os.register_at_fork(after_in_child=lambda: _listen_for({signal.SIGTERM}))
    entrypoint()  # type: ignore[no-untyped-call]
