"""Accounts and the bill: exact amounts, limits and their resets, and the allowance of free requests."""

import datetime

import pytest

from sandbox.openrouter_accounts import (
    DAYS_KEPT,
    GENERATIONS_IN_MEMORY,
    GENERATIONS_IN_STATE,
    Books,
    Generation,
    dollar_text,
    first_day_of,
)

FREE_MODEL = "meta-llama/llama-3.3-70b-instruct:free"
DAY = 86_400
COST_OF_TEN_WORDS = 5 * 1000 + 10 * 2000


def error_of(answer):
    return answer.json()["error"]


@pytest.mark.parametrize(
    ("nano", "text"),
    [(0, b"0"), (837_000, b"0.000837"), (1, b"0.000000001"), (10_000_000_000, b"10"), (-1_500_000_000, b"-1.5")],
)
def test_amounts_are_written_exactly(nano, text):
    assert dollar_text(nano) in (text, text + b".0")


def test_weeks_begin_on_monday_and_months_on_the_first():
    def day(text):
        return datetime.date.fromisoformat(text).toordinal() - datetime.date(1970, 1, 1).toordinal()

    assert first_day_of("weekly", day("2026-11-22")) == day("2026-11-16")
    assert first_day_of("weekly", day("2026-11-23")) == day("2026-11-23")
    assert first_day_of("monthly", day("2026-11-21")) == day("2026-11-01")
    assert first_day_of("daily", day("2026-11-21")) == day("2026-11-21")


def test_a_state_file_is_never_half_written(tmp_path):
    books = Books(tmp_path / "state.json")
    account = books.add_account("one", 5)
    key, _ = books.add_key(account, "key")
    books.save()
    again = Books(tmp_path / "state.json")
    assert again.keys == {key.hash: key}
    assert again.accounts == {account.id: account}
    assert [path.name for path in tmp_path.iterdir()] == ["state.json"]


def test_the_last_generations_are_kept_and_found():
    books = Books()
    account = books.add_account("one", 5)
    key, _ = books.add_key(account, "key")
    for number in range(GENERATIONS_IN_MEMORY + 1):
        books.add_generation(key, "a/model", generation(account, key, f"gen-{number}"))
    assert GENERATIONS_IN_MEMORY >= 2 * 20_000
    assert len(books.generations) == GENERATIONS_IN_MEMORY
    assert books.generations_made == GENERATIONS_IN_MEMORY + 1
    assert books.find_generation("gen-0") is None
    assert books.find_generation("gen-1").id == "gen-1"


def test_of_generations_with_one_id_the_latest_is_found():
    books = Books()
    account = books.add_account("one", 5)
    key, _ = books.add_key(account, "key")
    for cost in (1, 2):
        books.add_generation(key, "a/model", generation(account, key, "gen-same", cost))
    assert books.find_generation("gen-same").cost_nano == 2
    assert [one.cost_nano for one in books.generations] == [1, 2]


def test_days_are_forgotten_in_the_order_of_their_beginning():
    books = Books()
    account = books.add_account("one", 5)
    key, _ = books.add_key(account, "key")
    days = [books.today() + number for number in range(DAYS_KEPT + 2)]
    for number in (*range(DAYS_KEPT + 2), 0):
        books.clock_offset = number * DAY
        books.add_generation(key, "a/model", generation(account, key, f"gen-{number}", 7))
    kept = {str(day) for day in [*days[3:], days[0]]}
    assert set(books.activity) == set(key.usage_by_day) == kept
    assert key.usage_nano == 7 * (DAYS_KEPT + 3)


def generation(account, key, generation_id, cost_nano=0):
    return Generation(
        id=generation_id,
        account_id=account.id,
        key_hash=key.hash,
        model="a/model",
        provider="A",
        created=0,
        streamed=False,
        cancelled=False,
        finish_reason="stop",
        prompt_tokens=1,
        completion_tokens=1,
        cost_nano=cost_nano,
        elapsed_ms=1,
    )


def test_the_count_of_generations_outlives_their_records(tmp_path):
    books = Books(tmp_path / "state.json")
    account = books.add_account("one", 5)
    key, _ = books.add_key(account, "key")
    for number in range(GENERATIONS_IN_STATE + 5):
        books.add_generation(key, "a/model", generation(account, key, f"gen-{number}", 7))
    books.save()
    again = Books(tmp_path / "state.json")
    assert again.generations_made == GENERATIONS_IN_STATE + 5
    assert [again.generations[0].id, len(again.generations)] == ["gen-5", GENERATIONS_IN_STATE]
    assert again.activity == books.activity
    assert again.keys == {key.hash: key}


