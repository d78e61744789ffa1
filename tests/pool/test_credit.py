"""What is left at OpenRouter: asked every few minutes, and kept when it can't be asked."""

from __future__ import annotations

import logging

from foundation.money import NANO
from pool.credit import ASK_SECONDS, AccountCredit, find_credit
from tests.support.movable_clock import MovableClock
from upstream.openrouter.management_api import ManagementApi


def test_credit_is_asked_for_now_and_then_and_a_failure_keeps_what_was_known(db, account, caplog):
    caplog.set_level(logging.WARNING)
    clock = MovableClock()
    api = ManagementApi(account.stand_in.address, account.management_key)
    credit = AccountCredit(db, api, clock)
    assert find_credit(db) is None
    credit.note_if_due()
    told = account.manage("GET", "/credits")["data"]
    known = round((told["total_credits"] - told["total_usage"]) * NANO)
    assert find_credit(db) == known
    asked = account.calls("GET", "/credits")
    credit.note_if_due()
    assert account.calls("GET", "/credits") == asked
    nobody = AccountCredit(db, ManagementApi("http://127.0.0.1:1/api/v1", "sk-or-v1-x"), clock)
    for _ in range(2):
        nobody.note_if_due()
        clock.advance(seconds=ASK_SECONDS)
    assert find_credit(db) == known
    assert [record.message for record in caplog.records].count("credit_unknown") == 1
