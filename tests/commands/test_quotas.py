"""Quotas by command: set, shown, listed, reset, and refused where they make no sense."""

from __future__ import annotations

import pytest

from tests.support.gateway import new_derived_key
from tests.support.operator_commands import lines, refusal


def test_a_quota_is_set_shown_listed_and_reset(command, services):
    subject = f"user/{services.auth.register('owner', new_derived_key())}"
    words = ["--limit", "2.5", "--soft", "0.1", "--period", "week", "--recovery", "steady"]
    [given] = lines(command("quota", "set", subject, *words))
    assert given == {
        "subject": subject,
        "limit_usd": 2.5,
        "soft_limit_usd": 0.1,
        "spent_usd": 0.0,
        "reserved_usd": 0.0,
        "remaining_usd": 2.5,
        "period": "week",
        "recovery": "steady",
        "resets_at": None,
        "user_label": None,
        "soft_limit_passed": False,
    }
    assert lines(command("quota", "show", subject)) == lines(command("quota", "list")) == [given]
    lines(command("quota", "set", "key/7", "--limit", "1"))
    assert [line["subject"] for line in lines(command("quota", "list"))] == ["key/7", subject]
    assert [line["subject"] for line in lines(command("quota", "list", "--page", "2", "--page-size", "1"))] == [subject]
    assert lines(command("quota", "reset", subject)) == [{"subject": subject, "limit_usd": None, "user_label": None}]
    assert refusal(command("quota", "show", subject)) == f"Error: {subject} has no quota\n"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["set", "user/999999", "--limit", "1"], "There is no user 999999"),
        (["show", "user/999999"], "There is no user 999999"),
        (["reset", "user/999999"], "There is no user 999999"),
        (["set", "team/99", "--limit", "1"], "There is no team 99"),
        (["set", "group/1"], "user/<id>, key/<id> or team/<id>"),
        (["set", "key/7", "--limit", "-1"], "--limit must be an amount of dollars from 0 to 1000000000, or none"),
        (["set", "key/7", "--limit", "1e30"], "--limit must be"),
        (["set", "key/7", "--soft", "nan"], "--soft must be"),
        (["set", "key/7", "--limit", "1", "--soft", "2"], "soft limit must not be above"),
    ],
)
def test_a_quota_that_makes_no_sense_is_refused(command, services, words, told):
    assert told in refusal(command("quota", *words))
    assert lines(command("quota", "list")) == []
