"""Money is exact: dollars in any notation become nano-dollars, and come back as the same digits."""

import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foundation.money import MAX_NANO, NANO, nano, usd
from tests.support.rows import each_row


@each_row(
    ("dollars", "amount"),
    [
        (None, None),
        (0, 0),
        (1, 10**9),
        (0.1, 10**8),
        (1e-9, 1),
        ("2.5", 25 * 10**8),
        (1.1, 11 * 10**8),
        (Decimal("0.00000015"), 150),
        (-1, -(10**9)),
    ],
)
def test_dollars_become_nano_dollars_exactly(dollars, amount):
    assert nano(dollars) == amount


@each_row("dollars", [True, "x", "", [], {}, "NaN", "Infinity", "-Infinity", 1e30, float(MAX_NANO), "1e999990"])
def test_what_is_no_amount_of_money_is_refused(dollars):
    with pytest.raises((ValueError, ArithmeticError)):
        nano(dollars)


@given(st.integers(-(10**6) * NANO, 10**6 * NANO))
def test_an_amount_that_was_shown_as_json_reads_back_as_the_same_nano_dollars(amount):
    shown = json.dumps(usd(amount))
    assert Decimal(shown) * NANO == amount
    assert nano(Decimal(shown)) == amount
