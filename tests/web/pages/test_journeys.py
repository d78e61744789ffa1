"""Whole journeys in one browser, as people make them: from the sign-up to a revoked key, from connecting to disconnecting."""

from __future__ import annotations

import csv
import io
from typing import Any

import pytest
import sqlalchemy as sa
from playwright.sync_api import Browser, Page, expect

import tables
from db import Database
from tests.support.gateway import free_port, user_id_of, wait_for
from tests.web.pages.conftest import PHONE, Site, accessibility_faults, has_no_sideways_scroll, log_out, tab_to
from tests.web.pages.operator_world import operator_settings
from tests.web.pages.test_connect import badge, begin_in_pop_up, connect_with, connection, open_dialog
from tests.web.pages.test_dashboard import tile
from tests.web.pages.test_keys import add_watched_key, used_key
from tests.web.pages.test_models import ids
from tests.web.pages.test_playground import answers, say
from tests.web.pages.test_profile import NEW_PASSWORD, fill_passwords
from tests.web.pages.test_sessions import PASSWORD, log_in, new_name, sign_up

MODEL = "openai/gpt-4o-mini"


@pytest.fixture(scope="module")
def site_settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """OpenRouter's log-in needs an address to come back to."""
    port = free_port()
    return operator_settings(tmp_path_factory) | {"PORT": port, "PUBLIC_URL": f"http://127.0.0.1:{port}"}


def go(page: Page, name: str) -> None:
    """Follow a link of the header."""
    page.get_by_role("navigation", name="Pages").get_by_role("link", name=name).click()
    expect(page.get_by_role("navigation", name="Pages").locator("[aria-current=page]")).to_have_text(name)


def section(page: Page, title: str) -> Any:
    return page.locator("section", has=page.get_by_role("heading", name=title))


def make_client_key(page: Page, name: str) -> str:
    page.get_by_role("button", name="New key").click()
    page.fill("#new-client-key [name=name]", name)
    page.get_by_role("button", name="Make key").click()
    return page.locator("#made-key").inner_text()


def make_token(page: Page, name: str) -> str:
    page.get_by_role("button", name="New token").click()
    page.fill("#new-api-token [name=name]", name)
    page.get_by_role("button", name="Make token").click()
    return page.locator("#made-token").inner_text()


def shows_requests(page: Page) -> bool:
    page.goto("/dashboard")
    return page.get_by_role("heading", name="Latest requests").count() == 1


# ── the key monitor


def test_somebody_signs_up_watches_what_keys_cost_and_tidies_up(page: Page, site: Site, stand_in: Any) -> None:
    somebody = new_name()
    sign_up(page, somebody)
    page.wait_for_url("**/dashboard")
    expect(page.get_by_role("heading", name="No requests in these days")).to_be_visible()
    page.get_by_role("link", name="Make a key").click()
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    key = make_client_key(page, "first try")
    page.get_by_role("button", name="Copy").click()
    expect(page.locator("#notices")).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == key
    page.reload()
    expect(page.get_by_label("Name of")).to_have_value("first try")
    assert key not in page.content()

    answer = site.gateway.chat(key, MODEL)
    assert answer.status_code == 200
    cost = answer.json()["usage"]["cost"]
    wait_for(lambda: shows_requests(page))
    assert tile(page, "Requests") == "1"
    assert float(tile(page, "Spent").removeprefix("$")) == pytest.approx(cost, rel=0.01)
    expect(section(page, "Latest requests").locator("tbody tr")).to_contain_text([MODEL])
    expect(section(page, "By key").locator("tbody tr")).to_contain_text(["first try"])
    go(page, "Keys")
    page.get_by_label("Name of").fill("nightly report")
    page.get_by_label("Name of").press("Enter")
    expect(page.get_by_role("button", name="Revoke nightly report")).to_be_visible()
    add_watched_key(page, "laptop", used_key(stand_in))
    expect(page.locator("#watched-keys tbody tr")).to_have_count(1)

    token = make_token(page, "chart")
    read = site.gateway.get("/api/v1/stats", token)
    assert read.json()["summary"]["requests"] == 1
    assert read.json()["summary"]["cost_usd"] == pytest.approx(cost)
    go(page, "Dashboard")
    expect(section(page, "By key").locator("tbody tr")).to_contain_text(["nightly report"])
    with page.expect_download() as download:
        page.get_by_role("link", name="CSV").click()
    [line] = csv.DictReader(io.StringIO(download.value.path().read_text()))
    assert line["model"] == MODEL

    go(page, "Keys")
    page.get_by_role("button", name="Revoke nightly report").click()
    expect(page.locator("#client-keys")).to_contain_text("No key yet")
    wait_for(lambda: site.gateway.chat(key, MODEL).status_code == 401)
    page.get_by_role("button", name="Revoke chart").click()
    expect(page.locator("#api-tokens")).to_contain_text("No token yet")
    wait_for(lambda: site.gateway.get("/api/v1/stats", token).status_code == 401)
    page.get_by_role("button", name="Account").click()
    page.get_by_role("link", name="Profile").click()
    fill_passwords(page, somebody, PASSWORD, NEW_PASSWORD)
    expect(page.locator("#outcome")).to_contain_text("Your password is changed")
    log_out(page)
    page.wait_for_url("**/login*")
    log_in(page, somebody)
    expect(page.get_by_role("alert")).to_have_text("Username or password is wrong")
    log_in(page, somebody, NEW_PASSWORD)
    page.wait_for_url("**/dashboard")
    assert tile(page, "Requests") == "1"


