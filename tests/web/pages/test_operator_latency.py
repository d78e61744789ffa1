"""The page of how fast calls are answered: by what and how far back one chooses, and for operators alone."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.support.usage_rows import row, store
from tests.web.pages.conftest import PHONE, accessibility_faults, has_no_sideways_scroll
from tests.web.pages.operator_world import PAYLOAD, operator_settings


@pytest.fixture(scope="module")
def site_settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return operator_settings(tmp_path_factory)


@pytest.fixture(scope="module")
def called(site, database, user):
    """Calls of this hour, and an error whose kind somebody made up."""
    now = datetime.now(UTC)
    rows = [row(number, now, user_id=user.id, first_byte_ms=400, total_ms=2000) for number in range(9)]
    store(database, [*rows, row(10, now, user_id=user.id, outcome="error", error_type=PAYLOAD[:32])])
    return user


def test_an_operator_chooses_by_what_and_how_far_back(admins_page, called):
    page = admins_page
    page.goto("/operator/latency")
    line = page.locator("tbody tr", has_text="openai/gpt-4o-mini")
    expect(line).to_contain_text("0.4")
    assert all(line.locator("svg path").nth(number).get_attribute("d").startswith("M") for number in range(3))
    expect(page.get_by_role("link", name="Last day")).to_have_attribute("aria-current", "true")
    assert accessibility_faults(page) == []
    page.get_by_role("link", name="30 days").click()
    page.get_by_label("Group by").select_option("upstream")
    page.get_by_role("button", name="Show").click()
    expect(page.locator("tbody tr")).to_contain_text("openrouter")
    expect(page.get_by_role("link", name="30 days")).to_have_attribute("aria-current", "true")
    page.set_viewport_size(PHONE)
    assert has_no_sideways_scroll(page)


def test_what_an_upstream_makes_up_is_no_markup(admin, called):
    text = admin.ask("GET", "/operator/latency").text
    assert PAYLOAD[:32] not in text
    assert "&lt;img" in text


def test_users_do_not_see_it(user):
    assert user.ask("GET", "/operator/latency").status_code in {303, 403, 404}


def test_a_filter_that_makes_no_sense_is_told_on_the_page(admin):
    answer = admin.ask("GET", "/operator/latency?last=year")
    assert answer.status_code == 400
    assert 'last: <span data-fault="last">Must be one of those listed' in answer.text
