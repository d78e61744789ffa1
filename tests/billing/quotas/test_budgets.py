"""What client keys may spend: terms by the settings, and keys shown with what is left."""

from __future__ import annotations

import pytest

from accounts.client_keys import ClientKeys
from billing.quotas.budgets import budget_terms, sets_budget, with_budgets
from billing.quotas.rows import Quotas
from billing.quotas.terms import QuotaTerms
from config.settings import Config
from db import Database
from foundation.errors import BadRequest
from tests.support.movable_clock import MovableClock

CONFIG = Config(quota_usd=5, quota_period="week", quota_recovery="steady")


def test_what_a_budget_does_not_say_is_as_the_settings_have_it():
    assert budget_terms(CONFIG, 7, None, None) == QuotaTerms(7, None, "week", "steady")
    assert budget_terms(CONFIG, 7, "none", "reset") == QuotaTerms(7, None, "none", "reset")
    with pytest.raises(BadRequest, match="steadily only with"):
        budget_terms(CONFIG, 7, "none", None)


def test_keys_are_shown_with_their_budgets_and_without_where_there_is_none(db: Database, clock: MovableClock):
    keys, quotas = ClientKeys(db, clock, 9), Quotas(db, clock, CONFIG)
    rich, _ = keys.create(None, {"name": "rich"}, sets_budget(QuotaTerms(7 * 10**9, None, "week", "reset")))
    poor, _ = keys.create(None, {"name": "poor"}, sets_budget(None))
    shown = with_budgets([rich, poor], quotas, clock.now())
    assert [row["name"] for row in shown] == ["rich", "poor"]
    assert (shown[0]["budget"]["limit_usd"], shown[1]["budget"]) == (7.0, None)
    assert with_budgets([], quotas, clock.now()) == []
