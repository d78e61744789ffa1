"""The operator's page of quotas: all that hold, side by side; set for users and client keys, and put back."""

from __future__ import annotations

import re
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.support.gateway import ADMIN_TOKEN, user_id_of, wait_for
from tests.web.pages.conftest import PHONE, Site, accessibility_faults, has_no_sideways_scroll
from tests.web.pages.operator_world import new_admin, operator_settings


@pytest.fixture(scope="module")
def site_settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return operator_settings(tmp_path_factory)


def latest_change(site):
    entry = site.gateway.get("/admin/audit", ADMIN_TOKEN).json()["items"][0]
    return entry["actor"], entry["action"], entry["subject"]


def limit_of(site, subject):
    found = site.gateway.get(f"/admin/quotas/{subject}", ADMIN_TOKEN)
    return found.json()["limit_usd"] if found.ok else None


def test_a_quota_is_set_for_a_user_and_for_a_key_and_put_back(admins_page, site, admin):
    page, user_id = admins_page, user_id_of(site.new_person()["token"])
    page.goto("/operator/quotas")
    expect(page.get_by_text("Users have no quota by default")).to_be_visible()
    expect(page.get_by_text("No quota holds.")).to_be_visible()
    form = page.get_by_role("dialog", name="Set a quota")
    for kind, name, number in [("user", f"User {user_id}", user_id), ("key", "Client key 4711", 4711)]:
        page.get_by_role("button", name="Set a quota").press("Enter")
        form.get_by_label("Belongs to").select_option(kind)
        form.get_by_label("Number").fill(str(number))
        form.get_by_label("Limit in dollars").fill("12.5")
        form.get_by_label("Period").select_option("week")
        form.get_by_role("button", name="Set quota").click()
        expect(page.get_by_role("row", name=name)).to_contain_text(re.compile(r"0 %\s*\$0.00\s*\$12.50\s*\$12.50"))
        assert limit_of(site, f"{kind}/{number}") == 12.5
        assert latest_change(site) == (f"user/{admin.id}", "quota_set", f"{kind}/{number}")
    assert accessibility_faults(page) == []
    page.get_by_role("button", name=f"Put User {user_id} back to the default").click()
    expect(page.get_by_role("row", name=f"User {user_id}")).to_have_count(0)
    assert limit_of(site, f"user/{user_id}") is None
    assert latest_change(site) == (f"user/{admin.id}", "quota_reset", f"user/{user_id}")
    page.set_viewport_size(PHONE)
    assert has_no_sideways_scroll(page)


def test_whoever_is_near_the_limit_is_found_at_the_top(admins_page, admin, site):
    page = admins_page
    people = [site.new_person()["token"] for _ in range(3)]
    for token in people:
        body = {"limit_usd": 0.0002, "soft_limit_usd": 0.000001}
        site.gateway.ask("PUT", f"/admin/quotas/user/{user_id_of(token)}", body, ADMIN_TOKEN)
    spender = people[1]
    assert site.gateway.chat(spender, max_tokens=1).ok
    wait_for(lambda: site.gateway.get(f"/admin/quotas/user/{user_id_of(spender)}", ADMIN_TOKEN).json()["spent_usd"] > 0)
    page.goto("/operator/quotas")
    expect(page.get_by_role("row", name=f"User {user_id_of(spender)}")).to_contain_text("passed")
    page.get_by_role("button", name="Used").click()
    expect(page.locator("tbody tr").first).to_contain_text(f"User {user_id_of(spender)}")


@pytest.mark.parametrize(
    ("form", "status", "says"),
    [
        ({"kind": "group", "number": "1"}, 400, "user/"),
        ({"kind": "user", "number": "x"}, 400, "user/"),
        ({"kind": "user", "number": str(10**12)}, 404, "There is no user"),
        ({"kind": "key", "number": "1", "limit_usd": "a lot"}, 400, "limit_usd"),
        ({"kind": "key", "number": "1", "colour": "blue"}, 400, "colour"),
        ({}, 400, "user/"),
    ],
)
def test_what_is_wrong_is_said_and_changes_nothing(admin, site, form, status, says):
    before = site.gateway.get("/admin/quotas", ADMIN_TOKEN).json()
    answer = admin.ask("PUT", "/operator/quotas", **form)
    assert answer.status_code == status
    assert says in answer.text
    assert site.gateway.get("/admin/quotas", ADMIN_TOKEN).json() == before


def test_the_default_is_said_where_there_is_one(start, stand_in, site_settings):
    settings = site_settings | {"DATABASE_URL": site_settings["DATABASE_URL"] + "2", "QUOTA_USD": 20}
    key = stand_in.new_key()["key"]
    asker = new_admin(Site(start(OPENROUTER_API_URL=stand_in.address, OPENROUTER_API_KEYS=key, **settings)))
    assert "a user may spend $20.00; period: month" in asker.ask("GET", "/operator/quotas").text
