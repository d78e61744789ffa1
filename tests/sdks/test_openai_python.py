"""OpenAI's Python SDK through the gateway, under both servers; how often it tries again, and who pays for that."""

import base64
import json
import time

import pydantic
import pytest

from tests.sdks.conftest import new_client_key
from tests.support.lazily import Lazily

openai = Lazily("openai")

QUESTION = [{"role": "user", "content": "Say something with an emoji"}]
MODEL = "openai/gpt-4o-mini"
PARAMETERS = {"type": "object", "properties": {"query": {"type": "string"}}, "required": ["query"]}
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": PARAMETERS}}


class Said(pydantic.BaseModel):
    """What the stand-in answers to whoever wants JSON."""

    stand_in: bool


@pytest.fixture
def client(gateway, key):
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=key, max_retries=0) as client:
        yield client


@pytest.fixture
def retrying(customer):
    """As it is by default: two retries."""
    with openai.OpenAI(base_url=f"{customer.url}/v1", api_key=customer.key) as client:
        yield client.chat.completions


def text_of(chunks):
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


def test_answers(client):
    answer = client.chat.completions.create(model=MODEL, messages=QUESTION)
    assert "emoji" in answer.choices[0].message.content
    assert answer.usage.total_tokens > 0


def test_streams(client):
    chunks = list(client.chat.completions.create(model=MODEL, messages=QUESTION, stream=True))
    assert "emoji" in text_of(chunks)
    assert chunks[-1].usage.total_tokens > 0


def test_takes_its_settings_from_the_environment(gateway, key, monkeypatch):
    monkeypatch.setenv("OPENAI_BASE_URL", f"{gateway.url}/v1")
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with openai.OpenAI() as client:
        assert client.chat.completions.create(model=MODEL, messages=QUESTION).choices


def test_holds_a_conversation(client):
    messages = list(QUESTION)
    for turn in ("first", "second"):
        answer = client.chat.completions.create(model=MODEL, messages=messages)
        messages += [answer.choices[0].message.model_dump(exclude_none=True), {"role": "user", "content": turn}]
    assert "second" in client.chat.completions.create(model=MODEL, messages=messages).choices[0].message.content


def test_calls_a_tool_and_tells_its_result(client):
    request = {"model": "sandbox/tools", "tools": [WEATHER]}
    message = client.chat.completions.create(messages=QUESTION, **request).choices[0].message
    [call] = message.tool_calls
    assert (call.function.name, json.loads(call.function.arguments)) == ("weather", {"query": "stand-in"})
    told = {"role": "tool", "tool_call_id": call.id, "content": "sunny"}
    messages = [*QUESTION, message.model_dump(exclude_none=True), told]
    assert client.chat.completions.create(messages=messages, **request).choices[0].finish_reason == "stop"


def test_calls_a_tool_in_a_stream(client):
    with client.chat.completions.stream(model="sandbox/tools", messages=QUESTION, tools=[WEATHER]) as stream:
        [call] = stream.get_final_completion().choices[0].message.tool_calls
    assert (call.function.name, json.loads(call.function.arguments)) == ("weather", {"query": "stand-in"})


def test_parses_structured_output(client):
    answer = client.chat.completions.parse(model=MODEL, messages=QUESTION, response_format=Said)
    assert answer.choices[0].message.parsed == Said(stand_in=True)
    with client.chat.completions.stream(model=MODEL, messages=QUESTION, response_format=Said) as stream:
        assert stream.get_final_completion().choices[0].message.parsed.stand_in


def test_completes_text(client):
    answer = client.completions.create(model=MODEL, prompt="Once upon a time")
    assert "Once upon a time" in answer.choices[0].text
    assert answer.usage.total_tokens > 0
    chunks = list(client.completions.create(model=MODEL, prompt="Once upon a time", stream=True))
    assert "Once upon a time" in "".join(chunk.choices[0].text for chunk in chunks if chunk.choices)


