"""The pool's commands: what they change, what they refuse, and what pipes and people get to see."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest

from foundation.clock import Clock
from foundation.crypto import sha256_hex
from pool.life import PoolKeyState
from replicas.processes import GatewayProcess
from tables import pool_keys
from tests.support.operator_commands import KEY, OTHER_KEY, lines, refusal


def test_an_empty_pool_is_shown_as_nothing(command):
    assert lines(command("pool")) == []


def test_a_key_from_standard_input_is_added_and_shown_without_its_text(command, services):
    added = command("pool", "add", stdin=f"{KEY}\n")
    name = f"operator/{sha256_hex(KEY)[:12]}"
    assert lines(added) == [{"name": name, "state": "active"}]
    shown = command("pool")
    [line] = lines(shown)
    assert line.pop("created_at")
    assert line == {
        "name": name,
        "status": "silent",
        "state": "active",
        "enabled": True,
        "health": None,
        "reason": None,
        "until": None,
        "limit_usd": None,
        "remaining_usd": None,
        "used": 0,
        "in_flight": 0,
        "expires_at": None,
        "last_used": None,
        "source": "operator",
        "owner_id": None,
        "owner_label": None,
        "hash": sha256_hex(KEY)[:12],
    }
    assert "sk-or" not in added.output + shown.output
    services.pool.reload()
    assert services.pool.usable_count() == 1


def test_a_key_may_be_given_a_name(command):
    assert lines(command("pool", "add", "--name", "Schlüssel 🔑", stdin=KEY))[0]["name"] == "Schlüssel 🔑"
    assert lines(command("pool", "add", "--name", "", stdin=OTHER_KEY))[0]["name"].startswith("operator/")


def test_a_key_on_the_command_line_is_refused(command, services):
    for words in (["pool", "add", KEY], ["pool", "add", "--key", KEY]):
        result = command(*words, stdin="")
        assert result.exit_code == 2
    assert services.pool_keys.rows() == []


@pytest.mark.parametrize("text", [b"", b"\n", b"hunter2", KEY[:12].encode(), KEY.encode() + b" x", b"\xff\xfe", b"\0"])
def test_what_is_not_a_key_is_refused_and_not_repeated(command, services, text):
    told = refusal(command("pool", "add", stdin=text))
    assert told == "Error: That does not look like an OpenRouter key (sk-or-v1-...)\n"
    assert services.pool_keys.rows() == []


@pytest.mark.parametrize("name", ["x" * 191, "a\nb", "a\x1b[31mb"])
def test_a_name_that_cannot_be_stored_or_shown_is_refused(command, services, name):
    assert "at most 190 characters" in refusal(command("pool", "add", "--name", name, stdin=KEY))
    assert services.pool_keys.rows() == []


def test_the_longest_name_is_accepted(command):
    assert lines(command("pool", "add", "--name", "🔑" * 190, stdin=KEY))[0]["name"] == "🔑" * 190


@pytest.mark.parametrize(("name", "key"), [("mine", OTHER_KEY), ("other", KEY), ("mine", KEY)])
def test_a_known_key_or_name_is_refused(command, services, name, key):
    command("pool", "add", "--name", "mine", stdin=KEY)
    before = services.pool_keys.rows()
    assert "this key or a key of this name" in refusal(command("pool", "add", "--name", name, stdin=key))
    assert services.pool_keys.rows() == before


def test_a_key_is_disabled_and_enabled_again(command, services):
    command("pool", "add", "--name", "mine", stdin=KEY)
    assert lines(command("pool", "disable", "mine")) == [{"name": "mine", "enabled": False}]
    assert lines(command("pool"))[0]["enabled"] is False
    services.pool.reload()
    assert services.pool.usable_count() == 0
    assert lines(command("pool", "enable", "mine")) == [{"name": "mine", "enabled": True}]
    services.pool.reload()
    assert services.pool.usable_count() == 1


def test_a_minted_key_is_put_down_for_rotation(command, services):
    row_id = services.pool_keys.intend("gw/1/a", datetime.now(UTC) + timedelta(days=1), None, None)
    services.pool_keys.store(row_id, KEY)
    services.pool_keys.switch(row_id, datetime.now(UTC), None)
    assert lines(command("pool", "rotate", "gw/1/a")) == [{"name": "gw/1/a", "rotation": "requested"}]
    assert services.pool_keys.rows()[0].renew_at is not None


def test_a_key_is_meant_by_its_short_name_or_any_part_that_only_it_has(command, services):
    name = "gw/9d2f/eecc361770f9"
    command("pool", "add", "--name", f"{name}70f9", stdin=KEY)
    command("pool", "add", "--name", "gw/other", stdin=OTHER_KEY)
    for part in ("k-70f9", "eecc", f"{name}70f9"):
        assert lines(command("pool", "disable", part)) == [{"name": f"{name}70f9", "enabled": False}]
        assert lines(command("pool", "enable", part)) == [{"name": f"{name}70f9", "enabled": True}]
    told = refusal(command("pool", "disable", "gw/"))
    assert "Several pool keys match 'gw/': gw/other, " in told and name in told
    assert all(row.enabled for row in services.pool_keys.rows())


def test_a_key_that_nobody_minted_cannot_be_rotated(command, services):
    command("pool", "add", "--name", "mine", stdin=KEY)
    assert "no minted key in use named 'mine'" in refusal(command("pool", "rotate", "mine"))
    assert services.pool_keys.rows()[0].renew_at is None


@pytest.mark.parametrize("word", ["enable", "disable", "rotate"])
def test_an_unknown_name_is_refused(command, word):
    told = refusal(command("pool", word, "nobody"))
    assert told.startswith("Error: There is no ")
    assert told.endswith(" named 'nobody'\n")
    assert command("pool", word).exit_code == 2


def test_every_change_is_written_down_and_no_refusal(command, services, caplog):
    caplog.set_level(logging.INFO)
    for words in (["add", "--name", "mine"], ["disable", "mine"], ["enable", "mine"], ["disable", "other"]):
        command("pool", *words, stdin=KEY)
    logged = [(line.message, line.fields) for line in caplog.records if line.name == "cli"]
    assert logged == [
        (f"pool_key_{what}", {"actor": "cli", "subject": "pool/mine"}) for what in ("added", "disabled", "enabled")
    ]
    entries, _ = services.audit.page(1, 20)
    assert [(entry.action, entry.actor, entry.subject) for entry in reversed(entries)] == [
        (action, "cli", "pool/mine") for action, _ in logged
    ]


def test_keys_that_are_over_are_shown_only_if_asked_for_and_the_newest_first(command, services):
    for number, state in enumerate(PoolKeyState):
        row_id = services.pool_keys.add(f"sk-or-v1-{number:064x}", f"key {number}", "operator")
        services.db.transact(partial(set_state, row_id, state))
    newest_first = [state.value for state in reversed(PoolKeyState)]
    assert [line["state"] for line in lines(command("pool", "--all"))] == newest_first
    over = {"deleted", "abandoned", "dead"}
    assert [line["state"] for line in lines(command("pool"))] == [state for state in newest_first if state not in over]


def set_state(row_id, state, tx):
    tx.execute(pool_keys.update().where(pool_keys.c.id == row_id).values(state=state))


def test_what_gateways_report_is_shown(command, services):
    row_id = services.pool_keys.add(KEY, "mine", "operator")
    told = {"in_flight": 2, "health": "resting", "reason": "429a", "until": "2026-11-21T12:00:00+00:00"}
    GatewayProcess(services.db, Clock()).beat(1, {str(row_id): told})
    [line] = lines(command("pool"))
    assert {name: line[name] for name in told} == told


def test_a_person_is_asked_for_the_key_unseen_and_gets_a_table(on_screen):
    shown = on_screen("pool", "add", "--name", "mine", typed={"OpenRouter key: ": KEY})
    assert shown.returncode == 0
    assert "Added" in shown.stdout
    assert "mine" in shown.stdout
    assert KEY not in shown.stdout


def test_a_person_sees_the_pool_as_a_table(services, on_screen):
    row_id = services.pool_keys.add(KEY, "mine [/and] yours", "operator")
    services.pool_keys.set_enabled("mine [/and] yours", False)
    services.pool_keys.set_limits({row_id: (10_000_000_000, 2_500_000_000)})
    GatewayProcess(services.db, Clock()).beat(1, {str(row_id): {"health": "resting", "reason": "429a", "in_flight": 7}})
    shown = on_screen("pool", COLUMNS=200).stdout
    assert "Key pool: 0 usable, 5 wanted, 1 gateways" in shown
    [line] = [line for line in shown.splitlines() if "yours" in line]
    cells = [cell.strip() for cell in line.split("│")[1:-1]]
    assert cells == [
        "mine [/and] yours",
        "off",
        "",
        "$10.00",
        "$2.50",
        "0",
        "7",
        "",
        "",
    ]


def test_users_own_keys_are_shown_to_who_asks_for_them(command, services):
    assert lines(command("pool", "add", stdin=KEY))
    row_id = services.pool_keys.intend("own", datetime(2027, 1, 1, tzinfo=UTC), None, None, 17)
    services.pool_keys.store(row_id, OTHER_KEY)
    assert [line["owner_id"] for line in lines(command("pool"))] == [None]
    assert [line["owner_id"] for line in lines(command("pool", "--owner", "any"))] == [17, None]
    assert [line["name"] for line in lines(command("pool", "--owner", "17"))] == ["own"]
    assert lines(command("pool", "--owner", "18", "--all")) == []
    refused = command("pool", "--owner", "me")
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert "must be shared, any, or a user's id" in refused.stderr
