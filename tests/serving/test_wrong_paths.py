"""A base URL that is nearly right: the 404 says which one is."""

from __future__ import annotations

import json

import pytest

from serving.wrong_paths import nothing_at
from tests.support.gateway import body_of, read_all
from tests.support.rows import each_row

OPENAI, ANTHROPIC = "OpenRouter's clients ends in /v1", "Anthropic's clients, which add /v1 themselves, has no path"


@each_row(
    ("path", "meant"),
    [
        ("//v1/chat/completions", "/v1/chat/completions"),
        ("/v1//chat/completions", "/v1/chat/completions"),
        ("/v1/chat/completions/", "/v1/chat/completions"),
        ("/v1/v1/chat/completions", "/v1/chat/completions"),
        ("/v1/api/v1/chat/completions", "/v1/chat/completions"),
        ("/chat/completions", "/v1/chat/completions"),
        ("/api/chat/completions", "/v1/chat/completions"),
        ("/V1/Chat/Completions", "/v1/chat/completions"),
        ("/v1/chat/completions/chat/completions", "/v1/chat/completions"),
        ("/openai/v1/chat/completions", "/v1/chat/completions"),
        ("/completions", "/v1/completions"),
        ("/embeddings", "/v1/embeddings"),
        ("/v1/v1/responses", "/v1/responses"),
        ("/api/generation", "/v1/generation"),
        ("/v1/key/", "/v1/key"),
    ],
)
def test_what_openais_and_openrouters_clients_mean_is_said(path, meant):
    message = nothing_at(path).message
    assert f"; {meant} is right: " in message
    assert OPENAI in message
    assert ANTHROPIC not in message


@pytest.mark.parametrize("path", ["/v1/v1/messages", "/messages", "/v1/messages/", "//v1/messages", "/api/messages"])
def test_what_anthropics_clients_mean_is_said(path):
    message = nothing_at(path).message
    assert "; /v1/messages is right: " in message
    assert ANTHROPIC in message
    assert OPENAI not in message


@pytest.mark.parametrize("path", ["/v1/v1/models", "//v1/models", "/v1/models/", "/api/models"])
def test_both_ask_for_the_models(path):
    message = nothing_at(path).message
    assert "; /v1/models is right: " in message
    assert OPENAI in message
    assert ANTHROPIC in message


@pytest.mark.parametrize(
    ("path", "what"),
    [
        ("/v1/presets", "Presets"),
        ("/api/v1/presets/mine", "Presets"),
        ("/v1/presets/mine/chat/completions", "Presets"),
        ("/v1/presets/mine/messages", "Presets"),
        ("/v1/files", "Files"),
        ("/api/v1/files/file_1/content", "Files"),
    ],
)
def test_what_would_lie_in_the_shared_account_is_refused_for_that_reason(path, what):
    message = nothing_at(path).message
    assert message.startswith(f"{what} would lie in the OpenRouter account that all users here share")
    assert "in the request itself" in message


@each_row(
    ("path", "why"),
    [
        ("/v1/activity", "GET /api/v1/usage has yours"),
        ("/api/v1/keys/abc", "yours are client keys"),
        ("/v1/auth/keys/code", "oauth/initiate"),
        ("/v1/generation/content", "are not kept"),
        ("/v1/generation/feedback", "tell its operator"),
        ("/v1/guardrails/assignments/keys", "client keys have model lists"),
        ("/api/v1/credits/coinbase", "GET /v1/credits"),
    ],
)
def test_what_is_the_operators_or_everybodys_is_refused_for_its_reason(path, why):
    assert why in nothing_at(path).message


@pytest.mark.parametrize("path", ["/v1", "/v1/", "/api/v1", "//v1", "/api", "/v1/v1"])
def test_a_base_url_alone_is_told_to_be_one(path):
    assert "it is a base URL" in nothing_at(path).message


@each_row(
    "path",
    ["", "/", "/x", "/keys", "/v1/messages/batches", "/v1/filesystem", "/auth/key", "/auth/keys", "/activity", "/é"],
)
def test_of_another_path_nothing_is_guessed(path):
    assert nothing_at(path).message == "There is nothing at this path"


@pytest.mark.parametrize("path", ["//v1/chat/completions", "/v1/v1/chat/completions", "/chat/completions"])
def test_a_client_is_told(gateway, path):
    """The door refuses some of them, Flask the others."""
    answer = read_all(gateway.open_raw(b'{"model":"a/b"}', "Content-Type: application/json\r\n", path))
    assert answer.startswith(b"HTTP/1.1 404")
    assert "; /v1/chat/completions is right: " in json.loads(body_of(answer))["error"]["message"]
