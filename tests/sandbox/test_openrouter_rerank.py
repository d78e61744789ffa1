"""Reranking in the stand-in, as OpenRouter's own client reads it."""

import openrouter
import pytest

MODEL = "cohere/rerank-v3.5"
DOCUMENTS = ["Berlin is in Germany", "Paris is in France", {"text": "Rome"}]


@pytest.fixture
def rerank(stand_in):
    key = stand_in.new_key()["key"]
    body = {"model": MODEL, "query": "Where is Paris", "documents": DOCUMENTS}
    return lambda **more: stand_in.call("POST", "/rerank", key, json=body | more)


def test_openrouters_client_gets_the_best_first(stand_in):
    with openrouter.OpenRouter(api_key=stand_in.new_key()["key"], server_url=stand_in.address) as client:
        answer = client.rerank.rerank(model=MODEL, query="Where is Paris", documents=DOCUMENTS[:2], top_n=1)
    assert [(one.index, one.document.text) for one in answer.results] == [(1, "Paris is in France")]
    assert answer.usage.cost == 0.001


def test_documents_come_back_as_objects(rerank):
    told = rerank().json()
    assert told["id"].startswith("gen-rerank-")
    assert [one["document"] for one in told["results"]][:2] == [{"text": DOCUMENTS[1]}, {"text": DOCUMENTS[0]}]
    assert len(told["results"]) == 3


@pytest.mark.parametrize(
    "wrong",
    [{"query": None}, {"query": 5}, {"documents": []}, {"documents": "a"}, {"documents": [5]}, {"top_n": 0}],
)
def test_what_cannot_be_ranked_is_refused(rerank, wrong):
    assert rerank(**wrong).status_code == 400


def test_a_chat_model_does_not_rank(rerank):
    assert rerank(model="openai/gpt-4o-mini").status_code in (400, 404)
