"""What operators see of watched keys: how many are in each state, and nothing of what they are."""

from __future__ import annotations

from tests.support.gateway import new_derived_key
from tests.support.operator_commands import KEY, lines
from upstream.openrouter.key_facts import KeyAccount

NONE = {"keys": 0, "due": 0, "failing": 0}


def test_the_states_are_counted(command, services):
    owner = services.auth.register("owner", new_derived_key())
    services.watched_key_sync.keys.add(owner, "laptop", KEY, KeyAccount(None, None, None, 7, 7))
    assert lines(command("personal-keys", "status")) == [
        {"state": "valid", "keys": 1, "due": 0, "failing": 0},
        {"state": "suspect", **NONE},
        {"state": "refused", **NONE},
    ]


def test_people_get_a_table(services, on_screen):
    del services
    shown = on_screen("personal-keys", "status")
    assert shown.returncode == 0
    assert "Watched keys" in shown.stdout
    assert "failing" in shown.stdout
    assert on_screen("personal-keys", "status", "--json").stdout.count('"state"') == 3
