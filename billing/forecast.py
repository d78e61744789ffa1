"""What a call will probably cost, from what calls of its model did cost: what is reserved for it.

The most that a call may cost is a thousand times what most do, if it does not say how long its answer may be. By that,
quotas would be full of what nobody spends. So each process learns, of every model, what its calls cost beyond their
prompts, and reserves the 95th percentile of that; what is above it counts in full when it is known.
"""

from __future__ import annotations

import threading
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Protocol

import msgspec
import sqlalchemy as sa

from billing.prices import ModelPrices
from db import Database, DatabaseError
from formats.body import CallBody
from tables import usage_ledger

LATEST = 100  # calls of a model
ENOUGH = 3  # of them; a model with fewer is not known
PERCENT = 95
MAX_MODELS = 2000
SEED_ROWS = 10_000
SOURCES = ("stream", "body")  # of costs that OpenRouter told with a whole answer
SEED_SECONDS = 1.0  # between tries

Model = tuple[int | None, str]  # (the upstream's id, its name there); None for OpenRouter


class Tariff(Protocol):
    """What calls cost, in nano-dollars; billing/prices.py says what each of these does."""

    def most_nano(self, call: CallBody, body_bytes: int) -> int: ...
    def estimate_nano(self, model: str, prompt_bytes: int, events: int) -> int | None: ...


def _nothing(_cost_nano: int) -> None:
    return None


class Forecast(msgspec.Struct, frozen=True):
    """What one try may cost, in nano-dollars. most: at worst. reserved: what is to be reserved for it, 1 at least
    unless it is free. learn: takes what it did cost.
    """

    most_nano: int
    reserved_nano: int
    learn: Callable[[int], None] = _nothing


class _Costs:
    """What the latest calls of one model cost beyond their prompts; possibly less than nothing. Under a lock."""

    def __init__(self) -> None:
        self._latest: deque[int] = deque()
        self._sorted: list[int] = []
        self.typical_nano: int | None = None  # the percentile; of fewer calls than that tells apart, the dearest

    def add(self, nano: int) -> None:
        if len(self._latest) == LATEST:
            del self._sorted[bisect_left(self._sorted, self._latest.popleft())]
        self._latest.append(nano)
        insort(self._sorted, nano)
        count = len(self._sorted)
        if count >= ENOUGH:
            self.typical_nano = self._sorted[-(-count * PERCENT // 100) - 1]


class CostForecasts:
    """Forecasts by what this process has seen; `run` begins with what the ledger has."""

    def __init__(self, db: Database, prices: ModelPrices) -> None:
        """prices: OpenRouter's."""
        self._db = db
        self._prices = prices
        self._lock = threading.Lock()
        self._models: dict[Model, _Costs] = {}

    def of(self, upstream_id: int | None, call: CallBody, body_bytes: int, tariff: Tariff) -> Forecast:
        """What a call may cost: by what is known of each model that may answer, else the most. No database."""
        most_nano = tariff.most_nano(call, body_bytes)
        if not most_nano:
            return Forecast(0, 0)
        names = call.names
        expected_nano = prompt_nano = 0
        for name in names:
            prompt_nano = tariff.estimate_nano(name, body_bytes, 0) or 0
            known = self._models.get((upstream_id, name))
            typical_nano = known.typical_nano if known else None
            probable_nano = most_nano if typical_nano is None else prompt_nano + typical_nano * call.n
            expected_nano = max(expected_nano, probable_nano)
        learn = _nothing
        if call.n == len(names) == 1:  # else nobody says which model answered, or what one answer cost
            learn = partial(self._learn, (upstream_id, call.model), prompt_nano)
        return Forecast(most_nano, max(1, min(expected_nano, most_nano)), learn)

    def _learn(self, model: Model, prompt_nano: int, cost_nano: int) -> None:
        with self._lock:
            known = self._models.pop(model, None) or _Costs()
            known.add(cost_nano - prompt_nano)
            self._models[model] = known  # as the latest
            if len(self._models) > MAX_MODELS:
                del self._models[next(iter(self._models))]

    # ── at the start

    def run(self, stopping: threading.Event) -> None:
        """Learn from the ledger, once, as soon as prices are known and the database answers."""
        while not stopping.wait(SEED_SECONDS):
            try:
                if self._prices.are_known:
                    self.seed()
                    return
            except DatabaseError:
                pass  # the watcher of revisions says so

    def seed(self) -> None:
        """Learn from the latest calls in the ledger. Models of which this process has seen enough, it knows better.

        Other upstreams' are left out: what their prompts cost only they say. Raises DatabaseError.
        """
        table = usage_ledger
        columns = table.c.model, table.c.prompt_tokens, table.c.cost_nano
        with self._db.reading() as tx:
            latest = sa.select(*columns, table.c.source, table.c.upstream_id).order_by(table.c.request_id.desc())
            part = latest.limit(SEED_ROWS).subquery()
            rows = tx.execute(sa.select(part).where(part.c.source.in_(SOURCES), part.c.upstream_id.is_(None))).all()
        seen = {model for model, known in list(self._models.items()) if known.typical_nano is not None}
        for row in reversed(rows):
            if (None, row.model) not in seen and row.cost_nano is not None:
                prompt_nano = self._prices.estimate_nano(row.model, 4 * (row.prompt_tokens or 0), 0)
                self._learn((None, row.model), prompt_nano, row.cost_nano)
