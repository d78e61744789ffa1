"""From a first start to a member who leaves, in English and in Chinese, by keyboard alone.

The first operator comes in by the link of the start and invites somebody. They sign up on a phone, add a passkey, lose
the phone, come back by a recovery code and delete their account.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.support.browser import watched_page
from tests.support.gateway import Gateway, free_port, wait_for
from tests.web.pages.conftest import PHONE, accessibility_faults, has_no_sideways_scroll
from tests.web.pages.test_passkeys_in_a_browser import Device
from tests.web.pages.test_sessions import PASSWORD, new_name
from web.words import translate

LANGUAGES = {"en": "en-GB", "zh": "zh-CN"}
ADDED = "The passkey is there: from now on it opens your account, and every other log-in takes a second factor."
# What the focus is on, as people call it: of a field, the text before it.
NAME = """() => {
  const one = document.activeElement;
  return one.ariaLabel ?? (one.labels?.[0]?.firstChild.textContent || one.innerText).trim();
}"""


class Keyboard:
    """A browser in one language that is used by keyboard alone."""

    def __init__(self, page: Page, language: str) -> None:
        self.page = page
        self._language = language

    def said(self, text: str, **parts: str) -> str:
        """A text as this browser's language has it."""
        return translate(text, self._language, **parts)

    def reach(self, text: str, **parts: str) -> None:
        """Press Tab until the focus is on what is called so."""
        wanted = self.said(text, **parts)
        for _ in range(80):
            if self.page.evaluate(NAME) == wanted:
                return
            self.page.keyboard.press("Tab")
        raise AssertionError(f"the Tab key never gets to {wanted}")

    def press(self, text: str, **parts: str) -> None:
        self.reach(text, **parts)
        self.page.keyboard.press("Enter")

    def type(self, field: str, text: str) -> None:
        self.reach(field)
        self.page.keyboard.type(text)

    def is_in_order(self) -> bool:
        """True if axe finds nothing, and the page fits the window."""
        assert accessibility_faults(self.page) == []
        return has_no_sideways_scroll(self.page)

    def sign_up(self, link: str) -> tuple[str, list[str]]:
        """By an invitation's link; returns the name and the recovery codes."""
        name = new_name()
        self.page.goto(link)
        assert self.is_in_order()
        self.type("Username or e-mail", name)
        self.type("Password", PASSWORD)
        self.type("Password once more", PASSWORD)
        self.page.keyboard.press("Enter")
        expect(self.page.locator("#recovery")).to_be_focused()
        assert self.is_in_order()
        codes = self.page.locator("#codes").inner_text().split()
        self.press("I have saved them: continue")
        self.page.wait_for_url("**/dashboard")
        return name, codes

    def log_out(self) -> None:
        self.press("Menu")
        self.press("Log out")
        self.page.wait_for_url("**/login*")

    def log_in(self, name: str) -> None:
        self.type("Username or e-mail", name)
        self.type("Password", PASSWORD)
        self.page.keyboard.press("Enter")


@pytest.fixture
def gateway(start: Callable[..., Gateway], stand_in: Any) -> Gateway:
    """One that starts for the first time: nobody is there yet, and browsers may have passkeys for its address."""
    port = free_port()
    address = {"PORT": port, "PUBLIC_URL": f"http://localhost:{port}"}
    key = stand_in.new_key()["key"]
    return start(
        by_app_py=True, REGISTRATION="invite", OPENROUTER_API_URL=stand_in.address, OPENROUTER_API_KEYS=key, **address
    )


@pytest.mark.parametrize("language", LANGUAGES)
def test_somebody_is_invited_comes_loses_the_phone_comes_back_and_leaves(
    browser: Browser, gateway: Gateway, language: str
) -> None:
    [first] = wait_for(lambda: re.findall(r"http\S+/register#invitation=inv_[\w-]+", gateway.log()))
    address, locale = gateway.settings["PUBLIC_URL"], LANGUAGES[language]
    with watched_page(browser, but="/live/", base_url=address, locale=locale) as page:
        operator = Keyboard(page, language)
        operator.sign_up(first)
        operator.press("Operator")
        page.wait_for_url("**/operator")
        operator.press("Invitations")
        page.wait_for_url("**/operator/invitations")
        operator.press("Invite somebody")
        operator.type("For", "Ann")
        operator.press("Make a link")
        link = page.locator("#made-link").inner_text()
        assert operator.is_in_order()
    with watched_page(browser, base_url=address, locale=locale, viewport=PHONE, is_mobile=True, has_touch=True) as page:
        comes_and_goes(Keyboard(page, language), link)


def comes_and_goes(member: Keyboard, link: str) -> None:
    page, device = member.page, Device(member.page)
    name, codes = member.sign_up(link)
    member.press("Menu")
    member.press("Profile")
    page.wait_for_url("**/profile")
    member.type("Name of the device", "Ann’s phone")
    page.keyboard.press("Enter")
    expect(page.locator("#outcome")).to_contain_text(member.said(ADDED))
    assert member.is_in_order()
    member.log_out()
    member.press("Log in with a passkey")
    page.wait_for_url("**/dashboard")
    member.log_out()

    device.lose()
    member.log_in(name)
    expect(page.get_by_label(member.said("Code of your app, or a recovery code"))).to_be_focused()
    assert member.is_in_order()
    page.keyboard.type(codes[3])
    page.keyboard.press("Enter")
    page.wait_for_url("**/dashboard")
    member.press("Menu")
    member.press("Profile")
    page.wait_for_url("**/profile")
    member.press("Remove the passkey {name}", name="Ann’s phone")
    expect(page.locator("#passkeys")).not_to_contain_text("Ann’s phone")

    member.press("Delete your account")
    page.wait_for_url("**/login*")
    member.log_in(name)
    expect(page.get_by_role("alert")).to_have_text(member.said("Username or password is wrong"))
