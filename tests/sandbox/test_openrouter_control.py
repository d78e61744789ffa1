"""The control API: faults for keys, accounts and endpoints, the log, and refusals of nonsense."""

import base64
import hashlib
import json

import pytest
import requests


@pytest.fixture
def set_fault(stand_in):
    stand_in.control("DELETE", "faults")  # the first that fits counts, and others use this stand-in too
    yield lambda **wishes: stand_in.control("POST", "faults", **wishes)
    stand_in.control("DELETE", "faults")


def test_a_fault_hits_one_key_for_so_many_requests(stand_in, set_fault):
    account = stand_in.new_account()["id"]
    hit, spared = stand_in.new_key(account=account), stand_in.new_key(account=account)
    set_fault(row="429c", key=hit["hash"], times=2)
    assert [stand_in.chat(hit["key"]).status_code for _ in range(3)] == [429, 429, 200]
    assert stand_in.chat(spared["key"]).status_code == 200
    assert stand_in.control("GET", "faults")["faults"][0]["used"] == 2


def test_a_fault_hits_all_keys_of_an_account(stand_in, set_fault):
    account = stand_in.new_account()
    keys = [stand_in.new_key(account=account["id"]) for _ in range(2)]
    set_fault(status=402, scenario="402d", account=account["id"])
    assert [stand_in.chat(key["key"]).status_code for key in keys] == [402, 402]
    assert stand_in.chat(stand_in.new_key()["key"]).status_code == 200


def test_an_outage_refuses_everyone_everywhere(stand_in, set_fault):
    account = stand_in.new_account()
    key = stand_in.new_key(account=account["id"])["key"]
    set_fault(row="401b", path="/")
    assert stand_in.chat(key).json()["error"]["message"] == "User not found."
    assert stand_in.call("GET", "/key", key).status_code == 401
    assert stand_in.call("GET", "/keys", account["management_key"]).status_code == 401
    stand_in.control("DELETE", "faults")
    assert stand_in.chat(key).status_code == 200


def test_the_answer_to_a_new_key_can_get_lost(stand_in, set_fault):
    account = stand_in.new_account()
    set_fault(scenario="drop", path="/keys", method="POST", account=account["id"], times=1)
    with pytest.raises(requests.ConnectionError):
        stand_in.call("POST", "/keys", account["management_key"], json={"name": "orphan"})
    set_fault(row="500", path="/keys", method="POST", account=account["id"], times=1, after=True)
    assert stand_in.call("POST", "/keys", account["management_key"], json={"name": "second"}).status_code == 500
    set_fault(row="500", path="/keys", method="POST", account=account["id"], times=1)
    assert stand_in.call("POST", "/keys", account["management_key"], json={"name": "never"}).status_code == 500
    listed = stand_in.call("GET", "/keys", account["management_key"]).json()["data"]
    assert [key["name"] for key in listed] == ["second", "orphan"]


def test_a_fault_may_be_slow_and_may_be_a_stream(stand_in, set_fault):
    key = stand_in.new_key()
    set_fault(scenario="error-first", key=key["hash"], delay_ms=50, times=1)
    answer = stand_in.chat(key["key"], stream=True)
    assert answer.elapsed.total_seconds() >= 0.05
    assert '"finish_reason":"error"' in answer.text
    assert "choices" in stand_in.chat(key["key"]).json()


@pytest.mark.parametrize("stream", [False, True])
def test_ordinary_answers_can_be_broken_too(stand_in, set_fault, stream):
    key = stand_in.new_key()
    set_fault(scenario="stream?break_at=middle&break_how=fin", key=key["hash"], times=1)
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        stand_in.chat(key["key"], stream=stream)
    assert stand_in.logged(key["hash"])["at_break"]
    assert stand_in.chat(key["key"], stream=stream).status_code == 200
    assert not stand_in.logged(key["hash"])["at_break"]


def test_answers_of_other_endpoints_and_refusals_can_be_broken(stand_in, set_fault):
    account = stand_in.new_account()
    key = stand_in.new_key(account=account["id"])["key"]
    set_fault(scenario="stream?break_at=headers", path="/generation", account=account["id"])
    set_fault(scenario="503?break_at=body&break_how=fin", account=account["id"])
    with pytest.raises(requests.exceptions.ConnectionError):
        stand_in.call("GET", "/generation?id=any", key)
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        stand_in.chat(key)
    assert [entry["at_break"] for entry in stand_in.control("GET", "log")["requests"][-2:]] == [True, True]


