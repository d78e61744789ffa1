"""Passwords over HTTP: the same account as with derived keys, one answer to everybody who is not let in."""

from __future__ import annotations

import secrets
from typing import Any

import pytest
import requests

from clients.python.openrouter_proxy_client import KdfParameters, derive_key
from tests.support.gateway import ADMIN_TOKEN, Gateway, check_headers, new_derived_key, refusal_of, user_id_of

PASSWORD, NEW = "Tr4in-to-Nowhere", "N0where-to-Train"


class Person:
    """Somebody who has signed up with a password."""

    def __init__(self, gateway: Gateway, password: str = PASSWORD) -> None:
        self.gateway = gateway
        self.email = f"{secrets.token_hex(8)}@example.com"
        body = {"email": self.email, "password": password, "password_confirm": password}
        self.signed_up = gateway.post("/api/auth/register", body)
        assert self.signed_up.status_code == 201, self.signed_up.text

    def try_to_log_in(self, password: str = PASSWORD) -> requests.Response:
        return self.gateway.post("/api/auth/login", {"email": self.email, "password": password})

    def log_in(self, password: str = PASSWORD) -> dict[str, Any]:
        answer = self.try_to_log_in(password)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def log_in_with_key(self, password: str = PASSWORD) -> requests.Response:
        """As a client that derives the key itself."""
        key = derive_key(self.email, password, parameters_of(self.gateway))
        return self.gateway.post("/login", {"username": self.email, "derived_key": key})

    def change(self, token: str | None, **changed: Any) -> requests.Response:
        body = {"email": self.email, "password": PASSWORD, "new_password": NEW, "new_password_confirm": NEW}
        return self.gateway.post("/api/auth/change-password", body | changed, token)


def parameters_of(gateway: Gateway) -> KdfParameters:
    """How this gateway wants keys derived."""
    return KdfParameters.from_answer(gateway.get("/api/auth/kdf").json())


@pytest.fixture
def owner(administered: Gateway) -> Person:
    return Person(administered)


@pytest.fixture
def teammate(administered: Gateway) -> Person:
    return Person(administered)


def works(gateway: Gateway, tokens: dict[str, Any]) -> bool:
    """Whether a session's access token is accepted."""
    return gateway.get("/api/auth/sessions", tokens["access_token"]).status_code == 200


# ── sign up and log in


def test_signing_up_is_answered_as_with_a_key_to_the_byte(owner):
    assert owner.signed_up.content == b'{"message":"User registered successfully"}'
    check_headers(owner.signed_up)


def test_both_forms_log_in_to_one_account(administered, owner, teammate):
    by_password, by_key = owner.log_in(), owner.log_in_with_key().json()
    assert by_password.keys() == by_key.keys()
    assert by_password["user"] == by_key["user"] != teammate.log_in()["user"]
    items = administered.get("/api/auth/sessions", by_key["token"]).json()["items"]
    assert [item["method"] for item in items] == ["key", "password"]
    events = administered.get("/api/auth/events", by_key["token"]).json()["items"]
    assert [(event["action"], event["details"]["method"]) for event in events] == [
        ("logged_in", "key"),
        ("logged_in", "password"),
        ("registered", "password"),
    ]


@pytest.mark.parametrize("name", ["{}", "{}@example.com", "用户{}@例子.中国"])
def test_who_signed_up_with_a_key_logs_in_with_the_password(administered, name):
    username = name.format(secrets.token_hex(8))
    key = derive_key(
        username, "any 🔑", parameters_of(administered)
    )  # of a derived key nobody can say what password it is of
    assert administered.post("/register", {"username": username, "derived_key": key}).status_code == 201
    answer = administered.post("/api/auth/login", {"email": username, "password": "any 🔑"})
    assert answer.status_code == 200


def test_a_taken_name_is_a_400_in_the_agreed_words_in_either_form(administered, owner):
    body = {"email": owner.email, "password": NEW, "password_confirm": NEW}
    by_key = {"username": owner.email, "derived_key": new_derived_key()}
    for path, account in (("/api/auth/register", body), ("/register", by_key)):
        answer = administered.post(path, account)
        assert answer.status_code == 400
        assert refusal_of(answer) == "Username already exists"
        assert answer.json()["error"]["type"] == "username_taken"
    assert owner.log_in()


