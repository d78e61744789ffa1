"""The Python client against a running gateway, before the stand-in for OpenRouter."""

from __future__ import annotations

import re
import secrets
import subprocess
import sys

import pyotp
import pytest
from openrouter_proxy_client import ProxyClient, ProxyError

from tests.support.gateway import ROOT, environment, in_threads, shown, wait_for

CLIENT = ROOT / "clients/python"
MODEL = "openai/gpt-4o-mini"
MESSAGES = [{"role": "user", "content": "Hello"}]
ECHO = 'This is the stand-in for OpenRouter speaking. You said: "Hello"'
PASSWORD = "🔑🗝️👩‍👩‍👧 correct horse"


@pytest.fixture
def name() -> str:
    return f"{secrets.token_hex(8)}@example.com"


@pytest.fixture
def client(running, name):
    with ProxyClient(running.url) as client:
        client.register(name, PASSWORD)
        client.login(name, PASSWORD)
        yield client


def spoil(client: ProxyClient) -> None:
    """As if the access token had run out."""
    refresh_token = client.refresh_token
    client.token = "spoiled"
    client.refresh_token = refresh_token


def generation(client: ProxyClient) -> int:
    return int(client.refresh_token.split(".")[1])


def text(client: ProxyClient, model: str) -> str:
    chunks = client.stream(MESSAGES, model)
    return "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])


def test_from_sign_up_to_log_out(running, client, name):
    with pytest.raises(ProxyError, match="already exists") as taken:
        client.register(name, "another password")
    assert (taken.value.status, taken.value.error_type) == (400, "username_taken")
    with pytest.raises(ProxyError, match="Invalid credentials") as wrong:
        client.login(name, "hunter2")
    assert wrong.value.status == 401
    assert client.chat(MESSAGES, MODEL)["choices"][0]["message"]["content"] == ECHO
    assert text(client, MODEL) == ECHO
    usage = wait_for(lambda: (found := client.usage())["totals"]["requests"] == 2 and found)
    assert usage["by_model"][0]["model"] == MODEL
    assert client.quota()["limit_usd"] is None
    token = client.token
    client.logout()
    client.token = token
    with pytest.raises(ProxyError) as ended:
        client.quota()
    assert ended.value.status == 401


def test_threads_share_one_refresh(client):
    spoil(client)
    assert in_threads(4, lambda: text(client, MODEL)) == [ECHO] * 4
    assert generation(client) == 2


def test_a_session_that_was_ended_elsewhere_says_to_log_in_again(running, client, name):
    with ProxyClient(running.url) as elsewhere:
        elsewhere.login(name, PASSWORD)
        assert running.post("/api/auth/logout-all", {}, elsewhere.token).status_code == 200
    with pytest.raises(ProxyError, match="log in again") as ended:
        client.chat(MESSAGES, MODEL)
    assert ended.value.status == 401
    assert client.token is None
    client.login(name, PASSWORD)
    client.chat(MESSAGES, MODEL)


@pytest.mark.parametrize("model", ["no-done", "split-utf8", "comments", "crlf"])
def test_a_stream_that_is_odd_but_whole(client, model):
    assert text(client, f"sandbox/{model}")


@pytest.mark.parametrize("model", ["reset", "cut", "error-mid", "error-usage", "no-finish"])
def test_a_stream_that_breaks_off(client, model):
    with pytest.raises(ProxyError) as broken:
        text(client, f"sandbox/{model}")
    assert broken.value.status == 502


def test_openrouters_limits_say_how_long_to_wait(client):
    with pytest.raises(ProxyError) as limited:
        client.chat(MESSAGES, "sandbox/429c?retry_after=3")
    assert (limited.value.status, limited.value.retry_after_seconds) == (429, 3)


def test_the_program_in_its_readme_works(running, name):
    program = re.search(r"```python\n(.*?)```", (CLIENT / "README.md").read_text(), re.DOTALL)[1]
    program = program.replace("https://gateway.example", running.url).replace("user@example.com", name)
    ended = subprocess.run(
        [sys.executable, "-"], input=program, cwd=CLIENT, env=environment(), capture_output=True, text=True, check=True
    )
    assert re.search(r"keys\.\"\n\{'requests': \d+, .*'limit_usd': None", ended.stdout), ended.stdout


def test_a_forgotten_password_is_made_up_for_by_a_recovery_code(running, client, name):
    codes = client.new_recovery_codes()
    assert len(codes) == 10
    with ProxyClient(running.url) as other:
        with pytest.raises(ProxyError, match="Invalid credentials") as wrong:
            other.recover(name, "nothing", "quiet meadow 84")
        assert (wrong.value.status, other.token) == (401, None)
        assert other.recover(name, codes[0], "quiet meadow 84")["user"]["id"]
        assert other.quota()
        assert codes[0] not in repr(other)
    with pytest.raises(ProxyError):
        client.login(name, PASSWORD)
    assert client.login(name, "quiet meadow 84")


def test_an_account_with_a_second_factor_is_logged_in_to_with_both(running, client, name):
    codes = client.new_recovery_codes()
    token = client.token
    begun = shown(running.post("/api/auth/second-factor", token=token), 201)
    shown(running.post("/api/auth/second-factor/confirm", {"code": pyotp.TOTP(begun["secret"]).now()}, token))
    with ProxyClient(running.url) as other:
        with pytest.raises(ProxyError) as needed:
            other.login(name, PASSWORD)
        assert (needed.value.status, needed.value.error_type, other.token) == (403, "second_factor_needed", None)
        assert other.login(name, PASSWORD, second_factor=codes[0])["token"]
        assert other.quota()
    with ProxyClient(running.url) as back:
        assert back.recover(name, codes[1], "quiet meadow 84", second_factor=codes[2])["token"]
