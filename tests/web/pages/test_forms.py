"""Forms: what browsers send, which is text alone, becomes the bodies of the API, with its bounds and its words."""

from __future__ import annotations

import pytest
from flask import Flask

from foundation.errors import BadRequest
from web.api.client_keys import ClientKeyChanges, NewClientKey
from web.pages.forms import FormFaults, form_of

app = Flask("forms", static_folder=None)


def read(data: dict[str, object], **more: object) -> NewClientKey:
    with app.test_request_context(method="POST", data=data):
        return form_of(NewClientKey, lists=("models", "scopes"), **more)


def test_texts_become_what_the_field_holds_and_empty_ones_are_left_out():
    found = read({"name": " one ", "rpm": "60", "description": "", "models": "a/b\r\n\r\n c/* ", "csrf_token": "x"})
    assert (found.name, found.rpm, found.description) == ("one", 60, "")
    assert found.models == ["a/b", "c/*"]
    assert "description" not in found.model_fields_set


def test_several_values_are_a_list_and_of_others_the_last_one_counts():
    found = read({"name": ["one", "two"], "scopes": ["chat", "messages"]})
    assert (found.name, found.scopes) == ("two", ["chat", "messages"])


def test_what_the_view_has_made_of_fields_takes_their_place():
    found = read({"name": "one", "limit_usd": "20"}, budget={"limit_usd": "20"}, limit_usd=None)
    assert found.budget
    assert found.budget.limit_usd == 20


def test_all_that_is_wrong_is_said_of_its_field():
    with pytest.raises(FormFaults) as refused:
        read({"rpm": "many", "budget": "x", "expires_at": "soon"})
    assert refused.value.message.startswith("name must be")
    assert set(refused.value.by_field) == {"name", "rpm", "budget", "expires_at"}
    assert refused.value.by_field["rpm"] == (
        "Must be a whole number from {low} to {high}",
        {"low": "1", "high": "1,000,000"},
    )


def test_what_is_emptied_is_null():
    with app.test_request_context(method="POST", data={"name": "one", "rpm": ""}):
        found = form_of(ClientKeyChanges, emptied=("rpm",))
    assert found.model_fields_set == {"name", "rpm"}
    assert found.rpm is None


def test_a_fault_within_a_field_stands_where_the_form_has_it():
    with pytest.raises(FormFaults) as refused:
        read({"name": "x", "limit_usd": "lots"}, budget={"limit_usd": "lots"}, limit_usd=None)
    assert set(refused.value.by_field) == {"limit_usd"}


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ({}, "name"),
        ({"name": "x" * 500}, "name must be"),
        ({"name": "x", "rpm": "many"}, "rpm must be"),
        ({"name": "x", "rpm": "0"}, "rpm must be"),
        ({"name": "x", "user_id": "1"}, "There is no field 'user_id'"),
        ({"name": "x", "scopes": "all"}, "scopes"),
    ],
)
def test_what_is_wrong_is_said_in_the_apis_words(data, says):
    with pytest.raises(BadRequest, match=says):
        read(data)
