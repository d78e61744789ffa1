"""Sessions over HTTP: listed and ended by their owner alone, all at once, and with every change of the key."""

from __future__ import annotations

import time
from typing import Any

import jwt
import pytest

from tests.support.gateway import Gateway, new_derived_key, refusal_of, wait_for


class Person:
    """Somebody with an account at a gateway."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.account = {"username": f"{time.monotonic_ns()}@example.com", "derived_key": new_derived_key()}
        assert gateway.post("/register", self.account).status_code == 201

    def log_in(self, **headers: str) -> dict[str, Any]:
        answer = self.gateway.post("/login", self.account, headers=headers)
        assert answer.status_code == 200, answer.text
        return answer.json()


@pytest.fixture
def owner(gateway: Gateway) -> Person:
    return Person(gateway)


@pytest.fixture
def teammate(gateway: Gateway) -> Person:
    return Person(gateway)


def session_of(tokens: dict[str, Any]) -> str:
    return jwt.decode(tokens["access_token"], options={"verify_signature": False})["sid"]


def works(gateway: Gateway, tokens: dict[str, Any]) -> bool:
    """Whether a session's access token is accepted."""
    status = gateway.get("/api/auth/sessions", tokens["access_token"]).status_code
    assert status in {200, 401}
    return status == 200


def test_the_list_shows_where_one_is_logged_in(gateway, owner, teammate):
    first, second = owner.log_in(**{"User-Agent": "Lynx/2.9"}), owner.log_in()
    teammate.log_in()
    items = gateway.get("/api/auth/sessions", second["access_token"]).json()["items"]
    assert [item["id"] for item in items] == [session_of(second), session_of(first)]
    assert [item["is_current"] for item in items] == [True, False]
    assert {item["address"] for item in items} == {"127.0.0.1"}
    assert items[1]["user_agent"] == "Lynx/2.9"
    assert {item["method"] for item in items} == {"key"}
    assert first["refresh_token"] not in str(items)


@pytest.mark.parametrize("agent", [b"\xe9", "\u65e5\u672c".encode(), b"a\tb", b"x" * 3000])
def test_whatever_a_browser_calls_itself_it_is_let_in_and_listed(gateway, owner, agent):
    """granian hands on no header that is not UTF-8; gunicorn reads it as Latin-1."""
    token = owner.log_in(**{"User-Agent": agent})["access_token"]
    [item] = gateway.get("/api/auth/sessions", token).json()["items"]
    assert item["user_agent"] is None or (item["user_agent"].isprintable() and len(item["user_agent"]) <= 200)


def test_one_ends_ones_own_sessions_and_nobody_elses(gateway, owner, teammate):
    mine, old, theirs = owner.log_in(), owner.log_in(), teammate.log_in()
    for session in (session_of(theirs), "f" * 32, "x"):
        answer = gateway.ask("DELETE", f"/api/auth/sessions/{session}", token=mine["access_token"])
        assert answer.status_code == 404
        assert "no such session" in refusal_of(answer)
    assert gateway.ask("DELETE", f"/api/auth/sessions/{session_of(old)}").status_code == 401
    assert gateway.ask("DELETE", f"/api/auth/sessions/{session_of(old)}", token=mine["access_token"]).status_code == 200
    assert [works(gateway, tokens) for tokens in (mine, old, theirs)] == [True, False, True]


def test_logging_out_everywhere_ends_all_of_ones_own(gateway, owner, teammate):
    mine, old, theirs = owner.log_in(), owner.log_in(), teammate.log_in()
    answer = gateway.post("/api/auth/logout-all", token=mine["access_token"])
    assert (answer.status_code, answer.json()) == (200, {"message": "Logged out everywhere", "sessions": 2})
    assert [works(gateway, tokens) for tokens in (mine, old, theirs)] == [False, False, True]
    assert gateway.post("/api/auth/refresh", {"refresh_token": old["refresh_token"]}).status_code == 401


def test_logging_out_everywhere_else_spares_the_session_that_asks(gateway, owner, teammate):
    mine, old, theirs = owner.log_in(), owner.log_in(), teammate.log_in()
    refused = gateway.post("/api/auth/logout-all?but_this=yes", token=mine["access_token"])
    assert refused.status_code == 400
    assert "but_this" in refusal_of(refused)
    assert works(gateway, old)
    answer = gateway.post("/api/auth/logout-all?but_this=true", token=mine["access_token"])
    assert (answer.status_code, answer.json()) == (200, {"message": "Logged out everywhere else", "sessions": 1})
    assert [works(gateway, tokens) for tokens in (mine, old, theirs)] == [True, False, True]
    assert gateway.post("/api/auth/refresh", {"refresh_token": mine["refresh_token"]}).status_code == 200


def test_nothing_that_a_browser_brings_along_becomes_its_session(gateway, owner, teammate):
    """What somebody else has put into the browser beforehand is worth nothing after the log-in: no session is theirs."""
    planted = teammate.log_in()
    carried = {"Authorization": f"Bearer {planted['access_token']}", "X-Session-Id": session_of(planted)}
    names = ("session", "sid", "token", "sso", "__Host-sso", "openrouter-connect")
    carried |= {"Cookie": "; ".join(f"{name}={session_of(planted)}" for name in names)}
    first, second = owner.log_in(**carried), owner.log_in(**carried)
    new_key = new_derived_key()
    body = {"derived_key": owner.account["derived_key"], "new_derived_key": new_key}
    third = gateway.post("/api/auth/change-key", body, first["access_token"], headers={"Cookie": carried["Cookie"]})
    again = gateway.post("/api/auth/refresh", {"refresh_token": third.json()["refresh_token"]})
    assert "Set-Cookie" not in {*third.headers, *again.headers}
    sessions = [session_of(tokens) for tokens in (planted, first, second, third.json())]
    assert len(set(sessions)) == 4
    assert session_of(again.json()) == sessions[3]
    assert [works(gateway, tokens) for tokens in (planted, first, second, third.json())] == [True, False, False, True]
    refused = gateway.post("/api/auth/refresh", {"refresh_token": second["refresh_token"]})
    assert refused.status_code == 401


