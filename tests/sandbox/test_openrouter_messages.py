"""Messages of the stand-in: what Anthropic's client reads, the order of events, tools, structured output, errors."""

import json

import pytest

from tests.support.lazily import Lazily

anthropic = Lazily("anthropic")

MODEL = "anthropic/claude-sonnet-4.6"
HELLO = [{"role": "user", "content": "Hello there"}]
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL = {"name": "weather", "input_schema": SCHEMA}


@pytest.fixture
def key(stand_in):
    return stand_in.new_key()["key"]


@pytest.fixture
def client(stand_in, key):
    # This client adds /v1/messages to its address, and sends a bearer token only if it is given one.
    base = stand_in.address.removesuffix("/v1")
    with anthropic.Anthropic(api_key=None, auth_token=key, base_url=base, max_retries=0) as client:
        yield client


@pytest.fixture
def ask(stand_in, key):
    def ask(model=MODEL, **more):
        return stand_in.call("POST", "/messages", key, json={"model": model, "messages": HELLO} | more)

    return ask


def events_of(answer):
    blocks = [block.split("\n") for block in answer.text.strip().split("\n\n")]
    found = [(name.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for name, data in blocks]
    assert all(name == data["type"] for name, data in found)
    return found


def test_anthropics_client_gets_a_whole_answer(client):
    answer = client.messages.create(model=MODEL, messages=HELLO, max_tokens=100, system="Be brief")
    assert "Hello there" in answer.content[0].text
    assert (answer.stop_reason, answer.usage.input_tokens) == ("end_turn", 12)


def test_anthropics_client_streams(client):
    with client.messages.stream(model="sandbox/stream?chunks=5", messages=HELLO, max_tokens=100) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text == final.content[0].text == "This is the stand-in for"
    assert final.usage.output_tokens == 5


def test_events_are_named_and_in_order(ask):
    events = events_of(ask("sandbox/stream?chunks=2", stream=True))
    assert [name for name, _ in events] == [
        "message_start",
        "content_block_start",
        "ping",
        "content_block_delta",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert "cost" not in events[0][1]["message"]["usage"]
    assert events[-2][1]["usage"]["cost"] > 0
    assert "usage" not in events_of(ask("sandbox/no-usage", stream=True))[-2][1]


@pytest.mark.parametrize("choice", [{"type": "any"}, {"type": "tool", "name": "weather"}])
def test_a_tool_that_must_be_called_is_called(client, choice):
    wanted = {"model": MODEL, "messages": HELLO, "max_tokens": 100, "tools": [TOOL], "tool_choice": choice}
    answer = client.messages.create(**wanted)
    assert (answer.stop_reason, answer.content[0].name, answer.content[0].input) == (
        "tool_use",
        "weather",
        {"city": "stand-in"},
    )
    with client.messages.stream(**wanted) as stream:
        assert stream.get_final_message().content[0].input == {"city": "stand-in"}


@pytest.mark.parametrize("field", ["output_config", "output_format"])
def test_structured_output_fits_its_schema(ask, field):
    wanted = {"type": "json_schema", "schema": SCHEMA}
    answer = ask(**{field: {"format": wanted} if field == "output_config" else wanted})
    assert json.loads(answer.json()["content"][0]["text"]) == {"city": "stand-in"}


def test_a_ceiling_cuts_words_and_arguments(ask):
    assert ask(max_tokens=2).json()["stop_reason"] == "max_tokens"
    cut = ask(max_tokens=2, tools=[TOOL], tool_choice={"type": "any"}).json()
    assert (cut["content"][0]["name"], cut["content"][0]["input"]) == ("weather", {})


@pytest.mark.parametrize(
    ("row", "kind", "error_type"),
    [
        ("400", "invalid_request_error", "invalid_request"),
        ("400-context", "invalid_request_error", "context_length_exceeded"),
        ("401b", "authentication_error", "authentication"),
        ("402a", "billing_error", "payment_required"),
        ("403c", "permission_error", "permission_denied"),
        ("404a", "not_found_error", "not_found"),
        ("408", "timeout_error", "timeout"),
        ("429c", "rate_limit_error", "rate_limit_exceeded"),
        ("500", "api_error", "server"),
        ("503", "overloaded_error", "provider_overloaded"),
        ("529", "overloaded_error", "provider_overloaded"),
    ],
)
def test_refusals_are_in_anthropics_envelope(ask, row, kind, error_type):
    document = ask(f"sandbox/{row}").json()
    assert (document["type"], document["request_id"]) == ("error", None)
    assert (document["error"]["type"], document["error"]["error_type"]) == (kind, error_type)


def test_anthropics_client_reads_refusals_and_failures(client):
    with pytest.raises(anthropic.RateLimitError, match="rate_limit_error"):
        client.messages.create(model="sandbox/429c", messages=HELLO, max_tokens=9)
    with pytest.raises(anthropic.APIStatusError, match="overloaded"):
        list(client.messages.create(model="sandbox/error-mid", messages=HELLO, max_tokens=9, stream=True))


@pytest.mark.parametrize(
    "wrong", [{"model": None}, {"messages": []}, {"messages": [{"role": "user"}]}, {"messages": [{"role": "tool"}]}]
)
def test_requests_of_the_wrong_shape_are_refused(ask, wrong):
    assert ask(**wrong).json()["error"]["type"] == "invalid_request_error"
