"""Chat completions: headers, tools, JSON, ceilings, refusals, and the bill of answers that end early."""

import contextlib
import json
import re

import pytest

ONE_TOOL = [{"type": "function", "function": {"name": "look_up", "parameters": {}}}]
PRICE_OF_PROMPT, PRICE_OF_WORD = 5 * 1000, 2000


@pytest.fixture
def key(stand_in):
    return stand_in.new_key()


CHUNKS_BEFORE = {"headers": 0, "body": 0, "middle": 3, "usage": 6, "done": 6, "end": 6}


def last_generation(stand_in, key):
    return stand_in.generations_of(key["hash"])[-1]


def price_of(words):
    return PRICE_OF_PROMPT + words * PRICE_OF_WORD if words else 0


def head_of(connection):
    """Return the id of the answer that is on its way, if its head has come."""
    connection.settimeout(0.2)
    head = b""
    with contextlib.suppress(TimeoutError, ConnectionResetError):
        while b"\r\n\r\n" not in head and (data := connection.recv(1 << 16)):
            head += data
    found = re.search(rb"x-generation-id: (\S+)", head)
    return found[1].decode() if found else ""


def check_billed(stand_in, key, generation_id, words, cancelled):
    """Check the bill, the one generation of the key, and its record."""
    bill = stand_in.control("GET", "bill")
    assert bill["keys"][key["hash"]]["nano"] == bill["accounts"][key["account"]]["nano"] == price_of(words)
    assert bill["keys"][key["hash"]]["requests_billed"] == (1 if words else 0)
    assert bill["accounts"][key["account"]]["reserved_nano"] == 0
    generations = stand_in.generations_of(key["hash"])
    assert [(one["id"], one["cost_nano"], one["cancelled"]) for one in generations] == [
        (generation_id, price_of(words), cancelled)
    ]
    record = stand_in.call("GET", "/generation", key["key"], params={"id": generation_id}).json()["data"]
    assert round(record["total_cost"] * 1e9) == price_of(words)
    assert (record["cancelled"], record["native_tokens_completion"]) == (cancelled, words)


def test_headers_are_those_of_openrouter(stand_in, key):
    answer, streamed = stand_in.chat(key["key"]), stand_in.chat(key["key"], stream=True)
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-generation-id"] == answer.json()["id"]
    assert streamed.headers["content-type"] == "text/event-stream"
    assert streamed.headers["cache-control"] == "no-cache"
    assert streamed.headers["transfer-encoding"] == "chunked"
    for headers in (answer.headers, streamed.headers):
        assert headers["server"] == "cloudflare"
        assert headers["x-provider-name"] == "OpenAI"
        assert "__cf_bm=" in headers["set-cookie"]
        assert headers["cf-ray"]
        assert "x-request-id" not in headers


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "look_up"}}])
def test_a_tool_that_must_be_called_is_called(stand_in, key, events_of, choice):
    answer = stand_in.chat(key["key"], tools=ONE_TOOL, tool_choice=choice).json()["choices"][0]
    assert answer["finish_reason"] == "tool_calls"
    assert answer["message"]["tool_calls"][0]["function"]["name"] == "look_up"
    streamed = stand_in.chat(key["key"], tools=ONE_TOOL, tool_choice=choice, stream=True).content
    first, last = events_of(b"\r\n\r\n" + streamed)[0], events_of(b"\r\n\r\n" + streamed)[-2]
    assert first["choices"][0]["delta"]["tool_calls"][0]["function"]["name"] == "look_up"
    assert last["choices"][0]["finish_reason"] == "tool_calls"


