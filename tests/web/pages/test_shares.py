"""The pages of who spent what: a chart, a table, a file; for operators of everybody, else of one's own calls."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.support.gateway import ADMIN_TOKEN
from tests.support.usage_rows import row, store
from tests.web.pages.conftest import PHONE, accessibility_faults, has_no_sideways_scroll
from tests.web.pages.operator_world import operator_settings

TODAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
LABEL = "=<b>marketing</b>"


@pytest.fixture(scope="module")
def site_settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return operator_settings(tmp_path_factory)


@pytest.fixture(scope="module")
def spent(site, database, user):
    """What somebody has spent, whom operators have labelled."""
    assert site.gateway.ask("PATCH", f"/admin/users/{user.id}", {"label": LABEL}, ADMIN_TOKEN).status_code == 200
    store(database, [row(number, TODAY, user_id=user.id, cost_nano=10**9) for number in range(3)])
    return user


def test_an_operator_sees_who_spent_what_and_chooses_by_what(admins_page, spent):
    page = admins_page
    page.goto("/operator/usage")
    line = page.locator("tbody tr", has_text=LABEL).last
    expect(line).to_contain_text("$3.00")
    assert page.locator("svg path").first.get_attribute("d").startswith("M")
    assert accessibility_faults(page) == []
    page.get_by_label("Group by").select_option("provider")
    page.get_by_label("Measure").select_option("calls")
    page.get_by_role("button", name="Show").click()
    expect(page.get_by_label("Group by")).to_have_value("provider")
    expect(page.locator("tbody tr").last).to_contain_text("openai")
    page.set_viewport_size(PHONE)
    assert has_no_sideways_scroll(page)


def test_a_user_sees_their_own_and_no_label(spent, admin):
    own = spent.ask("GET", "/usage?by=model&metric=calls").text
    assert "openai/gpt-4o-mini" in own
    assert "marketing" not in own
    assert spent.ask("GET", "/operator/usage").status_code in {303, 403, 404}
    assert "marketing" not in admin.ask("GET", "/usage").text


def test_how_long_calls_took_is_drawn_as_lines_and_is_in_the_file(admins_page, admin, spent):
    page = admins_page
    page.goto("/operator/usage?by=model&metric=p95")
    expect(page.locator("tbody tr").last).to_contain_text("0.87")
    expect(page.locator("svg path")).to_have_count(1)
    assert "line" in page.locator("svg path").first.get_attribute("class")
    assert accessibility_faults(page) == []
    head, line, *_ = admin.ask("GET", "/operator/usage.csv?by=model&metric=p95").text.splitlines()
    names = head.split(",")
    assert line.split(",")[names.index("p95_ms")] == "871"
    assert "p95_ms_before" in names
    assert "p95" in spent.ask("GET", "/usage?by=model&metric=p95").text


def test_a_filter_that_makes_no_sense_is_told_on_the_page(admin):
    answer = admin.ask("GET", "/operator/usage?by=team")
    assert answer.status_code == 400
    assert 'by: <span data-fault="by">Must be one of those listed' in answer.text


def test_the_file_has_the_table_and_runs_no_formula(admin, spent):
    answer = admin.ask("GET", "/operator/usage.csv?by=user")
    assert answer.headers["Content-Type"].startswith("text/csv")
    [head, *lines] = answer.text.splitlines()
    assert head.startswith("name,requests,errors,")
    assert any(line.startswith(f"{spent.id} {LABEL},3,") for line in lines)
    assert spent.ask("GET", "/usage.csv").text.splitlines()[1].startswith("openai/gpt-4o-mini,3,")