def test_unknown_user_and_wrong_password_get_the_bytes_of_every_refused_log_in(administered, owner, teammate):
    attempts = [{"email": owner.email, "password": word} for word in (NEW, PASSWORD.lower(), PASSWORD + " ", "x")]
    attempts += [{"email": f"{secrets.token_hex(8)}@example.com", "password": PASSWORD}]
    attempts += [{"email": owner.email.upper(), "password": PASSWORD}]
    answers = [administered.post("/api/auth/login", attempt) for attempt in attempts]
    answers += [administered.post("/login", {"username": teammate.email, "derived_key": new_derived_key()})]
    for answer in answers:
        assert answer.status_code == 401
        assert refusal_of(answer) == "Invalid credentials"
    assert len({answer.content for answer in answers}) == 1
    varying = {"date", "x-request-id"}
    heads = [{name.lower(): value for name, value in answer.headers.items()} for answer in answers]
    assert len({str(sorted((name, one[name]) for name in one if name not in varying)) for one in heads}) == 1


def test_a_disabled_user_is_told_so_only_after_the_right_password(administered, owner):
    user_id = user_id_of(owner.log_in()["token"])
    changed = administered.ask("PATCH", f"/admin/users/{user_id}", {"state": "disabled"}, ADMIN_TOKEN)
    assert changed.status_code == 200
    assert owner.try_to_log_in(NEW).status_code == 401
    refused = owner.try_to_log_in()
    assert (refused.status_code, refusal_of(refused)) == (403, "This account is disabled")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"password": "short"},
            "password must have at least 12 characters, an upper-case letter, a digit, a character",
        ),
        ({"password": "", "password_confirm": ""}, "password must be a text of 1 to 1024 characters"),
        ({"password": "Aa1-" * 257}, "password must be a text of 1 to 1024 characters"),
        ({"password": [PASSWORD]}, "password must be a text"),
        ({"password": None}, "password must be a text"),
        ({"password_confirm": NEW}, "password_confirm must be the same text as password"),
        ({"password_confirm": None}, "password_confirm must be a text"),
        ({"email": "ann"}, "email must be an e-mail address, as ann@example.com"),
        ({"email": "ann@example"}, "email must be an e-mail address"),
        ({"email": "ann@@example.com"}, "email must be an e-mail address"),
        ({"email": "a b@example.com"}, "email must be an e-mail address"),
        ({"email": " ann@example.com"}, "email must not begin or end with a space"),
        ({"email": "ann\n@example.com"}, "email must not begin or end with a space or hold control characters"),
        ({"email": "a" * 250 + "@example.com"}, "email must be a text of 1 to 255 characters"),
        ({"email": "train-to@example.com", "password": "Train-to-N0where"}, "password must not contain"),
        (
            {"username": "ann"},
            "There is no field 'username' here; this takes email, invitation, password, password_confirm",
        ),
        ({"derived_key": new_derived_key()}, "There is no field 'derived_key' here"),
    ],
)
def test_a_refused_sign_up_says_why_repeats_no_password_and_makes_no_account(administered, changed, message):
    body = {
        "email": f"{secrets.token_hex(8)}@example.com",
        "password": PASSWORD,
        "password_confirm": PASSWORD,
    } | changed
    answer = administered.post("/api/auth/register", body)
    assert answer.status_code == 400
    assert refusal_of(answer).startswith(message)
    assert not any(word in answer.text for word in ('short"', PASSWORD, NEW, "Train-to-N0where", "Aa1-"))
    again = administered.post("/api/auth/login", {"email": str(body["email"]), "password": PASSWORD})
    assert again.status_code in {400, 401}


@pytest.mark.parametrize("body", [{"email": "a@b.cd"}, {"password": PASSWORD}, {"email": 7, "password": PASSWORD}, []])
def test_a_log_in_that_is_none_is_a_400(administered, body):
    answer = administered.post("/api/auth/login", body)
    assert answer.status_code == 400
    assert PASSWORD not in refusal_of(answer)


# ── is it free?


def test_whether_a_name_is_free_is_told_for_either_form(administered, owner):
    by_key = f"{secrets.token_hex(8)} & co"
    account = {"username": by_key, "derived_key": new_derived_key()}
    names = {owner.email: False, by_key: True, f"x{owner.email}": True}
    for signed_up in (False, True):
        for name, is_free in names.items():
            answer = requests.get(f"{administered.url}/api/auth/check-username", params={"username": name}, timeout=30)
            assert (answer.status_code, answer.json()) == (200, {"available": is_free})
        if not signed_up:
            assert administered.post("/register", account).status_code == 201
            names[by_key] = False


