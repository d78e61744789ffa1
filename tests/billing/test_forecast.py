"""What is reserved follows what calls of a model really cost; while nothing is known of that, it is the most."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from billing.forecast import ENOUGH, LATEST, MAX_MODELS, CostForecasts
from billing.ledger import UsageLedger
from billing.prices import FILE_NAME, ModelPrices
from db import Database
from formats.body import CallBody
from tests.billing.test_ledger import dispatched, new_id, settled
from tests.support.movable_clock import MovableClock
from upstream.http import UpstreamHttp

PROMPT, COMPLETION = 100, 1000  # nano-dollars a token
MODELS = ("a/b", "c/d")
CALL = CallBody("a/b", False)


@pytest.fixture
def prices(tmp_path: Path) -> ModelPrices:
    pricing = {"prompt": str(PROMPT / 10**9), "completion": str(COMPLETION / 10**9)}
    listed = [{"id": name, "pricing": pricing} for name in MODELS]
    (tmp_path / FILE_NAME).write_text(json.dumps({"data": listed}))
    found = ModelPrices(UpstreamHttp("http://127.0.0.1:9", 1.0), tmp_path)
    found.load()
    return found


@pytest.fixture
def forecasts(db: Database, prices: ModelPrices) -> CostForecasts:
    return CostForecasts(db, prices)


def learn(forecasts: CostForecasts, prices: ModelPrices, *costs: int, call: CallBody = CALL) -> None:
    for cost in costs:
        forecasts.of(None, call, 400, prices).learn(cost)


def test_of_a_model_that_nothing_is_known_of_the_most_is_reserved(forecasts, prices):
    most = prices.most_nano(CALL, 400)
    for _ in range(ENOUGH):
        assert forecasts.of(None, CALL, 400, prices).reserved_nano == most
        learn(forecasts, prices, 50_000)
    assert forecasts.of(None, CALL, 400, prices).reserved_nano == 50_000
    assert forecasts.of(None, CALL, 400, prices).most_nano == most
    assert forecasts.of(3, CALL, 400, prices).reserved_nano == most, "another upstream's model of this name"
    assert forecasts.of(None, CallBody("c/d", False), 400, prices).reserved_nano == most


def test_a_longer_prompt_costs_more_than_those_that_were_learnt_from(forecasts, prices):
    learn(forecasts, prices, *[50_000] * ENOUGH)
    assert forecasts.of(None, CALL, 40_000, prices).reserved_nano == 50_000 + (10_000 - 100) * PROMPT


def test_no_more_is_reserved_than_max_tokens_permits_and_no_less_than_something(forecasts, prices):
    learn(forecasts, prices, *[50_000] * ENOUGH)
    short = CallBody("a/b", False, max_tokens=3)
    assert forecasts.of(None, short, 400, prices).reserved_nano == 200 * PROMPT + 3 * COMPLETION
    learn(forecasts, prices, *[0] * LATEST)
    assert forecasts.of(None, CALL, 400, prices).reserved_nano == 1
    free = CallBody("x/y:free", False)
    assert forecasts.of(None, free, 400, prices).reserved_nano == 0


def test_one_dear_call_in_twenty_changes_nothing_and_more_do(forecasts, prices):
    learn(forecasts, prices, *[50_000] * 96, *[900_000] * 4)
    assert forecasts.of(None, CALL, 400, prices).reserved_nano == 50_000
    learn(forecasts, prices, 900_000, 900_000)
    assert forecasts.of(None, CALL, 400, prices).reserved_nano == 900_000
    learn(forecasts, prices, *[50_000] * LATEST)
    assert forecasts.of(None, CALL, 400, prices).reserved_nano == 50_000


def test_where_several_models_may_answer_all_must_be_known_and_the_dearest_counts(forecasts, prices):
    either = CallBody("a/b", False, models=("c/d",))
    learn(forecasts, prices, *[50_000] * ENOUGH)
    assert forecasts.of(None, either, 400, prices).reserved_nano == prices.most_nano(either, 400)
    learn(forecasts, prices, *[70_000] * ENOUGH, call=CallBody("c/d", False))
    assert forecasts.of(None, either, 400, prices).reserved_nano == 70_000
    learn(forecasts, prices, *[10**6] * LATEST, call=either)
    assert forecasts.of(None, CALL, 400, prices).reserved_nano == 50_000, "nobody says which one it was"


def test_each_of_several_answers_is_reserved(forecasts, prices):
    learn(forecasts, prices, *[50_000] * ENOUGH)
    two = CallBody("a/b", False, n=2)
    assert forecasts.of(None, two, 400, prices).reserved_nano == 100 * PROMPT + 2 * (50_000 - 100 * PROMPT)


def test_it_begins_with_what_the_ledger_has(db, clock, forecasts, prices):
    settle(db, clock, [("a/b", 10_000), ("a/b", 10_000), ("a/b", 20_000), ("c/d", 70_000)])
    learn(forecasts, prices, *[30_000] * ENOUGH, call=CallBody("c/d", False))
    forecasts.seed()
    assert forecasts.of(None, CALL, 400, prices).reserved_nano == 20_000 - 300 + 100 * PROMPT
    assert forecasts.of(None, CallBody("c/d", False), 400, prices).reserved_nano == 30_000, "it has seen these itself"


def test_models_are_forgotten_before_there_are_too_many(forecasts, prices):
    learn(forecasts, prices, *[50_000] * ENOUGH)
    for number in range(MAX_MODELS):
        learn(forecasts, prices, 1, call=CallBody(f"m/{number}", False))
    assert forecasts.of(None, CALL, 400, prices).reserved_nano == prices.most_nano(CALL, 400)


def settle(db: Database, clock: MovableClock, calls: list[tuple[str, int]]) -> None:
    """Calls with prompts of three tokens."""
    records = []
    for model, cost_nano in calls:
        request_id = new_id()
        records += [dispatched(request_id, model=model), settled(request_id, cost_nano)]
    UsageLedger(db, clock).apply("p", records)
