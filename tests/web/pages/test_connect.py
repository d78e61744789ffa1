"""Connecting one's OpenRouter account on its page: with a key, in a pop-up, by keyboard; and what goes wrong."""

from __future__ import annotations

import re
from typing import Any

import pytest
import requests
from playwright.sync_api import Page, expect

from tests.support.gateway import free_port
from tests.web.pages.conftest import PHONE, Site, accessibility_faults, has_no_sideways_scroll

STATUS = "/api/v1/openrouter/status"


@pytest.fixture(scope="module")
def site_settings() -> dict[str, Any]:
    """OpenRouter's log-in needs an address to come back to."""
    port = free_port()
    return {"PORT": port, "PUBLIC_URL": f"http://127.0.0.1:{port}"}


def open_dialog(page: Page) -> None:
    page.goto("/connect")
    page.get_by_role("button", name="Connect to OpenRouter").click()


def connect_with(page: Page, key: str) -> None:
    open_dialog(page)
    page.fill("[name=api_key]", key)
    page.get_by_role("dialog").get_by_role("button", name="Connect", exact=True).click()


def badge(page: Page) -> Any:
    return page.locator("#connection .badge")


def connection(site: Site, person: dict[str, str]) -> dict[str, Any]:
    return site.gateway.get(STATUS, person["token"]).json()


def test_somebody_connects_with_a_key_looks_what_is_left_goes_to_the_models_and_disconnects(
    page, site, person, stand_in
):
    key = stand_in.new_key(limit=20)["key"]
    teammate = site.new_person()
    connect_with(page, key)
    expect(badge(page)).to_have_text("Connected")
    expect(page.get_by_role("dialog")).to_be_hidden()
    assert key not in page.content()
    assert connection(site, person)["method"] == "key"
    assert connection(site, teammate)["connected"] is False
    expect(page.get_by_text("Left", exact=True).locator("xpath=following-sibling::dd")).to_have_text("$20.00")
    page.get_by_role("button", name="Ask again").click()
    expect(page.get_by_text("OpenRouter said so at")).to_be_visible()
    page.get_by_role("link", name="To the models").click()
    page.wait_for_url("**/models")
    page.goto("/connect")
    page.get_by_role("button", name="Disconnect").click()
    expect(badge(page)).to_have_text("Not connected")
    assert connection(site, person)["connected"] is False


@pytest.mark.parametrize(
    ("typed", "says", "kind"),
    [
        ("sk-or-v1-0123456789abcdef", "This looks like an OpenRouter key", "good"),
        (" sk-or-v1-0123456789abcdef\n", "This looks like an OpenRouter key", "good"),
        ("sk-0123456789abcdef", "This is no OpenRouter key", "bad"),
        ("sk-or-", "This is no OpenRouter key", "bad"),
        ("", "It begins with sk-or-", "hint"),
    ],
)
def test_the_form_of_a_key_is_told_as_one_types(page, person, typed, says, kind):
    open_dialog(page)
    page.fill("[name=api_key]", "x")
    page.fill("[name=api_key]", typed)
    expect(page.locator("#key-format")).to_contain_text(says)
    assert kind in (page.get_attribute("#key-format", "class") or "")


def test_a_key_that_openrouter_does_not_know_is_refused_with_what_to_do(page, site, person):
    connect_with(page, "sk-or-v1-" + "0" * 64)
    error = page.locator("#panel-key .error")
    expect(error).to_contain_text("OpenRouter does not accept this key: it may be deleted or disabled")
    expect(page.get_by_role("dialog").get_by_role("button", name="Connect", exact=True)).to_be_enabled()
    assert connection(site, person)["connected"] is False


def begin_in_pop_up(page: Page) -> Page:
    open_dialog(page)
    page.get_by_role("tab", name="Log in at OpenRouter").click()
    with page.expect_popup() as opened:
        page.locator("#oauth").click()
    expect(page.locator("#oauth-state")).to_contain_text("Go on in the other window")
    return opened.value


def test_somebody_connects_in_a_pop_up_and_the_page_notices(page, site, person, stand_in):
    account = stand_in.new_account(balance=50)["id"]
    popup = begin_in_pop_up(page)
    popup.select_option("select[name=account]", account)
    popup.click("button[value=approve]")
    expect(badge(page)).to_have_text("Connected")
    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(page.get_by_text("OpenRouter’s log-in")).to_be_visible()
    assert connection(site, person)["method"] == "oauth"
    if not popup.is_closed():
        popup.wait_for_event("close")
    page.get_by_role("link", name="Choose a model").click()
    page.wait_for_url("**/models")


