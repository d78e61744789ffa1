"""What calls are counted as when they are over: by model and outcome, why they failed, times, tokens and money.

A model has a name of its own here once a call of it was answered, and MOST_MODELS have: what callers make up counts
together. A call only leaves here what there is to count; the background counts it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

from billing.details import count_of
from billing.records import CACHED, Record
from foundation.counts import HISTOGRAM, OTHER, Counts, Row, note_seconds

MOST_MODELS = 100
MOST_WAITING = 20_000  # more than end between two countings
ANSWERED = "complete"

EndedCall = tuple[str, Record, Mapping[str, Any] | None, int | None]
"""Its model; its ending: outcome, error_type, first_byte_ms, total_ms; usage and cost, if they are known."""


class _OfModel:
    """The rows of one model; of its calls, one for each outcome."""

    __slots__ = ("calls", "completion", "cost", "first_byte", "name", "prompt", "total")

    def __init__(self, counts: Counts, name: str) -> None:
        self.name = name
        self.calls: dict[str, Row] = {}
        self.first_byte = counts.row("first_byte_seconds", name, size=HISTOGRAM)
        self.total = counts.row("call_seconds", name, size=HISTOGRAM)
        self.prompt = counts.row("tokens", name, "prompt")
        self.completion = counts.row("tokens", name, "completion")
        self.cost = counts.row("cost_nano", name)


class CallCounts:
    """Counts of the calls of this process, if they are wanted. ended: calls that are over, for `count`."""

    def __init__(self, counts: Counts, are_wanted: bool = True) -> None:
        self._counts = counts
        self._models: dict[str, _OfModel] = {}
        self.ended: deque[EndedCall] = deque(maxlen=MOST_WAITING if are_wanted else 0)

    def count(self) -> None:
        """Count the calls that have ended since the last time."""
        with self._counts.lock:
            while self.ended:
                self._count(*self.ended.popleft())

    def _count(self, model: str, ending: Record, usage: Mapping[str, Any] | None, cost_nano: int | None) -> None:
        outcome, first_byte_ms = ending["outcome"], ending.get("first_byte_ms")
        found = self._models.get(model) or self._model(model, outcome)
        calls = found.calls.get(outcome)
        if calls is None:
            calls = found.calls[outcome] = self._counts.row("calls", found.name, outcome)
        calls[0] += 1
        if outcome != CACHED:  # which says nothing of how fast the model is
            note_seconds(found.total, ending["total_ms"] / 1000)
        if first_byte_ms is not None:
            note_seconds(found.first_byte, first_byte_ms / 1000)
        if usage:
            found.prompt[0] += count_of(usage.get("prompt_tokens")) or 0
            found.completion[0] += count_of(usage.get("completion_tokens")) or 0
        if cost_nano:
            found.cost[0] += cost_nano
        if error_type := ending.get("error_type"):
            self._counts.add_one("errors", error_type)

    def note_retry(self, error_type: str) -> None:
        """A try has failed, and another follows."""
        self._counts.add("retries", error_type)

    def _model(self, model: str, outcome: str) -> _OfModel:
        if outcome != ANSWERED or not self._counts.has_room("call_seconds", model, most=MOST_MODELS):
            model = OTHER
        found = self._models.get(model)
        if found is None:
            found = self._models[model] = _OfModel(self._counts, model)
        return found
