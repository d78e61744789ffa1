"""Single sign-on in a real browser, from a page of the gateway to the tokens of a session, through each provider."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page

from tests.support.browser import watched_page
from tests.support.gateway import Gateway, free_port
from tests.support.sign_on import PROVIDERS, sign_on_settings

REDEEM = """
async () => {
  const answer = await fetch("/api/auth/sso/token", {
    method: "POST",
    headers: {"Content-Type": "application/json"},
    body: JSON.stringify({code: new URLSearchParams(location.hash.slice(1)).get("sso")}),
  });
  return {status: answer.status, body: await answer.json(), cookies: document.cookie};
}
"""


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    with watched_page(browser) as opened:
        yield opened


@pytest.fixture(scope="module")
def gateway(start, identity_provider) -> Gateway:
    """At the address that it takes for its public one."""
    port = free_port()
    return start(PORT=port, **sign_on_settings(identity_provider, f"http://127.0.0.1:{port}"))


@pytest.mark.parametrize("provider", PROVIDERS)
def test_somebody_logs_in_with_a_few_clicks(page, gateway, provider):
    page.goto(f"{gateway.url}/api/auth/sso/{provider}?next=/api/auth/kdf")
    page.click("#log-in-as-bob")
    page.wait_for_url(f"{gateway.url}/api/auth/kdf#sso=*")
    told = page.evaluate(REDEEM)
    assert told["status"] == 200
    assert told["cookies"] == ""  # no script may see it
    assert page.context.cookies() == []  # it has done its work
    [session] = gateway.get("/api/auth/sessions", told["body"]["token"]).json()["items"]
    assert session["method"] == provider
    assert "HeadlessChrome" in session["user_agent"]
    assert page.evaluate(REDEEM)["status"] == 400


def test_somebody_who_says_no_comes_back_with_the_reason(page, gateway):
    page.goto(f"{gateway.url}/api/auth/sso/github?next=/api/auth/kdf")
    page.click("#deny")
    page.wait_for_url(f"{gateway.url}/api/auth/kdf#sso_error=access_denied")