def given_out(gateway: Gateway, owner: Person) -> dict[str, str]:
    """One of each that opens an account, by a path that it opens."""
    token = owner.log_in()["access_token"]
    key = gateway.post("/api/api-keys", {"name": "k"}, token).json()["key"]
    return {
        "/api/auth/sessions": token,
        "/v1/models": key,
        "/api/v1/stats": gateway.post("/api/tokens", {"name": "t"}, token).json()["token"],
    }


def opens(gateway: Gateway, given: dict[str, str]) -> list[bool]:
    return [gateway.get(path, credential).status_code == 200 for path, credential in given.items()]


def test_everything_that_was_given_out_ends_at_once_and_nobody_elses(gateway, owner, teammate):
    mine, old, theirs = (given_out(gateway, one) for one in (owner, owner, teammate))
    assert opens(gateway, mine) == opens(gateway, theirs) == [True] * 3
    answer = gateway.post("/api/auth/end-everything", token=mine["/api/auth/sessions"])
    counts = {"sessions": 2, "client_keys": 2, "api_tokens": 2}
    assert (answer.status_code, answer.json()) == (200, {"message": "Everything is ended"} | counts)
    assert opens(gateway, mine) == opens(gateway, old) == [False] * 3
    assert opens(gateway, theirs) == [True] * 3
    events = gateway.get("/api/auth/events", owner.log_in()["token"]).json()["items"]
    assert [event["details"] for event in events if event["action"] == "everything_ended"] == [counts]


@pytest.mark.parametrize("revoke_all", [True, False])
def test_a_new_key_ends_client_keys_and_api_tokens_if_that_is_wanted(gateway, owner, teammate, revoke_all):
    mine, theirs, new_key = given_out(gateway, owner), given_out(gateway, teammate), new_derived_key()
    body = {"derived_key": owner.account["derived_key"], "new_derived_key": new_key, "revoke_all": revoke_all}
    answer = gateway.post("/api/auth/change-key", body, mine["/api/auth/sessions"])
    assert answer.status_code == 200, answer.text
    assert opens(gateway, mine) == [False, not revoke_all, not revoke_all]
    assert opens(gateway, theirs) == [True] * 3
    assert works(gateway, answer.json())


def test_a_new_key_ends_all_sessions_and_gives_a_new_one(gateway, owner):
    mine, old, new_key = owner.log_in(), owner.log_in(), new_derived_key()
    body = {"derived_key": owner.account["derived_key"], "new_derived_key": new_key}
    answer = gateway.post("/api/auth/change-key", body, mine["access_token"])
    assert answer.status_code == 200
    assert [works(gateway, tokens) for tokens in (mine, old, answer.json())] == [False, False, True]
    assert gateway.post("/login", owner.account).status_code == 401
    owner.account["derived_key"] = new_key
    events = gateway.get("/api/auth/events", owner.log_in()["token"]).json()["items"]
    actions = [
        event["action"] for event in events if event["action"] != "login_failed"
    ]  # that is written seconds later
    assert actions == ["logged_in", "key_changed", "logged_in", "logged_in", "registered"]
    assert new_key not in str(events)


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ({"derived_key": new_derived_key()}, 401),
        ({"new_derived_key": "a" * 64}, 400),
        ({"new_derived_key": "$argon2id$v=19$m=1953"}, 400),
        ({"new_derived_key": None}, 400),
    ],
)
def test_a_refused_change_of_the_key_changes_nothing(gateway, owner, changed, status):
    mine = owner.log_in()
    body = {"derived_key": owner.account["derived_key"], "new_derived_key": new_derived_key()}
    answer = gateway.post("/api/auth/change-key", body | changed, mine["access_token"])
    assert answer.status_code == status
    refusal_of(answer)
    assert works(gateway, mine)
    assert owner.log_in()


def test_what_happened_is_shown_to_its_owner_alone(gateway, owner, teammate):
    mine, theirs = owner.log_in(), teammate.log_in()
    assert gateway.post("/api/tokens", {"name": "one"}, mine["access_token"]).status_code == 201
    shown = gateway.get("/api/auth/events?page_size=1", mine["access_token"]).json()
    assert (shown["total"], [item["action"] for item in shown["items"]]) == (3, ["api_token_made"])
    shown = gateway.get("/api/auth/events", theirs["access_token"]).json()
    assert [item["action"] for item in shown["items"]] == ["logged_in", "registered"]
    assert gateway.get("/api/auth/events").status_code == 401


def test_log_ins_that_were_refused_are_shown_to_whose_they_were(gateway, owner, teammate):
    mine, theirs = owner.log_in(), teammate.log_in()
    for _ in range(2):
        wrong = owner.account | {"derived_key": new_derived_key()}
        assert gateway.post("/login", wrong).status_code == 401

    def told() -> dict[str, Any] | None:
        items = gateway.get("/api/auth/events", mine["access_token"]).json()["items"]
        found = [item for item in items if item["action"] == "login_failed"]
        return found[0] if sum(item["details"]["count"] for item in found) == 2 else None

    entry = wait_for(told)
    assert (entry["address"], entry["details"]["method"]) == ("127.0.0.1", "key")
    actions = [item["action"] for item in gateway.get("/api/auth/events", theirs["access_token"]).json()["items"]]
    assert actions == ["logged_in", "registered"]