def test_the_scenario_of_tools_calls_one_until_its_result_is_told(stand_in, key):
    question, result = {"role": "user", "content": "Hello"}, {"role": "tool", "tool_call_id": "1", "content": "sunny"}
    for messages, reason in (([question], "tool_calls"), ([question, result], "stop")):
        answer = stand_in.chat(key["key"], model="sandbox/tools", tools=ONE_TOOL, messages=messages).json()
        assert answer["choices"][0]["finish_reason"] == reason
    assert stand_in.chat(key["key"], model="sandbox/tools").json()["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize("choice", ["auto", "none", {"function": {"name": []}}, {"function": 5}, 5])
def test_other_tool_choices_get_text(stand_in, key, choice):
    answer = stand_in.chat(key["key"], tools=[*ONE_TOOL, 5, {"function": {"name": 5}}], tool_choice=choice)
    assert answer.json()["choices"][0]["message"]["content"]


def test_json_is_answered_with_json(stand_in, key):
    answer = stand_in.chat(key["key"], response_format={"type": "json_object"}).json()
    assert json.loads(answer["choices"][0]["message"]["content"])["stand_in"]


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
def test_a_ceiling_cuts_the_answer(stand_in, key, field):
    answer = stand_in.chat(key["key"], **{"max_tokens": None, field: 3}).json()
    assert answer["choices"][0]["message"]["content"] == "This is the"
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == 3


def test_a_prompt_instead_of_messages_is_understood(stand_in, key):
    answer = stand_in.call("POST", "/chat/completions/", key["key"], json={"prompt": "old style"}).json()
    assert "old style" in answer["choices"][0]["message"]["content"]


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({}, 'Input required: specify "prompt" or "messages"'),
        ({"messages": "hi"}, "messages: Invalid input: expected array, received string"),
        ({"messages": []}, "messages: Too small: expected array to have >=1 items"),
        ({"messages": [5]}, "messages.0: Invalid input: expected object, received number"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages.0.content: Invalid input: expected string or array"),
        ({"messages": [{"role": "user"}], "stream": "yes"}, "stream: Invalid input: expected boolean, received string"),
        ({"messages": [{"role": "user"}], "max_tokens": 0}, "max_tokens: Too small: expected number to be >=1"),
    ],
)
def test_requests_of_the_wrong_shape_are_refused(stand_in, key, document, message):
    answer = stand_in.call("POST", "/chat/completions", key["key"], json=document)
    assert answer.status_code == 400
    assert answer.json() == {"error": {"message": message, "code": 400}}
    assert stand_in.spent(key["hash"]) == 0


@pytest.mark.parametrize("scenario", ["reset", "cut"])
def test_a_stream_that_breaks_costs_what_it_delivered(stand_in, key, wait_for, scenario):
    stand_in.raw_chat(key["key"], f"sandbox/{scenario}?chunks=6")
    assert wait_for(lambda: stand_in.spent(key["hash"])) == PRICE_OF_PROMPT + 6 * PRICE_OF_WORD
    assert last_generation(stand_in, key)["finish_reason"] is None


def test_a_cancelled_stream_costs_what_was_produced(stand_in, key, wait_for):
    stand_in.raw_chat(key["key"], "sandbox/stall?chunks=4", until=b" stand-in")
    entry = stand_in.logged(key["hash"], lambda entry: entry["ended"])
    assert entry["client_closed_early"]
    assert entry["chunks_sent"] == 4
    assert stand_in.spent(key["hash"]) == PRICE_OF_PROMPT + 4 * PRICE_OF_WORD
    assert last_generation(stand_in, key)["cancelled"]


def test_a_whole_answer_is_billed_even_if_nobody_waits_for_it(stand_in, key, wait_for):
    stand_in.open_chat(key["key"], "sandbox/slow-headers?chunks=9", stream=False).close()
    stand_in.logged(key["hash"], lambda entry: entry["client_closed_early"])
    wait_for(lambda: stand_in.spent(key["hash"]) == PRICE_OF_PROMPT + 9 * PRICE_OF_WORD)


