"""A user's own OpenRouter keys over HTTP: added, shown, renamed, replaced, synchronised, removed; never told."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from tables import users, watched_key_days, watched_keys
from tests.support.gateway import ADMIN_TOKEN, check_headers, refusal_of, user_id_of, wait_for

PATH = "/api/keys"
NANO = 10**9


@pytest.fixture(scope="module")
def gateway_settings(stand_in: Any) -> dict[str, Any]:
    return {"MAX_API_KEYS_PER_USER": 3, "OPENROUTER_API_KEYS": pool_key(stand_in)}


def pool_key(stand_in: Any) -> str:
    """The one key of the gateways' own pool."""
    key = "sk-or-v1-" + "5e" * 32
    stand_in.new_key(key=key)
    return key


@pytest.fixture
def owner(administered):
    return administered.new_user()


def added(gateway, token, key, name="laptop"):
    answer = gateway.post(PATH, {"name": name, "key": key}, token)
    check_headers(answer)
    assert answer.status_code == 201, answer.text
    return answer.json()


def actions(gateway, token):
    return [entry["action"] for entry in gateway.get("/api/auth/events", token).json()["items"]]


def let_a_minute_pass(database, key_id):
    """As far as the row knows."""
    row = watched_keys.update().where(watched_keys.c.id == key_id)
    earlier = datetime.now(UTC) - timedelta(minutes=2)
    database.transact(lambda tx: tx.execute(row.values(asked_at=earlier)))


def test_a_key_is_added_listed_shown_and_removed_and_never_told(administered, stand_in, owner, database):
    made = stand_in.new_key(limit=5)
    assert stand_in.chat(made["key"]).status_code == 200
    shown = added(administered, owner, made["key"])
    spent = stand_in.spent(made["hash"])
    assert shown["key_hint"] == f"{made['key'][:11]}****"
    assert (shown["name"], shown["state"], shown["limit_usd"]) == ("laptop", "valid", 5.0)
    assert (shown["usage_usd"], shown["remaining_usd"]) == (spent / NANO, (5 * NANO - spent) / NANO)
    page = administered.get(PATH, owner)
    assert page.json() == {"items": [shown], "total": 1, "page": 1, "page_size": 20}
    assert administered.get(f"{PATH}/{shown['id']}", owner).json() == shown
    removed = administered.ask("DELETE", f"{PATH}/{shown['id']}", token=owner)
    assert (removed.status_code, removed.json()) == (200, {"id": shown["id"], "message": "Removed"})
    assert administered.get(f"{PATH}/{shown['id']}", owner).status_code == 404
    with database.reading() as tx:
        for table, column in ((watched_keys, "id"), (watched_key_days, "personal_key_id")):
            assert tx.execute(sa.select(table).where(table.c[column] == shown["id"])).all() == []
    assert actions(administered, owner)[:2] == ["personal_key_removed", "personal_key_added"]
    told = administered.log() + page.text + administered.get("/api/auth/events", owner).text
    assert made["key"][11:] not in told
    assert stand_in.call("GET", "/key", made["key"]).status_code == 200  # at OpenRouter nothing has changed


def test_a_key_that_openrouter_refuses_is_not_stored(administered, owner):
    refused = administered.post(PATH, {"name": "made up", "key": "sk-or-v1-" + "0" * 64}, owner)
    assert refused.status_code == 400
    assert "OpenRouter does not accept this key" in refusal_of(refused)
    assert administered.get(PATH, owner).json()["total"] == 0


def test_while_openrouter_does_not_answer_nothing_is_stored(administered, stand_in, owner):
    made = stand_in.new_key()
    stand_in.control("POST", "faults", row="500", path="/key", key=made["hash"], times=1)
    refused = administered.post(PATH, {"name": "laptop", "key": made["key"]}, owner)
    assert refused.status_code == 503
    assert refused.headers["Retry-After"] == "5"
    assert "was not stored" in refusal_of(refused)
    assert administered.get(PATH, owner).json()["total"] == 0
    assert made["key"][11:] not in administered.log()
    added(administered, owner, made["key"])


def test_a_key_of_the_pool_the_same_key_twice_and_too_many_are_refused(administered, stand_in, owner):
    refused = administered.post(PATH, {"name": "sly", "key": pool_key(stand_in)}, owner)
    assert refused.status_code == 400
    assert "own pool" in refusal_of(refused)
    made = [stand_in.new_key()["key"] for _ in range(4)]
    first = added(administered, owner, made[0])
    again = administered.post(PATH, {"name": "again", "key": made[0]}, owner)
    assert again.status_code == 409
    assert f"as key {first['id']}" in refusal_of(again)
    added(administered, owner, made[1])
    third = added(administered, owner, made[2])
    over = administered.post(PATH, {"name": "one more", "key": made[3]}, owner)
    assert over.status_code == 409
    assert "You have 3 keys" in refusal_of(over)
    assert administered.ask("PUT", f"{PATH}/{third['id']}", {"name": "x", "key": made[0]}, owner).status_code == 409
    added(administered, administered.new_user(), made[0])  # a key that a team shares
    assert administered.get(PATH, owner).json()["total"] == 3


