"""From a link of an invitation to an account, in a browser: an operator invites, lets in and turns away."""

from __future__ import annotations

import re
import secrets
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.support.gateway import wait_for
from tests.web.pages.conftest import PHONE, accessibility_faults, has_no_sideways_scroll
from tests.web.pages.operator_world import operator_settings
from tests.web.pages.test_sessions import keep_codes

PASSWORD = "violet-Harbor-lantern-9"


@pytest.fixture(scope="module")
def site_settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return operator_settings(tmp_path_factory) | {"REGISTRATION": "approval"}


def sign_up(page, address: str) -> str:
    name = f"{secrets.token_hex(6)}@example.com"
    page.goto(address)
    page.get_by_label("Username or e-mail").fill(name)
    page.get_by_label("Password", exact=True).fill(PASSWORD)
    page.get_by_label("Password once more").fill(PASSWORD)
    page.get_by_role("button", name="Sign up").click()
    keep_codes(page)
    return name


def test_an_operator_invites_somebody_who_signs_up_by_the_link(admins_page, browser, site):
    page = admins_page
    page.goto("/operator/invitations")
    page.get_by_role("button", name="Invite somebody").press("Enter")
    form = page.get_by_role("dialog", name="Invite somebody")
    form.get_by_label("For", exact=True).fill("Ann")
    form.get_by_label("Limit in dollars").fill("12.5")
    form.get_by_role("button", name="Make a link").click()
    link = page.locator("#made-link").inner_text()
    assert re.fullmatch(rf"{site.url}/register#invitation=inv_[\w-]{{43}}", link)
    expect(page.get_by_role("row", name="Ann")).to_contain_text("$12.50")
    assert accessibility_faults(page) == []

    guest = browser.new_page(base_url=site.url, viewport=PHONE)
    sign_up(guest, link)
    guest.wait_for_url("**/dashboard")
    guest.context.close()
    page.reload()
    expect(page.get_by_role("row", name="Ann")).to_contain_text("used")
    expect(page.locator("#made-link")).to_have_count(0)
    page.set_viewport_size(PHONE)
    assert has_no_sideways_scroll(page)


def test_who_has_no_invitation_waits_until_an_operator_lets_them_in(admins_page, browser, site):
    guest = browser.new_page(base_url=site.url)
    name = sign_up(guest, "/register")
    expect(guest.get_by_role("alert")).to_contain_text("once an operator has let you in")
    assert accessibility_faults(guest) == []
    guest.goto("/login")
    guest.get_by_label("Username or e-mail").fill(name)
    guest.get_by_label("Password").fill(PASSWORD)
    guest.get_by_role("button", name="Log in").click()
    expect(guest.get_by_role("alert")).to_contain_text("waits for an operator")

    page = admins_page
    page.goto("/operator/users")
    page.get_by_label("Username or e-mail").fill(name)
    page.get_by_role("button", name="Find").click()
    expect(page.get_by_role("heading", name="This account waits for you to let it in")).to_be_visible()
    page.get_by_role("button", name="Approve").click()
    expect(page.locator("#user").get_by_role("status")).to_contain_text("Saved")
    wait_for(lambda: guest.get_by_role("button", name="Log in").is_enabled())
    guest.get_by_label("Password").fill(PASSWORD)
    guest.get_by_role("button", name="Log in").click()
    guest.wait_for_url("**/dashboard")
    guest.context.close()


def test_a_code_that_opens_nothing_is_told_in_ones_own_language(browser, site):
    page = browser.new_page(base_url=site.url, locale="zh-CN")
    page.goto("/register#invitation=inv_nothing")
    expect(page.get_by_label("邀请码")).to_have_value("inv_nothing")
    assert "inv_" not in page.url
    page.locator("[name=username]").fill("x@example.com")
    page.locator("[name=password]").fill(PASSWORD)
    page.locator("[name=again]").fill(PASSWORD)
    page.locator("#sign-up button").click()
    expect(page.get_by_role("alert")).to_contain_text("此邀请未知")
    page.context.close()
