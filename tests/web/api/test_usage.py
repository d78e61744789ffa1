"""A caller's own usage: the right figures for the owner, nothing of them for anybody else, and plain refusals."""

from __future__ import annotations

import base64
import csv
import io
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from config.settings import Config
from db import Database, database_url
from tables import users
from tests.conftest import ENCRYPTION_KEY, SECRET_KEY
from tests.support.gateway import Gateway, check_headers, refusal_of, wait_for
from tests.support.usage_rows import MODELS, row, store

ADMIN_TOKEN = "Qd81-operators-own-Zx7Kp3Vt0Lm9Rw2Yc"
DAY = timedelta(days=1)
NOW = datetime.now(UTC)
TODAY = NOW.replace(hour=0, minute=0, second=0, microsecond=0)
PATHS = ["/api/usage/stats", "/api/usage/logs", "/api/v1/stats", "/api/v1/usage", "/api/v1/keys"]
EXPORT = "/api/usage/logs/export?format=jsonl"
FIELDS = {
    "request_id",
    "created_at",
    "client_key_id",
    "model",
    "upstream",
    "status",
    "outcome",
    "stream",
    "state",
    "source",
}
FIELDS |= {"asked_model", "error_type", "error_message"}
FIELDS |= {"cached_tokens", "reasoning_tokens", "image_tokens", "web_searches", "byok_nano"}
FIELDS |= {"prompt_tokens", "completion_tokens", "cost_usd", "cost_nano", "tries", "first_byte_ms", "total_ms"}


@pytest.fixture(scope="module", params=["sqlite", "mariadb"])
def served(
    request: pytest.FixtureRequest, start: Callable[..., Gateway], tmp_path_factory: pytest.TempPathFactory
) -> Gateway:
    """A gateway with an operator, once on each kind of database."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path_factory.mktemp('usage')}/x.db"
    else:
        url = request.getfixturevalue("mariadb").new_database()
    return start(DATABASE_URL=url, SECRET_KEY=SECRET_KEY, ENCRYPTION_KEY=ENCRYPTION_KEY, ADMIN_TOKEN=ADMIN_TOKEN)


@pytest.fixture(scope="module")
def db(served: Gateway) -> Iterator[Database]:
    """The gateway's database."""
    found = Database(database_url(Config(database_url=served.settings["DATABASE_URL"])))
    yield found
    found.close()


def id_of(token: str) -> int:
    payload = token.split(".")[1]
    return int(json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["sub"])


@pytest.fixture(scope="module")
def owner(served: Gateway, db: Database) -> str:
    """Somebody with 30 requests, one an hour, of which the third of each three failed; others have some too."""
    token = served.new_user()
    common = {"user_id": id_of(token), "cost_nano": 5_000_000}
    rows = [
        row(number, NOW - timedelta(hours=number), **common, outcome="error" if number % 3 == 2 else "complete")
        for number in range(30)
    ]
    rows[1] |= {"client_key_id": 7, "model": MODELS[1]}
    store(db, rows)
    other = id_of(served.new_user())
    store(db, [row(1000 + number, NOW, user_id=other, client_key_id=9, model="others/secret") for number in range(5)])
    return token


def get(served: Gateway, path: str, token: str) -> dict[str, Any]:
    answer = served.get(path, token)
    assert answer.status_code == 200, answer.text
    check_headers(answer)
    return answer.json()


# ── who may


@pytest.mark.parametrize("path", [*PATHS, EXPORT])
def test_a_stranger_is_not_let_in(served, path):
    for token in (None, "x", ADMIN_TOKEN):
        refused = served.get(path, token)
        assert refused.status_code == 401
        refusal_of(refused)


@pytest.mark.parametrize("path", [*PATHS, EXPORT])
def test_another_user_sees_nothing_of_it(served, owner, path):
    seen = served.get(path, served.new_user()).text
    assert "others/secret" not in seen
    assert MODELS[0] not in seen
    assert f'"user_id":{id_of(owner)}' not in seen
    mine = served.get(path, owner).text
    assert "others/secret" not in mine
    assert "pool_key" not in mine
    assert "user_id" not in mine


@pytest.mark.parametrize("parameter", ["user_id=1", "pool_key=x", "user=1", "User_Id=1", "all=true"])
@pytest.mark.parametrize("path", [*PATHS, EXPORT])
def test_nobody_can_ask_for_another_users_data(served, owner, path, parameter):
    refused = served.get(f"{path}{'&' if '?' in path else '?'}{parameter}", owner)
    assert refused.status_code == 400
    message = refusal_of(refused)
    assert parameter.split("=")[0] in message
    assert "this takes " in message


