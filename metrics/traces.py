"""Calls that are over, on their way to an OpenTelemetry collector.

A call leaves a tuple in a queue, and the background does the rest: a collector that is away or slow costs traces, not
calls.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec

from config.settings import Config
from openrouter_proxy import EndedCall
from replicas.repeating import repeat
from start_up import CannotStart

MOST_WAITING = 10_000  # calls; those that end beyond them between two rounds have no trace
ROUND_SECONDS = 1.0
PACKAGES = "opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http"


class CallTraces:
    """Traces of this process's calls. ended: those to be told; None without a collector."""

    def __init__(self, config: Config) -> None:
        """Raises CannotStart if there is a collector, and what it takes is not installed."""
        self._config = config
        self.ended: deque[EndedCall] | None = None
        if config.otel_exporter_otlp_endpoint:
            _check_installed()
            self.ended = deque(maxlen=MOST_WAITING)

    def background(self) -> dict[str, Callable[[threading.Event], None]]:
        """What runs in a thread of its own, by its name."""
        return {} if self.ended is None else {"traces": partial(self._run, self.ended)}

    def _run(self, ended: deque[EndedCall], stopping: threading.Event) -> None:
        """Tell of calls until told to stop; then of what is left, but not for long."""
        from metrics.spans import Spans  # here: it takes a fifth of a second and 15 MB

        spans = Spans(self._config)

        def tell() -> None:
            while ended:
                spans.tell(*ended.popleft())

        repeat(tell, ROUND_SECONDS, stopping)
        tell()
        spans.close()


def _check_installed() -> None:
    try:
        if all(find_spec(name) for name in PACKAGES):
            return
    except ModuleNotFoundError:  # of what is above them
        pass
    raise CannotStart(
        "OTEL_EXPORTER_OTLP_ENDPOINT needs packages that are not installed: `pip install -r requirements-traces.txt`, "
        "or `openrouter-gateway[traces]` in the place of `openrouter-gateway`"
    )
