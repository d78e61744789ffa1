"""What OpenRouter says of users' accounts, against the stand-in and against servers that answer what nobody asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from config.settings import Config
from foundation.crypto import pkce_challenge
from foundation.errors import AppError, Busy, Forbidden, UpstreamFailed
from tests.sandbox.conftest import Running
from tests.support.scripted_upstream import CLOSE, ScriptedUpstream, json_answer
from upstream.http import UpstreamHttp
from upstream.openrouter.account_api import AccountApi
from upstream.openrouter.key_facts import MAX_ANSWER_BYTES, KeyAccount

VERIFIER = "v" * 43
CALLBACK = "http://localhost:9/?state=s"
TEXT = "sk-or-v1-" + "a" * 64


def api_at(url: str, **settings: Any) -> AccountApi:
    return AccountApi(UpstreamHttp(url, 1), Config(openrouter_api_url=url, **settings))


@pytest.fixture
def api(stand_in: Running) -> AccountApi:
    return api_at(stand_in.address, app_title="My App")


@pytest.fixture
def answering() -> Iterator[Callable[[bytes], AccountApi]]:
    """An OpenRouter that answers everything with this."""
    started: list[ScriptedUpstream] = []

    def begin(answer: bytes) -> AccountApi:
        started.append(ScriptedUpstream())
        started[-1].play("", answer, CLOSE)
        return api_at(started[-1].url)

    yield begin
    for one in started:
        one.close()


def test_the_way_to_openrouters_page_has_all_it_needs_and_no_secret(api, stand_in):
    url = urlsplit(api.authorization_url(CALLBACK, VERIFIER))
    assert f"{url.scheme}://{url.netloc}{url.path}" == f"{stand_in.root}/auth"
    assert parse_qs(url.query) == {
        "callback_url": [CALLBACK],
        "code_challenge": [pkce_challenge(VERIFIER)],
        "code_challenge_method": ["S256"],
        "key_label": ["My App"],
    }
    assert VERIFIER not in url.query


def test_the_page_is_on_the_host_of_the_api():
    assert api_at("https://openrouter.ai/api/v1").authorization_url("x", "y").startswith("https://openrouter.ai/auth?")


def test_a_code_is_exchanged_once_and_its_key_tells_about_itself(api, stand_in):
    account = stand_in.new_account()
    location = stand_in.decide(api.authorization_url(CALLBACK, VERIFIER), account["id"])
    code = parse_qs(urlsplit(location).query)["code"][0]
    with pytest.raises(Forbidden, match="does not accept this code"):
        api.exchange(code, "w" * 43)
    text = api.exchange(code, VERIFIER)
    told = api.describe(text)
    assert told
    assert (told.limit_nano, told.remaining_nano, told.usage_nano, told.is_management) == (None, None, 0, False)
    assert len(told.account_id or "") == 64
    assert account["id"] not in str(told)
    assert told.label == f"sk-or-v1-{text[9:12]}...{text[-3:]}"
    with pytest.raises(Forbidden, match="does not accept this code"):
        api.exchange(code, VERIFIER)


def test_a_key_that_openrouter_does_not_know_is_none(api, stand_in):
    assert api.describe(TEXT) is None
    key = stand_in.new_key(limit=2)
    stand_in.chat(key["key"])
    told = api.describe(key["key"])
    assert (told.limit_nano, told.usage_nano) == (2 * 10**9, stand_in.spent(key["hash"]))
    assert told.remaining_nano == told.limit_nano - told.usage_nano
    assert api.describe(stand_in.new_account()["management_key"]).is_management


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]",
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnull",
        b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n",
        json_answer("200 OK", b'{"data": null, "key": null}'),
        json_answer("200 OK", b'{"data": {"usage": "NaN"}, "key": "sk-or-v1-short"}'),
        json_answer("200 OK", b'{"data": {"usage": "much"}, "key": "sk-or-v1-aaaaaaaaaaaaaaaaaaaa\\r\\nX: y"}'),
        json_answer("200 OK", b'{"data": [], "key": ["' + TEXT.encode() + b'"]}'),
        json_answer("200 OK", b'{"data": "' + b"x" * MAX_ANSWER_BYTES + b'"}'),
    ],
)
def test_what_is_no_answer_is_not_taken_for_one(answering, answer):
    for ask in (lambda api: api.describe(TEXT), lambda api: api.exchange("code", VERIFIER)):
        with pytest.raises(AppError) as raised:
            ask(answering(answer))
        assert raised.value.status in {502, 504}
        assert TEXT not in raised.value.message


def test_a_server_that_is_not_there_is_said_so():
    api = api_at("http://127.0.0.1:1/api/v1")
    with pytest.raises(UpstreamFailed, match="can't be reached"):
        api.describe(TEXT)
    with pytest.raises(UpstreamFailed, match="can't be reached"):
        api.exchange("code", VERIFIER)


@pytest.mark.parametrize(
    ("status", "message", "kind", "says"),
    [
        (400, "Invalid code_challenge_method", UpstreamFailed, "refused the exchange itself"),
        (403, "Invalid code or code_verifier", Forbidden, "does not accept this code"),
        (403, "Authorization code expired", Forbidden, "ten minutes"),
        (405, "Method Not Allowed", UpstreamFailed, "refused the exchange itself"),
        (429, "Rate limit exceeded", Busy, "limiting requests"),
        (500, "Internal Server Error", UpstreamFailed, "did not answer usefully"),
    ],
)
def test_each_documented_error_of_a_code_says_what_to_do(answering, status, message, kind, says):
    body = b'{"error": {"code": %d, "message": "%s"}}' % (status, message.encode())
    head = b"HTTP/1.1 %d No\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % (status, len(body))
    with pytest.raises(kind, match=says) as raised:
        answering(head + body).exchange("code", VERIFIER)
    assert "again" in raised.value.message


def test_only_documented_fields_are_read(answering):
    body = b'{"data": {"label": 7, "limit": 1.5, "limit_remaining": null, "is_provisioning_key": true, "x": {}}}'
    assert answering(json_answer("200 OK", body)).describe(TEXT) == KeyAccount(
        None, 1_500_000_000, None, is_management=True, states_limit=True
    )
