"""The operator's page of the system: how the parts are, which processes serve, and what the daily checks found."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from playwright.sync_api import expect

from tables import gateway_processes, usage_checks
from tests.web.pages.conftest import PHONE, accessibility_faults, has_no_sideways_scroll
from tests.web.pages.operator_world import operator_settings

DAY = datetime(2026, 11, 20, tzinfo=UTC)


@pytest.fixture(scope="module")
def site_settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return operator_settings(tmp_path_factory)


def test_the_parts_and_the_processes_are_shown(admins_page, database):
    page = admins_page
    now = datetime.now(UTC)
    gone = {"id": "5" * 32, "beat_at": now - timedelta(minutes=2), "keys_revision": 3, "report": "{}"}
    database.transact(lambda tx: tx.execute(gateway_processes.insert().values(gone)))
    page.goto("/operator/system")
    health = page.get_by_role("region", name="Health")
    expect(health).to_contain_text("sqlite")
    expect(health).to_contain_text("0 s behind")
    expect(health.get_by_role("link", name="1 of 1 keys usable")).to_be_visible()
    expect(health).to_contain_text("waiting")
    expect(page.get_by_role("heading", name="Processes that serve: 2")).to_be_visible()
    expect(page.get_by_role("row", name="55555555")).to_contain_text("silent")
    expect(page.locator("[data-sort=processes] tbody tr").first).to_contain_text("ok")
    expect(page.get_by_text("No day has been checked yet.")).to_be_visible()
    assert accessibility_faults(page) == []


def test_the_daily_checks_are_shown_with_what_they_found_and_paged(admins_page, database):
    page = admins_page
    sums = {"pool_key_id": 1, "our_nano": 2_000_000_000, "our_total_nano": 2_000_000_000, "checked_at": DAY}
    same = {"activity_nano": 2_000_000_000, "usage_nano": 2_000_000_000}
    less = {"activity_nano": 500_000_000, "usage_nano": 500_000_000}
    rows = [sums | same | {"day": DAY - timedelta(days=number)} for number in range(1, 21)]
    rows.append(sums | less | {"day": DAY})
    database.transact(lambda tx: tx.execute(usage_checks.insert(), rows))
    page.goto("/operator/system")
    expect(page.get_by_role("heading", name="Our sums and OpenRouter’s: 21")).to_be_visible()
    checks = page.locator("[data-sort=checks] tbody tr")
    expect(checks.first).to_contain_text("2026-11-20")
    expect(checks.first).to_contain_text("differs")
    expect(checks.first).to_contain_text("$0.5000")
    expect(checks.nth(1)).to_contain_text("equal")
    page.get_by_role("link", name="Older").click()
    expect(checks).to_have_count(1)
    page.set_viewport_size(PHONE)
    assert has_no_sideways_scroll(page)


def test_settings_say_where_they_come_from_and_no_secret(admins_page, site):
    page = admins_page
    page.goto("/operator")
    page.get_by_role("link", name="Settings").click()
    page.wait_for_url("**/operator/settings")
    expect(page.get_by_role("row", name="DATABASE_URL")).to_contain_text("set, secret")
    expect(page.get_by_role("row", name="DATABASE_URL")).to_contain_text("environment")
    expect(page.get_by_role("row", name="POOL_SIZE")).to_contain_text("default")
    assert str(site.gateway.settings["DATABASE_URL"]) not in page.content()
    assert accessibility_faults(page) == []
    page.set_viewport_size(PHONE)
    assert has_no_sideways_scroll(page)