def test_the_bill_and_the_generations_can_be_compared(stand_in):
    key = stand_in.new_key()
    before = stand_in.control("GET", "bill")["generations"]
    whole = [stand_in.chat(key["key"]).json() for _ in range(2)]
    stand_in.chat(key["key"], "meta-llama/llama-3.3-70b-instruct:free")
    stand_in.chat(key["key"], "sandbox/error-mid", stream=True)
    stand_in.chat(key["key"], "sandbox/503")
    bill = stand_in.control("GET", "bill")
    assert bill["generations"] == before + 4
    assert (bill["keys"][key["hash"]]["requests"], bill["keys"][key["hash"]]["requests_billed"]) == (5, 2)
    costs = {one["id"]: one["cost_nano"] for one in stand_in.generations_of(key["hash"])}
    assert len(costs) == 4
    assert [costs[answer["id"]] for answer in whole] == [round(answer["usage"]["cost"] * 1e9) for answer in whole]
    assert sum(costs.values()) == bill["keys"][key["hash"]]["nano"]


def test_the_log_shows_requests_as_they_came(stand_in):
    key = stand_in.new_key()
    body = json.dumps({"messages": [{"role": "user", "content": "logged"}], "max_tokens": 50}).encode()
    headers = {"Authorization": f"Bearer {key['key']}", "X-Custom-CASE": "1"}
    requests.post(stand_in.address + "/chat/completions?a=b", data=body, headers=headers, timeout=30)
    entry = stand_in.logged(key["hash"])
    assert (entry["method"], entry["path"], entry["query"]) == ("POST", "/api/v1/chat/completions", "a=b")
    assert ["X-Custom-CASE", "1"] in entry["headers"]
    assert base64.b64decode(entry["body_base64"]) == body
    assert (entry["status"], entry["ended"], entry["client_closed_early"]) == (200, True, False)
    assert entry["bytes_sent"] > 500


def test_large_bodies_are_logged_as_their_digest(stand_in):
    key = stand_in.new_key()
    body = json.dumps({"messages": [{"role": "user", "content": "x" * 200_000}], "max_tokens": 50}).encode()
    assert stand_in.call("POST", "/chat/completions", key["key"], data=body).status_code == 200
    entry = stand_in.logged(key["hash"])
    assert entry["body_base64"] is None
    assert (entry["body_sha256"], entry["body_size"]) == (hashlib.sha256(body).hexdigest(), len(body))


def test_following_a_redirect_is_logged(stand_in):
    requests.post(stand_in.root + "/sandbox/redirected", headers={"X-From": "somebody"}, timeout=30)
    assert any(
        entry["path"] == "/sandbox/redirected" and ["X-From", "somebody"] in entry["headers"]
        for entry in stand_in.control("GET", "log")["requests"]
    )


def test_the_log_can_be_cleared(start_stand_in):
    running = start_stand_in("--log-length", "2")
    for _ in range(3):
        running.call("GET", "/models/count")
    assert len(running.control("GET", "log")["requests"]) == 2
    running.control("DELETE", "log")
    assert running.control("GET", "log")["requests"] == []


@pytest.mark.parametrize(
    ("method", "path", "document"),
    [
        ("POST", "faults", {"scenario": "no-such"}),
        ("POST", "faults", {"scenario": "stall?chunks=many"}),
        ("POST", "faults", {"row": "500", "times": -1}),
        ("POST", "faults", {"row": "500", "delay_ms": "soon"}),
        ("POST", "faults", []),
        ("POST", "accounts", {"balance": "much"}),
        ("PATCH", "accounts", {"id": "nobody"}),
        ("PATCH", "accounts", {"balance": "much"}),
        ("POST", "accounts", {"free_per_day": 1.5}),
        ("POST", "keys", {"limit": "much"}),
        ("POST", "settings", {"pace_ms": "fast"}),
        ("POST", "settings", {"generation_404s": -1}),
        ("POST", "settings", {"keys_on_a_page": "few"}),
        ("POST", "settings", {"generation_same_key_only": 1}),
        ("POST", "settings", {"duplicate_generation_ids": "yes"}),
        ("POST", "faults", {"scenario": "stream?break_at=nowhere"}),
        ("POST", "settings", {"clock_offset_seconds": 1e300}),
    ],
)
def test_nonsense_is_refused(stand_in, method, path, document):
    answer = requests.request(method, f"{stand_in.root}/sandbox/{path}", json=document, timeout=30)
    assert answer.status_code == 400
    assert answer.json()["error"]["message"]


def test_unknown_controls_are_not_found(stand_in):
    assert requests.get(stand_in.root + "/sandbox/no-such", timeout=30).status_code == 404
