"""The list of models as Anthropic's clients read it: its form, its pages, and only what one may use."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
import requests

from foundation import json_text
from foundation.errors import BadRequest, NotFound
from tests.sdks.conftest import new_client_key
from tests.support.gateway import refusal_of, wait_for
from upstream.openrouter.model_list import ModelList
from web.api.anthropic_models import PageOfModels, one_model, page_of_models

CLAUDE = "anthropic/claude-sonnet-4.6"


def known(count: int = 5) -> ModelList:
    models = ModelList()
    entries = [
        {"id": f"a/{n}", "name": f"A {n}", "created": n, "top_provider": {"max_completion_tokens": 7}}
        for n in range(count)
    ]
    models.take(json_text.write({"data": entries}))
    return models


def page(models: ModelList, **asked: object) -> tuple[list[str], bool]:
    found = page_of_models(models, None, PageOfModels.model_validate(asked))
    ids = [model["id"] for model in found["data"]]
    assert (found["first_id"], found["last_id"]) == ((ids[0], ids[-1]) if ids else (None, None))
    return ids, found["has_more"]


def test_pages_follow_each_other_in_both_directions():
    models = known()
    assert page(models) == (["a/0", "a/1", "a/2", "a/3", "a/4"], False)
    assert page(models, limit="2") == (["a/0", "a/1"], True)
    assert page(models, limit="2", after_id="a/1") == (["a/2", "a/3"], True)
    assert page(models, limit="2", after_id="a/3") == (["a/4"], False)
    assert page(models, after_id="a/4") == ([], False)
    assert page(models, limit="2", before_id="a/4") == (["a/2", "a/3"], True)
    assert page(models, limit="2", before_id="a/2") == (["a/0", "a/1"], False)
    assert page(models, before_id="a/0") == ([], False)
    assert page(ModelList()) == ([], False)


def test_a_page_beside_a_model_that_is_not_there_is_refused():
    for asked in ({"after_id": "a/9"}, {"before_id": "x"}, {"after_id": "a/1", "before_id": "a/2"}):
        with pytest.raises(BadRequest):
            page(known(), **asked)


def test_a_model_has_anthropics_fields():
    assert one_model(known(), None, "a/4") == {
        "type": "model",
        "id": "a/4",
        "display_name": "A 4",
        "created_at": "1970-01-01T00:00:04Z",
        "max_input_tokens": None,
        "max_tokens": 7,
        "lifecycle": "active",
    }
    with pytest.raises(NotFound):
        one_model(known(), None, "a/9")


def test_anthropics_clients_get_it_and_others_get_openrouters(gateway):
    token = gateway.new_user()
    wait_for(lambda: gateway.get("/v1/models", token).status_code == 200)

    def ask(path, key=token):
        headers = {"x-api-key": key, "anthropic-version": "2023-06-01"}
        return requests.get(gateway.url + path, headers=headers, timeout=30)

    listed = ask("/v1/models?limit=1000&beta=true").json()
    theirs = gateway.get("/v1/models", token)
    assert [model["id"] for model in listed["data"]] == [model["id"] for model in theirs.json()["data"]]
    assert "Anthropic-Version" in theirs.headers["Vary"]
    [claude] = [model for model in listed["data"] if model["id"] == CLAUDE]
    assert datetime.fromisoformat(claude["created_at"]) > datetime(2020, 1, 1, tzinfo=UTC)
    assert claude["max_input_tokens"] == 200_000
    assert ask(f"/v1/models/{CLAUDE}").json() == claude
    assert gateway.get(f"/v1/models/{CLAUDE}", token).json()["owned_by"] == "anthropic"
    assert ask("/v1/models?limit=1001").status_code == 400
    assert ask("/v1/models/x/y").json()["error"]["type"] == "not_found_error"
    narrow = new_client_key(gateway, token, models=["anthropic/*"])
    assert [model["id"] for model in ask("/v1/models", narrow).json()["data"]] == [CLAUDE]
    assert ask("/v1/models/openai/gpt-4o", narrow).status_code == 404
    assert "lists those" in refusal_of(gateway.get("/v1/models/openai/gpt-4o", narrow))
