"""What to do first: a step turns green by itself, all are gone when they are done or hidden; a saved key is remembered."""

from __future__ import annotations

import re
from typing import Any

import pytest
import requests
from playwright.sync_api import expect

from tests.support.gateway import ROOT
from tests.web.pages.conftest import PHONE, Site, accessibility_faults, has_no_sideways_scroll
from tests.web.pages.operator_world import new_admin, operator_settings
from web.words import words

TITLE = "First steps"


@pytest.fixture(scope="module")
def site_settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return operator_settings(tmp_path_factory) | {"QUOTA_USD": 5, "REGISTRATION": "open"}


def test_a_newcomer_is_led_to_the_first_call_which_turns_green_by_itself(page, site, person):
    assert (
        site.gateway.chat(site.new_person()["token"]).status_code == 200
    )  # somebody else's call is nobody else's step
    page.goto("/dashboard")
    steps = page.get_by_role("region", name=TITLE)
    expect(steps.get_by_text("to do", exact=True)).to_have_count(3)
    assert accessibility_faults(page) == []
    page.set_viewport_size(PHONE)
    assert has_no_sideways_scroll(page)
    key = site.gateway.post("/api/api-keys", {"name": "first"}, person["token"]).json()["key"]
    expect(steps.get_by_text("done", exact=True)).to_have_count(1)
    assert not site.gateway.chat(key, "no/such-model").ok  # which is no step
    assert site.gateway.chat(key).status_code == 200
    expect(steps.get_by_text("done", exact=True)).to_have_count(3)
    expect(steps.get_by_role("status")).to_contain_text("Your first call has been answered.")
    steps.get_by_role("link", name="Show it on the dashboard").click()
    expect(page.get_by_role("heading", name="Over time")).to_be_visible()
    expect(steps).to_have_count(0)


def test_what_is_hidden_stays_hidden_in_this_browser(page, person):
    page.goto("/dashboard")
    page.get_by_role("button", name="Hide").click()
    expect(page.get_by_role("region", name=TITLE)).to_have_count(0)
    page.reload()
    expect(page.get_by_role("heading", name="No requests in these days")).to_be_visible()
    expect(page.get_by_role("region", name=TITLE)).to_have_count(0)


def test_a_page_that_asks_by_itself_keeps_nobody_logged_in(site, user):
    found = user.ask("GET", "/first-steps")
    assert (found.status_code, "Set-Cookie" in found.headers) == (200, False)
    strangers = requests.get(f"{site.url}/first-steps", timeout=30, allow_redirects=False)
    assert strangers.status_code == 303


def test_an_operators_steps_are_gone_once_the_key_is_saved_and_for_this_operator_alone(page, site):
    one, other = new_admin(site), new_admin(site)
    site.enter(page.context, {"token": one.token})
    page.goto("/operator")
    steps = page.get_by_role("region", name=TITLE)
    expect(steps.get_by_text("done", exact=True)).to_have_count(3)
    assert accessibility_faults(page) == []
    steps.get_by_role("button", name="I have saved it").click()
    expect(page.get_by_role("status").filter(has_text="All first steps are done.")).to_be_visible()
    page.reload()
    expect(page.get_by_role("heading", name="Overview")).to_be_visible()
    expect(steps).to_have_count(0)
    [saved] = site.gateway.get("/admin/audit?action=encryption_key_saved", one.token).json()["items"]
    assert saved["actor"] == saved["subject"] == f"user/{saved['user_id']}"
    assert "I have saved it" in other.ask("GET", "/operator").text


def test_who_may_only_read_has_nothing_to_do_first(site):
    auditor = new_admin(site, "auditor")
    assert TITLE not in auditor.ask("GET", "/operator").text
    assert auditor.ask("POST", "/operator/first-steps/key-saved").status_code == 403


def test_the_steps_are_told_in_the_readers_language(user):
    user.cookies["lang"] = "zh"
    shown = user.ask("GET", "/first-steps").text
    assert words("zh")["Make a client key for your program."] in shown
    steps = set(re.findall(r'(?<!")"([A-Z][^"\n]+\.)"(?!")', (ROOT / "web/pages/first_steps.py").read_text("utf-8")))
    assert len(steps) == 6
    assert steps <= words("zh").keys()
    assert not re.search(r"[A-Za-z]{4,} [a-z]{2,} [a-z]{2,}", re.sub(r"<[^>]*>", "", shown))


def test_what_is_not_settled_is_to_do(start, stand_in, tmp_path_factory):
    """Without a quota, and with the sign-up mode that nobody chose."""
    bare = operator_settings(tmp_path_factory) | {"REGISTRATION": "auto"}
    site = Site(start(OPENROUTER_API_URL=stand_in.address, OPENROUTER_API_KEYS=stand_in.new_key()["key"], **bare))
    steps = new_admin(site).ask("GET", "/operator").text.partition("operators-first-steps")[2].partition("</ol>")[0]
    assert (steps.count(">done<"), steps.count(">to do<")) == (1, 3)
