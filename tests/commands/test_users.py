"""Accounts by command: shown without their names, found by name, changed, and every change written down."""

from __future__ import annotations

import pytest

from accounts.users import UserRole, UserState
from tests.support.gateway import new_derived_key
from tests.support.operator_commands import lines, refusal

NAME = "owner@example.com"


@pytest.fixture
def user_id(services) -> int:
    services.auth.register("other@example.com", new_derived_key())
    return services.auth.register(NAME, new_derived_key())


def test_an_account_is_found_by_a_name_that_is_never_repeated(command, services, user_id):
    for typed in (NAME, f"{NAME}\n", f"{NAME}\r\n"):
        found = command("users", "find", stdin=typed)
        assert [line["id"] for line in lines(found)] == [user_id]
        assert NAME not in found.output
    unknown = refusal(command("users", "find", stdin=f"x{NAME}"))
    assert unknown == "Error: There is no user of this name\n"
    assert "username must be" in refusal(command("users", "find", stdin=""))
    assert command("users", "find", NAME).exit_code == 2


def test_a_person_is_asked_for_the_name_and_gets_a_table(services, user_id, on_screen):
    shown = on_screen("users", "find", typed={"Username: ": NAME}, COLUMNS=200)
    assert shown.returncode == 0
    [line] = [line for line in shown.stdout.splitlines() if line.startswith("│")]
    cells = [cell.strip() for cell in line.strip("│").split("│")]
    assert (cells[:4], cells[6]) == ([str(user_id), "active", "user", "0"], "dedicated_first")


def test_accounts_are_listed_newest_first_and_by_what_they_are(command, services, user_id):
    assert [line["id"] for line in lines(command("users", "list"))] == [user_id, user_id - 1]
    services.users.change(user_id - 1, UserState.SILENCED, UserRole.ADMIN, 4)
    for words in (["--state", "silenced"], ["--role", "admin"], ["--trust-level", 4], ["--page", 2, "--page-size", 1]):
        assert [line["id"] for line in lines(command("users", "list", *words))] == [user_id - 1]
    assert lines(command("users", "list", "--state", "silenced", "--role", "user")) == []
    for words in (["--state", "gone"], ["--role", "root"], ["--trust-level", 5], ["--page", 0]):
        assert command("users", "list", *words).exit_code == 2


def test_an_account_is_shown_with_its_quota(command, services, user_id):
    [before] = lines(command("users", "show", user_id))
    assert (before["state"], before["limit_usd"]) == ("active", None)
    services.quotas.set(f"user/{user_id}", 10**9, None, "day", "reset")
    [after] = lines(command("users", "show", user_id))
    assert after == before | {"limit_usd": 1.0, "spent_usd": 0.0, "remaining_usd": 1.0}
    assert refusal(command("users", "show", 999999)) == "Error: There is no user 999999\n"


def test_a_change_holds_and_is_written_down_and_nothing_else_is(command, services, user_id):
    session = services.sessions.start(user_id)
    [shown] = lines(command("users", "set", user_id, "--role", "admin", "--trust-level", 2))
    assert (shown["role"], shown["trust_level"], shown["state"]) == ("admin", 2, "active")
    lines(command("users", "set", user_id, "--role", "admin"))
    lines(command("users", "set", user_id, "--state", "disabled"))
    services.users.reload()
    services.sessions.reload()
    assert services.users.restricted == {user_id: UserState.DISABLED}
    assert services.sessions.ended == {session.id}
    entries, _ = services.audit.page(1, 20)
    assert [(entry.actor, entry.action, entry.user_id, entry.details) for entry in entries] == [
        ("cli", "user_changed", user_id, {"state": "disabled", "old_state": "active"}),
        (
            "cli",
            "user_changed",
            user_id,
            {"role": "admin", "old_role": "user", "trust_level": 2, "old_trust_level": 0},
        ),
    ]


def test_a_label_is_set_shown_and_taken_away(command, services, user_id):
    [shown] = lines(command("users", "set", user_id, "--label", "marketing, laptop 3"))
    assert (shown["label"], shown["user_label"]) == ("marketing, laptop 3", "marketing, laptop 3")
    services.quotas.set(f"user/{user_id}", 10**9, None, "day", "reset")
    assert [line["user_label"] for line in lines(command("quota", "list"))] == ["marketing, laptop 3"]
    assert [line["user_label"] for line in lines(command("users", "list"))] == ["marketing, laptop 3", None]
    audited = lines(command("audit", "list", "--action", "user_labelled"))
    assert [(line["user_id"], line["user_label"], line["details"]) for line in audited] == [
        (user_id, "marketing, laptop 3", {})
    ]
    assert command("users", "set", user_id, "--label", "a\nb").exit_code == 2
    [shown] = lines(command("users", "set", user_id, "--label", ""))
    assert shown["user_label"] is None


def test_what_makes_no_sense_is_refused_and_changes_nothing(command, services, user_id):
    before = services.users.get(user_id)
    for words in ([], ["--role", "service"], ["--state", "gone"], ["--trust-level", 9], ["--name", "x"]):
        assert command("users", "set", user_id, *words).exit_code == 2
    assert refusal(command("users", "set", 999999, "--role", "user")) == "Error: There is no user 999999\n"
    assert services.users.get(user_id) == before
    assert services.audit.page(1, 20) == ([], 0)


def test_a_reset_link_is_shown_once_and_written_down(command, services, user_id):
    [shown] = lines(command("users", "reset-link", user_id))
    text = shown["link"].partition("/reset#reset=")[2]
    assert services.recovery.links.get_open(text).user_id == user_id
    [entry], _ = services.audit.page(1, 20)
    assert (entry.actor, entry.action, entry.user_id) == ("cli", "reset_link_made", user_id)
    assert text not in str(entry)
    assert refusal(command("users", "reset-link", 999999)) == "Error: There is no user 999999\n"
