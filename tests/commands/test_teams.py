"""`flask --app app teams`: made, shown, changed and deleted, with an entry in the audit log for each change."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from click.testing import Result

from services import Services
from tests.support.gateway import new_derived_key
from tests.support.operator_commands import lines, refusal

Command = Callable[..., Result]


@pytest.fixture
def command(command: Command) -> Command:
    return lambda *words: command("teams", *words)


def test_a_team_is_made_changed_listed_and_deleted(command: Command, services: Services):
    words = ["--model", "openai/*", "--upstream", "openrouter", "--limit", "5", "--period", "week"]
    [made] = lines(command("create", "research", *words))
    assert (made["models"], made["upstreams"], made["quota"]["limit_usd"]) == (["openai/*"], ["openrouter"], 5)
    [changed] = lines(command("change", made["id"], "--name", "lab", "--all-models"))
    assert (changed["name"], changed["models"], changed["upstreams"]) == ("lab", None, ["openrouter"])
    assert lines(command("list")) == [changed]
    assert lines(command("delete", made["id"])) == [{"id": made["id"], "name": "lab", "state": "deleted"}]
    assert lines(command("list")) == []
    entries, _ = services.audit.page(1, 10)
    assert [(one.action, one.subject) for one in entries] == [
        (f"team_{what}", f"team/{made['id']}") for what in ("deleted", "changed", "made")
    ]


def test_people_are_added_made_managers_and_removed(command: Command, services: Services):
    [team] = lines(command("create", "research"))
    ann, bob = (services.auth.register(name, new_derived_key()) for name in ("ann", "bob"))
    lines(command("add", team["id"], ann))
    lines(command("add", team["id"], bob, "--role", "manager"))
    people = lines(command("show", team["id"]))
    assert [(one["user_id"], one["role"], one["spent_usd"]) for one in people] == [
        (bob, "manager", 0),
        (ann, "member", 0),
    ]
    assert "this team already" in refusal(command("add", team["id"], ann))
    assert lines(command("role", team["id"], bob, "member"))[0]["role"] == "member"
    assert lines(command("remove", team["id"], bob))[0]["role"] is None
    assert [one["user_id"] for one in lines(command("show", team["id"]))] == [ann]
    entries, _ = services.audit.page(1, 10)
    assert [(one.action, one.user_id) for one in entries][:4] == [
        ("team_member_removed", bob),
        ("team_role_changed", bob),
        ("team_member_added", bob),
        ("team_member_added", ann),
    ]


def test_what_makes_no_sense_is_refused_and_changes_nothing(command: Command):
    [team] = lines(command("create", "research"))
    for words in (
        ["create", "research"],
        ["create", "x", "--limit", "-1"],
        ["create", "x", "--period", "day"],
        ["create", "x", "--model", "a b"],
        ["change", team["id"]],
        ["change", team["id"], "--model", "a/b", "--all-models"],
        ["change", 99, "--name", "x"],
        ["delete", 99],
        ["add", team["id"], 99],
        ["role", team["id"], 99, "manager"],
        ["remove", team["id"], 99],
        ["show", 99],
    ):
        assert command(*words).exit_code != 0, words
    assert lines(command("list")) == [team]


def test_a_terminal_gets_tables(on_screen):
    on_screen("teams", "create", "research", "--limit", "5")
    shown = on_screen("teams", "list")
    assert "research" in str(shown)
    assert "$5.00 of $5.00" in str(shown)