def test_who_may_not_call_may_still_look(served, db):
    token = served.new_user()

    def silence(tx: Any) -> None:
        tx.execute(users.update().where(users.c.id == id_of(token)).values(state="silenced"))
        tx.exec_driver_sql("UPDATE revisions SET value = value + 1 WHERE name = 'users'")

    db.transact(silence)
    wait_for(lambda: served.chat(token).status_code == 403)
    assert [served.get(path, token).status_code for path in [*PATHS, EXPORT]] == [200] * 6


# ── what is shown


def test_the_log_is_paged_and_filtered(served, owner):
    first = get(served, "/api/usage/logs", owner)
    assert [first[name] for name in ("total", "page", "page_size")] == [30, 1, 20]
    assert set(first) == {"items", "total", "page", "page_size", "searched_since"}
    assert set(first["items"][0]) == FIELDS
    assert first["items"][0]["cost_usd"] == 0.005
    rest = get(served, "/api/usage/logs?page=2&page_size=20", owner)["items"]
    times = [item["created_at"] for item in first["items"] + rest]
    assert len(set(times)) == 30
    assert times == sorted(times, reverse=True)
    assert get(served, "/api/usage/logs?page=1000000", owner)["items"] == []
    assert get(served, "/api/usage/logs?status=error", owner)["total"] == 10
    assert get(served, "/api/usage/logs?status=ok&page_size=100", owner)["total"] == 20
    assert get(served, f"/api/usage/logs?model={MODELS[1]}", owner)["total"] == 1
    assert get(served, "/api/usage/logs?client_key_id=7", owner)["items"][0]["client_key_id"] == 7
    assert get(served, "/api/usage/logs?client_key_id=9", owner)["total"] == 0
    assert get(served, "/api/usage/logs?model=others/secret", owner)["total"] == 0


def test_the_log_is_cut_by_days_and_hours(served, owner):
    def total(query: str) -> int:
        return get(served, f"/api/usage/logs?{query}", owner)["total"]

    today = NOW.hour + 1  # one an hour, back from now
    day, hour = TODAY.date().isoformat(), f"{NOW:%Y-%m-%dT%H}:00Z"
    assert total(f"start={day}") == total(f"start={day}&end={day}") == today
    assert total(f"end={(TODAY - DAY).date().isoformat()}") == 30 - today
    assert total(f"start={hour}") == 1
    assert total(f"end={hour}") == 29
    assert total(f"start={hour[:13]}&end=2999-12-31") == 1
    assert total("end=2000-01-01") == 0


def test_statistics_are_the_callers_own(served, owner):
    found = get(served, "/api/usage/stats", owner)
    assert set(found) == {"start_date", "end_date", "totals", "by_model", "by_day", "by_client_key"}
    assert (found["totals"]["requests"], found["totals"]["errors"], found["totals"]["cost_usd"]) == (30, 10, 0.15)
    assert [(one["model"], one["requests"]) for one in found["by_model"]] == [(MODELS[0], 29), (MODELS[1], 1)]
    assert [(one["client_key_id"], one["requests"]) for one in found["by_client_key"]] == [(None, 29), (7, 1)]
    day = TODAY.date().isoformat()
    one_day = get(served, f"/api/usage/stats?start_date={day}&end_date={day}", owner)
    assert one_day["totals"]["requests"] == NOW.hour + 1
    assert [one["date"] for one in one_day["by_day"]] == [day]


def test_the_public_api_shows_the_same_figures(served, owner):
    stats = get(served, "/api/v1/stats", owner)
    assert set(stats) == {"start_date", "end_date", "summary", "by_model"}
    assert (stats["summary"]["requests"], len(stats["by_model"])) == (30, 2)
    usage = get(served, "/api/v1/usage?page=1&limit=1", owner)
    assert (usage["page"], usage["limit"], len(usage["items"])) == (1, 1, 1)
    pages = [get(served, f"/api/v1/usage?page={n}&limit=1", owner)["items"][0] for n in range(1, usage["total"] + 1)]
    assert sum(one["requests"] for one in pages) == 30
    assert [one["date"] for one in pages] == sorted((one["date"] for one in pages), reverse=True)
    keys = get(served, "/api/v1/keys", owner)["items"]
    assert [(one["client_key_id"], one["requests"]) for one in keys] == [(None, 29), (7, 1)]


