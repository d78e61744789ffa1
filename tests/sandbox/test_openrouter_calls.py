"""What all formats of the API share in the stand-in: auth, money, scenarios, faults, the record of a generation."""

import json

import pytest
import requests

from sandbox.openrouter_calls import API_TYPES

MESSAGES = [{"role": "user", "content": "Hello"}]
BODIES = {
    "/chat/completions": {"messages": MESSAGES},
    "/completions": {"prompt": "Hello"},
    "/embeddings": {"input": "Hello"},
    "/responses": {"input": "Hello"},
    "/messages": {"messages": MESSAGES},
    "/rerank": {"query": "Hello", "documents": [""]},
    "/images": {"prompt": "Hello"},
}
WORDLESS = ("/embeddings", "/rerank")
STREAMED = [path for path in BODIES if path not in WORDLESS]
LIMITS = {"/responses": "max_output_tokens", "/embeddings": None, "/rerank": None, "/images": None}
PROMPT_NANO = 5 * 1000


@pytest.fixture
def key(stand_in):
    return stand_in.new_key()


@pytest.fixture
def call(stand_in, key):
    def call(path, model="sandbox/stream?chunks=6", secret=None, **more):
        limit = LIMITS.get(path, "max_tokens")
        document = BODIES[path] | {"model": model} | ({limit: 50} if limit else {}) | more
        return stand_in.call("POST", path, key["key"] if secret is None else secret, json=document)

    return call


def message_of(answer, path):
    document = answer.json()
    assert document.get("type") == ("error" if path == "/messages" else None)
    return document["error"]["message"]


@pytest.mark.parametrize("path", BODIES)
def test_every_format_is_billed_on_account_and_key(stand_in, key, call, path):
    answer = call(path)
    assert answer.status_code == 200
    prompt_nano = 9 * 1000 if path == "/rerank" else PROMPT_NANO  # question and document
    cost = prompt_nano + (0 if path in WORDLESS else 6 * 2000)
    assert round(answer.json()["usage"]["cost"] * 1e9) == stand_in.spent(key["hash"]) == cost
    assert stand_in.control("GET", "bill")["accounts"][key["account"]]["nano"] == cost
    made = answer.headers["x-generation-id"]
    record = stand_in.call("GET", "/generation", key["key"], params={"id": made}).json()["data"]
    assert (record["id"], round(record["total_cost"] * 1e9)) == (made, cost)
    assert record["api_type"] == API_TYPES.get(path.strip("/"), "completions")


@pytest.mark.parametrize("path", STREAMED)
def test_every_stream_names_what_is_billed(stand_in, key, call, path):
    answer = call(path, stream=True)
    assert answer.headers["content-type"] == "text/event-stream"
    assert b'"cost":0.000017' in answer.content
    assert stand_in.generations_of(key["hash"])[0]["id"] == answer.headers["x-generation-id"]
    assert stand_in.spent(key["hash"]) == PROMPT_NANO + 6 * 2000


@pytest.mark.parametrize("path", BODIES)
def test_every_format_wants_a_key_that_may(stand_in, call, path):
    assert message_of(call(path, secret=""), path) == "Missing Authentication header"
    unknown = call(path, secret="sk-or-v1-" + "0" * 64)
    assert (unknown.status_code, message_of(unknown, path)) == (401, "User not found.")
    manager = stand_in.new_account()["management_key"]
    assert call(path, secret=manager).status_code == 401


@pytest.mark.parametrize("path", BODIES)
def test_limits_of_keys_hold_for_every_format(stand_in, call, path):
    poor = stand_in.new_key(limit=0)
    refused = call(path, secret=poor["key"])
    assert refused.status_code == 403
    assert message_of(refused, path).startswith("Key limit exceeded")
    assert stand_in.spent(poor["hash"]) == 0


@pytest.mark.parametrize("path", BODIES)
def test_rows_and_unknown_models_are_refused_in_the_formats_envelope(call, path):
    limited = call(path, "sandbox/429c?retry_after=7")
    assert (limited.status_code, limited.headers["retry-after"]) == (429, "7")
    assert message_of(limited, path) == "Provider returned error"
    assert call(path, "sandbox/502-html").headers["content-type"].startswith("text/html")
    unknown = call(path, "no-such-model")
    assert (unknown.status_code, message_of(unknown, path)) == (400, "no-such-model is not a valid model ID")


@pytest.mark.parametrize("path", BODIES)
def test_a_fault_without_a_path_is_for_every_format(stand_in, key, call, path):
    stand_in.control("POST", "faults", scenario="402d", key=key["hash"], times=1)
    refused = call(path, "openai/gpt-4o-mini")
    assert (refused.status_code, message_of(refused, path)[:20]) == (402, "Insufficient credits")


@pytest.mark.parametrize("path", STREAMED)
@pytest.mark.parametrize("scenario", ["error-first", "error-mid", "error-opened"])
def test_streams_that_fail_say_so_and_are_free(stand_in, key, call, path, scenario):
    events = [line for line in call(path, f"sandbox/{scenario}", stream=True).text.split("\n\n") if line]
    assert "Service temporarily overloaded" in events[-1]
    if scenario == "error-first":
        assert len(events) == 1
    assert stand_in.spent(key["hash"]) == 0
    assert stand_in.generations_of(key["hash"])[0]["finish_reason"] == "error"


@pytest.mark.parametrize("path", BODIES)
def test_whole_answers_that_fail_after_200_say_so_and_are_free(stand_in, key, call, path):
    answer = call(path, "sandbox/whitespace-error")
    assert answer.status_code == 200
    assert answer.text.startswith("\n  ")
    assert answer.json()["error"]["message"].endswith("overloaded")
    assert stand_in.spent(key["hash"]) == 0


@pytest.mark.parametrize("path", STREAMED)
def test_streams_are_cut_slowed_and_left_without_usage(stand_in, key, call, path):
    assert call(path, "sandbox/one-byte", stream=True).content
    assert b"cost" not in call(path, "sandbox/no-usage", stream=True).content
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        call(path, "sandbox/cut?chunks=3", stream=True)
    last = stand_in.generations_of(key["hash"])[-1]
    assert (last["completion_tokens"], last["finish_reason"]) == (3, None)


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize("body", [b"{", b"[]", b"{}", b'{"model":5}', b'{"stream":1}'])
def test_what_cannot_be_read_is_refused(stand_in, key, path, body):
    answer = stand_in.call("POST", path, key["key"], data=body)
    assert answer.status_code == 400
    assert json.loads(answer.content)["error"]["message"]
    assert stand_in.spent(key["hash"]) == 0
