"""The dashboard in a real browser: figures of the ledger, by day, model and key; nobody else's; and as a file."""

from __future__ import annotations

import csv
import io
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.support.gateway import wait_for
from tests.web.pages.conftest import PHONE, Site, accessibility_faults, has_no_sideways_scroll

HOSTILE = '"><img src=x onerror=alert(1)>{{7*7}}'


@pytest.fixture(scope="module")
def site_settings() -> dict[str, Any]:
    return {"QUOTA_USD": 2}


def totals(site: Site, token: str) -> dict[str, Any]:
    found: dict[str, Any] = site.gateway.get("/api/usage/stats", token).json()["totals"]
    return found


def call(site: Site, person: dict[str, str], times: int = 1) -> None:
    """Make calls, and wait until they are counted."""
    before = totals(site, person["token"])["requests"]
    for _ in range(times):
        wait_for(lambda: site.gateway.chat(person["token"]).status_code == 200)
    wait_for(lambda: totals(site, person["token"])["requests"] >= before + times)


def tile(page: Page, name: str) -> str:
    return page.locator(".tile", has=page.get_by_text(name, exact=True)).locator("strong").inner_text()


def test_who_has_used_nothing_is_told_how_to_begin(page, person):
    page.goto("/dashboard")
    expect(page.get_by_role("heading", name="No requests in these days")).to_be_visible()
    page.get_by_role("link", name="Make a key").click()
    page.wait_for_url("**/keys")


def test_the_figures_are_those_of_the_ledger_and_ones_own(page, site, person):
    other = site.new_person()
    call(site, person, 2)
    call(site, other)
    page.goto("/dashboard")
    used = totals(site, person["token"])
    assert tile(page, "Requests") == "2"
    assert float(tile(page, "Spent").replace("$", "").replace(",", "")) == pytest.approx(used["cost_usd"], rel=0.01)
    rows = page.locator("section", has=page.get_by_role("heading", name="By model")).locator("tbody tr")
    expect(rows).to_have_count(1)
    expect(rows.first).to_contain_text("openai/gpt-4o-mini")
    expect(page.locator("section", has=page.get_by_role("heading", name="By key"))).to_contain_text("Without a key")
    expect(
        page.locator("section", has=page.get_by_role("heading", name="Latest requests")).locator("tbody tr")
    ).to_have_count(2)
    expect(page.locator(".chart canvas")).to_be_visible()
    assert tile(page, "Quota left") == "$2.00"  # to the cent


def test_one_of_the_latest_requests_is_shown_whole_and_nobody_elses(page, site, person):
    call(site, person)
    page.goto("/dashboard")
    page.get_by_role("region", name="Latest requests").get_by_role("link").first.click()
    expect(page.locator(".facts")).to_contain_text("openai/gpt-4o-mini")
    expect(page.locator("table tbody tr")).to_have_count(1)
    where = page.url
    other = site.new_person()
    site.enter(page.context, other)
    assert page.goto(where).status == 404


def test_days_can_be_chosen_and_downloaded(page, site, person):
    call(site, person)
    page.goto("/dashboard")
    with page.expect_download() as download:
        page.get_by_role("link", name="CSV").click()
    lines = list(csv.DictReader(io.StringIO(download.value.path().read_text())))
    assert [line["model"] for line in lines] == ["openai/gpt-4o-mini"]
    page.get_by_label("From").fill("2025-01-01")
    page.get_by_label("To").fill("2025-01-31")
    page.get_by_role("button", name="Show").click()
    expect(page.get_by_role("heading", name="No requests in these days")).to_be_visible()
    for query in ("start_date=x", "start_date=2026-02-01&end_date=2026-01-01", "start_date=2000-01-01", "from=1"):
        assert page.request.get(f"/dashboard?{query}").status == 400


def test_what_came_from_outside_is_text(page, site, person):
    key = site.gateway.post("/api/api-keys", {"name": HOSTILE}, person["token"]).json()["key"]
    wait_for(lambda: site.gateway.chat(key).status_code == 200)
    site.gateway.chat(person["token"], model=HOSTILE)
    wait_for(lambda: totals(site, person["token"])["requests"] == 2)
    page.goto("/dashboard")
    expect(page.get_by_text(HOSTILE).first).to_be_visible()
    expect(page.locator("main img")).to_have_count(0)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_full_dashboard_is_accessible_and_fits_a_phone(page, site, person, scheme):
    call(site, person)
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size(PHONE)
    page.goto("/dashboard")
    expect(page.locator(".chart canvas")).to_be_visible()
    assert accessibility_faults(page) == []
    assert has_no_sideways_scroll(page)
