"""The operator's page of tokens: made and copied once, at work, and revoked; in a browser."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import expect

from tests.support.gateway import wait_for
from tests.web.pages.conftest import PHONE, accessibility_faults, has_no_sideways_scroll
from tests.web.pages.operator_world import operator_settings


@pytest.fixture(scope="module")
def site_settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return operator_settings(tmp_path_factory)


def test_a_token_is_made_shown_once_and_revoked(admins_page, site):
    page = admins_page
    page.on("dialog", lambda dialog: dialog.accept())
    page.goto("/operator/tokens")
    expect(page.get_by_text("No operator token yet.")).to_be_visible()
    page.get_by_role("button", name="New operator token").press("Enter")
    form = page.get_by_role("dialog", name="New operator token")
    form.get_by_label("Name").fill("nightly-report")
    form.get_by_label("Valid for (days)").fill("30")
    form.get_by_role("button", name="Make the token").click()
    token = page.locator("#made-token").inner_text()
    assert site.gateway.get("/admin/users", token).status_code == 200
    assert site.gateway.ask("POST", "/admin/invitations", {}, token).status_code == 403
    expect(page.get_by_role("row", name="nightly-report")).to_contain_text("read")
    assert accessibility_faults(page) == []
    page.reload()
    expect(page.locator("#made-token")).to_have_count(0)
    page.set_viewport_size(PHONE)
    assert has_no_sideways_scroll(page)
    page.get_by_role("button", name="Revoke nightly-report").click()
    expect(page.get_by_role("row", name="nightly-report")).to_contain_text("revoked")
    wait_for(lambda: site.gateway.get("/admin/users", token).status_code == 401)
