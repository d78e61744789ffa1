"""OpenRouter's Python SDK through the gateway, under both servers; how often it tries again, and who pays for that."""

import json
import time

import pytest
from openrouter import OpenRouter, errors
from openrouter.utils import BackoffStrategy, RetryConfig

from tests.support.gateway import wait_for

QUESTION = [{"role": "user", "content": "Say something with an emoji"}]
MODEL = "openai/gpt-4o-mini"
PARAMETERS = {"type": "object", "properties": {"query": {"type": "string"}}, "required": ["query"]}
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": PARAMETERS}}
SCHEMA = {"type": "object", "properties": {"stand_in": {"type": "boolean"}}, "required": ["stand_in"]}
# By itself the SDK tries again for an hour; these are milliseconds.
SOON = RetryConfig("backoff", BackoffStrategy(1, 10, 1.5, 60_000), False)
NEVER = RetryConfig("none", BackoffStrategy(0, 0, 1, 0), False)


@pytest.fixture
def client(gateway, key):
    with OpenRouter(api_key=key, server_url=f"{gateway.url}/v1") as client:
        yield client


@pytest.fixture
def retrying(customer):
    with OpenRouter(api_key=customer.key, server_url=f"{customer.url}/v1", retry_config=SOON) as client:
        yield client.chat


def test_answers(client):
    answer = client.chat.send(model=MODEL, messages=QUESTION)
    assert "emoji" in answer.choices[0].message.content
    assert answer.usage.total_tokens > 0


def test_streams(client):
    with client.chat.send(model=MODEL, messages=QUESTION, stream=True) as events:
        chunks = list(events)
    assert "emoji" in "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert chunks[-1].usage.cost > 0


def test_takes_its_key_from_the_environment(gateway, key, monkeypatch):
    monkeypatch.setenv("OPENROUTER_API_KEY", key)
    with OpenRouter(server_url=f"{gateway.url}/api/v1") as client:  # the path that it has at OpenRouter
        assert client.chat.send(model=MODEL, messages=QUESTION).choices


def test_calls_a_tool_and_tells_its_result(client):
    message = client.chat.send(model="sandbox/tools", messages=QUESTION, tools=[WEATHER]).choices[0].message
    [call] = message.tool_calls
    assert (call.function.name, json.loads(call.function.arguments)) == ("weather", {"query": "stand-in"})
    called = {"role": "assistant", "tool_calls": [call.model_dump(by_alias=True)]}
    told = {"role": "tool", "tool_call_id": call.id, "content": "sunny"}
    answer = client.chat.send(model="sandbox/tools", messages=[*QUESTION, called, told], tools=[WEATHER])
    assert answer.choices[0].finish_reason == "stop"


def test_calls_a_tool_in_a_stream(client):
    with client.chat.send(model="sandbox/tools", messages=QUESTION, tools=[WEATHER], stream=True) as events:
        deltas = [event.choices[0].delta for event in events if event.choices]
    pieces = [call.function for delta in deltas for call in delta.tool_calls or []]
    assert pieces[0].name == "weather"
    assert json.loads("".join(piece.arguments or "" for piece in pieces)) == {"query": "stand-in"}


def test_gets_structured_output(client):
    wanted = {"type": "json_schema", "json_schema": {"name": "said", "strict": True, "schema": SCHEMA}}
    answer = client.chat.send(model=MODEL, messages=QUESTION, response_format=wanted)
    assert json.loads(answer.choices[0].message.content)["stand_in"] is True


def test_reranks(client):
    answer = client.rerank.rerank(model="cohere/rerank-v3.5", query="Where is Paris", documents=["Rome", "Paris"])
    assert [one.index for one in answer.results] == [1, 0]
    assert answer.usage.cost > 0


def test_draws(client):
    answer = client.images.generate(model="openai/gpt-image-1", prompt="a red panda")
    assert answer.data[0].b64_json
    assert answer.usage.cost > 0


