"""The page of one's own requests: found by filters, sorted by the server, taken along as a file; and nobody else's."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.support.rows import each_row
from tests.web.pages.conftest import PHONE, accessibility_faults, has_no_sideways_scroll
from tests.web.pages.operator_world import add_requests, operator_settings


@pytest.fixture(scope="module")
def site_settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return operator_settings(tmp_path_factory)


@pytest.fixture(scope="module")
def own_requests(database, user, admin):
    """Three of the user, and one of somebody else that all their filters would find."""
    for number, cost_nano in enumerate((20_000_000, 3_000_000_000, 100)):
        add_requests(database, 1, 100 + number, model="own/model", user_id=user.id, cost_nano=cost_nano)
    refused = {"http_status": 429, "outcome": "refused", "error_type": "rate_limit_exceeded"}
    add_requests(database, 1, 200, model="own/refused", user_id=user.id, cost_nano=0, **refused)
    add_requests(database, 1, 300, model="own/model", user_id=admin.id, cost_nano=4_000_000_000, **refused)


def day(ago: int) -> str:
    return (datetime.now(UTC) - timedelta(days=ago)).date().isoformat()


def test_ones_requests_are_found_sorted_and_taken_along(page, site, user, own_requests):
    site.enter(page.context, {"token": user.token})
    page.goto("/dashboard")
    page.get_by_role("link", name="Requests", exact=True).click()
    expect(page.locator("#logs tbody tr")).to_have_count(4)
    page.get_by_label("Model contains").fill("model")
    page.get_by_role("button", name="Show").click()
    expect(page.locator("#logs tbody tr")).to_have_count(3)
    page.get_by_role("link", name="Spent").click()
    expect(page.get_by_role("columnheader", name="Spent")).to_have_attribute("aria-sort", "descending")
    expect(page.locator("#logs tbody tr td:nth-child(6)")).to_have_text(["$3.00", "$0.0200", "$0.0000001"])
    expect(page.get_by_label("Model contains")).to_have_value("model")
    with page.expect_download() as download:
        page.get_by_role("link", name="CSV").click()
    assert len(download.value.path().read_text().splitlines()) == 4
    page.locator("#logs tbody a").first.click()
    expect(page.locator(".facts")).to_contain_text("$3.00")


@each_row(
    "query, rows",
    [
        ("status=429", 1),
        ("error_type=rate_limit_exceeded", 1),
        ("min_cost_usd=0.02", 2),
        (f"start={day(1)}&end={day(0)}", 4),
        (f"end={day(1)}", 0),
        ("sort=duration&outcome=complete", 3),
    ],
)
def test_a_link_with_filters_finds_the_same(user, own_requests, query, rows):
    found = user.ask("GET", f"/requests?{query}")
    assert (found.status_code, found.text.count("/dashboard/request?id=")) == (200, rows)


@each_row(
    "query, told",
    [
        ("user_id=1", "There is no field"),
        ("pool_key=x", "There is no field"),
        ("status=fine", 'status: <span data-fault="status">Must be error, ok'),
        ("min_ms=soon", "Must be a whole number"),
        ("start=2026-11-21&amp;end=2026-11-20".replace("&amp;", "&"), "Must be before end"),
    ],
)
def test_what_is_not_understood_is_said_and_nothing_is_shown(user, own_requests, query, told):
    for path in ("/requests", "/requests.csv"):
        found = user.ask("GET", f"{path}?{query}")
        assert (found.status_code, told in found.text) == (400, True), path
        assert "own/" not in found.text


def test_strangers_are_sent_to_the_log_in(site, user):
    user_cookies, user.cookies = user.cookies, {}
    try:
        answers = [user.ask("GET", path) for path in ("/requests", "/requests.csv")]
    finally:
        user.cookies = user_cookies
    assert [answer.headers["Location"] for answer in answers] == ["/login?next=/requests", "/login?next=/requests.csv"]


def test_it_is_accessible_and_fits_a_phone(page, site, user, own_requests):
    site.enter(page.context, {"token": user.token})
    page.set_viewport_size(PHONE)
    for path in ("/requests", "/requests?status=fine&model=own/model"):
        page.goto(path)
        assert accessibility_faults(page) == []
        assert has_no_sideways_scroll(page)
