"""From where a client key may be used, on real gateways: exact, by no name that a client can make up, and told in the log."""

from __future__ import annotations

from typing import Any

import pytest
import requests

from accounts.networks import Networks, is_network
from tests.support.gateway import Gateway, refusal_of, shown, wait_for
from tests.support.rows import each_row

HOME, AWAY = "203.0.113.7", "198.51.100.1"
HOME_6, NEIGHBOUR_6 = "2001:db8:1:2::7", "2001:db8:1:2::8"


@each_row(
    ("networks", "address", "is_in"),
    [
        ({"203.0.113.7"}, HOME, True),
        ({"203.0.113.0/24"}, HOME, True),
        ({"203.0.113.0/24"}, AWAY, False),
        ({"0.0.0.0/0"}, HOME_6, False),
        ({"::/0"}, HOME, False),
        ({"2001:db8:1:2::7"}, HOME_6, True),
        ({"2001:db8:1:2::7"}, NEIGHBOUR_6, False),
        ({"2001:db8::/32", "203.0.113.7"}, NEIGHBOUR_6, True),
        ({"203.0.113.0/24"}, "unix", False),
        ({"unix"}, "unix", True),
        ({"unix"}, HOME, False),
    ],
)
def test_an_address_is_in_a_network_or_not(networks, address, is_in):
    assert (address in Networks(networks)) is is_in


WRONG = [
    "",
    "unix",
    "example.com",
    "203.0.113.7/24",
    "203.0.113.300",
    "203.0.113.07",
    "203.0.113.7:80",
    "2001:db8::7/32",
    "fe80::1%eth0",
    "::ffff:203.0.113.7",
    "203.0.113.0/255.255.0.255",
    "*",
    " 203.0.113.7",
]


@pytest.mark.parametrize("text", WRONG)
def test_what_is_no_network(text):
    assert not is_network(text)


@pytest.fixture(scope="module", params=["granian", "gunicorn"])
def gateway(request, start, stand_in, pool_keys) -> Gateway:
    return start(
        SERVER=request.param,
        OPENROUTER_API_URL=stand_in.address,
        OPENROUTER_API_KEYS=pool_keys[0]["key"],
        TRUSTED_PROXIES="127.0.0.1",
    )


def new_key(gateway: Gateway, token: str, **fields: Any) -> dict[str, Any]:
    made: dict[str, Any] = shown(gateway.post("/api/api-keys", {"name": "program", **fields}, token), 201)
    return made


def call(gateway: Gateway, key: str, address: str, **more: str) -> requests.Response:
    body = {"model": "openai/gpt-4o-mini", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 9}
    headers = {"Authorization": f"Bearer {key}", "X-Forwarded-For": address, **more}
    return requests.post(f"{gateway.url}/v1/chat/completions", json=body, headers=headers, timeout=30)


def test_a_key_is_refused_elsewhere_and_nobody_elses_is(gateway):
    person, teammate = gateway.new_user(), gateway.new_user()
    bound = new_key(gateway, person, addresses=[HOME, "2001:db8:1:2::7"])
    free = new_key(gateway, teammate)
    assert (bound["addresses"], free["addresses"]) == (["2001:db8:1:2::7", HOME], None)
    for address in (HOME, HOME_6):
        assert call(gateway, bound["key"], address).status_code == 200
    for address in (AWAY, NEIGHBOUR_6):
        refused = call(gateway, bound["key"], address)
        assert (refused.status_code, refusal_of(refused)) == (403, f"This client key may not be used from {address}")
        assert HOME not in refused.text
        assert call(gateway, free["key"], address).status_code == 200
    assert call(gateway, person, AWAY).status_code == 200, "a log-in is not the key"


def test_the_refusal_stands_in_the_log_of_the_keys_owner(gateway):
    person = gateway.new_user()
    key = new_key(gateway, person, addresses=[HOME])
    refused = call(gateway, key["key"], AWAY)
    path = f"/api/usage/logs/{refused.headers['X-Request-ID']}"
    wait_for(lambda: gateway.get(path, person).status_code == 200)
    found = gateway.get(path, person).json()
    assert (found["status"], found["outcome"], found["error_message"]) == (403, "refused", refusal_of(refused))
    assert gateway.get(path, gateway.new_user()).status_code == 404


def test_what_a_key_reads_is_bound_too(gateway):
    key = new_key(gateway, gateway.new_user(), addresses=[HOME])["key"]
    for path in ("/v1/models", "/v1/key"):
        for address, status in ((HOME, 200), (AWAY, 403)):
            headers = {"Authorization": f"Bearer {key}", "X-Forwarded-For": address}
            assert requests.get(f"{gateway.url}{path}", headers=headers, timeout=30).status_code == status, path


def test_what_a_client_makes_up_does_not_count(gateway):
    key = new_key(gateway, gateway.new_user(), addresses=[HOME])["key"]
    assert call(gateway, key, f"{HOME}, {AWAY}").status_code == 403, "the left one came from the client"
    for header in ("X-Real-IP", "Forwarded", "CF-Connecting-IP", "True-Client-IP"):
        assert call(gateway, key, AWAY, **{header: HOME}).status_code == 403


def test_the_list_is_changed_and_taken_away(gateway):
    person = gateway.new_user()
    key = new_key(gateway, person, addresses=[HOME])
    path = f"/api/api-keys/{key['id']}"
    assert shown(gateway.ask("PATCH", path, {"name": "renamed"}, person))["addresses"] == [HOME]
    assert shown(gateway.ask("PATCH", path, {"addresses": ["198.51.100.0/24"]}, person))["addresses"] == [
        "198.51.100.0/24"
    ]
    assert [call(gateway, key["key"], one).status_code for one in (HOME, AWAY)] == [403, 200]
    assert shown(gateway.ask("PATCH", path, {"addresses": None}, person))["addresses"] is None
    assert [call(gateway, key["key"], one).status_code for one in (HOME, AWAY)] == [200, 200]


@pytest.mark.parametrize("addresses", [[], [HOME, "x"], ["203.0.113.7/24"], "203.0.113.7", [7], [HOME] * 101])
def test_a_list_that_is_none_is_refused_and_changes_nothing(gateway, addresses):
    person = gateway.new_user()
    refused = gateway.post("/api/api-keys", {"name": "program", "addresses": addresses}, person)
    assert refused.status_code == 400
    assert "addresses" in refusal_of(refused)
    assert gateway.get("/api/api-keys", person).json()["total"] == 0
