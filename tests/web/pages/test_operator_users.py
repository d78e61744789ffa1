"""The operator's pages of users: found, changed, given a quota and logged out, as through the API and written down."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import expect

from tests.support.gateway import ADMIN_TOKEN, user_id_of, wait_for
from tests.web.pages.operator_world import new_admin, operator_settings, set_role, somebody


@pytest.fixture(scope="module")
def site_settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return operator_settings(tmp_path_factory)


def shown(site, user_id):
    return site.gateway.get(f"/admin/users/{user_id}", ADMIN_TOKEN).json()


def latest_change(site, user_id):
    return site.gateway.get(f"/admin/audit?user_id={user_id}", ADMIN_TOKEN).json()["items"][0]


def test_users_are_filtered_and_paged(admins_page, site):
    page = admins_page
    for _ in range(21):
        set_role(site, user_id_of(site.new_person()["token"]), "user")
    page.goto("/operator/users")
    page.get_by_role("link", name="Older").click()
    expect(page.get_by_text("Page 2 of")).to_be_visible()
    page.get_by_label("Role").select_option("admin")
    page.get_by_role("button", name="Show").click()
    for row in page.locator("tbody tr").all():
        expect(row).to_contain_text("admin")
    expect(page.get_by_label("Role")).to_have_value("admin")


def test_a_user_is_found_by_a_name_that_no_address_holds(admins_page, site):
    page, person = admins_page, site.new_person()
    page.goto("/operator/users")
    page.get_by_label("Username or e-mail").fill("nobody@example.com")
    page.get_by_role("button", name="Find").click()
    expect(page.get_by_role("alert")).to_have_text("There is no user of this name")
    page.get_by_label("Username or e-mail").fill(person["username"])
    page.get_by_role("button", name="Find").click()
    page.wait_for_url(f"**/operator/users/{user_id_of(person['token'])}")


def test_a_user_is_changed_by_the_keyboard_alone(admins_page, site, admin):
    page, person = admins_page, site.new_person()
    user_id = user_id_of(person["token"])
    page.goto(f"/operator/users/{user_id}")
    page.get_by_label("State").focus()
    page.keyboard.press("s")  # silenced
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("3")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_role("status").first).to_contain_text("Saved")
    expect(page.locator("#save-user")).to_be_focused()
    found = shown(site, user_id)
    assert (found["state"], found["role"], found["trust_level"]) == ("silenced", "user", 3)
    entry = latest_change(site, user_id)
    assert (entry["actor"], entry["action"]) == (f"user/{admin.id}", "user_changed")
    assert entry["details"] == {"state": "silenced", "old_state": "active", "trust_level": 3, "old_trust_level": 0}


def test_an_account_is_labelled_and_known_by_that(admins_page, site):
    page, user_id, label = admins_page, user_id_of(site.new_person()["token"]), "<i>marketing</i>, laptop 3"
    page.goto(f"/operator/users/{user_id}")
    page.get_by_label("Label").fill(label)
    page.get_by_role("button", name="Save").press("Enter")
    expect(page.get_by_role("status").first).to_contain_text("Saved")
    for path in ("/operator/users", f"/operator/audit?user_id={user_id}"):
        page.goto(path)
        expect(page.locator("tr", has_text=str(user_id)).first).to_contain_text(label)
    page.goto(f"/operator/users/{user_id}")
    expect(page.get_by_label("Label")).to_have_value(label)
    page.get_by_label("Label").fill("")
    page.get_by_role("button", name="Save").press("Enter")
    expect(page.get_by_role("status").first).to_contain_text("Saved")
    assert shown(site, user_id)["label"] is None


def test_an_admin_can_not_take_the_own_rights_away(admins_page, site, admin):
    page = admins_page
    page.goto(f"/operator/users/{admin.id}")
    page.get_by_label("Role").select_option("user")
    page.get_by_role("button", name="Save").click()
    expect(page.locator("#user .error").first).to_have_text("You can't take your own rights away; another operator can")
    assert shown(site, admin.id)["role"] == "admin"


@pytest.mark.parametrize("field", ["limit_usd", "soft_limit_usd"])
def test_an_amount_that_is_none_is_refused_in_words_and_changes_nothing(admin, site, user, field):
    answer = admin.ask("PUT", f"/operator/users/{user.id}/quota", **{field: "a lot"})
    assert answer.status_code == 400
    assert field in answer.text
    assert shown(site, user.id)["quota"] is None


def test_a_quota_is_set_and_reset(admins_page, site, admin):
    page, user_id = admins_page, user_id_of(site.new_person()["token"])
    page.goto(f"/operator/users/{user_id}")
    page.get_by_label("Limit in dollars").fill("12.5")
    page.get_by_label("Period").select_option("week")
    page.get_by_role("button", name="Set quota").click()
    expect(page.locator("#user")).to_contain_text("$0.00 of $12.50 spent.")
    quota = shown(site, user_id)["quota"]
    assert (quota["limit_usd"], quota["period"]) == (12.5, "week")
    assert latest_change(site, user_id)["actor"] == f"user/{admin.id}"
    page.get_by_role("button", name="Back to the default").click()
    expect(page.locator("#user")).to_contain_text("No quota")
    assert shown(site, user_id)["quota"] is None
    assert latest_change(site, user_id)["action"] == "quota_reset"


def test_sessions_are_ended(admins_page, site, admin):
    page, person = admins_page, somebody(site, site.new_person()["token"])
    page.goto(f"/operator/users/{person.id}")
    page.get_by_role("button", name="End all sessions").click()
    expect(page.get_by_role("status").first).to_have_text("All sessions are ended.")
    wait_for(lambda: person.ask("GET", "/dashboard").status_code == 303)
    entry = latest_change(site, person.id)
    assert (entry["actor"], entry["action"]) == (f"user/{admin.id}", "sessions_ended")


def test_who_ends_the_own_sessions_has_to_log_in_again(page, site):
    me = new_admin(site)
    site.enter(page.context, {"token": me.token})
    page.goto(f"/operator/users/{me.id}")
    page.get_by_role("button", name="End all sessions").click()
    page.wait_for_url("**/login*")


def test_an_account_is_deleted(admins_page, site, admin):
    page, person = admins_page, somebody(site, site.new_person()["token"])
    page.goto(f"/operator/users/{person.id}")
    page.get_by_role("button", name="Delete this account").press("Enter")
    page.wait_for_url("**/operator/users")
    assert person.ask("GET", "/dashboard").status_code == 303
    entry = latest_change(site, person.id)
    assert (entry["actor"], entry["action"]) == (f"user/{admin.id}", "account_deleted")
    page.goto(f"/operator/users/{admin.id}")
    page.get_by_role("button", name="Delete this account").press("Enter")
    expect(page.locator("#user .error").last).to_contain_text("This is your own account")


def test_the_account_of_a_program_gets_no_role(admins_page, site):
    made = site.gateway.post("/admin/keys", {"name": "program"}, ADMIN_TOKEN).json()
    admins_page.goto(f"/operator/users/{made['user_id']}")
    expect(admins_page.get_by_label("Role")).to_have_count(0)
    expect(admins_page.get_by_label("State")).to_be_visible()
