"""The list of models: what each may use, in pages that are written once, whatever OpenRouter's list holds."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upstream.openrouter.model_list import KEPT_PAGES, MAX_DESCRIPTION, ListedModel, ModelList

NAMES = ["openai/gpt", "openai/o9", "a/b", "a/picture", "a/vector"]
OUTPUTS = {"a/picture": ["text", "image"], "a/vector": ["embeddings"], "a/b": None}


@dataclass(frozen=True)
class Allowed:
    """May use what begins with one of these."""

    models: tuple[str, ...] | None

    def allows_model(self, name: str) -> bool:
        return self.models is None or name.startswith(self.models)


def entry(name: str) -> dict[str, Any]:
    return {"id": name, "name": "Ünïcode 🌍", "architecture": {"output_modalities": OUTPUTS.get(name, ["text"])}}


def listed(*entries: Any) -> bytes:
    return json.dumps({"data": entries, "links": {"next": None}, "total_count": len(entries)}).encode()


@pytest.fixture
def models() -> ModelList:
    made = ModelList()
    assert not made
    made.take(listed(*map(entry, NAMES)))
    assert made
    return made


def names(page: Any) -> list[str]:
    document = json.loads(page.body)
    assert set(document) == {"data", "links", "total_count"}
    return [model["id"] for model in document["data"]]


def test_everything_that_writes_is_listed_to_who_may_use_all(models):
    page = models.page(None)
    assert names(page) == NAMES[:4]
    assert json.loads(page.body)["data"][0] == entry("openai/gpt")
    assert json.loads(page.body)["links"] == {"next": None}
    assert json.loads(page.body)["total_count"] == 4
    assert names(models.page(Allowed(None))) == NAMES[:4]


def test_only_what_may_be_used_is_listed_and_found(models):
    openai, nothing = Allowed(("openai/",)), Allowed(())
    assert names(models.page(openai)) == ["openai/gpt", "openai/o9"]
    assert names(models.page(nothing)) == []
    assert names(models.page(None)) == NAMES[:4]
    assert models.find("openai/o9", openai) == models.find("openai/o9", None) == entry("openai/o9")
    assert models.find("a/b", openai) is models.find("a/none", None) is None


def test_other_kinds_of_models_are_listed_when_asked_for(models):
    assert names(models.page(None, None)) == NAMES
    assert names(models.page(None, frozenset({"embeddings", "image"}))) == ["a/picture", "a/vector"]


@pytest.mark.parametrize(
    ("offset", "limit", "found", "following"),
    [
        (0, None, 4, None),
        (1, None, 3, None),
        (4, None, 0, None),
        (0, 2, 2, "/api/v1/models?offset=2&limit=2"),
        (2, 2, 2, None),
        (10**6, 1000, 0, None),
    ],
)
def test_pages_lead_through_the_list(models, offset, limit, found, following):
    document = json.loads(models.page(None, offset=offset, limit=limit).body)
    assert (len(document["data"]), document["links"]["next"], document["total_count"]) == (found, following, 4)


def test_a_page_is_written_once_for_each_filter_and_list(models):
    page = models.page(Allowed(("a/",)))
    assert models.page(Allowed(("a/",))) is page
    assert models.page(None).etag != page.etag
    models.take(listed(entry("a/b")))
    assert models.page(Allowed(("a/",))).etag != page.etag
    again = models.page(None)
    for offset in range(KEPT_PAGES):
        models.page(None, offset=offset + 1)
    assert models.page(None) is not again
    assert models.page(None) == again


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"{}", b'{"data":{}}', b'"data"'])
def test_what_is_no_list_changes_nothing(models, text):
    with pytest.raises(ValueError, match=r"list|JSON"):
        models.take(text)
    assert names(models.page(None)) == NAMES[:4]


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)
ENTRIES = st.fixed_dictionaries({"id": JSON_VALUES, "architecture": JSON_VALUES}) | JSON_VALUES


@given(st.lists(ENTRIES, max_size=5))
def test_odd_entries_are_no_fault(entries):
    models = ModelList()
    models.take(listed(*entries))
    wanted = [one["id"] for one in entries if isinstance(one, dict) and isinstance(one.get("id"), str) and one["id"]]
    assert names(models.page(None, None)) == wanted


def test_people_are_shown_those_that_answer_with_text_whatever_their_entries_hold(models):
    models.take(
        listed(
            {"id": "a/b", "name": "A: B", "description": "x" * 600, "context_length": 4096},
            {"id": "a/odd", "name": None, "description": ["<b>"], "context_length": "many"},
            {"id": "a/empty", "name": "", "context_length": True},
            {"id": "a/vector", "architecture": {"output_modalities": ["embeddings"]}},
        )
    )
    assert models.listed() == [
        ListedModel("a/b", "A: B", "x" * MAX_DESCRIPTION, 4096),
        ListedModel("a/odd", "a/odd", "", None),
        ListedModel("a/empty", "a/empty", "", None),
    ]
