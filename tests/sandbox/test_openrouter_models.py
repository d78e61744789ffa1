"""The models of the stand-in: their names and variants, and the list in OpenRouter's form."""

import pytest
from openrouter import components

from sandbox.openrouter_models import find_model, listed_models


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("openai/gpt-4o-mini", "openai/gpt-4o-mini"),
        ("openai/gpt-4o-mini:nitro", "openai/gpt-4o-mini"),
        ("sandbox/429c?retry_after=3", "sandbox/stream"),
        ("meta-llama/llama-3.3-70b-instruct:free", "meta-llama/llama-3.3-70b-instruct:free"),
    ],
)
def test_models_are_found_by_name_and_variant(name, found):
    assert find_model(name).id == found


@pytest.mark.parametrize("name", ["gpt-4o-mini", "openai/gpt-4o:free", "openai/gpt-4o:unheard-of", ""])
def test_other_names_are_not_models(name):
    assert find_model(name) is None


def test_the_list_is_what_the_official_client_expects(stand_in):
    listed = components.ModelsListResponse.model_validate(stand_in.call("GET", "/models").json())
    assert listed.total_count == len(listed.data)
    assert listed.links.next is None
    prices = {model.id: model.pricing.completion for model in listed.data}
    assert prices["openai/gpt-4o-mini"] == "0.0000006"


def test_pages_lead_through_the_whole_list():
    first = listed_models("text", 0, 3)
    assert len(first["data"]) == 3
    assert first["links"]["next"] == "/api/v1/models?offset=3&limit=3"
    assert listed_models("text", 3, 1000)["links"]["next"] is None


def test_models_of_embeddings_are_listed_for_who_asks(stand_in):
    def listed(path):
        return {model["id"] for model in stand_in.call("GET", path).json()["data"]}

    embedding = "openai/text-embedding-3-small"
    assert embedding not in listed("/models")
    others = {
        "cohere/rerank-v3.5",
        "bytedance-seed/seedream-4.5",
        "openai/gpt-image-1",
        "mistralai/voxtral-mini-tts-2603",
        "openai/whisper-large-v3",
        "google/veo-3.1",
    }
    assert listed("/models?output_modalities=all") == listed("/models") | {embedding} | others
    assert not listed("/models") & others
    assert listed("/embeddings/models") == {embedding}
    assert (find_model(embedding), find_model(embedding, "embeddings").id) == (None, embedding)


def test_one_model_is_shown(stand_in):
    assert stand_in.call("GET", "/model/openai/gpt-4o").json()["data"]["id"] == "openai/gpt-4o"
    for path in ("/model/openai/none", "/models/openai/gpt-4o", "/model", "/model/"):
        assert stand_in.call("GET", path).json() == {"error": {"message": "Not Found", "code": 404}}


def test_unknown_models_are_refused_in_openrouters_words(stand_in):
    key = stand_in.new_key()["key"]
    unknown, gone = stand_in.chat(key, "no-such-model"), stand_in.chat(key, "openai/gpt-4o:free")
    assert (unknown.status_code, unknown.json()["error"]["message"]) == (400, "no-such-model is not a valid model ID")
    assert (gone.status_code, gone.json()["error"]["message"]) == (404, "No endpoints found for openai/gpt-4o:free.")
