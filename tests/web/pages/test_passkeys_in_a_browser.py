"""Passkeys in a real browser with a device that Chromium plays: made, used alone and as a second factor, lost, removed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, CDPSession, Page, expect

from tests.support.browser import watched_page
from tests.support.gateway import free_port
from tests.web.pages.conftest import PHONE, Site, accessibility_faults, has_no_sideways_scroll, tab_to
from tests.web.pages.test_sessions import log_in, new_name, sign_up

DEVICE = {
    "protocol": "ctap2",
    "transport": "internal",
    "hasResidentKey": True,
    "hasUserVerification": True,
    "isUserVerified": True,
    "automaticPresenceSimulation": True,
}


@pytest.fixture(scope="module")
def site_settings():
    port = free_port()
    return {"PORT": port, "PUBLIC_URL": f"http://localhost:{port}"}


@pytest.fixture
def page(browser: Browser, site: Site) -> Iterator[Page]:
    """At the public address: browsers have no passkeys for the number of one."""
    with watched_page(browser, but="/live/", base_url=site.url.replace("127.0.0.1", "localhost")) as opened:
        yield opened


class Device:
    """What makes and keeps passkeys for a page."""

    def __init__(self, page: Page) -> None:
        self.tools: CDPSession = page.context.new_cdp_session(page)
        self.tools.send("WebAuthn.enable")
        self.id = self.tools.send("WebAuthn.addVirtualAuthenticator", {"options": DEVICE})["authenticatorId"]

    def lose(self) -> None:
        self.tools.send("WebAuthn.removeVirtualAuthenticator", {"authenticatorId": self.id})

    def credentials(self) -> list:
        return self.tools.send("WebAuthn.getCredentials", {"authenticatorId": self.id})["credentials"]

    def verify_nobody(self) -> None:
        self.tools.send("WebAuthn.setUserVerified", {"authenticatorId": self.id, "isUserVerified": False})


@pytest.fixture
def device(page: Page) -> Device:
    return Device(page)


def add(page: Page, name: str) -> None:
    page.goto("/profile")
    page.get_by_label("Name of the device").fill(name)
    page.get_by_label("Name of the device").press("Enter")
    expect(page.locator("#outcome")).to_contain_text("The passkey is there")
    expect(page.locator("#passkeys")).to_contain_text(name)


def test_from_making_one_to_coming_back_without_it(page, site, device):
    name = new_name()
    page.set_viewport_size(PHONE)
    codes = sign_up(page, name)
    page.wait_for_url("**/dashboard")
    add(page, "Ann’s phone")
    [credential] = device.credentials()
    assert credential["isResidentCredential"]
    assert accessibility_faults(page) == []
    assert has_no_sideways_scroll(page)

    page.context.clear_cookies()
    page.goto("/login")
    assert accessibility_faults(page) == []
    tab_to(page, "Log in with a passkey")
    page.keyboard.press("Enter")
    page.wait_for_url("**/dashboard")

    page.context.clear_cookies()
    page.goto("/login")
    log_in(page, name)
    second = page.get_by_label("Code of your app, or a recovery code")
    expect(second).to_be_focused()
    expect(page.get_by_role("alert")).to_contain_text("or use a passkey")
    assert accessibility_faults(page) == []
    tab_to(page, "Use a passkey")
    page.keyboard.press("Enter")
    page.wait_for_url("**/dashboard")

    device.lose()
    page.context.clear_cookies()
    page.goto("/login")
    log_in(page, name)
    second.fill(codes[0])
    second.press("Enter")
    page.wait_for_url("**/dashboard")
    page.goto("/profile")
    expect(page.locator("#passkeys")).to_contain_text("last used")
    page.get_by_role("button", name="Remove the passkey Ann’s phone").press("Enter")
    expect(page.locator("#passkeys")).not_to_contain_text("Ann’s phone")


def test_who_says_no_or_is_not_verified_is_told_so_and_comes_in_otherwise(page, site, device):
    name = new_name()
    sign_up(page, name)
    page.wait_for_url("**/dashboard")
    add(page, "laptop")
    device.verify_nobody()
    page.goto("/profile")
    page.get_by_label("Name of the device").fill("another")
    page.get_by_label("Name of the device").press("Enter")
    expect(page.locator("#passkeys .error")).to_contain_text("Your device has made no passkey")
    page.context.clear_cookies()
    page.goto("/login")
    page.get_by_role("button", name="Log in with a passkey").click()
    expect(page.get_by_role("alert")).to_contain_text("No passkey of this account was used here")
    expect(page.get_by_role("button", name="Log in", exact=True)).to_be_enabled()
    assert [one["signCount"] for one in device.credentials()] == [1]


def test_one_that_was_removed_opens_nothing_any_more(page, site, device):
    sign_up(page, new_name())
    page.wait_for_url("**/dashboard")
    add(page, "phone")
    page.get_by_role("button", name="Remove the passkey phone").click()
    expect(page.get_by_role("button", name="Remove the passkey phone")).to_have_count(0)
    add(page, "phone")  # the form is there again
    page.get_by_role("button", name="Remove the passkey phone").click()
    expect(page.get_by_role("button", name="Remove the passkey phone")).to_have_count(0)
    page.context.clear_cookies()
    page.goto("/login")
    page.get_by_role("button", name="Log in with a passkey").click()
    expect(page.get_by_role("alert")).to_contain_text("opens no account here any more")
