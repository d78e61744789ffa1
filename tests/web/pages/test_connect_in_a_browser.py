"""Connecting one's OpenRouter account in a real browser, from a page of the gateway and back, and in the wrong one."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.sandbox.conftest import Running
from tests.support.browser import watched_page
from tests.support.gateway import Gateway, free_port, new_derived_key, wait_for

BASE = "/api/v1/openrouter"
INITIATE = """
async (account) => {
  const post = async (path, body, headers) => (await fetch(path, {
    method: "POST", headers: {"Content-Type": "application/json", ...headers}, body: JSON.stringify(body),
  })).json();
  const session = await post("/login", account);
  const begun = await post("/api/v1/openrouter/oauth/initiate", {}, {Authorization: "Bearer " + session.access_token});
  return begun.authorization_url;
}
"""


@pytest.fixture(scope="module")
def service(stand_in: Running) -> dict[str, Any]:
    """The account at OpenRouter that pays for whoever has connected none of their own, and its key."""
    account = stand_in.new_account(balance=1000)["id"]
    return {"account": account, "key": stand_in.new_key(account=account)["key"]}


@pytest.fixture(scope="module")
def gateway(start: Callable[..., Gateway], stand_in: Running, service: dict[str, Any]) -> Gateway:
    """At the address that it takes for its public one: another site than OpenRouter's, which decides over cookies."""
    port = free_port()
    return start(
        PORT=port,
        PUBLIC_URL=f"http://localhost:{port}",
        OPENROUTER_API_URL=stand_in.address,
        OPENROUTER_API_KEYS=service["key"],
    )


class Person:
    """Somebody with a browser, an account at the gateway, and one at OpenRouter."""

    def __init__(self, gateway: Gateway, stand_in: Running, page: Page) -> None:
        self.gateway, self.stand_in, self.page = gateway, stand_in, page
        self.account = {"username": f"{secrets.token_hex(8)}@example.com", "derived_key": new_derived_key()}
        assert gateway.post("/register", self.account).status_code == 201
        self.token = gateway.post("/login", self.account).json()["access_token"]
        self.own = stand_in.new_account(balance=50)["id"]

    def initiate(self) -> str:
        """On a page of the gateway, which logs in and keeps its token to itself; returns where it sends the browser."""
        self.page.goto(f"{self.gateway.settings['PUBLIC_URL']}/api/health")
        return self.page.evaluate(INITIATE, self.account)

    def status(self) -> dict[str, Any]:
        answer = self.gateway.get(f"{BASE}/status", self.token)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def payer(self) -> str:
        """The account at OpenRouter that has paid for a call."""
        before = self.bill()
        answer = self.gateway.chat(self.token)
        assert answer.status_code == 200, answer.text
        nothing = {"nano": 0}
        [payer] = [one["account"] for key, one in self.bill().items() if one["nano"] > before.get(key, nothing)["nano"]]
        return payer

    def bill(self) -> dict[str, Any]:
        return self.stand_in.control("GET", "bill")["keys"]

    def exchanges(self) -> int:
        """How often OpenRouter was asked to redeem a code."""
        return sum(one["path"] == "/api/v1/auth/keys" for one in self.stand_in.control("GET", "log")["requests"])


@pytest.fixture
def new_page(browser: Browser) -> Iterator[Callable[[], Page]]:
    """Open pages, each in a browser of somebody else."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(watched_page(browser))


@pytest.fixture
def person(gateway: Gateway, stand_in: Running, new_page: Callable[[], Page]) -> Person:
    return Person(gateway, stand_in, new_page())


def page_says(page: Page, title: str) -> str:
    """The text of the gateway's page of this title, to which the browser has come back."""
    page.wait_for_url(f"**{BASE}/oauth/callback?*")
    expect(page).to_have_title(title)
    return page.locator("p").inner_text()


def test_somebody_connects_their_account_with_a_few_clicks_and_disconnects_it(gateway, stand_in, service, person):
    assert person.status()["state"] == "none"
    assert person.payer() == service["account"]
    page = person.page
    page.goto(person.initiate())
    page.wait_for_url(f"{stand_in.root}/**")
    page.select_option("select[name=account]", person.own)
    page.click("button[value=approve]")
    assert page_says(page, "Connected") == "Your OpenRouter account is connected. You can close this window."
    assert page.context.cookies(page.url) == []  # it has done its work
    status = person.status()
    assert (status["connected"], status["state"], status["method"]) == (True, "active", "oauth")
    wait_for(lambda: person.payer() == person.own)

    page.reload()
    expect(page).to_have_title("Not connected")  # a state works once
    assert person.status() == status

    assert gateway.post(f"{BASE}/logout", None, person.token).status_code == 200
    assert person.status()["connected"] is False
    wait_for(lambda: person.payer() == service["account"])


def test_somebody_who_says_no_comes_back_to_a_page_that_tells_so(service, person):
    before = person.exchanges()
    person.page.goto(person.initiate())
    person.page.click("button[value=deny]")
    assert "was not approved" in page_says(person.page, "Not connected")
    assert person.status()["state"] == "none"
    assert person.exchanges() == before
    assert person.payer() == service["account"]


def test_the_way_back_is_refused_in_a_browser_that_did_not_begin(gateway, stand_in, service, person, new_page):
    """As if an attacker sent the link to a victim, who is logged in and connecting too, or to somebody who is new."""
    victim = Person(gateway, stand_in, new_page())
    victim.initiate()  # so that their browser has a cookie, but another
    before = person.exchanges()
    for page in (new_page(), victim.page):
        callback = stand_in.decide(person.initiate(), person.own)
        page.goto(callback)
        assert "was not begun in this session or browser" in page_says(page, "Not connected")
        assert (person.status()["state"], victim.status()["state"]) == ("none", "none")
    person.page.goto(callback)
    page_says(person.page, "Not connected")  # whoever shows a state uses it up
    assert person.exchanges() == before  # OpenRouter has heard of no code
    assert victim.payer() == person.payer() == service["account"]

    person.page.goto(stand_in.decide(person.initiate(), person.own))
    expect(person.page).to_have_title("Connected")
    assert person.status()["method"] == "oauth"
    assert victim.status()["state"] == "none"
