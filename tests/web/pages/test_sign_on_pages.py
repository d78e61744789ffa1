"""Logging in through a provider, from the log-in page and back to it, in a real browser."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from playwright.sync_api import Page, expect

from tests.support.gateway import free_port
from tests.support.sign_on import Browser, agree, sign_on_settings
from tests.web.pages.conftest import PHONE, Site, accessibility_faults, has_no_sideways_scroll, log_out, tab_to
from tests.web.pages.test_profile import show_pictures
from tests.web.pages.test_sessions import log_in, new_name, sign_up

TITLES = {"github": "GitHub", "linuxdo": "Linux.do", "oidc": "oidc"}
ANOTHERS = re.compile("was not begun in this browser, was used before or took too long. Begin again")


@pytest.fixture(scope="module")
def site_settings(identity_provider: str) -> dict[str, Any]:
    """Providers send the browser back to the gateway's own address."""
    port = free_port()
    return {"PORT": port} | sign_on_settings(identity_provider, f"http://127.0.0.1:{port}")


def go_on(page: Page, provider: str = "github") -> None:
    """From the log-in page to the provider."""
    page.get_by_role("link", name=f"Continue with {TITLES[provider]}").click()
    page.wait_for_url(f"**/{provider}/**authorize?**")


def answer(page: Page, **wishes: str) -> None:
    """At the provider: whoever is there, and what comes of it."""
    page.goto(f"{page.url}&{urlencode(wishes)}")


def cookies_of(page: Page) -> dict[str, str]:
    return {cookie["name"]: cookie["value"] for cookie in page.context.cookies()}


def code_of_another(site: Site) -> tuple[Browser, str]:
    """Another browser that has come back with a code, and has not redeemed it yet."""
    other = Browser(site.gateway)
    return other, other.arrive(agree(other.begin("github", next="/login"), **{"as": "eve"}))["sso"]


@pytest.mark.parametrize(("provider", "begin"), [*((name, "/") for name in TITLES), ("github", "/register")])
def test_somebody_comes_in_with_two_clicks_and_no_address_holds_a_token(page, site, provider, begin):
    seen: list[str] = []
    page.on("request", lambda request: seen.append(request.url))
    page.goto(begin)
    go_on(page, provider)
    page.click("#log-in-as-bob")
    page.wait_for_url(f"{site.url}/dashboard")
    expect(page.get_by_role("heading", name="Dashboard")).to_be_visible()
    assert cookies_of(page).keys() == {"session"}  # that of the way there has done its work
    assert page.evaluate("document.cookie") == ""
    assert not any(cookies_of(page)["session"] in url for url in seen)
    show_pictures(page)
    page.goto("/profile")
    expect(page.locator("#sessions li", has_text="this one")).to_contain_text(TITLES[provider])


def test_a_log_in_leads_to_where_one_wanted_to_go(page, site):
    page.goto("/keys")
    expect(page).to_have_url(f"{site.url}/login?next=/keys")
    go_on(page)
    page.click("#log-in-as-bob")
    page.wait_for_url(f"{site.url}/keys")


@pytest.mark.parametrize(
    "path", ["//evil.test", "/\\evil.test", "https://evil.test", "/%09/evil.test", "javascript:alert(1)"]
)
def test_it_ends_up_on_this_host_whoever_began_it(page, site, path):
    back = f"/login?next={quote(path, safe='/:%()')}"
    page.goto(f"/api/auth/sso/github?next={quote(back)}")
    page.click("#log-in-as-bob")
    page.wait_for_url(f"{site.url}/dashboard")


@pytest.mark.parametrize(
    ("provider", "wishes", "says"),
    [
        ("github", {"fault": "denied"}, "You are not logged in: you did not agree there."),
        ("linuxdo", {"active": "false"}, "You are not logged in: your account there is not active."),
        ("oidc", {"fault": "no-token"}, "the provider did not answer as it should"),
        ("oidc", {"fault": "bad-signature"}, "the provider did not answer as it should"),
    ],
)
def test_a_refusal_there_is_said_and_one_may_go_on_otherwise(page, site, provider, wishes, says):
    name = new_name()
    sign_up(page, name)
    page.wait_for_url(f"{site.url}/dashboard")
    page.context.clear_cookies()
    page.goto("/keys")
    go_on(page, provider)
    answer(page, **{"as": "ann"} | wishes)
    expect(page.get_by_role("alert")).to_contain_text(says)
    expect(page).to_have_url(f"{site.url}/login?next=/keys")
    assert "session" not in cookies_of(page)
    expect(page.locator("#log-in button")).to_have_text("Log in")
    log_in(page, name)
    page.wait_for_url(f"{site.url}/keys")


@pytest.mark.parametrize("reason", ["x", "constructor", "__proto__", "<img src=x onerror=alert(1)>"])
def test_what_stands_behind_the_hash_is_never_shown(page, site, reason):
    page.goto(f"/login#sso_error={quote(reason)}")
    expect(page.get_by_role("alert")).to_have_text("You are not logged in. Try again in a moment.")
    expect(page).to_have_url(f"{site.url}/login")


@pytest.mark.parametrize("has_begun", [False, True])
def test_a_code_of_another_browser_is_refused_on_the_page(page, site, has_begun):
    """Else whoever sends somebody such a link would have them work in the sender's account."""
    if has_begun:
        page.goto("/login")
        go_on(page)
    other, code = code_of_another(site)
    page.goto(f"/login#sso={code}")
    expect(page.get_by_role("alert")).to_have_text(ANOTHERS)
    expect(page).to_have_url(f"{site.url}/login")
    assert "session" not in cookies_of(page)
    assert other.redeem(code).status_code == 400  # whoever shows a code uses it up


def test_a_code_of_another_browser_changes_nothing_for_who_is_logged_in(page, site, person):
    before = cookies_of(page)
    page.goto(f"/login#sso={code_of_another(site)[1]}")
    page.wait_for_url("**/dashboard*")
    assert cookies_of(page) == before


def test_a_way_back_that_another_browser_began_leads_nowhere(page, site):
    callback = agree(Browser(site.gateway).begin("github", next="/login"), **{"as": "eve"})
    answered = page.goto(callback)
    assert answered.status == 400
    assert page.context.cookies() == []


def test_a_code_works_once(page, site):
    codes: list[str] = []
    page.on("response", lambda back: codes.extend(re.findall("#sso=(.+)", back.headers.get("location", ""))))
    page.goto("/login")
    go_on(page)
    page.click("#log-in-as-bob")
    page.wait_for_url(f"{site.url}/dashboard")
    [code] = codes
    log_out(page)
    page.wait_for_url("**/login")
    page.goto(f"/login?again#sso={code}")
    expect(page.get_by_role("alert")).to_have_text(ANOTHERS)


def test_somebody_logs_in_by_keyboard_alone(page, site):
    page.goto("/login")
    tab_to(page, "Continue with GitHub")
    page.keyboard.press("Enter")
    page.wait_for_url("**/authorize?**")
    page.click("#log-in-as-bob")
    page.wait_for_url(f"{site.url}/dashboard")


def test_a_refusal_is_said_in_chinese(page, site):
    page.context.add_cookies([{"name": "lang", "value": "zh", "url": site.url}])
    page.goto("/login#sso_error=access_denied")
    expect(page.get_by_role("alert")).to_have_text("未登录：您在那里没有同意。")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_is_accessible_and_fits_a_phone(page, site, scheme):
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size(PHONE)
    page.goto("/login#sso_error=upstream_failed")
    expect(page.get_by_role("alert")).to_be_visible()
    assert accessibility_faults(page) == []
    assert has_no_sideways_scroll(page)
