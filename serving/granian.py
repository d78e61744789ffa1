"""granian's command line, with processes that are told to end by signals which always arrive.

granian's main threads sleep in a lock, and the system may give a signal to any thread: then nothing wakes the main one
to run a handler, and the service runs on. And a second signal within the first one's handler waits for ever for a lock
that the first one holds. So a thread of its own waits for the first of them (foundation/signals.py), and calls the
handler. Where granian has not set its own by then, the application is still loading, and nobody is being served.
"""

import os
import signal

from granian.cli import entrypoint

from foundation.signals import ENDS, Listener
from serving import ending

if __name__ == "__main__":
    Listener(ENDS, ending.tell)
    # Ctrl-C reaches the workers too, where nothing takes it: the parent ends them.
    os.register_at_fork(after_in_child=lambda: Listener({signal.SIGTERM}, ending.tell))
    entrypoint()  # type: ignore[no-untyped-call]