@pytest.mark.parametrize("query", ["", "?username=", "?username=%20x", "?username=a&username=b", "?email=a@b.cd"])
def test_a_question_without_a_usable_name_is_a_400(administered, query):
    answer = administered.get(f"/api/auth/check-username{query}")
    assert answer.status_code == 400
    refusal_of(answer)


# ── another password


def test_a_new_password_ends_all_sessions_and_holds_in_both_forms(administered, owner, teammate):
    mine, old, theirs = owner.log_in(), owner.log_in_with_key().json(), teammate.log_in()
    answer = owner.change(mine["token"])
    assert answer.status_code == 200
    new = answer.json()
    assert set(new) == {"access_token", "refresh_token", "token_type", "expires_in", "user"}
    assert [works(administered, tokens) for tokens in (mine, old, new, theirs)] == [False, False, True, True]
    assert administered.post("/api/auth/refresh", {"refresh_token": old["refresh_token"]}).status_code == 401
    assert (owner.try_to_log_in().status_code, owner.log_in_with_key().status_code) == (401, 401)
    assert (owner.try_to_log_in(NEW).status_code, owner.log_in_with_key(NEW).status_code) == (200, 200)
    items = administered.get("/api/auth/events", new["access_token"]).json()["items"]
    actions = [item["action"] for item in items if item["action"] != "login_failed"]  # that is written seconds later
    assert actions[2:] == ["password_changed", "logged_in", "logged_in", "registered"]
    assert "password_changed" not in administered.get("/api/auth/events", theirs["token"]).text


def test_wrong_passwords_and_others_addresses_are_refused_alike_and_nothing_changes(administered, owner, teammate):
    mine, theirs = owner.log_in(), teammate.log_in()
    refused = [
        owner.change(mine["token"], password=NEW, new_password=PASSWORD, new_password_confirm=PASSWORD),
        owner.change(mine["token"], email=teammate.email),  # whose password is the same
        owner.change(mine["token"], email="nobody@example.com"),
        owner.change(mine["token"], email=owner.email.upper()),
        teammate.change(mine["token"]),
    ]
    for answer in refused:
        assert (answer.status_code, refusal_of(answer)) == (401, "Invalid credentials")
    assert len({answer.content for answer in refused}) == 1
    stranger = owner.change(None)
    assert stranger.status_code == 401
    assert [works(administered, tokens) for tokens in (mine, theirs)] == [True, True]
    assert owner.log_in()["user"] == mine["user"]
    assert teammate.log_in()["user"] == theirs["user"]


def test_the_address_has_to_be_the_accounts_own_even_if_the_key_was_derived_with_another(administered, owner):
    account = {
        "username": f"x{owner.email}",
        "derived_key": derive_key(owner.email, PASSWORD, parameters_of(administered)),
    }
    assert administered.post("/register", account).status_code == 201
    theirs = administered.post("/login", account).json()
    answer = owner.change(theirs["token"])
    assert (answer.status_code, refusal_of(answer)) == (401, "Invalid credentials")
    assert works(administered, theirs)
    assert administered.post("/login", account).status_code == 200


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"new_password": "Sh0rt-one"}, "new_password must have at least 12 characters"),
        ({"new_password_confirm": PASSWORD}, "new_password_confirm must be the same text as new_password"),
        ({"new_password": None}, "new_password must be a text of 1 to 1024 characters"),
        ({"email": None}, "email must be a text of 1 to 255 characters"),
        ({"user_id": 1}, "There is no field 'user_id' here"),
    ],
)
def test_a_refused_change_of_the_password_changes_nothing(administered, owner, changed, message):
    mine = owner.log_in()
    answer = owner.change(mine["token"], **changed)
    assert answer.status_code == 400
    assert refusal_of(answer).startswith(message)
    assert not any(word in answer.text for word in ("Sh0rt", PASSWORD, NEW))
    assert works(administered, mine)
    assert owner.log_in()


def test_no_password_and_no_name_is_in_the_log(administered, owner):
    owner.change(owner.log_in()["token"])
    owner.try_to_log_in()
    administered.get(f"/api/auth/check-username?username={owner.email}")
    log = administered.log()
    assert "password_changed" in log
    assert not any(
        word in log for word in (PASSWORD, NEW, owner.email, derive_key(owner.email, NEW, parameters_of(administered)))
    )
