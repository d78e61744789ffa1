"""One's own account: seen and named by oneself, and by nobody else."""

from __future__ import annotations

import pytest

from tests.support.gateway import ADMIN_TOKEN, Gateway, refusal_of, user_id_of

FIELDS = {
    "id",
    "display_name",
    "shares_display_name",
    "avatar_url",
    "state",
    "role",
    "trust_level",
    "created_at",
    "last_login",
}


@pytest.fixture
def owner(administered: Gateway) -> str:
    return administered.new_user()


def test_one_sees_ones_own_account_without_any_hash(administered, owner):
    teammate = administered.new_user()
    seen = administered.get("/api/auth/me", owner).json()
    assert set(seen) == FIELDS | {"upstream_choice"}
    assert seen["id"] == user_id_of(owner) != administered.get("/api/auth/me", teammate).json()["id"]
    assert (seen["state"], seen["role"], seen["trust_level"]) == ("active", "user", 0)
    assert (seen["display_name"], seen["avatar_url"]) == (None, None)
    assert seen["last_login"] >= seen["created_at"]
    assert administered.get("/api/auth/me").status_code == 401


@pytest.mark.parametrize(
    "name", ["Ann", "用户 名", "O'Neill; DROP TABLE users --", "<b>Ann</b>", "🔑", "é" * 100, None]
)
def test_one_names_oneself_and_nobody_else(administered, owner, name):
    teammate = administered.new_user()
    assert administered.ask("PUT", "/api/auth/profile", {"display_name": "before"}, owner).status_code == 200
    answer = administered.ask("PUT", "/api/auth/profile", {"display_name": name}, owner)
    assert answer.status_code == 200
    assert answer.json() == administered.get("/api/auth/me", owner).json()
    assert answer.json()["display_name"] == name
    assert administered.get("/api/auth/me", teammate).json()["display_name"] is None
    assert administered.ask("PUT", "/api/auth/profile", {"display_name": "x"}).status_code == 401


def test_names_that_are_not_shared_are_shown_to_no_operator_and_written_to_no_log(administered, owner):
    assert administered.ask("PUT", "/api/auth/profile", {"display_name": "Annabel-7731"}, owner).status_code == 200
    user_id = user_id_of(owner)
    paths = (f"/admin/users/{user_id}", "/admin/users?page_size=100", f"/admin/audit?user_id={user_id}")
    answers = [administered.get(path, ADMIN_TOKEN) for path in paths]
    assert [answer.status_code for answer in answers] == [200, 200, 200]
    assert "profile_changed" in answers[2].text
    assert not any("Annabel" in answer.text or "display_name" in answer.text for answer in answers)
    assert "Annabel" not in administered.log()


@pytest.mark.parametrize(
    "body",
    [
        {"display_name": value}
        for value in ("", " ", " Ann", "Ann ", "A\nnn", "A\u202enn", "A\u200bnn", "A\0nn", "é" * 101, 7, True, ["Ann"])
    ]
    + [
        {},
        [],
        {"display_name": "x", "shares_display_name": "yes"},
        {"display_name": "x", "avatar_url": "https://example.com/"},
        {"display_name": "x", "role": "admin"},
    ],
    ids=ascii,
)
def test_what_is_no_name_is_refused_and_changes_nothing(administered, owner, body):
    assert administered.ask("PUT", "/api/auth/profile", {"display_name": "Ann"}, owner).status_code == 200
    before = administered.get("/api/auth/me", owner).json()
    answer = administered.ask("PUT", "/api/auth/profile", body, owner)
    assert answer.status_code == 400
    refusal_of(answer)
    assert administered.get("/api/auth/me", owner).json() == before