@pytest.mark.parametrize("how", ["stall", "pause&break_ms=60000"])
@pytest.mark.parametrize("point", CHUNKS_BEFORE)
def test_a_stream_that_its_client_leaves_costs_what_was_sent(stand_in, key, point, how):
    model = f"sandbox/stream?chunks=6&break_at={point}&break_how={how}"
    with stand_in.open_chat(key["key"], model) as connection:
        stand_in.logged(key["hash"], lambda entry: entry["at_break"])
        generation_id = head_of(connection)
        assert stand_in.spent(key["hash"]) == 0
    entry = stand_in.logged(key["hash"], lambda entry: entry["ended"])
    assert entry["client_closed_early"]
    if point == "headers":
        assert generation_id == ""
        assert stand_in.generations_of(key["hash"]) == []
        assert stand_in.spent(key["hash"]) == 0
        assert stand_in.control("GET", "bill")["accounts"][key["account"]]["reserved_nano"] == 0
    else:
        check_billed(stand_in, key, generation_id, CHUNKS_BEFORE[point], cancelled=True)


@pytest.mark.parametrize("how", ["reset", "fin"])
@pytest.mark.parametrize("point", [point for point in CHUNKS_BEFORE if point != "headers"])
def test_a_stream_that_openrouter_breaks_off_is_billed_at_that_moment(stand_in, key, point, how):
    model = f"sandbox/stream?chunks=6&break_at={point}&break_how={how}"
    with stand_in.open_chat(key["key"], model) as connection:
        stand_in.logged(key["hash"], lambda entry: entry["at_break"])
        assert stand_in.spent(key["hash"]) == price_of(CHUNKS_BEFORE[point])
        generation_id = head_of(connection)
    assert not stand_in.logged(key["hash"])["client_closed_early"]
    check_billed(stand_in, key, generation_id, CHUNKS_BEFORE[point], cancelled=False)


@pytest.mark.parametrize("how", ["reset", "fin"])
def test_a_stream_that_breaks_before_its_head_is_free_and_unknown(stand_in, key, how):
    answer, _ = stand_in.raw_chat(key["key"], f"sandbox/stream?break_at=headers&break_how={how}")
    assert answer == b""
    assert stand_in.spent(key["hash"]) == 0
    assert stand_in.generations_of(key["hash"]) == []


@pytest.mark.parametrize("point", CHUNKS_BEFORE)
def test_a_stream_that_runs_on_costs_all_of_it(stand_in, key, point):
    model = f"sandbox/stream?chunks=6&break_at={point}&break_how=stall&runs_on=1"
    with stand_in.open_chat(key["key"], model) as connection:
        stand_in.logged(key["hash"], lambda entry: entry["at_break"])
        generation_id = head_of(connection)
    stand_in.logged(key["hash"], lambda entry: entry["ended"])
    made = last_generation(stand_in, key)
    check_billed(stand_in, key, generation_id or made["id"], 6, cancelled=False)
    assert made["finish_reason"] == "stop"


@pytest.mark.parametrize("how", ["stall", "reset", "fin", "pause&break_ms=1"])
@pytest.mark.parametrize("point", CHUNKS_BEFORE)
def test_a_whole_answer_costs_all_of_it_wherever_it_breaks(stand_in, key, point, how):
    model = f"sandbox/stream?chunks=6&break_at={point}&break_how={how}"
    with stand_in.open_chat(key["key"], model, stream=False) as connection:
        stand_in.logged(key["hash"], lambda entry: entry["at_break"])
        generation_id = head_of(connection)
    stand_in.logged(key["hash"], lambda entry: entry["ended"])
    assert (generation_id == "") == (point == "headers" and not how.startswith("pause"))
    check_billed(stand_in, key, generation_id or last_generation(stand_in, key)["id"], 6, cancelled=False)


@pytest.mark.parametrize("scenario", ["error-first", "error-mid", "502"])
@pytest.mark.parametrize("stream", [False, True])
def test_failed_answers_are_free(stand_in, key, scenario, stream):
    stand_in.raw_chat(key["key"], f"sandbox/{scenario}", stream)
    stand_in.logged(key["hash"], lambda entry: entry["ended"])
    assert stand_in.spent(key["hash"]) == 0
