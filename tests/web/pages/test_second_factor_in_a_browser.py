"""A second factor in a real browser: set up by keyboard, asked for at the next log-in, removed."""

from __future__ import annotations

import time

import pyotp
import pytest
from playwright.sync_api import expect

from config.settings import Config
from db import Database, database_url
from tables import totp_secrets
from tests.support.gateway import free_port
from tests.support.sign_on import sign_on_settings
from tests.web.pages.conftest import PHONE, accessibility_faults, has_no_sideways_scroll, tab_to
from tests.web.pages.test_profile import show_pictures
from tests.web.pages.test_sessions import log_in, new_name, sign_up


@pytest.fixture(scope="module")
def site_settings(identity_provider, tmp_path_factory):
    port, file = free_port(), tmp_path_factory.mktemp("site") / "x.db"
    settings = sign_on_settings(identity_provider, f"http://127.0.0.1:{port}")
    return {"PORT": port, "DATABASE_URL": f"sqlite:///{file}"} | settings


@pytest.fixture
def forget_steps(site):
    """Let the code that was shown just now be good again, as half a minute later another one is."""
    database = Database(database_url(Config(database_url=site.gateway.settings["DATABASE_URL"])))
    yield lambda: database.transact(lambda tx: tx.execute(totp_secrets.update().values(last_step=None)))
    database.close()


def set_up(page) -> pyotp.TOTP:
    page.goto("/profile")
    tab_to(page, "Set up an app")
    page.keyboard.press("Enter")
    app = pyotp.TOTP(page.locator("#app-secret").inner_text())
    assert accessibility_faults(page) == []
    field = page.get_by_label("Code that the app shows now")
    expect(field).to_be_visible()
    field.fill("000000")
    field.press("Enter")
    expect(page.locator("#second-factor .error")).to_contain_text("Invalid credentials")
    field.fill(app.at(time.time()))
    field.press("Enter")
    expect(page.locator("#second-factor")).to_contain_text("each log-in takes a code")
    return app


def test_from_setting_it_up_to_removing_it(page, site, forget_steps):
    name = new_name()
    page.set_viewport_size(PHONE)
    sign_up(page, name)
    page.wait_for_url("**/dashboard")
    app = set_up(page)
    assert accessibility_faults(page) == []
    assert has_no_sideways_scroll(page)
    page.context.clear_cookies()
    page.goto("/login")
    log_in(page, name)
    second = page.get_by_label("Code of your app, or a recovery code")
    expect(second).to_be_focused()
    expect(page.get_by_role("alert")).to_contain_text("This account has a second factor")
    assert accessibility_faults(page) == []
    forget_steps()
    second.fill(app.at(time.time()))
    second.press("Enter")
    page.wait_for_url("**/dashboard")
    page.goto("/profile")
    page.once("dialog", lambda dialog: dialog.accept())
    page.locator("#remove-second-factor").press("Enter")
    expect(page.locator("#second-factor")).to_contain_text("who knows your password alone")


def test_who_comes_in_through_a_provider_is_asked_too(page, site, forget_steps):
    show_pictures(page)
    page.goto("/login")
    page.get_by_role("link", name="Continue with GitHub").click()
    page.click("#log-in-as-bob")
    page.wait_for_url("**/dashboard")
    app = set_up(page)
    page.context.clear_cookies()
    page.goto("/login")
    page.get_by_role("link", name="Continue with GitHub").click()
    page.click("#log-in-as-bob")
    second = page.get_by_label("Code of your app, or a recovery code")
    expect(second).to_be_focused()
    expect(page.get_by_label("Password")).to_have_count(1)
    expect(page.locator("#log-in [name=password]")).to_be_hidden()
    forget_steps()
    second.fill(app.at(time.time()))
    second.press("Enter")
    page.wait_for_url("**/dashboard")
