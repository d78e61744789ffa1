"""The official SDKs of OpenAI and OpenRouter hold conversations through the gateway, under both servers."""

import openai
import pytest
from openrouter import OpenRouter
from openrouter import errors as openrouter_errors

QUESTION = [{"role": "user", "content": "Say something with an emoji"}]
MODEL = "openai/gpt-4o-mini"


@pytest.fixture
def openai_client(gateway, token):
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=token, max_retries=0) as client:
        yield client


@pytest.fixture
def openrouter_client(gateway, token):
    with OpenRouter(api_key=token, server_url=f"{gateway.url}/v1") as client:
        yield client


def test_openai_plain(openai_client):
    answer = openai_client.chat.completions.create(model=MODEL, messages=QUESTION)
    assert answer.choices[0].message.content
    assert answer.usage.total_tokens > 0


def test_openai_streamed(openai_client):
    chunks = list(openai_client.chat.completions.create(model=MODEL, messages=QUESTION, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert chunks[-1].usage.total_tokens > 0


def test_openai_holds_a_conversation(openai_client):
    messages = list(QUESTION)
    for turn in ("first", "second"):
        answer = openai_client.chat.completions.create(model=MODEL, messages=messages)
        messages += [answer.choices[0].message.model_dump(exclude_none=True), {"role": "user", "content": turn}]
    assert "second" in openai_client.chat.completions.create(model=MODEL, messages=messages).choices[0].message.content


def test_openai_calls_tools(openai_client):
    tool = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}
    answer = openai_client.chat.completions.create(model=MODEL, messages=QUESTION, tools=[tool], tool_choice="required")
    assert answer.choices[0].message.tool_calls[0].function.name == "weather"


def test_openai_reads_our_errors(openai_client, gateway):
    stranger = openai_client.with_options(api_key="not-a-token")
    with pytest.raises(openai.AuthenticationError) as refused:
        stranger.chat.completions.create(model=MODEL, messages=QUESTION)
    assert refused.value.request_id
    assert "/login" in refused.value.body["message"]
    with pytest.raises(openai.BadRequestError, match="messages"):
        openai_client.chat.completions.create(model=MODEL, messages=[])


def test_openai_reads_openrouters_errors(openai_client):
    with pytest.raises(openai.BadRequestError, match="valid model"):
        openai_client.chat.completions.create(model="no/such-model", messages=QUESTION)
    with pytest.raises(openai.APIError):
        list(openai_client.chat.completions.create(model="sandbox/error-mid", messages=QUESTION, stream=True))


@pytest.mark.parametrize("scenario", ["comments", "one-byte", "split-utf8", "old-usage", "no-done", "mid-comments"])
def test_openai_survives_what_openrouter_sends(openai_client, scenario):
    chunks = list(openai_client.chat.completions.create(model=f"sandbox/{scenario}", messages=QUESTION, stream=True))
    assert any(chunk.choices and chunk.choices[0].finish_reason == "stop" for chunk in chunks)


def test_openai_gets_a_late_answer_over_a_silent_upstream(openai_client):
    model = "sandbox/slow-headers?delay_ms=2500"
    chunks = list(openai_client.chat.completions.create(model=model, messages=QUESTION, stream=True))
    assert any(chunk.choices and chunk.choices[0].finish_reason == "stop" for chunk in chunks)


def test_openrouter_plain(openrouter_client):
    answer = openrouter_client.chat.send(model=MODEL, messages=QUESTION)
    assert answer.choices[0].message.content
    assert answer.usage.total_tokens > 0


def test_openrouter_streamed(openrouter_client):
    with openrouter_client.chat.send(model=MODEL, messages=QUESTION, stream=True) as events:
        text = "".join(event.choices[0].delta.content or "" for event in events if event.choices)
    assert text


def test_openrouter_reads_our_errors(gateway):
    with OpenRouter(api_key="not-a-token", server_url=f"{gateway.url}/v1") as stranger:
        with pytest.raises(openrouter_errors.UnauthorizedResponseError) as refused:
            stranger.chat.send(model=MODEL, messages=QUESTION)
    assert refused.value.data.error.code == 401


def test_openrouter_reads_an_error_within_a_late_stream(openrouter_client):
    model = "sandbox/400?delay_ms=2500"
    with openrouter_client.chat.send(model=model, messages=QUESTION, stream=True) as events:
        errors = [event.error for event in events if event.error]
    assert errors[0].code == 400
