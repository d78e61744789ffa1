"""Tables whose rows are tried in one test."""

from __future__ import annotations

import pytest

from tests.support.rows import each_row


@pytest.fixture
def limit() -> int:
    return 10


@each_row("row", [1, 5])
@each_row(("left", "right"), [(1, 2), (3, 4)])
def test_rows_meet_each_other_and_fixtures(limit, row, left, right):
    assert row + left < limit
    assert left < right


def test_every_row_is_tried_and_all_that_fail_are_told():
    tried = []

    @each_row("number", range(5), ids=lambda number: f"the {number}th")
    def odd(number):
        tried.append(number)
        assert number % 2

    with pytest.raises(ExceptionGroup, match="3 of 5 rows fail") as failed:
        odd()
    assert tried == [0, 1, 2, 3, 4]
    assert [error.__notes__ for error in failed.value.exceptions] == [[f"in the row the {n}th"] for n in (0, 2, 4)]


def test_a_table_without_rows_or_with_other_names_is_a_mistake():
    with pytest.raises(AssertionError, match="guards nothing"):
        each_row("row", [])
    with pytest.raises(AssertionError, match="takes no"):
        each_row("row", [1])(lambda other: None)
    with pytest.raises(AssertionError, match="not for a row"):
        each_row("row", [pytest.param(1, marks=pytest.mark.xfail)])


def test_an_error_that_was_not_raised_is_told_with_its_row():
    @each_row(("divisor", "error"), [(0, ZeroDivisionError), pytest.param(2, ZeroDivisionError, id="two")])
    def refused(divisor, error):
        with pytest.raises(error):
            1 / divisor

    with pytest.raises(ExceptionGroup, match="1 of 2 rows fail") as failed:
        refused()
    [told] = failed.value.exceptions
    assert "DID NOT RAISE" in str(told)
    assert told.__notes__ == ["in the row two"]
