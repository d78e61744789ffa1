"""granian's command line, with processes that are told to end by signals which always arrive.

granian's main threads sleep in a lock, and the system may give a signal to any thread: then nothing wakes the main one
to run a handler, and the service runs on. And a second signal within the first one's handler waits for ever for a lock
that the first one holds. So a thread of its own waits for the first of them (foundation/signals.py), and calls the
handler. Where granian has not set its own by then, the application is still loading, and nobody is being served.
"""

import os
import signal
from collections.abc import Callable
from typing import Any

from granian.cli import entrypoint
from granian.server import mp

from foundation.signals import ENDS, Listener
from serving import ending, listeners
from serving.slow_bodies import PROTOCOL


def _with_protocol(wrap: Callable[..., Any]) -> Callable[..., Any]:
    """granian's wrapper of an application, which by itself keeps from it what could answer before it does."""

    def wrapped(*arguments: Any) -> Callable[[Any, dict[str, Any]], Any]:
        run = wrap(*arguments)

        def serve(protocol: Any, scope: dict[str, Any]) -> Any:
            scope[PROTOCOL] = protocol
            return run(protocol, scope)

        return serve

    return wrapped


if __name__ == "__main__":
    listeners.allow_open_files()
    mp._wsgi_call_wrap = _with_protocol(mp._wsgi_call_wrap)  # type: ignore[attr-defined]
    Listener(ENDS)
    # Ctrl-C reaches the workers too, where nothing takes it: the parent ends them.
    os.register_at_fork(after_in_child=lambda: Listener({signal.SIGTERM}, ending.approach))
    entrypoint()  # type: ignore[no-untyped-call]
