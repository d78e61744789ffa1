"""The formats side by side: their names, their paths, and what those have of their own that differ little from chat."""

import json

import pytest

from formats.chat import Kind
from formats.registry import (
    CHAT,
    COMPLETIONS,
    EMBEDDINGS,
    IMAGES,
    MESSAGES,
    MODEL_APIS,
    RERANK,
    RESPONSES,
    TRANSCRIPTIONS,
)
from foundation.errors import UpstreamFailed
from upstream.refusal import Refusal


def test_each_format_has_its_name_and_path():
    assert {api.name: api.path for api in MODEL_APIS} == {
        "chat": "/chat/completions",
        "completions": "/completions",
        "embeddings": "/embeddings",
        "responses": "/responses",
        "messages": "/messages",
        "rerank": "/rerank",
        "images": "/images",
        "speech": "/audio/speech",
        "transcriptions": "/audio/transcriptions",
        "videos": "/videos",
    }
    assert [api for api in MODEL_APIS if not api.has_reasons] == [RESPONSES, MESSAGES]


@pytest.mark.parametrize("api", [CHAT, COMPLETIONS, EMBEDDINGS, RESPONSES, RERANK, IMAGES])
def test_our_own_errors_have_the_one_shape(api):
    error = UpstreamFailed("x")
    assert api.error_body(error, "r-1") == error.to_json()


@pytest.mark.parametrize("api", MODEL_APIS)
def test_every_formats_error_event_can_be_told_by_its_own_reader(api):
    event = api.error_event(UpstreamFailed("x"), "gen-1", "m", 3)
    assert api.kind_of(event) is Kind.ERROR
    assert (b"event:" in event) is (api in {RESPONSES, MESSAGES})
    assert b"gen-1" in event or api in {RESPONSES, MESSAGES, IMAGES}


def test_an_error_in_a_completions_stream_has_the_shape_of_its_chunks():
    refusal = Refusal(429, {"id": "gen-2", "error": {"code": 429, "message": "slow down"}, "user_id": "user_2"})
    chunk = json.loads(COMPLETIONS.refusal_event(refusal, "m")[6:])
    assert (chunk["id"], chunk["object"], chunk["model"]) == ("gen-2", "text_completion", "m")
    assert chunk["error"] == {"code": 429, "message": "slow down"}
    assert chunk["choices"] == [{"index": 0, "text": "", "finish_reason": "error", "logprobs": None}]


@pytest.mark.parametrize(("text", "kind"), [("", Kind.EMPTY), ("a", Kind.CONTENT)])
def test_a_completions_text_is_its_content(text, kind):
    chunk = {"id": "gen-1", "choices": [{"index": 0, "text": text, "finish_reason": None, "logprobs": None}]}
    assert COMPLETIONS.kind_of(b"data: " + json.dumps(chunk).encode() + b"\n\n") is kind


def test_embeddings_write_nothing():
    assert EMBEDDINGS.with_usage(None, {"prompt_tokens": 8, "total_tokens": 8, "cost": 1}) == {
        "prompt_tokens": 8,
        "total_tokens": 8,
        "cost": 1,
        "completion_tokens": 0,
    }


def test_reranking_counts_all_of_its_tokens_as_the_prompts():
    usage = {"search_units": 1, "total_tokens": 150, "cost": 0.001}
    assert RERANK.with_usage(None, usage) == usage | {"prompt_tokens": 150, "completion_tokens": 0}
    assert RERANK.with_usage(None, {"search_units": 1})["prompt_tokens"] is None


def test_what_is_written_down_has_the_tokens_of_responses():
    usage = {"input_tokens": 83, "output_tokens": 30, "seconds": 9.2, "cost": 0.000508}
    assert TRANSCRIPTIONS.with_usage(None, usage) == usage | {"prompt_tokens": 83, "completion_tokens": 30}
