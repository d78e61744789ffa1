"""OpenRouter's log-in at the stand-in: who approves gets a code, and the code one key, as OpenRouter documents it."""

from __future__ import annotations

import base64
import hashlib
import html
import re
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
import requests

VERIFIER = "v" * 43
CHALLENGE = base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).rstrip(b"=").decode()
CALLBACK = "http://localhost:9/back?mine=1"


@pytest.fixture
def account(stand_in) -> Any:
    return stand_in.new_account(name="Ann's & Bob's")


def url(stand_in, callback=CALLBACK, challenge=CHALLENGE, method="S256", **more) -> str:
    asked = {"callback_url": callback, "code_challenge": challenge, "code_challenge_method": method} | more
    return f"{stand_in.root}/auth?{urlencode({name: value for name, value in asked.items() if value is not None})}"


def code_of(stand_in, account, **how) -> str:
    location = stand_in.decide(url(stand_in, **how), account["id"])
    assert location.startswith(f"{how.get('callback', CALLBACK)}&code=")
    return parse_qs(urlsplit(location).query)["code"][0]


def redeem(stand_in, code, verifier=VERIFIER, method="S256", **more) -> requests.Response:
    body = {"code": code, "code_verifier": verifier, "code_challenge_method": method} | more
    return stand_in.call("POST", "/auth/keys", json=body)


def refusal(answer: requests.Response) -> tuple[int, str]:
    error = answer.json()["error"]
    assert error["code"] == answer.status_code
    return answer.status_code, error["message"]


def test_a_person_picks_an_account_and_the_code_is_exchanged_for_its_key(stand_in, account):
    page = requests.get(url(stand_in, key_label='<b>"App"</b>'), timeout=30)
    assert page.headers["Content-Type"].startswith("text/html")
    assert "<b>" not in page.text
    assert f'<option value="{account["id"]}">{html.escape(account["name"])}</option>' in page.text
    [action] = re.findall('action="([^"]*)"', page.text)
    sent = requests.post(
        stand_in.root + html.unescape(action),
        data={"account": account["id"], "decision": "approve"},
        timeout=30,
        allow_redirects=False,
    )
    code = parse_qs(urlsplit(sent.headers["location"]).query)["code"][0]
    told = redeem(stand_in, code).json()
    assert told["user_id"] == account["id"]
    described = stand_in.call("GET", "/key", told["key"]).json()["data"]
    assert described["creator_user_id"] == account["id"]
    assert stand_in.chat(told["key"]).status_code == 200


def test_who_denies_is_sent_back_without_a_code(stand_in, account):
    location = stand_in.decide(url(stand_in), account["id"], "deny")
    assert parse_qs(urlsplit(location).query) == {"mine": ["1"], "error": ["access_denied"]}


def test_a_code_works_once_with_its_verifier_and_its_method(stand_in, account):
    code = code_of(stand_in, account)
    invalid = 403, "Invalid code or code_verifier"
    assert refusal(redeem(stand_in, code, "w" * 43)) == invalid
    assert refusal(redeem(stand_in, code, None)) == invalid
    assert refusal(redeem(stand_in, code, method="plain")) == (400, "Invalid code_challenge_method")
    assert refusal(redeem(stand_in, code, method=None)) == (400, "Invalid code_challenge_method")
    assert refusal(redeem(stand_in, code[::-1])) == invalid
    assert redeem(stand_in, code).status_code == 200
    assert refusal(redeem(stand_in, code)) == invalid


def test_a_code_holds_for_ten_minutes(stand_in, account, clock):
    young, old = code_of(stand_in, account), code_of(stand_in, account)
    clock(590)
    assert redeem(stand_in, young).status_code == 200
    clock(601)
    assert refusal(redeem(stand_in, old)) == (403, "Authorization code expired")


def test_a_challenge_may_be_plain_or_left_out(stand_in, account):
    plain = code_of(stand_in, account, challenge=VERIFIER, method="plain")
    assert redeem(stand_in, plain, method="plain").status_code == 200
    none = code_of(stand_in, account, challenge=None, method=None)
    assert redeem(stand_in, none, None, None).status_code == 200


@pytest.mark.parametrize(
    "how",
    [
        {"callback": "http://example.com/"},
        {"callback": "ftp://localhost/"},
        {"callback": "https:///x"},
        {"callback": "http://[::1/"},
        {"callback": None},
        {"method": "MD5"},
        {"method": None},
        {"challenge": "short"},
    ],
)
def test_a_log_in_that_openrouter_would_not_begin_is_refused(stand_in, how):
    assert requests.get(url(stand_in, **how), timeout=30).status_code == 400


def test_codes_are_asked_for_by_post_and_in_json(stand_in, account):
    assert stand_in.call("GET", "/auth/keys").status_code == 405
    assert stand_in.call("POST", "/auth/keys", data=b"x").status_code == 400
    assert stand_in.call("POST", "/auth/keys", json={}).status_code == 400
    form = {"account": "nobody", "decision": "approve"}
    assert requests.post(url(stand_in), data=form, timeout=30).status_code == 400
    assert requests.put(url(stand_in), timeout=30).status_code == 405
