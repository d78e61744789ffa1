"""Client keys by command: made, with their text once; listed, shown, revoked; refused where they make no sense."""

from __future__ import annotations

import re

import pytest

from tests.support.gateway import new_derived_key
from tests.support.operator_commands import lines, refusal

LIMITED = ["--scope", "chat", "--model", "openai/*", "--model", "a/b", "--upstream", "openrouter", "--rpm", "7"]
BUDGET = ["--budget", "2.5", "--period", "week", "--recovery", "steady", "--expires", "2999-01-01"]


def test_a_key_is_made_shown_listed_and_revoked(command, services):
    user_id = services.auth.register("owner", new_derived_key())
    [made] = lines(command("keys", "create", "nightly report", "--user", user_id, *LIMITED, *BUDGET))
    secret = made.pop("key")
    assert re.fullmatch(r"sk-auto-[\w-]{43}", secret)
    assert (made["key_hint"], made["user_id"], made["state"]) == (f"{secret[:10]}****", user_id, "active")
    assert (made["scopes"], made["models"], made["upstreams"]) == (["chat"], ["a/b", "openai/*"], ["openrouter"])
    assert (made["rpm"], made["expires_at"][:10]) == (7, "2999-01-01")
    assert made["budget"]["limit_usd"] == 2.5
    assert services.client_keys.live.find(secret).id == made["id"]
    shown = command("keys", "show", made["id"])
    assert lines(shown) == lines(command("keys", "list")) == lines(command("keys", "list", "--user", user_id)) == [made]
    assert secret not in shown.stdout
    [revoked] = lines(command("keys", "revoke", made["id"]))
    assert revoked["state"] == "revoked"
    assert services.client_keys.live.find(secret) is None
    assert lines(command("keys", "list", "--state", "active")) == []
    assert lines(command("keys", "list", "--state", "revoked")) == [revoked]
    assert "There is no client key" in refusal(command("keys", "revoke", made["id"]))
    entries, _ = services.audit.page(1, 10)
    assert [(entry.actor, entry.action, entry.user_id) for entry in entries] == [
        ("cli", "client_key_revoked", user_id),
        ("cli", "client_key_made", user_id),
    ]
    assert secret not in str(entries)


def test_a_key_without_limits_of_nobody(command, services):
    [made] = lines(command("keys", "create", "cron"))
    assert [made[name] for name in ("scopes", "models", "upstreams", "rpm", "budget", "expires_at")] == [None] * 6
    assert services.users.find_by_id(made["user_id"])


def test_pages_are_cut_as_asked(command):
    made = [lines(command("keys", "create", f"key {number}"))[0]["id"] for number in range(3)]
    assert [line["id"] for line in lines(command("keys", "list", "--page", "2", "--page-size", "1"))] == [made[1]]


def test_a_person_gets_a_table_and_the_secret_once(on_screen):
    made = on_screen("keys", "create", "nightly [bold]report", "--budget", "2", "--model", "openai/*")
    assert made.returncode == 0
    [secret] = re.findall(r"sk-auto-[\w-]{43}", made.stdout)
    for words in (["list"], ["show", "1"]):
        shown = on_screen("keys", *words).stdout
        assert "****" in shown
        assert "[bold]" in shown
        assert secret not in shown
    assert "openai/*" in shown
    assert "$2.00" in on_screen("keys", "list").stdout


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["show", "7"], "There is no client key 7"),
        (["revoke", "7"], "There is no client key 7"),
        (["create", "x", "--user", "999999"], "There is no user 999999"),
        (["create", " "], "name must have 1 to 190 characters"),
        (["create", "x", "--model", "a*b"], "models must be a list"),
        (["create", "x", "--budget", "-1"], "--budget must be an amount of dollars"),
        (["create", "x", "--expires", "2001-01-01"], "expires_at must be in the future"),
        (["create", "x", "--budget", "1", "--period", "none", "--recovery", "steady"], "recovers steadily only with"),
    ],
)
def test_what_makes_no_sense_is_refused(command, words, told):
    assert told in refusal(command("keys", *words))
    assert lines(command("keys", "list")) == []


@pytest.mark.parametrize(
    "words",
    [
        "create",
        "create x --scope admin",
        "create x --rpm 0",
        "create x --period day",
        "show x",
        "show 0",
        "list --state lost",
    ],
)
def test_what_is_no_command_exits_with_2(command, words):
    assert command("keys", *words.split()).exit_code == 2
