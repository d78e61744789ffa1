"""What the endpoints beside calls of models share: bodies and numbers that are not what they must be, settings."""

from __future__ import annotations

import pytest


def test_pages_may_be_made_smaller(stand_in, manage):
    for number in range(3):
        manage("POST", "/keys", json={"name": f"key {number}"})
    assert stand_in.control("POST", "settings", keys_on_a_page=2)["keys_on_a_page"] == 2
    try:
        pages = [manage("GET", "/keys", params={"offset": offset}).json()["data"] for offset in (0, 2, 4)]
    finally:
        stand_in.control("POST", "settings", keys_on_a_page=100)
    assert [[key["name"] for key in page] for page in pages] == [["key 2", "key 1"], ["key 0"], []]


@pytest.mark.parametrize("query", ["offset=-1", "offset=x", "offset=99999999999999999999", "offset=%ff"])
def test_offsets_that_are_not_numbers_are_refused(manage, query):
    assert manage("GET", f"/keys?{query}").status_code == 400


@pytest.mark.parametrize("body", [b"{", b"[]", b"5", b""])
def test_a_body_that_is_no_object_is_refused(manage, body):
    assert manage("POST", "/keys", data=body).status_code == 400
