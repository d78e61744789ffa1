"""What stands around the content of every page: header, account menu, operators' pages, times, the key for search."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.support.browser import watched_page
from tests.support.gateway import wait_for
from tests.web.pages.conftest import PHONE, Site, accessibility_faults, has_no_sideways_scroll, log_out, tab_to
from tests.web.pages.operator_world import operator_settings

TABLET = {"width": 768, "height": 1024}
AUCKLAND = "Pacific/Auckland"  # never on UTC's hour


@pytest.fixture(scope="module")
def site_settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return operator_settings(tmp_path_factory)


def test_the_account_menu_holds_profile_language_appearance_and_the_way_out(page, site, person):
    page.goto("/dashboard")
    expect(page.get_by_role("button", name="Log out")).to_have_count(0)
    expect(page.locator("footer")).to_have_count(0)
    tab_to(page, "Account")
    page.keyboard.press("Enter")
    menu = page.get_by_role("group", name="Account")
    expect(menu.get_by_role("link", name="Profile")).to_be_visible()
    assert accessibility_faults(page) == []
    page.keyboard.press("Escape")
    expect(menu).to_have_count(0)
    expect(page.get_by_role("button", name="Account")).to_be_focused()
    page.keyboard.press("Enter")
    menu.get_by_label("Appearance").select_option("dark")
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    page.get_by_role("button", name="Account").click()
    page.get_by_role("group", name="Account").get_by_label("Language").select_option("zh")
    expect(page.get_by_role("button", name="账户")).to_be_visible()
    page.context.clear_cookies(name="lang")
    page.reload()
    log_out(page)
    page.wait_for_url("**/login*")
    expect(page.locator("footer").get_by_label("Language")).to_be_visible()  # strangers choose it there


@pytest.mark.parametrize("viewport", [PHONE, TABLET], ids=["phone", "tablet"])
def test_small_screens_have_all_of_it_in_one_menu(admins_page: Page, viewport) -> None:
    admins_page.set_viewport_size(viewport)
    admins_page.goto("/operator")
    assert has_no_sideways_scroll(admins_page)
    expect(admins_page.get_by_role("navigation", name="Operator pages")).to_have_count(0)
    admins_page.get_by_role("button", name="Menu").click()
    side = admins_page.get_by_role("navigation", name="Operator pages")
    expect(side.get_by_role("link", name="Overview")).to_have_attribute("aria-current", "page")
    expect(admins_page.get_by_role("button", name="Account")).to_have_count(0)
    admins_page.get_by_role("button", name="Log out").scroll_into_view_if_needed()
    expect(admins_page.get_by_role("button", name="Log out")).to_be_in_viewport()
    assert accessibility_faults(admins_page) == []
    side.get_by_role("link", name="Users").click()
    admins_page.wait_for_url("**/operator/users")


def test_operators_have_their_pages_beside_what_they_read(admins_page: Page) -> None:
    admins_page.goto("/operator/logs")
    side = admins_page.get_by_role("navigation", name="Operator pages")
    expect(side.locator("[aria-current=page]")).to_have_text(["Requests"])
    edge = side.bounding_box()["x"] + side.bounding_box()["width"]  # type: ignore[index]
    assert admins_page.locator("main").bounding_box()["x"] >= edge  # type: ignore[index]
    assert accessibility_faults(admins_page) == []
    admins_page.goto("/operator/request")
    expect(side.locator("[aria-current=page]")).to_have_count(0)
    where = admins_page.get_by_role("navigation", name="Where this page is")
    where.get_by_role("link", name="Requests").click()
    admins_page.wait_for_url("**/operator/logs")


def test_others_have_no_such_pages(page: Page, person: dict[str, str]) -> None:
    page.goto("/keys")
    expect(page.get_by_role("navigation", name="Operator pages")).to_have_count(0)
    expect(page.get_by_role("link", name="Operator")).to_have_count(0)


def test_times_are_the_readers_and_utc_on_hover(browser: Browser, site: Site) -> None:
    somebody = site.new_person()
    assert site.gateway.chat(somebody["token"]).status_code == 200
    [kept] = wait_for(lambda: site.gateway.get("/api/usage/logs", somebody["token"]).json()["items"])
    utc = kept["created_at"][:19].replace("T", " ")
    with watched_page(browser, base_url=site.url, timezone_id=AUCKLAND) as page:
        site.enter(page.context, somebody)
        for path, cut in (("/requests", 0), ("/dashboard", 5)):
            page.goto(path)
            [shown] = page.locator("main time").all()
            expect(shown).to_have_attribute("title", f"{utc[cut:]} UTC")
            own = page.evaluate(
                "when => new Date(when).toLocaleString('sv', {timeZone: 'Pacific/Auckland'})", kept["created_at"]
            )
            assert own != utc
            expect(shown).to_have_text(own[cut:])
        page.goto("/profile")
        since = page.locator("dd time").first  # a day, which is UTC's
        expect(since).to_have_text(since.get_attribute("datetime")[:10])  # type: ignore[index]


def test_a_slash_goes_to_search_and_stays_a_slash_in_fields(page: Page, person: dict[str, str]) -> None:
    page.goto("/requests")
    page.keyboard.press("/")
    field = page.get_by_label("Request id")
    expect(field).to_be_focused()
    page.get_by_label("Model contains").focus()
    page.keyboard.type("openai/")
    expect(page.get_by_label("Model contains")).to_have_value("openai/")
    page.goto("/keys")  # where there is nothing to search
    page.keyboard.press("/")
    expect(page.locator("body")).to_be_focused()


def test_filters_are_folded_on_phones_until_there_is_one(page: Page, person: dict[str, str]) -> None:
    page.goto("/requests")
    expect(page.get_by_label("Model contains")).to_be_visible()
    page.set_viewport_size(PHONE)
    expect(page.get_by_label("Model contains")).to_be_hidden()
    page.get_by_text("Filters", exact=True).click()
    page.get_by_label("Model contains").fill("gpt")
    page.get_by_role("button", name="Show").click()
    page.wait_for_url("**/requests?*model_contains=gpt*")
    expect(page.get_by_label("Model contains")).to_have_value("gpt")
    expect(page.get_by_label("Model contains")).to_be_visible()
