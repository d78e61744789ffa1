"""granian's command line, with workers that can be told to end while they load.

A worker is forked with its parent's signal handlers and sets its own once the application is loaded. Told to end before
that it would not notice, and its parent would wait for it until the time for running answers is over.
"""

import os
import signal

from granian.cli import entrypoint


def _can_be_ended() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent too, which ends its workers


if __name__ == "__main__":
    os.register_at_fork(after_in_child=_can_be_ended)
    entrypoint()  # type: ignore[no-untyped-call]
