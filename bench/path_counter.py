"""Counts what a piece of Python does, by step: bytecodes, calls, and what it asks of code that is not ours.

A count says what a stopwatch can't on a shared machine: it is the same in every run. What is not ours (JSON, regular
expressions, checksums, system calls) has few bytecodes and takes long, and so is counted by name.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

ROOT = str(Path(__file__).parents[1]) + "/"
NOT_OURS = (ROOT + ".venv/", ROOT + "bench/")
# Modules of the interpreter whose functions do little more than a bytecode does.
LITTLE = {"builtins", "collections", "itertools", "math", "time", "_bisect", "_contextvars", "_random", "_thread"}

# Which step a file belongs to, or one function of it. What is not named here belongs to the step that calls it.
STEPS = {
    "auth.py": "authenticate",
    "accounts/": "authenticate",
    "billing/quotas/rate_limits.py": "limits",
    "billing/quotas/window_counters.py": "limits",
    "billing/quotas/slices.py:QuotaSlices.headers": "limits",
    "billing/quotas/": "reserve",
    "billing/forecast.py": "reserve",
    "billing/prices.py": "reserve",
    "formats/body.py": "body",
    "formats/named_models.py": "body",
    "foundation/json_members.py": "body",
    "gateway/bodies.py": "body",
    "serving/request_body.py": "body",
    "serving/slow_bodies.py": "body",
    "api_key_manager.py": "choose",
    "gateway/attempts.py": "choose",
    "gateway/destinations.py": "choose",
    "gateway/retry_budget.py": "choose",
    "pool/": "choose",
    "upstream/reachability.py": "choose",
    "gateway/destinations.py:Destination.exchange": "head",
    "gateway/request.py": "head",
    "upstream/http.py:UpstreamHttp.exchange": "head",
    "upstream/http.py:Exchange._send": "send",
    "upstream/": "receive",
    "formats/": "parse",
    "gateway/attempt.py": "parse",
    "gateway/forms.py": "parse",
    "billing/details.py": "usage",
    "billing/meter.py:_settled": "usage",
    "formats/usage_block.py": "usage",
    "billing/": "journal",
    "gateway/answer.py": "relay",
    "gateway/relay.py": "relay",
    "gateway/outbound.py": "driver",
    "gateway/route.py": "driver",
    "foundation/logs.py": "log line",
    "openrouter_proxy.py": "driver",
    "serving/": "server",
    "web/": "server",
}
ORDER = [*dict.fromkeys(STEPS.values())]
OTHER = "driver"


class Step:
    """What one step does; also the trace function of its frames."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.bytecodes = 0
        self.calls = 0

    def __call__(self, _frame: FrameType, event: str, _about: object) -> Step:
        self.bytecodes += event == "opcode"
        return self


class PathCounter:
    """Counts in the thread that enters `counting`, and in no other. outside: calls of what is not ours, by name."""

    def __init__(self) -> None:
        self._of_code: dict[Any, str | None] = {}
        self.steps = {name: Step(name) for name in ORDER}
        self.outside: Counter[str] = Counter()

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Count what is done within."""
        sys.setprofile(self._profile)
        sys.settrace(self._trace)
        try:
            yield
        finally:
            sys.settrace(None)
            sys.setprofile(None)

    def _trace(self, frame: FrameType, _event: str, _about: object) -> Step | None:
        """A function of Python's begins or goes on."""
        caller = frame.f_back.f_trace if frame.f_back else None
        code = frame.f_code
        if code.co_filename[0] != "<" and not is_ours(code.co_filename):
            if isinstance(caller, Step):  # what it calls itself is its own affair
                caller.calls += 1
                self.outside[f"{frame.f_globals['__name__']}.{code.co_qualname}"] += 1
            return None
        if code not in self._of_code:
            self._of_code[code] = step_of(code.co_filename.removeprefix(ROOT), code.co_qualname)
        name = self._of_code[code] or (caller.name if isinstance(caller, Step) else OTHER)
        step = self.steps[name]
        step.calls += 1
        frame.f_trace_lines, frame.f_trace_opcodes = False, True
        return step

    def _profile(self, frame: FrameType, event: str, called: Any) -> None:
        """A function of C's is called."""
        if event != "c_call" or not isinstance(frame.f_trace, Step):
            return
        frame.f_trace.calls += 1
        owner = getattr(called, "__module__", None) or type(getattr(called, "__self__", None)).__module__
        if owner not in LITTLE:
            self.outside[f"{owner}.{called.__name__}"] += 1


def is_ours(path: str) -> bool:
    """True for a file of the product."""
    return path.startswith(ROOT) and not path.startswith(NOT_OURS)


def step_of(path: str, function: str) -> str | None:
    """The step of a function, by itself, else by its file or room; None if it serves many. path: within the tree."""
    folder, room = path.rpartition("/")[0] + "/", path.partition("/")[0] + "/"
    return next((STEPS[name] for name in (f"{path}:{function}", path, folder, room) if name in STEPS), None)
