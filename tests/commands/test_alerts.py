"""`flask --app app alerts`: what rings, a test, and silences."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from click.testing import Result

from alerts.facts import Fact
from alerts.kinds import KINDS
from services import Services
from tests.support.operator_commands import lines, refusal

Command = Callable[..., Result]


@pytest.fixture
def command(command: Command) -> Command:
    return lambda *words: command("alerts", *words)


def test_what_rings_is_listed(command, services: Services):
    assert lines(command("list")) == []
    services.bell.states.notice(KINDS["pool-resting"], Fact("pool", 0))
    [one] = lines(command("list"))
    assert (one["kind"], one["text"], one["told"]) == ("pool-resting", "No key of the pool can carry a call.", False)


def test_a_test_without_channels_says_what_to_set(command):
    assert "ALERT_WEBHOOK_URL" in refusal(command("test"))


def test_a_kind_is_silenced_and_told_of_again(command, services: Services):
    assert lines(command("silence", "pool-low")) == [{"kind": "pool-low", "state": "silenced"}]
    assert list(services.bell.states.silences()) == ["pool-low"]
    assert lines(command("unsilence", "pool-low")) == [{"kind": "pool-low", "state": "told"}]
    assert services.bell.states.silences() == {}
    assert command("silence", "weather").exit_code == 2
    actions = [(one.action, one.subject) for one in services.audit.page(1, 10)[0]]
    assert actions == [("alerts_unsilenced", "alerts/pool-low"), ("alerts_silenced", "alerts/pool-low")]
