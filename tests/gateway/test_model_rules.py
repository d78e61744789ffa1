"""Rules of models: kept as they were set, found by the alias before the model, refused with what is accepted."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from db import Database
from formats.body import CallBody
from foundation.clock import Clock
from foundation.crypto import Envelopes
from foundation.errors import BadRequest, Conflict, NotFound
from gateway.aliases import Aliases
from gateway.failures import Failure
from gateway.model_rules import MAX_RULES, NO_RULE, Fallback, ModelRules, RuleTerms, fallback_of
from tables import model_rules as table
from tests.support.rows import each_row
from upstream.dial import GuardedDial
from upstream.registry import Upstreams

MINI, GROK = "openai/gpt-4o-mini", "x-ai/grok-4"
WAIT = RuleTerms(timeout_seconds=60)
FULL = RuleTerms(
    (Fallback(GROK, "", (Failure.AWAY, Failure.MODERATED)), Fallback(MINI, "local")), 600, {"local": 9, "openrouter": 1}, "price"
)  # fmt: skip


@pytest.fixture
def rules(db: Database, envelopes: Envelopes, clock: Clock) -> ModelRules:
    store = Upstreams(db, envelopes, clock, GuardedDial(allow_private=True))
    store.add(store.check({"name": "local", "base_url": "http://127.0.0.1:1/v1"}), None)
    Aliases(db, clock).set("fast", {MINI: 1})
    return ModelRules(db, clock, 3600)


def test_rules_are_set_found_replaced_and_removed(rules):
    rules.set(MINI, FULL)
    rules.set("fast", WAIT)
    rules.reload()
    assert [(one.name, one.terms) for one in rules.rows()] == [("fast", WAIT), (MINI, FULL)]
    assert rules.of(CallBody(MINI, False)) == FULL
    assert rules.of(CallBody(MINI, False, asked_model="fast")) == WAIT
    assert rules.of(CallBody(MINI, False, asked_model="other")) == FULL
    assert rules.of(CallBody(GROK, False)) is NO_RULE
    rules.set(MINI, WAIT)
    assert rules.remove(MINI).terms == WAIT
    for nobody in (MINI, "ünknown"):
        with pytest.raises(NotFound):
            rules.remove(nobody)


def test_there_is_an_end_to_rules(rules, db):
    row = {"terms": "{}", "updated_at": Clock().now()}
    db.transact(lambda tx: tx.execute(table.insert(), [row | {"name": f"m{n}"} for n in range(MAX_RULES)]))
    with pytest.raises(Conflict, match="at most 200"):
        rules.set(MINI, WAIT)
    rules.set("m1", WAIT)
    with db.reading() as tx:
        assert tx.execute(sa.select(sa.func.count()).select_from(table)).scalar_one() == MAX_RULES


@each_row(
    "name, terms, words",
    [
        ("", WAIT, "must be named"),
        ("a b", WAIT, "must be named"),
        ("m" * 256, WAIT, "must be named"),
        (MINI, RuleTerms(), "must have fallbacks, timeout_seconds or upstreams"),
        (MINI, RuleTerms(choose_by="price"), "must have fallbacks"),
        (MINI, RuleTerms(timeout_seconds=0), "from 1 to 3600"),
        (MINI, RuleTerms(timeout_seconds=3601), "from 1 to 3600"),
        (MINI, RuleTerms((Fallback("é"),)), "must be named"),
        (MINI, RuleTerms(tuple(Fallback(f"m{n}") for n in range(4))), "at most 3 fallbacks"),
        (MINI, RuleTerms((Fallback(GROK, after=()),)), "away, rate-limited, too-long, moderated"),
        (MINI, RuleTerms((Fallback(GROK), Fallback(GROK))), "must differ"),
        (MINI, RuleTerms((Fallback(MINI),)), "must differ"),
        (MINI, RuleTerms((Fallback(GROK, "nowhere"),)), "no upstream named 'nowhere'; there are local, openrouter"),
        (MINI, RuleTerms((Fallback("fast"),)), "fast is an alias"),
        (MINI, RuleTerms(upstreams={"nowhere": 1}), "no upstream named"),
        (MINI, RuleTerms(upstreams={"local": 0}), "from 1 to 1000"),
        (MINI, RuleTerms(upstreams={"local": 1001}), "from 1 to 1000"),
        (MINI, RuleTerms(upstreams={f"u{n}": 1 for n in range(21)}), "20 upstreams"),
        (MINI, RuleTerms(timeout_seconds=5, choose_by="luck"), "weight, price, latency"),
    ],
)  # fmt: skip
def test_what_can_be_no_rule_is_refused_and_changes_nothing(rules, name, terms, words):
    rules.set(GROK, WAIT)
    before = rules.rows()
    with pytest.raises(BadRequest, match=words):
        rules.set(name, terms)
    assert rules.rows() == before


def test_a_fallback_is_written_in_a_line():
    for written in (*FULL.fallbacks, Fallback("a@b:free")):
        assert fallback_of(written.line) == written
    assert fallback_of(GROK) == Fallback(GROK)
    for wrong in (
        "",
        f"{GROK} local",
        f"{GROK} to=local",
        f"{GROK} after=luck",
        f"{GROK} after=",
        f"{GROK} after=away after=away",
    ):
        with pytest.raises(BadRequest, match="fallbacks must"):
            fallback_of(wrong)
