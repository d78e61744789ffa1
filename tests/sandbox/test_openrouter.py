"""The stand-in as a whole: the official clients talk to it, its state survives, and no input makes it fail."""

import json
import os
import signal
import socket
import subprocess
import sys
from urllib.parse import urlsplit

import hypothesis
import openrouter
import pytest
import requests
from hypothesis import strategies

from sandbox.openrouter_control import MODEL_CALLS
from tests.support.lazily import Lazily

openai = Lazily("openai")

JSON_VALUES = strategies.recursive(
    strategies.none() | strategies.booleans() | strategies.integers() | strategies.floats() | strategies.text(),
    lambda inner: strategies.lists(inner, max_size=3) | strategies.dictionaries(strategies.text(), inner, max_size=3),
    max_leaves=8,
)


def test_official_openai_client_gets_a_whole_answer(stand_in):
    with openai.OpenAI(api_key=stand_in.new_key()["key"], base_url=stand_in.address) as client:
        answer = client.chat.completions.create(
            model="openai/gpt-4o-mini", messages=[{"role": "user", "content": "Hello there"}], max_tokens=100
        )
    assert "stand-in" in answer.choices[0].message.content
    assert "Hello there" in answer.choices[0].message.content
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_official_openai_client_streams(stand_in):
    with openai.OpenAI(api_key=stand_in.new_key()["key"], base_url=stand_in.address) as client:
        chunks = list(
            client.chat.completions.create(
                model="sandbox/comments?chunks=7", messages=[{"role": "user", "content": "Hello"}], stream=True
            )
        )
    text = "".join(chunk.choices[0].delta.content for chunk in chunks)
    assert text == "This is the stand-in for OpenRouter, and"
    assert chunks[-1].usage.completion_tokens == 7


# The client warns of its own class for the obsolete `rate_limit` field, which OpenRouter still sends.
@pytest.mark.filterwarnings("ignore:warning. .. DEPRECATED:DeprecationWarning")
def test_official_openrouter_client_gets_a_whole_answer_and_streams(stand_in):
    messages = [{"role": "user", "content": "Hello"}]
    with openrouter.OpenRouter(api_key=stand_in.new_key()["key"], server_url=stand_in.address) as client:
        answer = client.chat.send(model="openai/gpt-4o-mini", messages=messages, max_tokens=100)
        assert "Hello" in answer.choices[0].message.content
        with client.chat.send(model="sandbox/utf8", messages=messages, stream=True) as events:
            text = "".join(chunk.choices[0].delta.content or "" for chunk in events)
        assert "🌍 こんにちは" in text
        found = client.generations.get_generation(id=answer.id)
        assert found.data.total_cost == answer.usage.cost
        assert client.models.list().result.total_count >= 5
        assert client.api_keys.get_current_key_metadata().data.usage > 0


def test_official_openrouter_client_manages_keys(stand_in):
    account = stand_in.new_account()
    with openrouter.OpenRouter(api_key=account["management_key"], server_url=stand_in.address) as client:
        made = client.api_keys.create(name="first", limit=1.5, limit_reset="daily")
        assert made.data.limit == 1.5
        assert client.api_keys.get(hash=made.data.hash).data.name == "first"
        assert client.api_keys.update(hash=made.data.hash, name="renamed", disabled=True).data.disabled
        assert [key.name for key in client.api_keys.list(include_disabled=True).data] == ["renamed"]
        assert client.api_keys.delete(hash=made.data.hash).DELETED
        assert client.credits.get_credits().data.total_credits == 1000


def test_keys_survive_a_kill_and_spending_survives_a_stop(start_stand_in, tmp_path):
    secret, options = "sk-or-v1-" + "7" * 64, ("--state", str(tmp_path / "state.json"))
    first = start_stand_in(*options, "--management-key", secret)
    made = first.call("POST", "/keys", secret, json={"name": "kept"}).json()
    first.process.kill()
    first.process.wait()

    second = start_stand_in(*options)
    kept = second.call("GET", f"/keys/{made['data']['hash']}", secret).json()
    assert kept["data"]["name"] == "kept"
    assert second.chat(made["key"]).status_code == 200
    spent = second.spent(made["data"]["hash"])
    assert spent > 0
    second.process.send_signal(signal.SIGTERM)
    assert second.process.wait(60) == 0

    third = start_stand_in(*options)
    assert third.spent(made["data"]["hash"]) == spent
    assert third.call("DELETE", f"/keys/{made['data']['hash']}", secret).json() == {"deleted": True}
    third.process.kill()
    third.process.wait()
    fourth = start_stand_in(*options)
    assert fourth.call("GET", f"/keys/{made['data']['hash']}", secret).status_code == 404


