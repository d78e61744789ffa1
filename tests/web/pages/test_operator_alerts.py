"""The operator's page of alerts: what rings and who was told, a test that says what to set, and silences."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import expect

from tests.support.gateway import ADMIN_TOKEN
from tests.web.pages.conftest import accessibility_faults
from tests.web.pages.operator_world import operator_settings


@pytest.fixture(scope="module")
def site_settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return operator_settings(tmp_path_factory)


def test_kinds_are_silenced_and_told_again_and_channels_say_what_to_set(admins_page, site):
    page = admins_page
    page.goto("/operator/alerts")
    expect(page.get_by_role("navigation", name="Operator pages").get_by_role("link", name="Alerts")).to_be_visible()
    expect(page.get_by_text("Nowhere: set ALERT_WEBHOOK_URL")).to_be_visible()
    assert accessibility_faults(page) == []
    page.get_by_role("button", name="Silence Disk nearly full").click()
    expect(page.get_by_role("button", name="Tell of Disk nearly full")).to_be_visible()
    kinds = site.gateway.get("/admin/alerts", ADMIN_TOKEN).json()["kinds"]
    assert [one["kind"] for one in kinds if one["silenced_by"]] == ["disk-nearly-full"]
    page.get_by_role("button", name="Tell of Disk nearly full").press("Enter")
    expect(page.get_by_role("button", name="Silence Disk nearly full")).to_be_visible()
