"""What the log says of a request, put together from its tries."""

from __future__ import annotations

import pytest

from billing.reports.log_items import columns
from billing.reports.request_log import UsageLog
from billing.reports.statistics import UsageFilter
from tables import usage_ledger
from tests.support.usage_rows import NOON, row, store


@pytest.fixture
def log(db, clock) -> UsageLog:
    return UsageLog(db, clock)


def item(db, log, *rows):
    db.transact(lambda tx: tx.execute(usage_ledger.delete()))
    store(db, list(rows))
    [found] = log.page(UsageFilter(), 1, 20).items
    return found


def test_a_request_costs_its_caller_nothing_for_a_try_that_another_one_followed(db, log):
    first = row(1, NOON, is_last=False, cost_nano=5, source="generation", outcome="failed", completion_tokens=None)
    found = item(db, log, first, row(1, NOON, attempt=2, cost_nano=7, total_ms=1234))
    assert (found.cost_nano, found.prompt_tokens, found.completion_tokens, found.tries) == (7, 20, 20, 2)
    assert (found.state, found.source, found.outcome, found.total_ms) == ("settled", "stream", "complete", 1234)
    assert found.to_dict()["cost_usd"] == 7e-9


def test_a_cost_is_unknown_until_it_is_known_and_nothing_for_what_was_not_billed(db, log):
    def cost(*states: tuple[str, int | None]) -> tuple[str, int | None]:
        last = len(states)
        tries = enumerate(states, 1)
        found = item(
            db,
            log,
            *(
                row(1, NOON, attempt=n, is_last=n == last, state=state, cost_nano=nano, source=None)
                for n, (state, nano) in tries
            ),
        )
        return found.state, found.cost_nano

    assert cost(("pending", None)) == ("pending", None)
    assert cost(("void", None)) == ("void", 0)
    assert cost(("settled", 0)) == ("settled", 0)
    assert cost(("void", None), ("settled", 3)) == ("settled", 3)
    assert cost(("pending", None), ("settled", 3)) == ("pending", 3)
    assert cost(("unknown", None), ("void", None)) == ("unknown", None)


def test_a_request_that_never_went_up_has_no_tries(db, log):
    found = item(db, log, row(1, NOON, attempt=0, pool_key_id=None, state="void", cost_nano=None, http_status=403))
    assert (found.tries, found.pool_key, found.status) == (0, None, 403)


def test_users_are_not_shown_pool_keys(db, log):
    shown = item(db, log, row(1, NOON)).to_dict()
    assert set(columns(True)) - set(shown) == {"user_id", "user_label", "pool_key"}
    assert shown["created_at"] == "2026-11-21T12:00:00.000+00:00"