def test_embeds(client):
    answer = client.embeddings.generate(model="openai/text-embedding-3-small", input=["one", "two"])
    assert [len(each.embedding) > 0 for each in answer.data] == [True, True]


def test_responds(client):
    answer = client.beta.responses.send(model=MODEL, input=QUESTION[0]["content"])
    text = answer.output[0].content[0].text
    assert "emoji" in text
    with client.beta.responses.send(model=MODEL, input=QUESTION[0]["content"], stream=True) as events:
        assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == text


def test_lists_models(client):
    assert MODEL in {model.id for model in client.models.list().result.data}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of a field that OpenRouter still sends
def test_shows_its_key(client):
    assert client.api_keys.get_current_key_metadata().data.usage >= 0


def test_lists_its_owners_keys(gateway, key, token):
    with OpenRouter(api_key=token, server_url=f"{gateway.url}/api/v1") as client:
        assert gateway.chat(key).status_code == 200
        found = wait_for(lambda: next((one for one in client.api_keys.list().data if one.usage), None))
        assert found.usage == found.usage_daily == found.usage_weekly == found.usage_monthly
        assert key.startswith(found.label.rstrip("*"))
        assert (found.disabled, found.limit) == (False, None)
        assert client.api_keys.list(offset=1).data == []
    with OpenRouter(api_key=gateway.new_user(), server_url=f"{gateway.url}/api/v1") as other:
        assert other.api_keys.list().data == []


def test_reads_an_error_within_a_late_stream(client):
    with client.chat.send(model="sandbox/400?delay_ms=1500", messages=QUESTION, stream=True) as events:
        told = [event.error for event in events if event.error]
    assert told[0].code == 400


def test_does_not_retry_what_the_caller_must_mend(customer, spent_key, retrying, answers):
    for key, error in (
        ("sk-auto-unknown", errors.UnauthorizedResponseError),
        (spent_key, errors.PaymentRequiredResponseError),
    ):
        with OpenRouter(api_key=key, server_url=f"{customer.url}/v1") as other, pytest.raises(error) as refused:
            other.chat.send(model=MODEL, messages=QUESTION)
        assert refused.value.data.error.code == refused.value.status_code
    with pytest.raises(errors.ForbiddenResponseError, match="moderation"):
        retrying.send(model="sandbox/403a", messages=QUESTION)
    with pytest.raises(errors.TooManyRequestsResponseError):
        retrying.send(model="sandbox/429c", messages=QUESTION)
    assert answers() == [401, 402, 403, 429]
    assert customer.log(requests=2) == [(403, 0), (429, 0)]


def test_retries_what_servers_failed_at_and_pays_once(customer, retrying, answers):
    customer.meets("502", times=3)  # the gateway's own tries
    assert retrying.send(model=MODEL, messages=QUESTION).choices
    customer.meets("503?retry_after=1", times=3)
    begun = time.monotonic()
    with retrying.send(model=MODEL, messages=QUESTION, stream=True) as events:
        assert list(events)
    assert time.monotonic() - begun >= 1  # Retry-After
    assert answers() == [502, 200, 503, 200]
    statuses, costs = zip(*customer.log(requests=4), strict=True)
    assert statuses == (502, 200, 503, 200)
    assert [cost > 0 for cost in costs] == [False, True, False, True]


def test_gives_up_when_told_to(customer, retrying, answers):
    with pytest.raises(errors.BadGatewayResponseError):
        retrying.send(model="sandbox/502", messages=QUESTION, retries=NEVER)
    assert answers() == [502]
    assert customer.log(requests=1) == [(502, 0)]


def test_does_not_retry_a_stream_that_fails_in_its_middle(customer, retrying, answers):
    with retrying.send(model="sandbox/error-usage", messages=QUESTION, stream=True) as events:
        told = [event.error for event in events if event.error]
    assert [error.code for error in told] == [502]
    assert answers() == [200]
    assert customer.log(requests=1) == [(200, 0)]
