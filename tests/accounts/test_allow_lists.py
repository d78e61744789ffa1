"""Lists of what may be used: kept sorted, told in refusals, and nothing else is a list."""

from __future__ import annotations

import pytest

from accounts.allow_lists import MAX_UPSTREAMS, names_in, set_in, with_columns
from accounts.teams import Team
from foundation.errors import BadRequest, Forbidden
from tests.support.rows import each_row


def test_a_list_is_kept_once_and_sorted_and_none_stands_for_all():
    columns = with_columns({"name": "x", "models": ["b/*", "a/m", "b/*"], "upstreams": None})
    assert columns == {"name": "x", "models": '["a/m","b/*"]', "upstreams": None}
    assert (names_in(columns["models"]), set_in(None), set_in('["a"]')) == (("a/m", "b/*"), None, frozenset("a"))


@each_row(
    "fields", [{"models": []}, {"models": ["a*b"]}, {"upstreams": [""]}, {"upstreams": ["a"] * (MAX_UPSTREAMS + 1)}]
)
def test_what_is_no_list_is_refused_with_what_is_accepted(fields):
    with pytest.raises(BadRequest, match="must be a list of 1 to 100 texts"):
        with_columns(fields)


def test_a_refusal_says_whose_list_it_is_and_what_is_on_it():
    team = Team(3, models=("a/*",), upstreams=frozenset({"local"}))
    team.check_model(["a/m"])
    team.check_upstream("local")
    with pytest.raises(Forbidden, match=r"Your team may not use 'b/m'; it may use a/\*"):
        team.check_model(["a/m", "b/m"])
    with pytest.raises(Forbidden, match="Your team needs a `model`"):
        team.check_model([])
    with pytest.raises(Forbidden, match="Your team may not use the upstream 'openrouter'; it may use local"):
        team.check_upstream("openrouter")
    Team(4).check_model([])
