"""Responses of the stand-in: what OpenAI's client reads, the order of events, tools, structured output, refusals."""

import json

import pydantic
import pytest

from tests.support.lazily import Lazily

openai = Lazily("openai")

MODEL = "openai/gpt-4o-mini"
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL = {"type": "function", "name": "weather", "parameters": PARAMETERS, "strict": False}


@pytest.fixture
def key(stand_in):
    return stand_in.new_key()["key"]


@pytest.fixture
def client(stand_in, key):
    with openai.OpenAI(api_key=key, base_url=stand_in.address, max_retries=0) as client:
        yield client


@pytest.fixture
def events(stand_in, key):
    def events(model, **more):
        answer = stand_in.call("POST", "/responses", key, json={"model": model, "input": "Hi", "stream": True} | more)
        blocks = [line.removeprefix("data: ") for line in answer.text.strip().split("\n\n")]
        return [json.loads(block) if block.startswith("{") else block for block in blocks]

    return events


def test_openais_client_gets_a_whole_answer(client):
    answer = client.responses.create(model=MODEL, input="Hello there", max_output_tokens=100)
    assert "Hello there" in answer.output_text
    assert (answer.status, answer.usage.total_tokens) == (
        "completed",
        answer.usage.input_tokens + answer.usage.output_tokens,
    )
    assert answer.id.startswith("resp_")


def test_openais_client_streams(client):
    with client.responses.stream(model="sandbox/stream?chunks=5", input="Hello") as stream:
        text = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
        final = stream.get_final_response()
    assert text == final.output_text == "This is the stand-in for"
    assert final.usage.output_tokens == 5


def test_events_are_typed_numbered_and_in_order(events):
    found = events("sandbox/stream?chunks=2")
    assert found.pop() == "[DONE]"
    assert [event["sequence_number"] for event in found] == list(range(len(found)))
    assert [event["type"].removeprefix("response.") for event in found] == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    assert found[0]["response"]["usage"] is None
    assert found[-1]["response"]["usage"]["cost"] > 0


@pytest.mark.parametrize("choice", ["required", {"type": "function", "name": "weather"}])
def test_a_tool_that_must_be_called_is_called(client, events, choice):
    call = client.responses.create(model=MODEL, input="Hi", tools=[TOOL], tool_choice=choice).output[0]
    assert (call.type, call.name, json.loads(call.arguments)) == ("function_call", "weather", {"city": "stand-in"})
    streamed = events(MODEL, tools=[TOOL], tool_choice=choice)
    pieces = [event["delta"] for event in streamed[:-1] if event["type"].endswith("arguments.delta")]
    assert json.loads("".join(pieces)) == {"city": "stand-in"}
    assert streamed[-2]["response"]["output"][0]["name"] == "weather"


def test_a_result_of_a_tool_is_taken(client):
    sent = [
        {"role": "user", "content": [{"type": "input_text", "text": "Hi"}]},
        {"type": "function_call", "call_id": "c", "name": "weather", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": "sunny"},
    ]
    assert "Hi" in client.responses.create(model=MODEL, input=sent, tools=[TOOL]).output_text


class Weather(pydantic.BaseModel):
    city: str
    degrees: float


def test_structured_output_fits_its_schema(client):
    parsed = client.responses.parse(model=MODEL, input="Hi", text_format=Weather).output_parsed
    assert parsed == Weather(city="stand-in", degrees=1)


def test_a_ceiling_makes_the_response_incomplete(client, events):
    answer = client.responses.create(model=MODEL, input="Hi", max_output_tokens=3)
    assert (answer.status, answer.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    assert events(MODEL, max_output_tokens=3)[-2]["type"] == "response.incomplete"


@pytest.mark.parametrize(
    ("shape", "kind"), [("full", "response.failed"), ("null-finish", "response.error"), ("no-choices", "error")]
)
def test_failures_have_three_forms(events, shape, kind):
    last = events(f"sandbox/error-mid?error_shape={shape}")[-1]
    assert last["type"] == kind
    error = last if kind == "error" else last["response"]["error"]
    assert error["code"] in ("502", "server_error")
    assert isinstance(error["message"], str)


@pytest.mark.parametrize(
    "wrong",
    [
        {"input": None},
        {"input": []},
        {"input": [5]},
        {"input": [{"role": "nobody"}]},
        {"store": True},
        {"previous_response_id": "resp_1"},
        {"text": 5},
    ],
)
def test_the_validators_code_is_text(stand_in, key, wrong):
    answer = stand_in.call("POST", "/responses", key, json={"model": MODEL, "input": "Hi"} | wrong)
    assert answer.status_code == 400
    assert answer.json()["error"] == {"code": "invalid_prompt", "message": "Invalid Responses API request"}
    assert json.loads(answer.json()["metadata"]["raw"])[0]["message"]