def test_a_key_is_renamed_and_replaced(administered, stand_in, owner):
    first, second = stand_in.new_key(), stand_in.new_key(limit=7)
    path = f"{PATH}/{added(administered, owner, first['key'])['id']}"
    renamed = administered.ask("PUT", path, {"name": "desk"}, owner).json()
    assert (renamed["name"], renamed["limit_usd"], renamed["key_hint"]) == ("desk", None, f"{first['key'][:11]}****")
    replaced = administered.ask("PUT", path, {"name": "desk", "key": second["key"]}, owner).json()
    assert (replaced["limit_usd"], replaced["key_hint"]) == (7.0, f"{second['key'][:11]}****")
    refused = administered.ask("PUT", path, {"name": "lost", "key": "sk-or-v1-" + "0" * 64}, owner)
    assert refused.status_code == 400
    assert administered.get(path, owner).json() == replaced
    entries = administered.get("/api/auth/events", owner).json()["items"]
    assert [entry["details"] for entry in entries if entry["action"] == "personal_key_changed"] == [
        {"name": "desk", "is_replaced": True},
        {"name": "desk", "is_replaced": False},
    ]
    assert second["key"][11:] not in str(entries)


def test_another_persons_key_is_forbidden_and_stays_as_it_is(administered, stand_in, owner, people):
    shown = added(administered, owner, stand_in.new_key()["key"], "my secret project")
    path, teammate, fresh = f"{PATH}/{shown['id']}", administered.new_user(), stand_in.new_key()["key"]
    asked = [
        ("GET", path, None),
        ("PUT", path, {"name": "stolen"}),
        ("PUT", path, {"name": "stolen", "key": fresh}),
        ("DELETE", path, None),
        ("POST", f"{path}/sync", None),
        ("GET", f"{path}/usage", None),
    ]
    for method, where, body in asked:
        for person, status in ((teammate, 403), (people.admin, 403), (None, 401), (ADMIN_TOKEN, 401), ("x", 401)):
            refused = administered.ask(method, where, body, person)
            assert refused.status_code == status, (method, where, refused.text)
            assert "secret project" not in refusal_of(refused)
        missing = administered.ask(method, where.replace(path, f"{PATH}/999999"), body, teammate)
        assert missing.status_code == 404
    assert administered.get(PATH, teammate).json()["items"] == []
    assert administered.get(path, owner).json() == shown


def test_an_owner_asks_openrouter_at_most_once_a_minute(administered, stand_in, owner, database):
    made = stand_in.new_key()
    shown = added(administered, owner, made["key"])
    assert stand_in.chat(made["key"]).status_code == 200
    too_soon = administered.post(f"{PATH}/{shown['id']}/sync", token=owner)
    assert too_soon.status_code == 429
    assert 1 <= int(too_soon.headers["Retry-After"]) <= 60
    let_a_minute_pass(database, shown["id"])
    synced = administered.post(f"{PATH}/{shown['id']}/sync", token=owner).json()
    assert synced["usage_usd"] == stand_in.spent(made["hash"]) / NANO
    stand_in.control("POST", "faults", row="401b", path="/key", key=made["hash"], times=1)
    let_a_minute_pass(database, shown["id"])
    failed = administered.post(f"{PATH}/{shown['id']}/sync", token=owner).json()
    assert (failed["state"], failed["failures"]) == ("suspect", 1)
    assert failed["last_error"] == "OpenRouter does not accept this key"
    assert failed["synced_at"] == synced["synced_at"]


def test_usage_is_told_by_day(administered, stand_in, owner, database):
    made = stand_in.new_key()
    shown = added(administered, owner, made["key"])
    path = f"{PATH}/{shown['id']}/usage"
    rows = [(1, 5), (3, 7), (9, 11)]
    for day, nano in rows:
        values = {"personal_key_id": shown["id"], "day": datetime(2026, 3, day, tzinfo=UTC).date(), "cost_nano": nano}
        database.transact(lambda tx, values=values: tx.execute(watched_key_days.insert().values(values)))
    found = administered.get(f"{path}?start_date=2026-03-01&end_date=2026-03-05", owner).json()
    assert found == {
        "start_date": "2026-03-01",
        "end_date": "2026-03-05",
        "cost_nano": 12,
        "cost_usd": 1.2e-8,
        "items": [
            {"date": "2026-03-03", "cost_nano": 7, "cost_usd": 7e-9},
            {"date": "2026-03-01", "cost_nano": 5, "cost_usd": 5e-9},
        ],
    }
    assert administered.get(path, owner).json()["items"] == []  # the last thirty days
    for query in ("start_date=x", "start_date=2026-03-02&end_date=2026-03-01", "start_date=2001-01-01", "day=1"):
        assert administered.get(f"{path}?{query}", owner).status_code == 400, query