def test_every_chat_is_on_the_bill_of_its_key_and_its_account(stand_in):
    account = stand_in.new_account()
    keys = [stand_in.new_key(account=account["id"]) for _ in range(2)]
    costs = [round(stand_in.chat(key["key"]).json()["usage"]["cost"] * 1e9) for key in keys]
    stream = stand_in.raw_chat(keys[0]["key"], "sandbox/stream?chunks=4")[0]
    assert b'"completion_tokens":4' in stream
    streamed = 5 * 1000 + 4 * 2000
    bill = stand_in.control("GET", "bill")
    assert bill["keys"][keys[0]["hash"]]["nano"] == costs[0] + streamed
    assert bill["keys"][keys[1]["hash"]]["nano"] == costs[1]
    assert bill["accounts"][account["id"]]["nano"] == sum(costs) + streamed
    assert bill["accounts"][account["id"]]["reserved_nano"] == 0


def test_a_spent_key_limit_refuses_until_the_reset(stand_in, clock):
    key = stand_in.new_key(limit=0.00007, limit_reset="daily")
    while (answer := stand_in.chat(key["key"])).status_code == 200:
        pass
    assert answer.status_code == 402
    assert error_of(answer)["metadata"]["limit_source"] == "openrouter_key_limit"
    while (answer := stand_in.chat(key["key"], max_tokens=1)).status_code == 200:
        pass
    while stand_in.chat(key["key"], "google/gemini-2.5-flash", max_tokens=1).status_code == 200:
        pass
    assert answer.status_code in (402, 403)
    clock(DAY)
    assert stand_in.chat(key["key"]).status_code == 200


@pytest.mark.parametrize(
    ("period", "last_minutes", "reset"),
    [
        ("daily", "2031-01-15T23:50:00", "2031-01-16T00:00:00"),
        ("weekly", "2031-01-19T23:50:00", "2031-01-20T00:00:00"),
        ("monthly", "2031-01-31T23:50:00", "2031-02-01T00:00:00"),
        (None, "2031-12-31T23:50:00", None),
    ],
)
@pytest.mark.usefixtures("clock")
def test_a_limit_holds_until_its_period_ends(stand_in, period, last_minutes, reset):
    manage = stand_in.new_account()["management_key"]
    stand_in.set_time("2031-01-15T12:00:00")  # a Wednesday
    wishes = {"name": "x", "limit": 2 * COST_OF_TEN_WORDS / 1e9, "limit_reset": period}
    made = stand_in.call("POST", "/keys", manage, json=wishes).json()

    def ask(tokens):
        return stand_in.chat(made["key"], "sandbox/stream?chunks=10", max_tokens=tokens)

    def shown():
        key = stand_in.call("GET", f"/keys/{made['data']['hash']}", manage).json()["data"]
        names = ("limit", "limit_remaining", "usage", "usage_daily", "usage_weekly", "usage_monthly")
        return [round(key[name] * 1e9 / COST_OF_TEN_WORDS, 9) for name in names], key["limit_reset"]

    assert shown() == ([2, 2, 0, 0, 0, 0], period)
    assert ask(10).status_code == 200
    assert shown() == ([2, 1, 1, 1, 1, 1], period)
    too_large = ask(20)
    assert (too_large.status_code, error_of(too_large)["metadata"]["limit_source"]) == (402, "openrouter_key_limit")
    assert f"higher {period or 'total'} limit" in error_of(too_large)["message"]
    assert ask(10).status_code == 200
    assert shown()[0][:3] == [2, 0, 2]
    stand_in.set_time(last_minutes)
    refused = ask(10)
    assert refused.status_code == 403
    assert error_of(refused)["message"].startswith(f"Key limit exceeded ({period or 'total'} limit).")
    if reset:
        stand_in.set_time(reset)
        assert shown()[0][:4] == [2, 2, 2, 0]
        assert ask(10).status_code == 200
        assert shown()[0][:4] == [2, 1, 3, 1]


def test_a_changed_limit_holds_at_once(stand_in):
    manage = stand_in.new_account()["management_key"]
    made = stand_in.call("POST", "/keys", manage, json={"name": "x", "limit": 0, "limit_reset": "daily"}).json()
    path = f"/keys/{made['data']['hash']}"
    assert stand_in.chat(made["key"]).status_code == 403
    assert stand_in.call("PATCH", path, manage, json={"limit": 1}).json()["data"]["limit_remaining"] == 1
    assert stand_in.chat(made["key"]).status_code == 200
    stand_in.call("PATCH", path, manage, json={"limit": 0, "limit_reset": None})
    assert "(total limit)" in error_of(stand_in.chat(made["key"]))["message"]
    stand_in.call("PATCH", path, manage, json={"limit": None})
    assert stand_in.chat(made["key"]).status_code == 200


