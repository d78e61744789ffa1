"""What is told of a bad input names the field and what is accepted there."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from pydantic import AfterValidator, Field, ValidationError

from tests.support.rows import each_row
from web.bad_input import told
from web.operation import Body


def even(number: int) -> int:
    if number % 2:
        raise ValueError("must be even")
    return number


class Part(Body):
    sort: Literal["a", "b", "c"] = "a"


class Whole(Body):
    name: str = Field(min_length=1, max_length=9)
    code: str = Field("x", pattern="^[a-z]$")
    key: str = Field("abc", min_length=3, max_length=3)
    share: float | None = Field(None, ge=0, le=1e9)
    amount: Annotated[int, AfterValidator(even)] = 2
    is_on: bool = True
    parts: list[Part] = Field(default_factory=list)
    by_name: dict[str, int] = Field(default_factory=dict)
    either: Literal["all"] | list[int] = "all"


@each_row(
    ("body", "message"),
    [
        ({}, "name must be a text of 1 to 9 characters"),
        ({"name": ""}, "name must be a text of 1 to 9 characters"),
        ({"name": None}, "name must be a text of 1 to 9 characters"),
        ({"name": "a", "code": "7"}, "code must be a text that matches ^[a-z]$"),
        ({"name": "a", "key": "ab"}, "key must be a text of 3 characters"),
        ({"name": "a", "share": "1"}, "share must be a number from 0 to 1000000000 or null"),
        ({"name": "a", "share": -1}, "share must be a number from 0 to 1000000000 or null"),
        ({"name": "a", "amount": 3}, "amount must be even"),
        ({"name": "a", "is_on": 1}, "is_on must be true or false"),
        ({"name": "a", "parts": {}}, "parts must be a list"),
        ({"name": "a", "parts": [{}, {"sort": "d"}]}, "parts.1.sort must be one of a, b, c"),
        ({"name": "a", "parts": [{"kind": 1}]}, "There is no field 'kind' in parts.0; this takes sort"),
        ({"name": "a", "by_name": {"x": "y"}}, "by_name.x must be a whole number"),
        ({"name": "a", "either": "none"}, "either must be all or a list"),
        ({"name": "a", "x" * 99: 1}, f"There is no field '{'x' * 40}' here; this takes "),
    ],
)
def test_the_first_fault_is_told_with_what_is_accepted(body: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Whole.model_validate(body)
    assert told(Whole, "field", caught.value).startswith(message)


def test_null_is_nothing_that_a_parameter_can_be() -> None:
    with pytest.raises(ValidationError) as caught:
        Whole.model_validate({"name": "a", "share": -1})
    assert told(Whole, "parameter", caught.value) == "share must be a number from 0 to 1000000000"


def test_no_value_that_was_sent_is_told() -> None:
    with pytest.raises(ValidationError) as caught:
        Whole.model_validate({"name": ["secret"]})
    assert "secret" not in told(Whole, "field", caught.value)
