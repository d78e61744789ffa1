"""The log of changes by command: newest first, filtered, and in columns that fit for people."""

from __future__ import annotations

from tests.support.operator_commands import lines


def test_changes_are_listed_newest_first_and_filtered(command, services):
    assert lines(command("audit", "list")) == []
    for number in (1, 2, 3):
        services.audit.record("cli", f"made_{number}", f"user/{number}", number, why="[/tried]")
    shown = lines(command("audit", "list"))
    assert [line["action"] for line in shown] == ["made_3", "made_2", "made_1"]
    assert shown[0]["details"] == {"why": "[/tried]"}
    for words in (["--action", "made_2"], ["--user-id", 2], ["--page", 2, "--page-size", 1]):
        assert [line["subject"] for line in lines(command("audit", "list", *words))] == ["user/2"]
    assert command("audit", "list", "--user-id", 0).exit_code == 2


def test_a_person_sees_who_did_what(services, on_screen):
    services.audit.record("cli", "made", "user/1", 1, why="[/tried]")
    shown = on_screen("audit", "list", COLUMNS=200).stdout
    assert "Changes: 1" in shown
    [line] = [line for line in shown.splitlines() if line.startswith("│")]
    assert [cell.strip() for cell in line.strip("│").split("│")][1:] == [
        "cli",
        "made",
        "user/1",
        "",
        '{"why":"[/tried]"}',
    ]


def test_a_person_sees_a_pool_key_by_its_short_name_and_a_program_by_its_whole_one(services, command, on_screen):
    name = "gw/eecc3617-5e8a-4f0b-9f43-1f6a5d0a9b11/0123456789abcdef70f9"
    services.audit.record("cli", "pool_key_enabled", f"pool/{name}")
    shown = on_screen("audit", "list", COLUMNS=200).stdout
    assert "pool/k-70f9" in shown
    assert name not in shown
    assert [line["subject"] for line in lines(command("audit", "list"))] == [f"pool/{name}"]
