"""Credits, activity by days, and the record of an answer."""

from __future__ import annotations

import pytest
from openrouter import components


def test_credits_tell_what_was_bought_and_used(stand_in, account, manage):
    cost = stand_in.chat(stand_in.new_key(account=account["id"])["key"]).json()["usage"]["cost"]
    assert manage("GET", "/credits").json() == {"data": {"total_credits": 1000.0, "total_usage": cost}}


def test_a_generation_is_hidden_at_first_when_asked_to(stand_in, account):
    key = stand_in.new_key(account=account["id"])["key"]
    made = stand_in.chat(key).json()
    stand_in.control("POST", "settings", generation_404s=2)
    try:
        answers = [stand_in.call("GET", "/generation", key, params={"id": made["id"]}) for _ in range(3)]
    finally:
        stand_in.control("POST", "settings", generation_404s=0)
    assert [answer.status_code for answer in answers] == [404, 404, 200]
    record = answers[-1].json()["data"]
    assert record["total_cost"] == made["usage"]["cost"]
    assert (record["streamed"], record["cancelled"], record["finish_reason"]) == (False, False, "stop")
    other = stand_in.call("GET", "/generation", stand_in.new_key()["key"], params={"id": made["id"]})
    assert other.status_code == 404


@pytest.fixture
def settings(stand_in):
    """Changes settings, and turns them off afterwards."""
    yield lambda **switches: stand_in.control("POST", "settings", **switches)
    stand_in.control("POST", "settings", generation_same_key_only=False, duplicate_generation_ids=False)


def test_a_generation_is_shown_to_keys_of_its_account_or_only_to_its_own(stand_in, account, settings):
    own, other = (stand_in.new_key(account=account["id"])["key"] for _ in range(2))
    stranger = stand_in.new_key()["key"]
    made = stand_in.chat(own).json()["id"]

    def statuses():
        secrets = (own, other, stranger, account["management_key"])
        return [stand_in.call("GET", "/generation", secret, params={"id": made}).status_code for secret in secrets]

    assert statuses() == [200, 200, 404, 200]
    assert settings(generation_same_key_only=True)["generation_same_key_only"] is True
    assert statuses() == [200, 404, 404, 404]


def test_all_answers_can_have_the_same_id(stand_in, account, settings):
    keys = [stand_in.new_key(account=account["id"]) for _ in range(2)]
    settings(duplicate_generation_ids=True)
    first, second = stand_in.chat(keys[0]["key"]), stand_in.chat(keys[1]["key"], stream=True)
    made = first.json()["id"]
    assert first.headers["x-generation-id"] == second.headers["x-generation-id"] == made
    assert [len(stand_in.generations_of(key["hash"])) for key in keys] == [1, 1]
    record = stand_in.call("GET", "/generation", keys[0]["key"], params={"id": made}).json()["data"]
    assert record["streamed"]
    settings(generation_same_key_only=True)
    assert stand_in.call("GET", "/generation", keys[0]["key"], params={"id": made}).status_code == 404
    assert stand_in.call("GET", "/generation", keys[1]["key"], params={"id": made}).status_code == 200
    settings(duplicate_generation_ids=False)
    assert stand_in.chat(keys[0]["key"]).json()["id"] != made


@pytest.fixture
def active_keys(stand_in, account, clock):
    """Two keys of one account, and what they were billed on the two days before the third."""
    first, second = (stand_in.new_key(account=account["id"]) for _ in range(2))
    stand_in.set_time("2031-03-09T23:50:00")
    for _ in range(2):
        stand_in.chat(first["key"], "sandbox/stream?chunks=10")
    stand_in.chat(second["key"], "sandbox/stream?chunks=4")
    stand_in.raw_chat(second["key"], "sandbox/reset?chunks=3")
    stand_in.chat(first["key"], "sandbox/429c")
    stand_in.chat(first["key"], "anthropic/claude-sonnet-4.6", max_tokens=2)
    stand_in.set_time("2031-03-10T00:10:00")
    stand_in.chat(second["key"], "sandbox/stream?chunks=1")
    stand_in.set_time("2031-03-11T00:10:00")
    return first, second