def test_the_export_is_the_whole_log(served, owner):
    answer = served.get(EXPORT, owner)
    assert answer.headers["Content-Type"] == "application/jsonl"
    assert answer.headers["Content-Disposition"].startswith("attachment")
    check_headers(answer)
    documents = [json.loads(line) for line in answer.text.splitlines()]
    shown = get(served, "/api/usage/logs?page_size=100", owner)["items"]
    assert documents == shown[::-1]
    answer = served.get("/api/usage/logs/export?format=csv&status=error", owner)
    assert answer.headers["Content-Type"].startswith("text/csv")
    names, *rows = csv.reader(io.StringIO(answer.text, newline=""))
    assert set(names) == FIELDS
    assert len(rows) == 10


# ── bad input


BAD = [
    ("/api/usage/logs", "page", ["0", "-1", "x", "", "1.5", "٣", "1000001"], "a whole number from 1 to 1000000"),
    ("/api/usage/logs", "page_size", ["0", "101", "1e1"], "a whole number from 1 to 100"),
    ("/api/v1/usage", "limit", ["0", "101", "x"], "a whole number from 1 to 100"),
    ("/api/usage/logs", "status", ["", "20", "Error", "4XX", "999"], "error, ok, a status such as 429"),
    ("/api/usage/logs", "outcome", ["", "fine"], "one of complete, cached, client_gone"),
    ("/api/usage/logs", "sort", ["", "Cost", "oldest"], "one of newest, cost"),
    ("/api/usage/logs", "request_id", ["", "019", "g" * 32, "0" * 33], "first 12 characters"),
    ("/api/usage/logs", "model_contains", ["", "a b"], "a part of a model's name"),
    ("/api/usage/logs", "error_type", ["", "a b", "x" * 33], "a reason as the log shows it"),
    ("/api/usage/logs", "min_cost_usd", ["", "-1", "1e3", "1000001", "nan"], "dollars from 0 to 1000000"),
    ("/api/usage/logs", "min_ms", ["", "-1", "0.5"], "a whole number from 0"),
    ("/api/usage/logs", "client_key_id", ["0", "x", "-7", "9" * 30], "a whole number from 1"),
    ("/api/usage/logs", "model", ["x" * 256, "a b", "%C3%BC", "a%00"], "up to 255 ASCII characters"),
    (
        "/api/usage/logs",
        "start",
        ["", "now", "2026-13-01", "2026-11-21T13:30Z", "2026-11-21T24", "0001-01-01"],
        "a day or",
    ),
    (
        "/api/usage/logs/export",
        "end",
        ["x", "2026-11-21T13:00:00.5Z", "9999-12-31", "٢٠٢٦-١١-٢١"],
        "a full hour of UTC",
    ),
    ("/api/usage/logs/export", "format", ["", "xml", "CSV"], "csv or jsonl"),
    (
        "/api/usage/stats",
        "start_date",
        ["", "x", "2026-02-30", "2026-11-21T10", "1999-12-31", "20261121"],
        "a day of UTC",
    ),
    ("/api/v1/stats", "end_date", ["3000-01-01", "2026-1-1", "2026-W01-1"], "a day of UTC"),
    ("/api/v1/keys", "end_date", ["2026-11-21 "], "a day of UTC"),
]


@pytest.mark.parametrize(("path", "name", "values", "accepted"), BAD)
def test_a_bad_value_is_a_400_that_says_what_is_accepted(served, owner, path, name, values, accepted):
    more = "" if name == "format" or not path.endswith("export") else "&format=csv"
    for value in values:
        refused = served.get(f"{path}?{name}={value}{more}", owner)
        assert refused.status_code == 400, value
        message = refusal_of(refused)
        assert message.startswith(f"{name} must be"), value
        assert accepted in message


def test_ranges_that_make_no_sense_are_refused(served, owner):
    for path, why in {
        "/api/usage/stats?start_date=2026-11-21&end_date=2026-11-20": "start_date must not be after end_date",
        "/api/usage/stats?start_date=2020-11-21&end_date=2026-11-20": "at most 366 days apart",
        "/api/usage/logs?start=2026-11-21&end=2026-11-20": "start must be before end",
        "/api/usage/logs?page=1&page=2": "page is given more than once",
        "/api/usage/logs/export": "format must be csv or jsonl",
    }.items():
        refused = served.get(path, owner)
        assert refused.status_code == 400
        assert why in refusal_of(refused)


@pytest.mark.parametrize("path", [*PATHS, EXPORT])
def test_only_reading_is_possible(served, owner, path):
    refused = served.post(path, {}, owner)
    assert refused.status_code == 405