def test_activity_survives_a_stop(start_stand_in, tmp_path):
    secret, options = "sk-or-v1-" + "8" * 64, ("--state", str(tmp_path / "state.json"))
    first = start_stand_in(*options, "--management-key", secret)
    key = first.call("POST", "/keys", secret, json={"name": "kept"}).json()
    costs = [first.chat(key["key"], model).json()["usage"]["cost"] for model in ("openai/gpt-4o", "sandbox/utf8")]
    bill = first.control("GET", "bill")
    assert (bill["generations"], bill["keys"][key["data"]["hash"]]["requests_billed"]) == (2, 2)
    first.process.send_signal(signal.SIGTERM)
    assert first.process.wait(60) == 0

    second = start_stand_in(*options)
    assert second.control("GET", "bill") == bill
    assert [one["cost_nano"] / 1e9 for one in second.generations_of(key["data"]["hash"])] == costs
    second.control("POST", "settings", clock_offset_seconds=86_400)
    with openrouter.OpenRouter(api_key=secret, server_url=second.address) as client:
        rows = client.analytics.get_user_activity(request={"api_key_hash": key["data"]["hash"]}).data
    assert {row.model: row.usage for row in rows} == dict(zip(("openai/gpt-4o", "sandbox/stream"), costs, strict=True))


def test_keys_given_at_start_work_and_interrupt_stops(start_stand_in):
    secret = "sk-or-v1-" + "5" * 64
    running = start_stand_in("--inference-key", secret, "--balance", "2.5")
    assert running.chat(secret).status_code == 200
    assert running.call("GET", "/credits", running.management_key).json()["data"]["total_credits"] == 2.5
    running.process.send_signal(signal.SIGINT)
    assert running.process.wait(60) == 0


@pytest.mark.parametrize(
    ("method", "path", "status", "message"),
    [
        ("GET", "/nowhere", 404, "Not Found"),
        ("GET", "/models/openai/gpt-4o", 404, "Not Found"),
        ("GET", "/chat/completions", 405, "Method Not Allowed"),
        ("PUT", "/keys", 405, "Method Not Allowed"),
        ("GET", "/key", 401, "Missing Authentication header"),
        ("POST", "/chat/completions", 401, "Missing Authentication header"),
    ],
)
def test_requests_that_lead_nowhere(stand_in, method, path, status, message):
    answer = stand_in.call(method, path)
    assert answer.status_code == status
    assert answer.json() == {"error": {"message": message, "code": status}}


def test_kinds_of_keys_are_kept_apart(stand_in):
    account = stand_in.new_account()
    key = stand_in.new_key(account=account["id"])["key"]
    wrong_kind = stand_in.call("GET", "/keys", key)
    assert (wrong_kind.status_code, wrong_kind.json()["error"]["message"]) == (
        403,
        "Only management keys can perform this operation",
    )
    for secret in (account["management_key"], "sk-or-v1-" + "0" * 64):
        answer = stand_in.chat(secret)
        assert (answer.status_code, answer.json()["error"]["message"]) == (401, "User not found.")


def test_head_without_body_keeps_the_connection_in_step(stand_in):
    with requests.Session() as session:
        assert session.head(stand_in.address + "/models", timeout=30).status_code == 405
        assert session.get(stand_in.address + "/models/", timeout=30).status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b'{"messages":' + b"[" * 100_000,
        b'{"messages":[{"role":"user","content":"\\ud800"}]}',
        b'{"messages":[{"role":["user"],"content":{}}]}',
        b'{"model":{},"messages":[]}',
        b'{"models":[[5]],"messages":[{"role":"user","content":"x"}]}',
        b'{"model":"sandbox/stream?pace_ms=nan","messages":[{"role":"user","content":"x"}]}',
        b'{"max_tokens":1e400,"messages":[{"role":"user","content":"x"}]}',
    ],
)
def test_bad_bodies_are_refused_with_400(stand_in, body):
    answer = stand_in.call("POST", "/chat/completions", stand_in.new_key()["key"], data=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == 400


FIELDS = ["messages", "input", "prompt", "model", "tools", "tool_choice", "text", "response_format", "name", "limit"]
FIELDS += ["output_config", "system", "instructions", "dimensions", "max_tokens", "max_output_tokens"]


@hypothesis.given(document=JSON_VALUES, field=strategies.sampled_from(FIELDS))
def test_no_document_makes_it_fail(stand_in, document, field):
    account = stand_in.new_account()
    key = stand_in.new_key(account=account["id"])["key"]
    made = stand_in.call("POST", "/keys", account["management_key"], data=json.dumps({field: document}))
    assert 200 <= made.status_code < 500
    asked = {"messages": [{"role": "user", "content": "x"}], "model": "openai/gpt-4o", field: document}
    for path in MODEL_CALLS:
        answer = stand_in.call("POST", path, key, data=json.dumps({"input": "x", "prompt": "x"} | asked))
        assert 200 <= answer.status_code < 500, (path, asked)


def test_what_is_not_http_is_refused(stand_in):
    with socket.create_connection(("127.0.0.1", urlsplit(stand_in.address).port), timeout=30) as connection:
        connection.sendall(b"\x16\x03\x01 not HTTP\r\n\r\n")
        assert connection.recv(1000).startswith(b"HTTP/1.1 400 Bad Request")


def test_it_runs_under_uvloop_too():
    pytest.importorskip("uvloop")
    program = (
        "import asyncio, uvloop; from sandbox import openrouter as o\n"
        "with asyncio.Runner(loop_factory=uvloop.new_event_loop) as r: r.run(o.run(o.options_from([])))"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, env=os.environ) as process:
        try:
            address = json.loads(process.stdout.readline())["listening"]
            assert requests.get(address + "/models/count", timeout=30).json()["data"]["count"] >= 5
        finally:
            process.terminate()
