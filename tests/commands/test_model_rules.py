"""`flask --app app model-rules`: set, listed and removed, with an entry in the audit log for each change."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import Result

from services import Services

Command = Callable[..., Result]
MINI, GROK = "openai/gpt-4o-mini", "x-ai/grok-4"


@pytest.fixture
def command(command: Command) -> Command:
    return lambda *words: command("model-rules", *words)


def lines(result: Result) -> list[dict[str, Any]]:
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_a_rule_is_set_listed_and_removed(command: Command, services: Services):
    fallback = f"{MINI} upstream=openrouter after=away,moderated"
    [added] = lines(
        command("set", GROK, "--fallback", fallback, "--timeout-seconds", "60", "--upstream", "openrouter=9")
    )
    shown = {"model": MINI, "upstream": "openrouter", "after": ["away", "moderated"]}
    assert (added["model"], added["fallbacks"], added["timeout_seconds"]) == (GROK, [shown], 60)
    assert (added["upstreams"], added["choose_by"]) == ([{"upstream": "openrouter", "weight": 9}], "weight")
    assert lines(command("list")) == [added]
    assert lines(command("remove", GROK)) == [{"model": GROK, "state": "removed"}]
    assert lines(command("list")) == []
    entries, _ = services.audit.page(1, 10)
    assert [(one.actor, one.action, one.subject) for one in entries] == [
        ("cli", "model_rule_removed", f"model-rule/{GROK}"),
        ("cli", "model_rule_set", f"model-rule/{GROK}"),
    ]


def test_what_is_no_rule_is_refused_and_changes_nothing(command: Command, services: Services):
    for words in (
        [],
        ["--fallback", "a b"],
        ["--fallback", f"{MINI} after=luck"],
        ["--timeout-seconds", "0"],
        ["--timeout-seconds", "x"],
        ["--upstream", "nowhere"],
        ["--upstream", "openrouter=x"],
        ["--upstream", "openrouter", "--upstream", "openrouter"],
        ["--timeout-seconds", "5", "--choose-by", "luck"],
    ):
        assert command("set", GROK, *words).exit_code != 0, words
    assert command("remove", "nobody").exit_code != 0
    assert services.model_rules.rows() == []