def test_embeds(client):
    answer = client.embeddings.create(model="openai/text-embedding-3-small", input=["one", "two"])
    assert [len(each.embedding) > 0 for each in answer.data] == [True, True]
    assert answer.usage.total_tokens > 0


def test_draws(client):
    answer = client.images.generate(model="openai/gpt-image-1", prompt="a red panda", n=2)
    assert [base64.b64decode(each.b64_json)[:4] for each in answer.data] == [b"\x89PNG"] * 2


def test_draws_in_a_stream(client):
    for model, previews in (("openai/gpt-image-1", True), ("bytedance-seed/seedream-4.5", False)):
        *partial, last = client.images.generate(model=model, prompt="a red panda", stream=True)
        assert {each.type for each in partial} == ({"image_generation.partial_image"} if previews else set())
        assert (last.type, base64.b64decode(last.b64_json)[:4]) == ("image_generation.completed", b"\x89PNG")
    with pytest.raises(openai.APIError, match="temporarily overloaded"):
        list(client.images.generate(model="sandbox/error-mid", prompt="a red panda", stream=True))


def test_speaks(client):
    asked = {"model": "mistralai/voxtral-mini-tts-2603", "input": "Hello", "voice": "en"}
    whole = client.audio.speech.create(**asked, response_format="mp3").read()
    with client.audio.speech.with_streaming_response.create(**asked, response_format="mp3") as answer:
        assert answer.headers["content-type"] == "audio/mpeg"
        assert b"".join(answer.iter_bytes()) == whole
    with pytest.raises(openai.BadRequestError, match="input"):
        client.audio.speech.create(**asked | {"input": ""})


def test_writes_down(client):
    asked = {"model": "openai/whisper-large-v3", "file": ("hello.wav", b"\0" * 64_000)}
    assert "64000 bytes of wav" in client.audio.transcriptions.create(**asked).text
    assert client.audio.transcriptions.create(**asked, response_format="verbose_json").duration == 2
    with pytest.raises(openai.BadRequestError, match="streamed"):
        client.audio.transcriptions.create(**asked, stream=True)


def test_responds(client):
    answer = client.responses.create(model=MODEL, input="Say something with an emoji")
    assert "emoji" in answer.output_text
    assert answer.usage.total_tokens > 0
    with client.responses.stream(model=MODEL, input="Say something with an emoji") as stream:
        text = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
        assert stream.get_final_response().output_text == text == answer.output_text


def test_calls_a_tool_in_a_response(client):
    tool = {"type": "function", **WEATHER["function"], "strict": False}
    asked = [{"role": "user", "content": "What is the weather?"}]
    answer = client.responses.create(model="sandbox/tools", input=asked, tools=[tool])
    [call] = answer.output
    assert (call.name, json.loads(call.arguments)) == ("weather", {"query": "stand-in"})
    told = [call.to_dict(), {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}]
    assert client.responses.create(model="sandbox/tools", input=[*asked, *told], tools=[tool]).output_text


def test_parses_a_structured_response(client):
    answer = client.responses.parse(model=MODEL, input="Say something", text_format=Said)
    assert answer.output_parsed == Said(stand_in=True)


def test_reads_errors_of_responses(client):
    with pytest.raises(openai.BadRequestError, match="valid model"):
        client.responses.create(model="no/such-model", input="Hello")
    *_, last = client.responses.create(model="sandbox/error-mid", input="Hello", stream=True)
    assert last.type == "response.failed"
    assert "temporarily overloaded" in last.response.error.message


def test_lists_models(client):
    assert MODEL in {model.id for model in client.models.list()}


@pytest.mark.parametrize("scenario", ["comments", "one-byte", "split-utf8", "old-usage", "no-done", "mid-comments"])
def test_survives_what_openrouter_sends(client, scenario):
    chunks = list(client.chat.completions.create(model=f"sandbox/{scenario}", messages=QUESTION, stream=True))
    assert any(chunk.choices and chunk.choices[0].finish_reason == "stop" for chunk in chunks)


