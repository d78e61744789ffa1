"""Leaving over HTTP: all that is kept of one as a file, and the end of one's account, by oneself and by operators."""

from __future__ import annotations

import json
from datetime import timedelta

from foundation.clock import Clock
from tables import user_sessions
from tests.support.gateway import ADMIN_TOKEN, new_derived_key, shown, user_id_of, wait_for

PATH = "/api/auth/me"


def make_old(database, token):
    mine = user_sessions.c.user_id == user_id_of(token)
    begun = Clock().now() - timedelta(minutes=16)
    database.transact(lambda tx: tx.execute(user_sessions.update().where(mine).values(created_at=begun)))


def logged_in(gateway):
    account = gateway.new_account()
    return account, shown(gateway.post("/login", account))["token"]


def test_the_file_has_all_that_is_kept_and_nothing_of_others(administered, database):
    (_, owner), (_, other) = logged_in(administered), logged_in(administered)
    for token, name in ((owner, "mine"), (other, "theirs")):
        shown(administered.post("/api/api-keys", {"name": name}, token), 201)
        shown(administered.post("/api/tokens", {"name": name}, token), 201)
        shown(administered.ask("PUT", "/api/auth/profile", {"display_name": name}, token))
    answer = administered.ask("GET", "/api/auth/export", token=owner)
    assert answer.headers["Content-Disposition"] == 'attachment; filename="my-data.json"'
    found = json.loads(answer.content)
    assert (
        found["account"]["display_name"] == found["client_keys"][0]["name"] == found["api_tokens"][0]["name"] == "mine"
    )
    assert found["models"] == {"favourites": [], "default_model": None}
    assert len(found["sessions"]) == 1
    assert {"registered", "client_key_made"} <= {one["action"] for one in found["events"]}
    for name in ("log_ins_elsewhere", "watched_keys", "watched_key_days", "usage_by_day", "requests"):
        assert found[name] == []
    assert "theirs" not in answer.text
    assert "sk-auto-" not in answer.text.replace(found["client_keys"][0]["key_hint"], "")


def test_one_deletes_the_own_account_from_a_fresh_session_and_can_come_back_as_somebody_new(administered, database):
    (account, token), (_, other) = logged_in(administered), logged_in(administered)
    key = shown(administered.post("/api/api-keys", {"name": "k"}, token), 201)["key"]
    second = shown(administered.post("/login", account))
    make_old(database, token)
    refused = administered.ask("DELETE", PATH, token=token)
    assert (refused.status_code, refused.json()["error"]["type"]) == (403, "fresh_session_needed")
    assert administered.get(PATH, token).status_code == 200
    fresh = shown(administered.post("/login", account))["token"]
    assert shown(administered.ask("DELETE", PATH, token=fresh)) == {"message": "Account deleted"}
    for gone in (token, fresh, second["token"], key):
        assert administered.get("/v1/models", gone).status_code == 401
    assert administered.post("/api/auth/refresh", {"refresh_token": second["refresh_token"]}).status_code == 401
    assert administered.post("/login", account).status_code == 401
    old, path = user_id_of(token), f"/admin/users/{user_id_of(token)}"
    assert administered.get(path, ADMIN_TOKEN).status_code == 404
    shown(administered.post("/register", account | {"derived_key": new_derived_key()}), 201)
    assert administered.post("/login", account).status_code == 401  # the old key
    shown(administered.get(PATH, other))
    [entry] = [one for one in events_of(administered, old) if one["action"] == "account_deleted"]
    assert (entry["actor"], entry["address"]) == (f"user/{old}", None)
    assert not any(one["address"] for one in events_of(administered, old) if one["actor"] == f"user/{old}")


def events_of(gateway, user_id):
    return gateway.get(f"/admin/audit?user_id={user_id}", ADMIN_TOKEN).json()["items"]


def test_operators_delete_accounts_but_for_their_own_and_programs_none_that_may_more(administered):
    (_, token), (_, admin), (_, other) = (logged_in(administered) for _ in range(3))
    ids = [user_id_of(one) for one in (token, admin, other)]
    shown(administered.ask("PATCH", f"/admin/users/{ids[1]}", {"role": "admin"}, ADMIN_TOKEN))
    wait_for(lambda: administered.get("/admin/users", admin).status_code == 200)
    program = shown(administered.post("/admin/tokens", {"name": "leaver", "scope": "everything"}, ADMIN_TOKEN), 201)
    for who, whom, status in (
        (admin, ids[1], 409),
        (program["token"], ids[1], 403),
        (other, ids[0], 403),
        (admin, 999999, 404),
        (admin, ids[0], 200),
        (admin, ids[0], 404),
        (ADMIN_TOKEN, ids[1], 200),
    ):
        answer = administered.ask("DELETE", f"/admin/users/{whom}", token=who)
        assert answer.status_code == status, (whom, answer.text)
    assert administered.get(PATH, token).status_code == administered.get(PATH, admin).status_code == 401
    shown(administered.get(PATH, other))
    [entry] = [one for one in events_of(administered, ids[0]) if one["action"] == "account_deleted"]
    assert entry["actor"] == f"user/{ids[1]}"
    for method, path in (("POST", "reset-link"), ("POST", "end-sessions"), ("DELETE", "second-factor")):
        assert administered.ask(method, f"/admin/users/{ids[0]}/{path}", token=ADMIN_TOKEN).status_code == 404
