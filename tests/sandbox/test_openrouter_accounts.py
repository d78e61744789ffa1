"""Accounts and the bill: exact amounts, limits and their resets, and the allowance of free requests."""

import datetime

import pytest

from sandbox.openrouter_accounts import Books, dollar_text, first_day_of

FREE_MODEL = "meta-llama/llama-3.3-70b-instruct:free"
DAY = 86_400


def error_of(answer):
    return answer.json()["error"]


@pytest.fixture
def clock(stand_in):
    """Moves the stand-in's clock, and moves it back afterwards."""
    yield lambda seconds: stand_in.control("POST", "settings", clock_offset_seconds=seconds)
    stand_in.control("POST", "settings", clock_offset_seconds=0)


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
