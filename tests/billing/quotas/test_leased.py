"""One leased quota: what a lease is, what it takes to be enlarged, what it tells."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.quotas.leased import AHEAD_SECONDS, CALLS, LeasedQuota, granted
from billing.quotas.rows import Quota
from billing.quotas.terms import QuotaTerms
from tests.support.quota_world import at
from tests.support.rows import each_row

TERMS = QuotaTerms(1000, 500, "day", "reset")
amounts = st.integers(-1000, 10**6)


@pytest.fixture
def leased() -> LeasedQuota:
    return LeasedQuota("user/1", TERMS)


def quota(spent: int = 0, reserved: int = 0, terms: QuotaTerms = TERMS) -> Quota:
    return Quota(1, "user/1", terms, False, at("2026-11-21"), spent, reserved)


@each_row(
    ("left", "held", "need", "want", "unit", "lease"),
    [
        (1000, 0, 100, 100, 100, 100),
        (1000, 0, 100, 900, 100, 200),
        (1000, 0, 100, 150, 100, 100),
        (100, 0, 100, 900, 100, 100),
        (99, 0, 100, 900, 100, 0),
        (-5, 0, 0, 900, 100, 0),
        (0, 0, 0, 900, 1, 0),
        (1000, 600, 0, 900, 1, 0),
        (1000, 200, 0, 900, 1, 100),
    ],
)
def test_how_much_is_leased(left, held, need, want, unit, lease):
    assert granted(left, held, need, want, unit) == lease


@given(amounts, st.integers(0, 10**6), st.integers(0, 10**6), amounts, st.integers(1, 10**4))
def test_no_lease_exceeds_what_is_left_and_more_than_the_call_needs_is_a_quarter_at_most(left, held, need, want, unit):
    lease = granted(left, held, need, want, unit)
    assert 0 <= lease <= max(0, left)
    assert lease in (0, need) or (held + lease <= (left + held) // 4 and lease <= want)
    assert (lease - need) % unit == 0 or lease == 0
    assert lease >= need or left < need


def test_a_call_takes_all_that_it_needs_or_nothing(leased):
    leased.add(100)
    assert leased.take(60)
    assert not leased.take(41)
    assert leased.take(40)
    assert (leased.nano, leased.used, leased.unit) == (0, 100, 40)


def test_what_is_overdrawn_may_not_be_taken(leased):
    leased.add(100)
    leased.know(quota(spent=1000, reserved=1))
    assert not leased.take(1)
    leased.know(quota(spent=1000))
    assert leased.take(1)


def test_it_should_hold_so_many_of_the_dearest_call_of_late(leased):
    leased.add(1000)
    leased.take(60)
    leased.take(40)
    assert leased.wanted(1.0) == CALLS * 60
    leased.waiting = 50
    assert leased.wanted(AHEAD_SECONDS) == CALLS * 60 + 50
    leased.take(10)
    assert leased.wanted(AHEAD_SECONDS * 2 - 1) == CALLS * 60 + 50
    assert leased.wanted(AHEAD_SECONDS * 2) == CALLS * 10 + 50


def test_or_what_was_used_of_late_if_that_is_more(leased):
    leased.add(10 * CALLS)
    for _ in range(3 * CALLS):
        leased.take(1)
    assert leased.wanted(1.0) == 3 * CALLS
    assert leased.wanted(AHEAD_SECONDS) == leased.wanted(AHEAD_SECONDS + 1) == 3 * CALLS
    assert leased.wanted(AHEAD_SECONDS * 2 - 1) == 3 * CALLS
    assert leased.wanted(AHEAD_SECONDS * 2) == 0


def test_what_it_owes_is_forgiven_only_after_a_whole_round(leased):
    leased.add(-30)
    leased.forgive()
    assert leased.nano == -30
    leased.add(-5)
    leased.forgive()
    assert (leased.nano, leased.take_out()) == (-5, 0)
    leased.forgive()
    assert leased.nano == 0


def test_it_tells_what_the_quota_says(leased):
    assert (leased.limit_text, leased.warning, leased.resets_at) == ("", "", None)
    leased.know(quota(spent=501, reserved=100))
    leased.add(40)
    assert leased.limit_text == "0.000001"
    assert leased.warning == "more than $0.0000005 spent"
    assert leased.resets_at == at("2026-11-22").timestamp()
    assert leased.remaining_nano() == 439
    leased.know(quota(spent=500, terms=QuotaTerms(None, 500, "none", "reset")))
    assert (leased.limit_text, leased.warning, leased.resets_at) == ("", "", None)


@pytest.mark.parametrize(
    ("subject", "terms", "told"),
    [
        ("user/1", TERMS, "Your quota of $0.000001 per day .* \\$0.000000007; it resets at 2026-11-22T00:00:00Z$"),
        ("key/1", QuotaTerms(1000, None, "none", "reset"), "This key's quota of $0.000001 does .*7$"),
        ("user/1", QuotaTerms(1000, None, "day", "steady"), "Your quota of .*; it recovers steadily$"),
    ],
)
def test_a_refusal_says_what_is_needed_to_know_when_to_come_back(subject, terms, told):
    leased = LeasedQuota(subject, terms)
    leased.know(quota(terms=terms))
    assert re.search(told.replace("of $", r"of \$"), leased.refusal(7).message)
