"""Anthropic's Python SDK on /v1/messages, under both servers; how often it tries again, and who pays for that."""

import time

import pydantic
import pytest

from tests.support.lazily import Lazily

anthropic = Lazily("anthropic")

MODEL = "anthropic/claude-sonnet-4.6"
TOOL = "sandbox/tools"
QUESTION = {"max_tokens": 200, "messages": [{"role": "user", "content": "Say something with an emoji"}]}
WEATHER = {
    "name": "weather",
    "input_schema": {"type": "object", "properties": {"query": {"type": "string"}}, "required": ["query"]},
}


class Said(pydantic.BaseModel):
    """What the stand-in answers to whoever wants JSON."""

    stand_in: bool


@pytest.fixture
def client(gateway, key):
    with anthropic.Anthropic(base_url=gateway.url, api_key=key, max_retries=0) as client:
        yield client.messages


@pytest.fixture
def retrying(customer):
    """As it is by default: two retries."""
    with anthropic.Anthropic(base_url=customer.url, api_key=customer.key) as client:
        yield client.messages


def test_answers(client):
    answer = client.create(model=MODEL, **QUESTION)
    assert "emoji" in answer.content[0].text
    assert answer.stop_reason == "end_turn"
    assert answer.usage.output_tokens > 0


def test_streams(client):
    with client.stream(model=MODEL, **QUESTION) as stream:
        text = "".join(stream.text_stream)
        message = stream.get_final_message()
    assert "emoji" in text
    assert message.content[0].text == text
    assert message.usage.output_tokens > 0


def test_takes_its_settings_from_the_environment(gateway, key, monkeypatch):
    monkeypatch.setenv("ANTHROPIC_BASE_URL", gateway.url)
    monkeypatch.setenv("ANTHROPIC_API_KEY", key)
    with anthropic.Anthropic() as client:
        assert client.messages.create(model=MODEL, **QUESTION).content


def test_sends_its_key_in_either_header(gateway, key):
    for settings in ({"auth_token": key}, {"default_headers": {"x-api-key": key}}):
        with anthropic.Anthropic(base_url=gateway.url, **settings) as client:
            assert client.messages.create(model=MODEL, **QUESTION).content


@pytest.mark.parametrize("streaming", [False, True], ids=["whole", "streamed"])
def test_calls_a_tool_and_tells_its_result(client, streaming):
    def ask(messages):
        request = {"model": TOOL, "max_tokens": 200, "tools": [WEATHER], "messages": messages}
        if not streaming:
            return client.create(**request)
        with client.stream(**request) as stream:
            return stream.get_final_message()

    called = ask(QUESTION["messages"])
    assert called.stop_reason == "tool_use"
    [call] = called.content
    assert (call.name, call.input) == ("weather", {"query": "stand-in"})
    told = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call.id, "content": "sunny"}]}
    answer = ask([*QUESTION["messages"], {"role": "assistant", "content": called.content}, told])
    assert answer.stop_reason == "end_turn"


def test_parses_structured_output(client):
    assert client.parse(model=MODEL, output_format=Said, **QUESTION).parsed_output == Said(stand_in=True)


def test_does_not_retry_what_the_caller_must_mend(customer, spent_key, retrying, answers):
    for key, error, kind in (
        ("sk-auto-unknown", anthropic.AuthenticationError, "authentication_error"),
        (spent_key, anthropic.PaymentRequiredError, "billing_error"),
    ):
        with anthropic.Anthropic(base_url=customer.url, api_key=key) as other, pytest.raises(error) as refused:
            other.messages.create(model=MODEL, **QUESTION)
        assert refused.value.body["type"] == "error"
        assert refused.value.body["error"]["type"] == kind
        assert refused.value.request_id
    with pytest.raises(anthropic.PermissionDeniedError, match="moderation"):
        retrying.create(model="sandbox/403a", **QUESTION)
    with pytest.raises(anthropic.BadRequestError, match="messages"):
        retrying.create(model=MODEL, max_tokens=200, messages=[])
    assert answers() == [401, 402, 403, 400]
    assert sorted(customer.log(requests=2)) == [(400, 0), (403, 0)]


def test_retries_and_pays_once(customer, retrying, answers):
    begun = time.monotonic()
    customer.meets("429c?retry_after=1", times=1)
    assert retrying.create(model=MODEL, **QUESTION).content
    customer.meets("503?retry_after=1", times=3)  # the gateway's own tries
    with retrying.stream(model=MODEL, **QUESTION) as stream:
        assert stream.get_final_text()
    assert time.monotonic() - begun >= 2  # Retry-After
    assert answers() == [429, 200, 503, 200]
    statuses, costs = zip(*customer.log(requests=4), strict=True)
    assert statuses == (429, 200, 503, 200)
    assert [cost > 0 for cost in costs] == [False, True, False, True]


def test_gives_up_after_two_retries_that_cost_nothing(customer, retrying, answers):
    with pytest.raises(anthropic.InternalServerError, match="Provider returned error"):
        retrying.create(model="sandbox/502", **QUESTION)
    assert answers() == [502, 502, 502]
    assert customer.log(requests=3) == [(502, 0)] * 3


def test_does_not_retry_a_stream_that_fails_in_its_middle(retrying, answers):
    with pytest.raises(anthropic.APIStatusError, match="temporarily overloaded"):
        with retrying.stream(model="sandbox/error-usage", **QUESTION) as stream:
            stream.get_final_message()
    assert answers() == [200]


def test_lists_models(gateway, key):
    with anthropic.Anthropic(base_url=gateway.url, api_key=key) as client:
        assert MODEL in {model.id for model in client.models.list()}