def test_the_public_api_lists_them_beside_client_keys_and_adds_nothing_up(administered, stand_in, owner):
    made = stand_in.new_key()
    assert stand_in.chat(made["key"]).status_code == 200
    shown = added(administered, owner, made["key"])
    token = administered.post("/api/tokens", {"name": "dashboard"}, owner).json()["token"]
    wait_for(lambda: administered.get("/api/v1/keys", token).status_code == 200)
    found = administered.get("/api/v1/keys", token).json()
    spent = stand_in.spent(made["hash"])
    assert found["items"] == []
    told = {name: shown[name] for name in ("id", "name", "key_hint", "state", "synced_at")}
    assert found["personal_keys"] == [told | {"cost_nano": spent, "cost_usd": spent / NANO}]
    old = administered.get("/api/v1/keys?start_date=2026-01-01&end_date=2026-01-31", token).json()
    assert [key["cost_nano"] for key in old["personal_keys"]] == [0]
    assert administered.get("/api/v1/keys", administered.new_user()).json()["personal_keys"] == []
    assert administered.get(PATH, token).status_code == 403
    summed_up = administered.get("/api/v1/stats", token).json()["summary"]
    assert summed_up["cost_nano"] == 0


@pytest.mark.parametrize(
    "body",
    [
        {},
        [],
        {"name": "x"},
        {"key": "sk-or-v1-" + "a" * 64},
        {"name": "", "key": "sk-or-v1-" + "a" * 64},
        {"name": "a\nb", "key": "sk-or-v1-" + "0" * 64},
        {"name": "x", "key": ""},
        {"name": "x", "key": "sk-proj-" + "a" * 64},
        {"name": "x", "key": "sk-or-v1-" + "a" * 64 + "\n"},
        {"name": "x", "key": "sk-or-v1-" + "a" * 64 + "\r\nX-Evil: 1"},
        {"name": "x", "key": "sk-or-v1-" + "a" * 400},
        {"name": "x", "key": "sk-or-v1-ключ" + "a" * 64},
        {"name": "x", "key": {"$ne": 1}},
        {"name": "x", "key": "sk-or-v1-" + "a" * 64, "user_id": 1},
        {"name": "x", "key": "sk-or-v1-" + "a" * 64, "state": "valid"},
    ],
)
def test_what_makes_no_sense_is_a_400_that_repeats_no_key(administered, owner, body):
    refused = administered.post(PATH, body, owner)
    assert refused.status_code == 400
    assert "aaaa" not in refusal_of(refused)
    assert administered.get(PATH, owner).json()["total"] == 0


def test_the_keys_of_a_disabled_user_are_out_of_reach(administered, stand_in, owner, database):
    shown = added(administered, owner, stand_in.new_key()["key"])
    who = f"/admin/users/{user_id_of(owner)}"
    assert administered.ask("PATCH", who, {"state": "disabled"}, ADMIN_TOKEN).status_code == 200
    wait_for(lambda: administered.get(f"{PATH}/{shown['id']}", owner).status_code in {401, 403})
    with database.reading() as tx:
        assert tx.scalar(sa.select(users.c.state).where(users.c.id == user_id_of(owner))) == "disabled"


def test_one_address_has_keys_checked_so_many_times_a_minute(start, stand_in):
    """Or strangers could try keys through us, until OpenRouter shuts out our address. Log-ins are counted apart."""
    gateway = start(OPENROUTER_API_URL=stand_in.address, LOGIN_RATE_LIMIT_PER_MINUTE=3)
    owner = gateway.new_user()
    body = {"name": "made up", "key": "sk-or-v1-" + "0" * 64}
    answers = [gateway.post(PATH, body, owner) for _ in range(7)]  # more than two minutes' worth
    refused = [answer for answer in answers if answer.status_code == 429]
    assert {answer.status_code for answer in answers} == {400, 429}
    assert "Too many key checks: this service allows 3 a minute per address" in refusal_of(refused[0])
    assert gateway.get(PATH, owner).status_code == 200
    assert gateway.new_user()


def test_renaming_a_key_is_no_check_of_one(start, stand_in):
    gateway = start(OPENROUTER_API_URL=stand_in.address, LOGIN_RATE_LIMIT_PER_MINUTE=3)
    owner = gateway.new_user()
    shown = added(gateway, owner, stand_in.new_key()["key"])
    path = f"{PATH}/{shown['id']}"
    answers = [gateway.ask("PUT", path, {"name": f"name {number}"}, owner) for number in range(7)]
    assert {answer.status_code for answer in answers} == {200}
    replaced = [gateway.ask("PUT", path, {"name": "x", "key": "sk-or-v1-" + "0" * 64}, owner) for _ in range(7)]
    assert {answer.status_code for answer in replaced} == {400, 429}
    assert gateway.get(path, owner).json()["name"] == "name 6"
