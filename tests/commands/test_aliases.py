"""`flask --app app aliases`: set, listed and removed, with an entry in the audit log for each change."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import Result

from services import Services

Command = Callable[..., Result]


@pytest.fixture
def command(command: Command) -> Command:
    return lambda *words: command("aliases", *words)


def lines(result: Result) -> list[dict[str, Any]]:
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_an_alias_is_set_listed_and_removed(command: Command, services: Services):
    [added] = lines(command("set", "fast", "openai/gpt-4o-mini=9", "x-ai/grok-4"))
    assert added["models"] == [{"model": "openai/gpt-4o-mini", "weight": 9}, {"model": "x-ai/grok-4", "weight": 1}]
    assert [one["name"] for one in lines(command("list"))] == ["fast"]
    assert lines(command("remove", "fast")) == [{"name": "fast", "state": "removed"}]
    assert lines(command("list")) == []
    entries, _ = services.audit.page(1, 10)
    assert [(one.actor, one.action, one.subject) for one in entries] == [
        ("cli", "alias_removed", "alias/fast"),
        ("cli", "alias_set", "alias/fast"),
    ]


def test_what_is_no_alias_is_refused_and_changes_nothing(command: Command, services: Services):
    for words in (["a/b", "m"], ["fast"], ["fast", "m=x"], ["fast", "m=0"], ["fast", "m", "m=2"], ["fast", "fast"]):
        assert command("set", *words).exit_code != 0
    assert command("remove", "nobody").exit_code != 0
    assert services.aliases.rows() == []
