"""The operator's pages of teams: made, limited, filled, emptied and deleted in a browser; refusals change nothing."""

from __future__ import annotations

import secrets
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.support.gateway import ADMIN_TOKEN, shown, user_id_of
from tests.web.pages.conftest import PHONE, accessibility_faults, has_no_sideways_scroll
from tests.web.pages.operator_world import new_team, operator_settings
from tests.web.pages.test_frame import TABLET


@pytest.fixture(scope="module")
def site_settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return operator_settings(tmp_path_factory)


def team_of(site: Any, team_id: int) -> dict[str, Any]:
    return shown(site.gateway.get(f"/admin/teams/{team_id}", ADMIN_TOKEN))


def fits(page: Any) -> bool:
    """True if nothing on the page scrolls sideways."""
    wide = "[...document.querySelectorAll('.scroll')].every(one => one.scrollWidth <= one.clientWidth)"
    return has_no_sideways_scroll(page) and bool(page.evaluate(wide))


def test_a_team_is_made_filled_changed_and_deleted(admins_page, site, admin):
    page, ann, other = admins_page, site.new_person()["token"], new_team(site, member=site.new_person()["token"])
    before = team_of(site, other)
    name = f"team-{secrets.token_hex(4)}"
    page.goto("/operator/teams")
    page.get_by_role("button", name="New team").press("Enter")
    form = page.get_by_role("dialog", name="New team")
    form.get_by_label("Name").fill(name)
    form.get_by_label("Limit in dollars").fill("12.5")
    form.get_by_label("Period").select_option("week")
    form.get_by_label("Models").fill("openai/*\nanthropic/*")
    form.get_by_role("button", name="Make the team").click()
    expect(page.get_by_role("heading", name=name)).to_be_visible()
    expect(page.get_by_text("$0.00 of $12.50 spent.")).to_be_visible()
    team_id = int(page.url.rpartition("/")[2])
    assert team_of(site, team_id)["models"] == ["anthropic/*", "openai/*"]

    page.get_by_role("button", name="Add somebody").press("Enter")
    form = page.get_by_role("dialog", name="Add somebody")
    form.get_by_label("Number of the user").fill(str(user_id_of(ann)))
    form.get_by_role("button", name="Add", exact=True).click()
    row = page.get_by_role("row", name=f"{user_id_of(ann)} member")
    row.get_by_role("button", name="Make manager").click()
    expect(page.get_by_role("row", name=f"{user_id_of(ann)} manager")).to_be_visible()
    assert accessibility_faults(page) == []
    for size in (TABLET, PHONE):
        page.set_viewport_size(size)
        assert has_no_sideways_scroll(page)
    page.set_viewport_size(TABLET)
    assert fits(page)

    page.locator("#team").get_by_label("Models").fill("")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("status").filter(has_text="Saved")).to_be_visible()
    page.get_by_role("button", name="Take the quota away").click()
    expect(page.get_by_text("No quota: nothing limits what is spent.")).to_be_visible()
    assert team_of(site, team_id).items() >= {"models": None, "quota": None, "name": name}.items()

    page.get_by_role("button", name=f"Remove user {user_id_of(ann)}").click()
    expect(page.get_by_text("Nobody is in this team yet.")).to_be_visible()
    page.get_by_role("button", name="Delete this team").click()
    page.wait_for_url("**/operator/teams")
    expect(page.get_by_role("row", name=name)).to_have_count(0)
    assert fits(page)
    assert accessibility_faults(page) == []
    assert team_of(site, other) == before
    log = shown(site.gateway.get("/admin/audit", ADMIN_TOKEN))["items"]
    assert [one["action"] for one in log if one["subject"] == f"team/{team_id}"] == [
        "team_deleted",
        "team_member_removed",
        "quota_reset",
        "team_changed",
        "team_role_changed",
        "team_member_added",
        "team_made",
    ]
    assert {one["actor"] for one in log if one["subject"] == f"team/{team_id}"} == {f"user/{admin.id}"}


def test_a_quota_is_set_on_the_page_and_found_among_all(admins_page, site):
    page, team_id = admins_page, new_team(site)
    page.goto(f"/operator/teams/{team_id}")
    page.get_by_label("Limit in dollars").fill("7")
    page.get_by_role("button", name="Set quota").click()
    expect(page.get_by_text("$0.00 of $7.00 spent.")).to_be_visible()
    page.goto("/operator/quotas")
    page.get_by_role("link", name=f"Team {team_id}", exact=True).click()
    page.wait_for_url(f"**/operator/teams/{team_id}")
    page.get_by_role("link", name="Client keys").last.click()
    page.wait_for_url(f"**/operator/keys?team_id={team_id}")
    expect(page.get_by_label("Team")).to_have_value(str(team_id))


@pytest.mark.parametrize(
    ("method", "path", "form", "status", "says"),
    [
        ("POST", "", {}, 400, "name"),
        ("POST", "", {"name": "x", "limit_usd": "a lot"}, 400, "limit_usd"),
        ("POST", "", {"name": "x", "colour": "blue"}, 400, "colour"),
        ("PUT", "/{team}", {"models": "a b"}, 400, "models"),
        ("PUT", "/{team}/quota", {"limit_usd": "-1"}, 400, "limit_usd"),
        ("POST", "/{team}/members", {"user_id": "999999"}, 404, "no such account"),
        ("POST", "/{team}/members", {"user_id": "{member}"}, 409, "already"),
        ("POST", "/{team}/members", {"user_id": "{member}", "role": "owner"}, 400, "role"),
        ("PUT", "/{team}/members/{member}", {"role": "owner"}, 400, "role"),
        ("PUT", "/{team}/members/999999", {"role": "member"}, 404, "not in this team"),
        ("DELETE", "/{team}/members/999999", {}, 404, "not in this team"),
        ("DELETE", "/999999", {}, 404, "no team"),
    ],
)
def test_what_is_wrong_is_said_and_changes_nothing(admin, site, method, path, form, status, says):
    member = site.new_person()["token"]
    team_id = new_team(site, member=member)
    parts = {"team": team_id, "member": user_id_of(member)}
    before = team_of(site, team_id), shown(site.gateway.get("/admin/teams", ADMIN_TOKEN))["total"]
    sent = {name: value.format(**parts) for name, value in form.items()}
    answer = admin.ask(method, "/operator/teams" + path.format(**parts), **sent)
    assert (answer.status_code, says in answer.text) == (status, True), answer.text
    assert (team_of(site, team_id), shown(site.gateway.get("/admin/teams", ADMIN_TOKEN))["total"]) == before