def test_activity_shows_each_day_and_model(manage, active_keys):
    first, second = active_keys
    answer = manage("GET", "/activity").json()
    components.ActivityResponse.model_validate(answer)
    rows = {(row["date"], row["model"]): row for row in answer["data"]}
    assert [row["date"] for row in answer["data"]] == ["2031-03-10", "2031-03-09", "2031-03-09"]
    claude = rows["2031-03-09", "anthropic/claude-sonnet-4.6"]
    assert (claude["model_permaslug"], claude["provider_name"]) == (
        "anthropic/claude-4.6-sonnet-20260217",
        "Amazon Bedrock",
    )
    sandbox = rows["2031-03-09", "sandbox/stream"]
    assert claude["endpoint_id"] != sandbox["endpoint_id"] == rows["2031-03-10", "sandbox/stream"]["endpoint_id"]
    numbers = [sandbox[name] for name in ("requests", "prompt_tokens", "completion_tokens", "usage")]
    assert numbers == [4, 20, 27, pytest.approx((20 * 1000 + 27 * 2000) / 1e9)]

    def usage(**query):
        rows = manage("GET", "/activity", params=query).json()["data"]
        return [(row["date"][-2:], row["requests"], round(row["usage"] * 1e9)) for row in rows]

    claude_nano = 5 * 3000 + 2 * 15_000
    assert usage(api_key_hash=first["hash"]) == [("09", 2, 50_000), ("09", 1, claude_nano)]
    assert usage(api_key_hash=second["hash"]) == [("10", 1, 7000), ("09", 2, 24_000)]
    assert usage(date="2031-03-10") == [("10", 1, 7000)]
    assert usage(date="2031-03-09", api_key_hash=second["hash"]) == [("09", 2, 24_000)]
    assert usage(date="2031-03-08") == usage(api_key_hash="unheard-of") == []
    manage("DELETE", f"/keys/{first['hash']}")
    assert usage(api_key_hash=first["hash"]) == [("09", 2, 50_000), ("09", 1, claude_nano)]


def test_activity_adds_up_to_the_bill(stand_in, manage, active_keys):
    bill = stand_in.control("GET", "bill")["keys"]
    for key in active_keys:
        rows = manage("GET", "/activity", params={"api_key_hash": key["hash"]}).json()["data"]
        assert sum(round(row["usage"] * 1e9) for row in rows) == bill[key["hash"]]["nano"]
        assert sum(row["requests"] for row in rows) == bill[key["hash"]]["requests_billed"]


@pytest.mark.usefixtures("active_keys")
def test_activity_begins_with_yesterday_and_goes_back_thirty_days(stand_in, manage):
    for now, dates in (
        ("2031-03-09T23:55:00", []),
        ("2031-03-10T23:55:00", ["2031-03-09"]),
        ("2031-04-08T23:55:00", ["2031-03-10", "2031-03-09"]),
        ("2031-04-09T00:05:00", ["2031-03-10"]),
        ("2031-04-10T00:05:00", []),
    ):
        stand_in.set_time(now)
        rows = manage("GET", "/activity").json()["data"]
        assert list(dict.fromkeys(row["date"] for row in rows)) == dates


def test_activity_is_for_the_management_key_of_the_account(stand_in, account, active_keys):
    asked = stand_in.call("GET", "/activity", active_keys[0]["key"])
    assert asked.status_code == 403
    assert asked.json()["error"]["message"] == "Only management keys can perform this operation"
    assert stand_in.call("GET", "/activity").status_code == 401
    stranger = stand_in.new_account()["management_key"]
    query = {"api_key_hash": active_keys[0]["hash"]}
    assert stand_in.call("GET", "/activity", stranger, params=query).json() == {"data": []}
    assert stand_in.call("GET", "/activity", account["management_key"], params=query).json()["data"]


@pytest.mark.parametrize("date", ["", "yesterday", "2031-3-09", "2031-W10-7", "2031-03-11", "2031-02-08", "%00"])
@pytest.mark.usefixtures("active_keys")
def test_other_dates_are_refused(manage, date):
    answer = manage("GET", f"/activity?date={date}")
    assert answer.status_code == 400
    assert "last 30 (completed) UTC days" in answer.json()["error"]["message"]
