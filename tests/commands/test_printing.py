"""What all commands share: JSON lines for programs and for who asks for them, one line for a refusal, an entry each."""

from __future__ import annotations

import json

from app import create_command_line
from commands.printing import Commands
from tests.support.gateway import new_derived_key
from tests.support.operator_commands import KEY, lines, refusal


def test_a_person_sees_a_table_and_json_lines_with_json(command, on_screen):
    lines(command("pool", "add", "--name", "mine", stdin=KEY))
    assert "Key pool: 1 usable" in on_screen("pool").stdout
    for words in (["pool", "--json"], ["pool", "disable", "mine", "--json"], ["pool", "--json", "enable", "mine"]):
        shown = on_screen(*words)
        assert shown.returncode == 0
        assert [json.loads(line)["name"] for line in shown.stdout.splitlines()] == ["mine"]
    assert lines(command("pool", "--json")) == lines(command("pool"))


def test_every_command_takes_json(services):
    groups = [group for group in create_command_line(services).cli.commands.values() if isinstance(group, Commands)]
    assert len(groups) > 5
    found = [one for group in groups for one in group.commands.values()]
    assert [one.name for one in found if "--json" not in [text for part in one.params for text in part.opts]] == []


def test_a_refusal_is_one_line_and_exit_code_1_and_leaves_no_entry(command, services):
    assert refusal(command("pool", "disable", "nobody")) == "Error: There is no pool key named 'nobody'\n"
    assert refusal(command("quota", "set", "group/1")).count("\n") == 1
    assert services.audit.page(1, 20) == ([], 0)


def test_a_change_is_written_down_with_whom_it_concerns(command, services):
    user_id = services.auth.register("owner", new_derived_key())
    lines(command("quota", "set", f"user/{user_id}", "--limit", "2.5"))
    lines(command("quota", "reset", f"user/{user_id}"))
    lines(command("quota", "set", "key/7"))
    entries, _ = services.audit.page(1, 20)
    assert [(entry.actor, entry.action, entry.subject, entry.user_id) for entry in entries] == [
        ("cli", "quota_set", "key/7", None),
        ("cli", "quota_reset", f"user/{user_id}", user_id),
        ("cli", "quota_set", f"user/{user_id}", user_id),
    ]
    assert entries[-1].details == {"limit_usd": 2.5, "soft_limit_usd": None, "period": "month", "recovery": "reset"}