def test_the_heart_of_it_goes_by_keyboard_alone(page: Page, site: Site) -> None:
    page.goto("/register")
    for text in (new_name(), PASSWORD, PASSWORD):
        page.keyboard.type(text)
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")  # on the button, which comes next
    expect(page.locator("#recovery")).to_be_focused()
    tab_to(page, "I have saved them: continue")
    page.keyboard.press("Enter")
    page.wait_for_url("**/dashboard")
    tab_to(page, "Make a key")
    page.keyboard.press("Enter")
    page.wait_for_url("**/keys")
    tab_to(page, "New key")
    page.keyboard.press("Space")
    page.keyboard.type("by hand")
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Copy")).to_be_focused()
    key = page.locator("#made-key").inner_text()
    assert site.gateway.chat(key, MODEL).status_code == 200
    tab_to(page, "Revoke by hand")
    page.keyboard.press("Space")
    expect(page.locator("#client-keys")).to_contain_text("No key yet")
    expect(page.locator("#client-keys")).to_be_focused()
    wait_for(lambda: site.gateway.chat(key, MODEL).status_code == 401)
    tab_to(page, "Account")
    page.keyboard.press("Enter")
    tab_to(page, "Log out")
    page.keyboard.press("Enter")
    page.wait_for_url("**/login*")
    page.goto("/keys")
    expect(page).to_have_url(f"{site.url}/login?next=/keys")


# ── connecting an OpenRouter account


def paid_by(stand_in: Any, account: str) -> int:
    """What an account at OpenRouter has paid so far, in nano-dollars."""
    keys = stand_in.control("GET", "bill")["keys"].values()
    return sum(one["nano"] for one in keys if one["account"] == account)


