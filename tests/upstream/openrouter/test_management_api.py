"""The management API against the stand-in, and against servers that answer what nobody asked for."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from foundation.crypto import sha256_hex
from tests.sandbox.conftest import Running
from tests.support.connect_proxy import ConnectProxy
from tests.support.gateway import ROOT, environment
from tests.support.rows import each_row
from upstream.openrouter.management_api import PAGES_AT_ONCE, ManagementApi, ManagementError

TEXT = "sk-or-v1-" + "a" * 64
LATER = datetime(2099, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.fixture
def account(stand_in: Running) -> Iterator[dict[str, Any]]:
    yield stand_in.new_account()
    stand_in.control("DELETE", "faults")


@pytest.fixture
def api(stand_in: Running, account: dict[str, Any]) -> ManagementApi:
    return ManagementApi(stand_in.address, account["management_key"])


# ── with OpenRouter as it is


def test_a_key_is_created_listed_asked_disabled_and_deleted(api, account, stand_in):
    text = api.create("ours", 1.5, "daily", LATER)
    [listed] = api.list_keys()
    assert (listed.name, listed.hash, listed.disabled) == ("ours", sha256_hex(text), False)
    assert (listed.limit_nano, listed.remaining_nano, listed.usage_nano) == (1_500_000_000, 1_500_000_000, 0)
    assert abs(listed.created_at - datetime.now(UTC)) < timedelta(minutes=1)
    shown = stand_in.call("GET", "/keys", account["management_key"]).json()["data"][0]
    assert datetime.fromisoformat(shown["expires_at"]) == LATER
    told = api.ask(text)
    assert (told.limit_nano, told.remaining_nano) == (1_500_000_000, 1_500_000_000)
    api.disable(listed.hash)
    assert api.list_keys()[0].disabled
    assert api.ask(text) is None
    api.delete(listed.hash)
    assert api.list_keys() == []
    assert api.ask(text) is None


def test_no_limit_is_none_on_both_sides(api):
    told = api.ask(api.create("ours", None, None, LATER))
    assert (told.limit_nano, told.remaining_nano) == (None, None)
    assert api.list_keys()[0].limit_nano is None


def test_what_a_key_has_spent_is_told(api, stand_in):
    text = api.create("ours", 5, None, LATER)
    stand_in.chat(text)
    [listed] = api.list_keys()
    assert listed.usage_nano == stand_in.spent(listed.hash) > 0
    assert listed.remaining_nano == 5_000_000_000 - listed.usage_nano


def test_what_a_key_spent_on_a_day_is_told_to_the_nano_dollar(api, stand_in):
    day, other = date(2031, 3, 9), date(2031, 3, 8)
    stand_in.set_time("2031-03-09T12:00:00")
    try:
        text, idle = api.create("ours", 5, None, LATER), api.create("idle", 5, None, LATER)
        for model in ("openai/gpt-4o-mini", "anthropic/claude-sonnet-4.6"):
            stand_in.chat(text, model)
        today = next(key for key in api.list_keys() if key.name == "ours")
        assert today.usage_today_nano == today.usage_nano == stand_in.spent(today.hash) > 0
        stand_in.set_time("2031-03-10T12:00:00")
        assert api.activity_nano(day, sha256_hex(text)) == stand_in.spent(today.hash)
        assert api.activity_nano(other, sha256_hex(text)) is None
        assert api.activity_nano(day, sha256_hex(idle)) is None
        assert next(key for key in api.list_keys() if key.name == "ours").usage_today_nano == 0
    finally:
        stand_in.control("POST", "settings", clock_offset_seconds=0)


def test_keys_of_one_account_have_one_account_id_which_is_not_the_accounts_own(api, stand_in, account):
    first, second = (api.ask(api.create(name, 1, None, LATER)) for name in ("a", "b"))
    foreign = api.ask(stand_in.new_key()["key"])
    assert first.account_id == second.account_id != foreign.account_id
    assert account["id"] not in first.account_id


def test_all_pages_are_read_disabled_keys_too(api, stand_in, account):
    made = [stand_in.new_key(account=account["id"], name=f"key {n}", disabled=n % 2 == 0)["hash"] for n in range(205)]
    assert {key.hash for key in api.list_keys()} == set(made)


def test_a_limit_is_changed_and_what_was_spent_counts_on(api, stand_in):
    text = api.create("ours", 5, "daily", LATER)
    stand_in.chat(text)
    [before] = api.list_keys()
    api.set_limit(before.hash, 0.5, "weekly")
    [listed] = api.list_keys()
    assert (listed.limit_nano, listed.limit_reset) == (500_000_000, "weekly")
    assert listed.remaining_nano == 500_000_000 - before.usage_nano
    api.set_limit(before.hash, None, None)
    assert (api.list_keys()[0].limit_nano, api.list_keys()[0].limit_reset) == (None, None)


def test_a_limit_of_a_key_that_is_gone_cannot_be_changed(api):
    with pytest.raises(ManagementError, match="status 404"):
        api.set_limit("0" * 64, 1, None)


def test_who_reads_a_long_list_does_other_things_now_and_then(api, stand_in, account):
    for number in range(45):
        stand_in.new_key(account=account["id"], name=f"key {number}")
    stand_in.control("POST", "settings", keys_on_a_page=1)
    calls = []
    try:
        assert len(api.list_keys(lambda: calls.append(1))) == 45
    finally:
        stand_in.control("POST", "settings", keys_on_a_page=100)
    assert len(calls) == 45 // PAGES_AT_ONCE


def test_what_is_gone_counts_as_disabled_and_deleted(api):
    api.disable("0" * 64)
    api.delete("0" * 64)


CALLS = {
    "create": ("POST", "/keys", lambda api: api.create("x", 1, None, LATER)),
    "list": ("GET", "/keys", lambda api: api.list_keys()),
    "set_limit": ("PATCH", "/keys", lambda api: api.set_limit("0" * 64, 1, None)),
    "disable": ("PATCH", "/keys", lambda api: api.disable("0" * 64)),
    "delete": ("DELETE", "/keys", lambda api: api.delete("0" * 64)),
    "activity": ("GET", "/activity", lambda api: api.activity_nano(date(2031, 3, 9), "0" * 64)),
    "ask": ("GET", "/key", lambda api: api.ask(TEXT)),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("scenario", ["302", "429c", "500", "502-html", "drop", "drop-reset"])
def test_every_call_that_fails_says_how_without_any_secret(api, stand_in, account, call, scenario):
    method, path, make = CALLS[call]
    # The key that is asked about belongs to no account: its fault is everybody's, and comes once.
    selected = {} if call == "ask" else {"account": account["id"]}
    stand_in.control("POST", "faults", scenario=scenario, path=path, method=method, times=1, **selected)
    with pytest.raises(ManagementError) as raised:
        make(api)
    said = str(raised.value)
    status = int(scenario[:3]) if scenario[0].isdigit() else 0
    assert raised.value.status == status
    assert (f"status {status}" if status else "no answer (ConnectionError)") in said
    assert said.startswith(f"OpenRouter's management API failed: {method} {path}")
    for secret in (account["management_key"], TEXT, "0" * 64):
        assert secret not in said
    assert raised.value.__cause__ is None


def test_a_refused_management_key_is_an_error_and_not_a_refused_key(stand_in):
    api = ManagementApi(stand_in.address, TEXT)
    for call in ("create", "list", "disable", "delete", "activity"):
        with pytest.raises(ManagementError, match="status 401"):
            CALLS[call][2](api)
    assert api.ask(TEXT) is None


def test_nobody_listening_is_an_error():
    with pytest.raises(ManagementError, match="no answer"):
        ManagementApi("http://127.0.0.1:1/api/v1", TEXT).list_keys()


def test_calls_go_through_the_outbound_proxy_with_its_password(stand_in, account):
    proxy = ConnectProxy("someone", "proxys-own-password")
    try:
        api = ManagementApi(stand_in.address, account["management_key"], proxy.url)
        assert isinstance(api.list_keys(), list)
        assert proxy.tunnels
        for status in (407, 502):
            proxy.refuse = status
            with pytest.raises(ManagementError, match=f"status {status}") as raised:
                ManagementApi(stand_in.address, account["management_key"], proxy.url).list_keys()
            assert "proxys-own-password" not in repr(raised.value)
    finally:
        proxy.close()


def test_a_proxy_that_refuses_a_tunnel_is_no_answer():
    proxy = ConnectProxy("someone", "proxys-own-password")
    try:
        for url in (proxy.url, proxy.url.replace("own", "other")):
            with pytest.raises(ManagementError, match=r"no answer \(ProxyError\)") as raised:
                ManagementApi("https://127.0.0.1:1/api/v1", TEXT, url).list_keys()
            assert "proxys-" not in repr(raised.value)
    finally:
        proxy.close()


def test_a_netrc_replaces_no_key(stand_in, account, tmp_path):
    """requests would read it."""
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login nobody password nothing\n")
    (tmp_path / ".netrc").chmod(0o600)
    program = (
        "import sys; from upstream.openrouter.management_api import *; print(ManagementApi(*sys.argv[1:]).list_keys())"
    )
    command = [sys.executable, "-c", program, stand_in.address, account["management_key"]]
    env = environment() | {"HOME": str(tmp_path), "NETRC": str(tmp_path / ".netrc")}
    ended = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert (ended.stdout, ended.stderr) == ("[]\n", "")


# ── with answers that are valid JSON, and not what was expected


class Odd(ManagementApi):
    """An API that gives these answers, in turn, and the last one ever again."""

    def __init__(self, *answers: Any) -> None:
        super().__init__("https://127.0.0.1:1", "x")
        self.answers = list(answers)

    def _call(self, *_: object, **__: object) -> Any:
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


@each_row(
    "answer",
    [
        {},
        {"key": None},
        {"key": 7, "data": {"hash": "x"}},
        {"key": "hunter2", "data": {"hash": sha256_hex("hunter2")}},
        {"key": TEXT + "\r\nX-Evil: 1", "data": {"hash": sha256_hex(TEXT + "\r\nX-Evil: 1")}},
        {"key": TEXT},
        {"key": TEXT, "data": []},
        {"key": TEXT, "data": {"hash": "0" * 64}},
        {"key": TEXT, "data": {"hash": sha256_hex(TEXT).upper()}},
    ],
    ids=str,
)
def test_a_created_key_that_is_none_or_not_under_its_hash_is_refused(answer):
    with pytest.raises(ManagementError) as raised:
        Odd(answer).create("name", 1, None, LATER)
    assert TEXT not in str(raised.value)
    assert "hunter2" not in str(raised.value)


def test_a_created_key_under_its_hash_is_accepted():
    assert Odd({"key": TEXT, "data": {"hash": sha256_hex(TEXT)}}).create("n", 1, None, LATER) == TEXT


def listed(**fields: Any) -> dict[str, Any]:
    return {"name": "n", "hash": "h", "disabled": False, "created_at": "2026-11-21T12:00:00Z"} | fields


ODD_KEYS = [
    {"name": "x"},
    {"hash": "x"},
    listed(created_at=None),
    listed(created_at="yesterday"),
    listed(created_at=7),
    listed(usage=True),
    [],
    None,
    "key",
]


@pytest.mark.parametrize(
    "answer", [{}, {"data": None}, {"data": {}}, {"data": "keys"}, {"data": 7}, {"data": True}], ids=str
)
def test_an_answer_without_a_list_is_not_an_empty_one(answer):
    with pytest.raises(ManagementError, match="no list of keys"):
        Odd(answer).list_keys()


@each_row("odd", ODD_KEYS, ids=str)
def test_a_list_with_something_else_than_a_key_is_refused_whole(odd):
    with pytest.raises(ManagementError, match="no list of keys"):
        Odd({"data": [listed(), odd]}, {"data": []}).list_keys()


def test_a_second_page_that_is_none_is_refused():
    with pytest.raises(ManagementError, match="no list of keys"):
        Odd({"data": [listed()]}, {}).list_keys()


def test_an_empty_list_has_no_keys():
    assert Odd({"data": []}).list_keys() == []


def test_pages_that_repeat_themselves_are_refused_instead_of_read_for_ever():
    with pytest.raises(ManagementError, match="do not end"):
        Odd({"data": [listed()]}).list_keys()


def test_pages_that_overlap_because_a_key_was_made_meanwhile_are_read_once():
    pages = [["c", "b"], ["b", "a"], []]
    found = Odd(*({"data": [listed(hash=key_hash) for key_hash in page]} for page in pages)).list_keys()
    assert [key.hash for key in found] == ["c", "b", "a"]


@pytest.mark.parametrize("text", ["2026-11-21T12:00:00Z", "2026-11-21T12:00:00.000+00:00", "2026-11-21T12:00:00"])
def test_times_are_aware_however_they_are_written(text):
    [key] = Odd({"data": [listed(created_at=text)]}, {"data": []}).list_keys()
    assert key.created_at == datetime(2026, 11, 21, 12, tzinfo=UTC)


@pytest.mark.parametrize("told", [None, [], "key", 7, {"usage": "a lot"}, {"usage": "NaN"}], ids=str)
def test_what_describes_no_key_is_refused(told):
    with pytest.raises(ManagementError, match="describes no key"):
        Odd({"data": told}).ask(TEXT)


@pytest.mark.parametrize("limit", ["a lot", "Infinity", "NaN", [], 1e30, {"usd": 10}], ids=str)
def test_a_limit_that_can_not_be_read_is_unknown_and_the_key_is_one_all_the_same(limit):
    told = Odd({"data": {"limit": limit}}).ask(TEXT)
    [key] = Odd({"data": [listed(limit=limit)]}, {"data": []}).list_keys()
    assert (told.limit_nano, told.states_limit, key.limit_nano, key.states_limit) == (None, False, None, False)


@pytest.mark.parametrize(("limit", "nano"), [(None, None), (1.5, 1_500_000_000), ("2", 2_000_000_000)])
def test_a_limit_that_is_stated_is_known_wherever_the_description_stands(limit, nano):
    for answer in ({"data": {"limit": limit, "usage": 0}}, {"limit": limit, "usage": 0}):
        told = Odd(answer).ask(TEXT)
        assert (told.limit_nano, told.states_limit) == (nano, True)
    assert not Odd({"data": {"usage": 0}}).ask(TEXT).states_limit


ROW = {"date": "2031-03-09", "usage": 0.25, "model": "a/b"}
ODD_ROWS = [7, None, {}, [], *[ROW | {"usage": odd} for odd in (None, "much", True, -1, 1e300, [])]]
ODD_ROWS += [ROW | {"date": odd} for odd in ("2031-03-08", None, 20310309)]


@each_row("data", [None, {}, "2031-03-09", 7, True, *([ROW, odd] for odd in ODD_ROWS)], ids=str)
def test_what_is_no_activity_of_the_day_is_refused(data):
    with pytest.raises(ManagementError, match="no activity of that day"):
        Odd({"data": data}).activity_nano(date(2031, 3, 9), "0" * 64)


def test_all_rows_of_the_day_are_added_up():
    rows = [ROW, ROW | {"date": "2031-03-09 00:00:00", "usage": "0.000000001"}, ROW | {"usage": 0}]
    assert Odd({"data": rows}).activity_nano(date(2031, 3, 9), "0" * 64) == 250_000_001
    assert Odd({"data": []}).activity_nano(date(2031, 3, 9), "0" * 64) is None


@each_row("body", [b"", b"<html>", b"[]", b'"x"', b"{", b"\xff", b"null", b'{"data": 1e999}'])
def test_a_success_that_is_no_json_object_is_refused(body):
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode()
    with pytest.raises(ManagementError, match="no JSON object"):
        ManagementApi(says(head + body), TEXT).list_keys()


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"hello\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 90\r\n\r\n{",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}",
    ],
    ids=str,
)
def test_what_is_no_whole_answer_is_an_error(answer):
    with pytest.raises(ManagementError, match="no answer"):
        ManagementApi(says(answer), TEXT).list_keys()


def says(answer: bytes) -> str:
    """The address of a server that gives one connection these bytes."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with listener, listener.accept()[0] as connection:
            connection.recv(1 << 16)
            connection.sendall(answer)

    threading.Thread(target=serve, daemon=True).start()
    return f"http://127.0.0.1:{listener.getsockname()[1]}/api/v1"
