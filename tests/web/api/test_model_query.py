"""The parameters of GET /models: what the list answers, and what OpenRouter has to be asked for."""

from __future__ import annotations

from tests.support.rows import each_row
from web.api.model_query import WhichModels


@each_row(
    ("given", "asked"),
    [
        ({}, ""),
        ({"q": "a", "min_price": "1", "sort": "newest", "providers": ""}, ""),
        ({"category": "legal", "q": "a"}, "/models?category=legal&output_modalities=all"),
        ({"providers": "A&B=c"}, "/models?output_modalities=all&providers=A%26B%3Dc"),
        ({"sort": "top-weekly"}, "/models?output_modalities=all&sort=top-weekly"),
        ({"min_tool_success_rate": "0.9"}, "/models?min_tool_success_rate=0.9&output_modalities=all"),
    ],
)
def test_openrouter_is_asked_for_what_entries_do_not_say(given, asked):
    assert WhichModels.model_validate(given).at_openrouter() == asked


def test_the_next_page_has_the_same_filter():
    query = WhichModels.model_validate({"q": "a b", "limit": "1", "offset": "3", "zdr": "true", "other": "x"})
    assert query.rest_of_query() == "zdr=true&q=a+b"