def test_somebody_connects_chooses_a_model_asks_it_and_disconnects(
    page: Page, site: Site, person: dict[str, str], stand_in: Any, database: Database
) -> None:
    open_dialog(page)
    page.fill("[name=api_key]", "sk-0123456789abcdef")
    expect(page.locator("#key-format")).to_contain_text("This is no OpenRouter key")
    connect_with(page, stand_in.new_key(limit=20)["key"])
    expect(badge(page)).to_have_text("Connected")
    page.get_by_role("button", name="Disconnect").click()
    expect(badge(page)).to_have_text("Not connected")

    popup = begin_in_pop_up(page)
    popup.click("button[value=deny]")
    expect(popup.get_by_role("heading")).to_have_text("Not connected")
    popup.close()
    expect(page.locator("#oauth-state")).to_contain_text("The window is closed")
    account = stand_in.new_account(balance=50)["id"]
    popup = begin_in_pop_up(page)
    popup.select_option("select[name=account]", account)
    popup.click("button[value=approve]")
    expect(badge(page)).to_have_text("Connected")
    expect(page.get_by_text("OpenRouter’s log-in")).to_be_visible()
    assert connection(site, person)["method"] == "oauth"

    page.get_by_role("link", name="Choose a model").click()
    page.get_by_role("searchbox", name="Search").press_sequentially("gemini")
    expect(page.locator("#models tbody tr")).to_have_count(1)
    assert ids(page) == ["google/gemini-2.5-flash"]
    page.get_by_role("button", name="Favourite: Google").click()
    expect(page.get_by_role("button", name="Favourite: Google")).to_have_attribute("aria-pressed", "true")
    page.get_by_role("button", name="Default: Google").click()
    expect(page.get_by_text("Your default: google/gemini-2.5-flash.")).to_be_visible()

    def pays() -> bool:
        """True if a call is paid by the account that was connected."""
        before = paid_by(stand_in, account)
        site.gateway.chat(person["token"], MODEL)
        return paid_by(stand_in, account) > before

    wait_for(pays)
    before = paid_by(stand_in, account)
    go(page, "Playground")
    expect(page.get_by_label("Model")).to_have_value("google/gemini-2.5-flash")
    say(page, "Who pays for this?")
    expect(answers(page).locator(".said")).to_contain_text("Who pays for this?")
    expect(answers(page).locator(".hint")).to_contain_text(" tokens")
    assert "$0.0" in answers(page).locator(".hint").inner_text()
    assert paid_by(stand_in, account) > before

    go(page, "Connect")
    with page.expect_response("**/connect/upstream"):
        page.get_by_role("radio", name="My own only").check()
    assert site.gateway.get("/api/upstream", person["token"]).json()["choice"] == "dedicated_only"
    page.get_by_role("button", name="Disconnect").click()
    expect(badge(page)).to_have_text("Not connected")
    assert connection(site, person)["state"] == "none"
    wait_for(lambda: not pays())
    keys, mine = tables.pool_keys, tables.pool_keys.c.owner_id == user_id_of(person["token"])
    texts = database.transact(lambda tx: tx.execute(sa.select(keys.c.api_key).where(mine)).scalars().all())
    assert set(texts) == {None}


def test_the_dialog_is_opened_filled_and_left_by_keyboard_alone(page: Page, person: dict[str, str]) -> None:
    page.goto("/connect")
    tab_to(page, "Connect to OpenRouter")
    page.keyboard.press("Enter")
    expect(page.get_by_role("tab", name="API key")).to_be_focused()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#panel-oauth")).to_be_visible()
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#panel-key")).to_be_visible()
    page.keyboard.press("Tab")  # the link to OpenRouter's page of keys
    page.keyboard.press("Tab")
    page.keyboard.type("sk-or-v1-0123456789abcdef")
    expect(page.locator("#key-format")).to_contain_text("This looks like an OpenRouter key")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(page.get_by_role("button", name="Connect to OpenRouter")).to_be_focused()


# ── the header on a phone


def test_a_phones_header_is_one_row_with_a_menu(page: Page, person: dict[str, str]) -> None:
    page.set_viewport_size(PHONE)
    page.goto("/dashboard")
    assert page.locator("header").bounding_box()["height"] < 70  # type: ignore[index]
    expect(page.get_by_role("link", name="Keys", exact=True)).to_have_count(0)
    tab_to(page, "Menu")
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Log out")).to_be_visible()
    assert accessibility_faults(page) == []
    assert has_no_sideways_scroll(page)
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="Log out")).to_have_count(0)
    expect(page.get_by_role("button", name="Menu")).to_be_focused()
    page.keyboard.press("Enter")
    tab_to(page, "Keys")
    page.keyboard.press("Enter")
    page.wait_for_url("**/keys")


def test_the_menu_needs_no_script(browser: Browser, site: Site) -> None:
    context = browser.new_context(base_url=site.url, viewport=PHONE, java_script_enabled=False)  # type: ignore[arg-type]
    site.enter(context, site.new_person())
    page = context.new_page()
    page.goto("/dashboard")
    page.get_by_role("button", name="Menu").click()
    page.get_by_role("link", name="Profile").click()
    page.wait_for_url("**/profile")
    context.close()