def test_gets_a_late_answer_over_a_silent_upstream(client):
    model = "sandbox/slow-headers?delay_ms=1500"
    chunks = list(client.chat.completions.create(model=model, messages=QUESTION, stream=True))
    assert any(chunk.choices and chunk.choices[0].finish_reason == "stop" for chunk in chunks)


def test_reads_our_errors(client):
    stranger = client.with_options(api_key="sk-auto-unknown")
    with pytest.raises(openai.AuthenticationError) as refused:
        stranger.chat.completions.create(model=MODEL, messages=QUESTION)
    assert refused.value.request_id
    assert "client key is unknown" in refused.value.body["message"]
    with pytest.raises(openai.BadRequestError, match="messages"):
        client.chat.completions.create(model=MODEL, messages=[])


def test_is_held_to_what_its_key_may_do(gateway, token, client):
    narrow = new_client_key(gateway, token, scopes=["chat"], models=["openai/gpt-4o-mini"])
    with client.with_options(api_key=narrow) as limited:
        assert limited.chat.completions.create(model=MODEL, messages=QUESTION).choices
        assert [model.id for model in limited.models.list()] == [MODEL]
        with pytest.raises(openai.PermissionDeniedError, match="openai/gpt-4o"):
            limited.chat.completions.create(model="openai/gpt-4o", messages=QUESTION)
        with pytest.raises(openai.PermissionDeniedError, match="responses"):
            limited.responses.create(model=MODEL, input="Hello")


def test_reads_openrouters_errors(client):
    with pytest.raises(openai.BadRequestError, match="valid model"):
        client.chat.completions.create(model="no/such-model", messages=QUESTION)
    with pytest.raises(openai.APIError, match="temporarily overloaded"):
        list(client.chat.completions.create(model="sandbox/error-mid", messages=QUESTION, stream=True))


def test_does_not_retry_what_the_caller_must_mend(customer, spent_key, retrying, answers):
    for key, error, words in (
        ("sk-auto-unknown", openai.AuthenticationError, "client key is unknown"),
        (spent_key, openai.APIStatusError, "quota"),
    ):
        with openai.OpenAI(base_url=f"{customer.url}/v1", api_key=key) as other, pytest.raises(error, match=words):
            other.chat.completions.create(model=MODEL, messages=QUESTION)
    with pytest.raises(openai.PermissionDeniedError, match="moderation"):
        retrying.create(model="sandbox/403a", messages=QUESTION)
    assert answers() == [401, 402, 403]
    assert customer.log(requests=1) == [(403, 0)]


def test_retries_and_pays_once(customer, retrying, answers):
    begun = time.monotonic()
    customer.meets("429c?retry_after=1", times=1)
    assert retrying.create(model=MODEL, messages=QUESTION).choices
    customer.meets("503?retry_after=1", times=3)  # the gateway's own tries
    assert text_of(retrying.create(model=MODEL, messages=QUESTION, stream=True))
    assert time.monotonic() - begun >= 2  # Retry-After
    assert answers() == [429, 200, 503, 200]
    statuses, costs = zip(*customer.log(requests=4), strict=True)
    assert statuses == (429, 200, 503, 200)
    assert [cost > 0 for cost in costs] == [False, True, False, True]


def test_gives_up_after_two_retries_that_cost_nothing(customer, retrying, answers):
    with pytest.raises(openai.InternalServerError, match="Provider returned error"):
        retrying.create(model="sandbox/502", messages=QUESTION)
    assert answers() == [502, 502, 502]
    assert customer.log(requests=3) == [(502, 0)] * 3


def test_does_not_retry_a_stream_that_fails_in_its_middle(customer, retrying, answers):
    with pytest.raises(openai.APIError):
        list(retrying.create(model="sandbox/error-usage", messages=QUESTION, stream=True))
    assert answers() == [200]
    assert customer.log(requests=1) == [(200, 0)]
