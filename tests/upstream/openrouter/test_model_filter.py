"""Which models a filter chooses, whatever their entries look like."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tests.support.rows import each_row
from upstream.openrouter.model_filter import ORDERS, ModelFilter

CHEAP = {"id": "a/cheap", "name": "Cheap", "pricing": {"prompt": "0.0000001", "completion": "0.0000002"}, "created": 5}
DEAR = {"id": "b/dear", "pricing": {"prompt": "0.00001", "completion": "0.00003"}, "context_length": 9, "created": 9}
ROUTER = {"id": "~c/router", "pricing": {"prompt": "-1", "completion": "-1"}, "architecture": {"tokenizer": "GPT"}}
ENTRIES: list[dict[str, Any]] = [ROUTER, CHEAP, DEAR]


@each_row(
    ("asked", "found"),
    [
        ({}, ["~c/router", "a/cheap", "b/dear"]),
        ({"q": "CHEAP"}, ["a/cheap"]),
        ({"authors": frozenset({"c", "b"})}, ["~c/router", "b/dear"]),
        ({"arch": "gpt"}, ["~c/router"]),
        ({"min_price": Decimal(0)}, ["a/cheap", "b/dear"]),
        ({"max_price": Decimal("0.1")}, ["a/cheap"]),
        ({"min_output_price": Decimal(30)}, ["b/dear"]),
        ({"context": 9}, ["b/dear"]),
        ({"min_age_days": 1}, ["~c/router", "a/cheap", "b/dear"]),
        ({"max_age_days": 1}, []),
        ({"sort": "pricing-low-to-high"}, ["a/cheap", "b/dear", "~c/router"]),
        ({"sort": "pricing-high-to-low"}, ["b/dear", "a/cheap", "~c/router"]),
        ({"sort": "newest"}, ["b/dear", "a/cheap", "~c/router"]),
        ({"ids": ("b/dear", "x/unknown", "a/cheap")}, ["b/dear", "a/cheap"]),
        ({"ids": ()}, []),
    ],
)
def test_what_fits_is_chosen_in_the_order_that_was_asked_for(asked, found):
    assert [entry["id"] for entry in ModelFilter(**asked).chosen(ENTRIES)] == found


VALUES = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists, max_leaves=4)
FIELDS = st.sampled_from(["name", "pricing", "architecture", "context_length", "created", "supported_parameters"])


@given(st.dictionaries(FIELDS, VALUES | st.dictionaries(st.sampled_from(["prompt", "tokenizer"]), VALUES)))
def test_no_entry_is_too_odd(entry):
    for sort in ("", *ORDERS):
        wanted = ModelFilter(q="a", context=0, min_age_days=0, parameters=frozenset(), sort=sort)
        assert len(wanted.chosen([entry | {"id": "a/b"}])) <= 1
        ModelFilter(min_price=Decimal(0), arch="x", inputs=frozenset({"text"})).chosen([entry | {"id": "a/b"}])