def test_running_requests_leave_less_of_a_limit(stand_in):
    key = stand_in.new_key(limit=0.01)
    # Without a ceiling it reserves the 4096 tokens of the model.
    with stand_in.open_chat(key["key"], "sandbox/stall") as connection:
        connection.recv(1000)
        refused = stand_in.chat(key["key"], "sandbox/stream", max_tokens=2000)
    assert refused.status_code == 402
    left, asked = 10_000_000 - 5 * 1000 - 4096 * 2000, 5 * 1000 + 2000 * 2000
    assert f"can only afford {left * 2000 // asked}." in error_of(refused)["message"]
    stand_in.logged(key["hash"], lambda entry: entry["ended"])


def test_a_key_limit_that_is_used_up_is_a_403(stand_in):
    key = stand_in.new_key(limit=0)
    answer = stand_in.chat(key["key"])
    assert answer.status_code == 403
    assert error_of(answer)["message"].startswith("Key limit exceeded (total limit).")


def test_expired_disabled_and_deleted_keys_are_refused(stand_in, clock):
    account = stand_in.new_account()
    soon = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1)
    expiring = stand_in.new_key(account=account["id"], expires_at=soon.strftime("%Y-%m-%dT%H:%M:%SZ"))
    disabled = stand_in.new_key(account=account["id"], disabled=True)
    assert stand_in.chat(expiring["key"]).status_code == 200
    clock(2 * 3600)
    assert error_of(stand_in.chat(expiring["key"]))["message"] == "User not found."
    assert stand_in.chat(disabled["key"]).status_code == 401
    assert "disabled" in error_of(stand_in.chat(disabled["key"]))["message"]


def test_a_low_balance_refuses_large_requests_and_an_empty_one_all(stand_in):
    account = stand_in.new_account(balance=0.001)
    key = stand_in.new_key(account=account["id"])["key"]
    large = stand_in.chat(key, max_tokens=10_000)
    assert large.status_code == 402
    assert "can only afford" in error_of(large)["message"]
    assert error_of(large)["metadata"]["limit_source"] == "openrouter_credits"
    assert stand_in.chat(key).status_code == 200
    stand_in.control("PATCH", "accounts", id=account["id"], balance=-0.5)
    assert error_of(stand_in.chat(key))["message"].startswith("Insufficient credits.")
    assert stand_in.chat(key, FREE_MODEL).status_code == 402


def test_running_requests_reserve_the_in_flight_budget(stand_in):
    account = stand_in.new_account(in_flight_budget=0.01)
    key = stand_in.new_key(account=account["id"])
    with stand_in.open_chat(key["key"], "sandbox/stall") as connection:
        connection.recv(1000)
        refused = stand_in.chat(key["key"], "openai/gpt-4o", max_tokens=500)
    assert refused.status_code == 402
    assert refused.headers["retry-after"] == "2"
    assert error_of(refused)["metadata"]["limit_source"] == "openrouter_in_flight_budget"
    stand_in.logged(key["hash"], lambda entry: entry["ended"])
    assert stand_in.control("GET", "bill")["accounts"][account["id"]]["reserved_nano"] == 0


def test_free_requests_are_counted_by_minute_and_by_day(stand_in, clock):
    clock(100 * DAY + 5)
    account = stand_in.new_account(free_per_minute=2, free_per_day=3)
    key = stand_in.new_key(account=account["id"])["key"]
    assert [stand_in.chat(key, FREE_MODEL).status_code for _ in range(2)] == [200, 200]
    clock(100 * DAY + 65)
    assert stand_in.chat(key, FREE_MODEL).status_code == 200
    answer = stand_in.chat(key, FREE_MODEL)
    assert error_of(answer)["metadata"]["limit_source"] == "openrouter_free_tier_daily"
    assert int(answer.headers["x-ratelimit-reset"]) % (DAY * 1000) == 0
    clock(101 * DAY + 5)
    answers = [stand_in.chat(key, FREE_MODEL) for _ in range(3)]
    assert error_of(answers[-1])["metadata"]["limit_source"] == "openrouter_free_tier_per_minute"
    assert stand_in.chat(key).status_code == 200