def test_who_says_no_at_openrouter_is_told_there_and_may_begin_again(page, site, person):
    popup = begin_in_pop_up(page)
    popup.click("button[value=deny]")
    expect(popup.get_by_role("heading")).to_have_text("Not connected")
    popup.close()
    expect(page.locator("#oauth-state")).to_contain_text("The window is closed")
    expect(page.locator("#oauth")).to_be_enabled()
    expect(badge(page)).to_have_text("Not connected")
    assert connection(site, person)["connected"] is False


def test_where_pop_ups_are_blocked_there_is_a_link(page, person):
    page.add_init_script("window.open = () => null")
    open_dialog(page)
    page.get_by_role("tab", name="Log in at OpenRouter").click()
    page.locator("#oauth").click()
    link = page.get_by_role("link", name="Open OpenRouter’s page")
    expect(link).to_be_visible()
    assert "code_challenge" in (link.get_attribute("href") or "")


def test_which_keys_carry_calls_is_chosen_once_an_account_is_connected(page, site, person, stand_in):
    page.goto("/connect")
    expect(page.get_by_role("radio")).to_have_count(0)
    connect_with(page, stand_in.new_key()["key"])
    expect(page.get_by_role("radio", name="My own first")).to_be_checked()
    with page.expect_response("**/connect/upstream"):
        page.get_by_role("radio", name="My own only").check()
    assert site.gateway.get("/api/upstream", person["token"]).json()["choice"] == "dedicated_only"
    page.reload()
    expect(page.get_by_role("radio", name="My own only")).to_be_checked()


def test_the_dialog_works_by_keyboard_alone(page, person):
    page.goto("/connect")
    page.get_by_role("button", name="Connect to OpenRouter").press("Enter")
    tab = page.get_by_role("tab", name="API key")
    tab.focus()
    tab.press("ArrowRight")
    other = page.get_by_role("tab", name="Log in at OpenRouter")
    expect(other).to_be_focused()
    expect(other).to_have_attribute("aria-selected", "true")
    expect(page.locator("#panel-oauth")).to_be_visible()
    expect(page.locator("#panel-key")).to_be_hidden()
    other.press("ArrowRight")
    expect(tab).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    expect(page.locator("[name=api_key]")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/connect"),
        ("GET", "/connect/status"),
        ("POST", "/connect/key"),
        ("POST", "/connect/oauth"),
        ("POST", "/connect/check"),
        ("PUT", "/connect/upstream"),
        ("DELETE", "/connect"),
    ],
)
def test_nobody_gets_in_without_a_session_and_nothing_changes_without_its_token(site, person, page, method, path):
    asked = requests.request(method, site.url + path, timeout=10, allow_redirects=False)
    assert asked.status_code == 303
    assert asked.headers["Location"].startswith("/login")
    [cookie] = page.context.cookies()
    if method != "GET":
        cookies = {cookie["name"]: cookie["value"]}
        assert requests.request(method, site.url + path, cookies=cookies, timeout=30).status_code == 403


def test_the_page_asks_openrouter_no_more_often_than_the_api_may(start, stand_in):
    house = Site(start(OPENROUTER_API_URL=stand_in.address, LOGIN_RATE_LIMIT_PER_MINUTE=2))
    person = house.new_person()
    began = requests.post(f"{house.url}/session", headers={"Authorization": f"Bearer {person['token']}"}, timeout=30)
    cookies = began.cookies.get_dict()
    found = re.search(
        r'name="csrf-token" content="([^"]+)"', requests.get(f"{house.url}/connect", cookies=cookies, timeout=30).text
    )
    assert found
    headers = {"X-CSRF-Token": found[1]}

    def ask(path: str, **form: str) -> int:
        return requests.post(f"{house.url}{path}", form, cookies=cookies, headers=headers, timeout=30).status_code

    assert ask("/connect/key", api_key="x") == 400
    validate = {"api_key": "x"}
    assert house.gateway.post("/api/v1/openrouter/auth/validate-key", validate, person["token"]).status_code == 400
    assert [ask("/connect/key", api_key="x"), ask("/connect/check"), ask("/connect/oauth")] == [429, 429, 429]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_accessible_and_fits_a_phone(page, person, stand_in, scheme):
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size(PHONE)
    open_dialog(page)
    assert accessibility_faults(page) == []
    page.get_by_role("tab", name="Log in at OpenRouter").click()
    assert accessibility_faults(page) == []
    connect_with(page, stand_in.new_key()["key"])
    expect(badge(page)).to_have_text("Connected")
    assert accessibility_faults(page) == []
    assert has_no_sideways_scroll(page)
