"""Calls on their way to the collector: nothing is kept without one, and not without end with one."""

from __future__ import annotations

import subprocess
import sys

from config import sources
from metrics.traces import MOST_WAITING, CallTraces
from tests.support.gateway import environment


def test_without_a_collector_nothing_is_kept_and_nothing_runs():
    traces = CallTraces(sources.look({}))
    assert traces.ended is None
    assert traces.background() == {}


def test_what_waits_is_bounded():
    traces = CallTraces(sources.look({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}))
    assert list(traces.background()) == ["traces"]
    for number in range(MOST_WAITING + 5):
        traces.ended.append((number, "", {}))
    assert (len(traces.ended), traces.ended[0][0]) == (MOST_WAITING, 5)


def test_a_start_without_the_packages_says_what_to_install():
    hidden = "import sys; sys.modules['opentelemetry'] = None\n"
    work = hidden + (
        "from metrics.traces import CallTraces\nfrom config.sources import load\nfrom start_up import CannotStart\n"
        "try:\n    CallTraces(load())\nexcept CannotStart as error:\n    print(error)\n"
    )
    settings = environment(OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:4318")
    told = subprocess.run([sys.executable, "-c", work], env=settings, capture_output=True, text=True, check=True)
    assert "requirements-traces.txt" in told.stdout, told.stderr


def test_without_a_collector_nothing_of_it_is_loaded():
    work = "import app, sys; sys.exit(any(name.startswith('opentelemetry') for name in sys.modules))"
    subprocess.run([sys.executable, "-c", work], env=environment(), check=True, capture_output=True)
