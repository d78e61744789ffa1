"""A forgotten password, in a real browser: by a code of the sign-up, by an operator's link; and a first password."""

from __future__ import annotations

import secrets
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.support.gateway import free_port
from tests.support.sign_on import sign_on_settings
from tests.web.pages.conftest import PHONE, accessibility_faults, has_no_sideways_scroll
from tests.web.pages.operator_world import operator_settings
from tests.web.pages.test_profile import show_pictures
from tests.web.pages.test_sessions import PASSWORD, fill, log_in, new_name

NEW = "quiet Meadow 84 compass"


@pytest.fixture(scope="module")
def site_settings(identity_provider, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    port = free_port()
    return (
        operator_settings(tmp_path_factory)
        | sign_on_settings(identity_provider, f"http://127.0.0.1:{port}")
        | {"PORT": port}
    )


def test_who_kept_the_codes_comes_back_and_the_old_password_is_none(page, site):
    name = new_name()
    page.set_viewport_size(PHONE)
    page.goto("/register")
    fill(page, "#sign-up", username=name, password=PASSWORD, again=PASSWORD)
    page.locator("#sign-up [name=again]").press("Enter")
    expect(page.get_by_role("heading", name="Your recovery codes")).to_be_visible()
    codes = page.locator("#codes").inner_text().split()
    assert len(codes) == 10
    assert accessibility_faults(page) == []
    assert has_no_sideways_scroll(page)
    page.get_by_role("link", name="I have saved them: continue").press("Enter")
    page.wait_for_url("**/dashboard")
    page.context.clear_cookies()

    page.goto("/login")
    page.get_by_role("link", name="Forgotten your password?").press("Enter")
    page.wait_for_url("**/recover")
    assert accessibility_faults(page) == []
    fill(page, "#recover", username=name, recovery_code="nothing", password=NEW, again=NEW)
    page.click("#recover button")
    expect(page.get_by_role("alert")).to_contain_text("The username or the code is wrong")
    fill(page, "#recover", username=name, recovery_code=codes[4].lower(), password=NEW, again=NEW)
    page.click("#recover button")
    page.wait_for_url("**/dashboard")
    page.goto("/profile")
    expect(page.locator("#recovery")).to_contain_text("9 of 10 are left")
    page.once("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Make new codes").press("Enter")
    expect(page.locator("#codes")).to_be_visible()
    assert not set(page.locator("#codes").inner_text().split()) & set(codes)
    assert accessibility_faults(page) == []
    page.context.clear_cookies()
    page.goto("/login")
    log_in(page, name)
    expect(page.get_by_role("alert")).to_contain_text("Username or password is wrong")
    log_in(page, name, NEW)
    page.wait_for_url("**/dashboard")


def test_an_operators_link_lets_somebody_set_a_password_and_they_are_told(admins_page, browser, site):
    name = new_name()
    guest = browser.new_page(base_url=site.url, viewport=PHONE)
    guest.goto("/register")
    fill(guest, "#sign-up", username=name, password=PASSWORD, again=PASSWORD)
    guest.click("#sign-up button")
    guest.click("#go-on")
    guest.context.clear_cookies()

    page = admins_page
    page.goto("/operator/users")
    page.get_by_label("Username or e-mail").fill(name)
    page.get_by_role("button", name="Find").click()
    page.once("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Make a link").press("Enter")
    link = page.locator("#made-link").inner_text()
    assert link.partition("#")[0].endswith("/reset")
    assert accessibility_faults(page) == []
    page.reload()
    expect(page.locator("#made-link")).to_have_count(0)

    guest.goto("/reset#" + link.partition("#")[2])
    assert "reset_" not in guest.url
    assert accessibility_faults(guest) == []
    assert has_no_sideways_scroll(guest)
    fill(guest, "#recover", username="somebody-else", password=NEW, again=NEW)
    guest.click("#recover button")
    expect(guest.get_by_role("alert")).to_contain_text("not the username")
    fill(guest, "#recover", username=name, password=NEW, again=NEW)
    guest.click("#recover button")
    guest.wait_for_url("**/dashboard")
    guest.context.clear_cookies()
    guest.goto("/login")
    log_in(guest, name, NEW)
    guest.wait_for_url("**/profile")
    expect(guest.locator("#outcome")).to_contain_text("An operator has made a link")
    expect(guest.locator("#events")).to_contain_text("New password set by an operator’s link")
    guest.context.close()


def test_an_account_of_a_provider_gets_a_password(page, site):
    show_pictures(page)
    page.goto("/login")
    page.get_by_role("link", name="Continue with GitHub").click()
    page.click("#log-in-as-bob")
    page.wait_for_url("**/dashboard")
    page.goto("/profile")
    expect(page.locator("#recovery")).to_contain_text("set one first")
    name = f"{secrets.token_hex(6)}@example.com"
    fill(page, "#set-password", username=name, password=NEW, again=NEW)
    assert accessibility_faults(page) == []
    page.click("#set-password button")
    expect(page.locator("#outcome")).to_contain_text("Your password is set")
    page.context.clear_cookies()
    page.goto("/login")
    log_in(page, name, NEW)
    page.wait_for_url("**/dashboard")


def test_the_way_back_is_in_ones_own_language(browser, site):
    page = browser.new_page(base_url=site.url, locale="zh-CN")
    page.goto("/reset#reset=reset_nothing")
    fill(page, "#recover", username="x", password=NEW, again=NEW)
    page.click("#recover button")
    expect(page.get_by_role("alert")).to_contain_text("此链接未知")
    page.context.close()
