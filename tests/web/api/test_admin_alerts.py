"""Alerts over HTTP: what rings, a test of the channels, silences; and the gateway that rings by itself."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from alerts.kinds import KINDS
from tests.conftest import ENCRYPTION_KEY, SECRET_KEY
from tests.support.alarms import SECRET, Receiver
from tests.support.gateway import ADMIN_TOKEN, Gateway, refusal_of, shown

PATH = "/admin/alerts"


@pytest.fixture(scope="module")
def listening() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.close()


@pytest.fixture(scope="module")
def administered(
    start: Callable[..., Gateway], stand_in: Any, modules_database_url: str, listening: Receiver
) -> Gateway:
    secrets = {"SECRET_KEY": SECRET_KEY, "ENCRYPTION_KEY": ENCRYPTION_KEY, "ADMIN_TOKEN": ADMIN_TOKEN}
    channel = {"ALERT_WEBHOOK_URL": listening.url, "ALERT_WEBHOOK_SECRET": SECRET, "ALLOW_PRIVATE_UPSTREAMS": "true"}
    return start(DATABASE_URL=modules_database_url, OPENROUTER_API_URL=stand_in.address, **secrets, **channel)


def test_channels_and_kinds_are_shown_without_secrets(administered):
    answer = administered.get(PATH, ADMIN_TOKEN)
    found = shown(answer)
    assert found["channels"] == [{"channel": "webhook", "target": "127.0.0.1"}]
    assert [one["kind"] for one in found["kinds"]] == list(KINDS)
    assert SECRET not in answer.text
    assert "key=abc" not in answer.text
    assert SECRET not in administered.get("/admin/settings", ADMIN_TOKEN).text


def test_a_test_arrives(administered, listening):
    found = shown(administered.ask("POST", f"{PATH}/test", token=ADMIN_TOKEN))
    assert found["items"] == [{"channel": "webhook", "target": "127.0.0.1", "ok": True, "reason": None}]
    assert json.loads(listening.posted[-1].body)["state"] == "test"
    listening.statuses.append(500)
    found = shown(administered.ask("POST", f"{PATH}/test", token=ADMIN_TOKEN))
    assert (found["items"][0]["ok"], found["items"][0]["reason"]) == (False, "the receiver answered 500")


def test_a_kind_is_silenced_and_told_of_again(administered):
    def put(kind: str, body: Any) -> Any:
        return administered.ask("PUT", f"{PATH}/kinds/{kind}", body, ADMIN_TOKEN)

    assert shown(put("pool-low", {"silenced": True}))["silenced_by"] == "admin-token"
    assert shown(put("pool-low", {"silenced": False}))["silenced_by"] is None
    for kind, body, words in (
        ("weather", {"silenced": True}, "must be one of pool-resting"),
        ("pool-low", {"silenced": "yes"}, "silenced"),
        ("pool-low", {}, "silenced"),
        ("pool-low", {"silenced": True, "kind": "x"}, "kind"),
    ):
        refused = put(kind, body)
        assert (refused.status_code, words in refusal_of(refused)) == (400, True), refused.text
    assert all(one["silenced_by"] is None for one in shown(administered.get(PATH, ADMIN_TOKEN))["kinds"])
