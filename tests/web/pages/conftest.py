"""A gateway with pages, and somebody who looks at them in a browser."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests
from playwright.sync_api import Browser, BrowserContext, Page

from tests.support.browser import watched_page
from tests.support.gateway import ROOT, Gateway
from tests.web.pages.operator_world import admin, admins_page, database, user  # noqa: F401 - fixtures of several files

AXE = ROOT / "tests/vendor/axe-core-4.14.1.min.js"
PHONE = {"width": 390, "height": 844}


class Site:
    """The gateway as a person with a browser meets it."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.url = gateway.url

    def new_person(self) -> dict[str, str]:
        """An account of somebody new, with an access token."""
        account = self.gateway.new_account()
        return account | {"token": self.gateway.post("/login", account).json()["token"]}

    def enter(self, context: BrowserContext, person: dict[str, str]) -> None:
        """Give a browser the cookie of somebody's session."""
        began = requests.post(f"{self.url}/session", headers={"Authorization": f"Bearer {person['token']}"}, timeout=30)
        assert began.status_code == 204, began.text
        [cookie] = began.cookies
        context.add_cookies([{"name": cookie.name, "value": str(cookie.value), "url": self.url, "httpOnly": True}])

    def signed_in(self, person: dict[str, str]) -> requests.Session:
        """Somebody's browser without a window: with the cookie of a session and the token of its pages."""
        http = requests.Session()
        began = http.post(f"{self.url}/session", headers={"Authorization": f"Bearer {person['token']}"}, timeout=30)
        assert began.status_code == 204, began.text
        found = re.search(r'name="csrf-token" content="([^"]+)"', http.get(f"{self.url}/dashboard", timeout=30).text)
        assert found
        http.headers["X-CSRF-Token"] = found[1]
        return http


@pytest.fixture(scope="module")
def site_settings() -> dict[str, Any]:
    """Settings of this module's gateway, besides the usual ones."""
    return {}


@pytest.fixture(scope="module")
def site(start: Callable[..., Gateway], stand_in: Any, site_settings: dict[str, Any]) -> Site:
    key = stand_in.new_key()["key"]
    return Site(start(OPENROUTER_API_URL=stand_in.address, OPENROUTER_API_KEYS=key, **site_settings))


@pytest.fixture
def page(browser: Browser, site: Site) -> Iterator[Page]:
    """A page in a browser of its own, logged in as nobody."""
    # As many live streams as may be are open at some time: the page comes again.
    with watched_page(browser, but="/live/", base_url=site.url) as opened:
        yield opened


@pytest.fixture
def person(page: Page, site: Site) -> dict[str, str]:
    """Somebody new, who is logged in on the page."""
    made = site.new_person()
    site.enter(page.context, made)
    return made


def log_out(page: Page) -> None:
    """Log out by the menu of the account."""
    page.get_by_role("button", name="Account", exact=True).click()
    page.get_by_role("button", name="Log out").click()


def accessibility_faults(page: Page) -> list[str]:
    """What axe finds on the page as it is, by WCAG 2.2 AA and its best practices."""
    # By the DevTools, which the page's policy does not bind.
    page.evaluate(AXE.read_text())
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [f"{one['id']}: {node['html']}" for one in found["violations"] for node in one["nodes"]]


def has_no_sideways_scroll(page: Page) -> bool:
    """True if the page fits the width of its window."""
    return bool(page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth"))


def tab_to(page: Page, name: str) -> None:
    """Move the focus by the Tab key until it is on what is called so."""
    for _ in range(80):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.ariaLabel || document.activeElement.innerText") == name:
            return
    raise AssertionError(f"the Tab key never gets to {name}")
