"""Single sign-on in a real browser, from a page of the gateway to the tokens of a session, through each provider."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chromium import Chromium, needs_chromium
from tests.gateway import Gateway, free_port, wait_for
from tests.sign_on import PROVIDERS, sign_on_settings

pytestmark = needs_chromium
REDEEM = """
fetch("/api/auth/sso/token", {
  method: "POST",
  headers: {"Content-Type": "application/json"},
  body: JSON.stringify({code: new URLSearchParams(location.hash.slice(1)).get("sso")}),
}).then(async answer => JSON.stringify({status: answer.status, body: await answer.json(), cookies: document.cookie}))
"""


@pytest.fixture
def chromium(tmp_path: Path) -> Iterator[Chromium]:
    found = Chromium(tmp_path / "profile")
    yield found
    found.close()


@pytest.fixture(scope="module")
def gateway(start, identity_provider) -> Gateway:
    """At the address that it takes for its public one."""
    port = free_port()
    return start(PORT=port, **sign_on_settings(identity_provider, f"http://127.0.0.1:{port}"))


@pytest.mark.parametrize("provider", PROVIDERS)
def test_somebody_logs_in_with_a_few_clicks(chromium, gateway, provider):
    chromium.go(f"{gateway.url}/api/auth/sso/{provider}?next=/api/health")
    chromium.click("#log-in-as-bob")
    wait_for(lambda: chromium.run("location.pathname == '/api/health' && location.hash.startsWith('#sso=')"))
    told = json.loads(chromium.run(REDEEM))
    assert told["status"] == 200
    assert told["cookies"] == ""  # no script may see it
    [session] = gateway.get("/api/auth/sessions", told["body"]["token"]).json()["items"]
    assert session["method"] == provider
    assert "HeadlessChrome" in session["user_agent"]
    assert json.loads(chromium.run(REDEEM))["status"] == 400


def test_somebody_who_says_no_comes_back_with_the_reason(chromium, gateway):
    chromium.go(f"{gateway.url}/api/auth/sso/github?next=/api/health")
    chromium.click("#deny")
    wait_for(lambda: chromium.run("location.hash == '#sso_error=access_denied'"))
