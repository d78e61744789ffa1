"""granian's command line, with workers that can be told to end at any moment of their start.

A worker is forked with its parent's signal handlers and sets its own once the application is loaded. Told to end before
that it would not notice; told in the moment before it serves, it would forget. Its parent would then wait for it until
the time for running answers is over.
"""

import os
import signal
import threading
import time

from granian.cli import entrypoint

AGAIN_SECONDS = 0.5


def _can_be_ended() -> None:
    """In a new worker: what tells it to end does so at once while it loads, and again and again from then on."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent too, which ends its workers
    told, tell = os.pipe()
    os.set_blocking(tell, False)
    signal.set_wakeup_fd(tell, warn_on_full_buffer=False)
    threading.Thread(target=_tell_again, args=(told,), name="tell-again", daemon=True).start()


def _tell_again(told: int) -> None:
    while os.read(told, 1) != bytes([signal.SIGTERM]):
        pass
    while True:
        time.sleep(AGAIN_SECONDS)
        os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    os.register_at_fork(after_in_child=_can_be_ended)
    entrypoint()  # type: ignore[no-untyped-call]
