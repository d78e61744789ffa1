"""The page of one's team: members see the quota and their own part, managers what each spends, others nothing."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import expect

from tests.support.gateway import shown, user_id_of, wait_for
from tests.web.pages.conftest import PHONE, accessibility_faults, has_no_sideways_scroll
from tests.web.pages.operator_world import new_team, operator_settings, somebody
from tests.web.pages.test_frame import TABLET
from tests.web.pages.test_operator_teams import fits

MODEL = "openai/gpt-4o-mini"


@pytest.fixture(scope="module")
def site_settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return operator_settings(tmp_path_factory)


def test_a_member_sees_the_quota_and_their_own_part(page, site, person):
    colleague = site.new_person()["token"]
    new_team(site, member=person["token"], manager=colleague)
    assert site.gateway.chat(colleague, MODEL).status_code == 200
    wait_for(lambda: shown(site.gateway.get("/api/team", person["token"]))["quota"]["spent_usd"])
    page.goto("/dashboard")
    page.get_by_role("link", name="Team", exact=True).click()
    expect(page.get_by_role("heading", name="Team team-")).to_be_visible()
    expect(page.locator(".tile").filter(has_text="Spent by you")).to_contain_text("$0.00")
    expect(page.locator(".tile").filter(has_text="Quota left")).to_contain_text("of $5.00 a month")
    expect(page.get_by_text("openai/*")).to_be_visible()
    expect(page.locator("main")).not_to_contain_text(f"User {user_id_of(colleague)}")
    assert accessibility_faults(page) == []
    page.set_viewport_size(PHONE)
    assert has_no_sideways_scroll(page)


def test_a_manager_sees_what_each_spends(page, site, person):
    member, others = site.new_person()["token"], site.new_person()["token"]
    new_team(site, member=member, manager=person["token"])
    new_team(site, member=others)
    assert site.gateway.chat(member, MODEL).status_code == 200
    wait_for(lambda: shown(site.gateway.get("/api/team", member))["spent_usd"])
    page.goto("/team")
    expect(page.get_by_role("row", name=f"User {user_id_of(member)} member")).to_contain_text("$0.0")
    expect(page.get_by_role("row", name=f"User {user_id_of(person['token'])} you manager")).to_contain_text("$0.00")
    expect(page.locator("main")).not_to_contain_text(f"User {user_id_of(others)}")
    page.set_viewport_size(TABLET)
    assert fits(page)
    assert accessibility_faults(page) == []


def test_who_is_in_no_team_has_no_such_page(site):
    nobodys = somebody(site, site.new_person()["token"])
    answer = nobodys.ask("GET", "/team")
    assert (answer.status_code, "You are in no team" in answer.text) == (404, True)
    assert 'href="/team"' not in nobodys.ask("GET", "/dashboard").text


def test_the_page_is_in_ones_own_language(page, site, person):
    new_team(site, manager=person["token"])
    page.context.add_cookies([{"name": "lang", "value": "zh", "url": site.url}])
    page.goto("/team")
    expect(page.get_by_role("heading", name="团队 team-")).to_be_visible()
    expect(page.locator(".tile").filter(has_text="您的支出")).to_be_visible()
