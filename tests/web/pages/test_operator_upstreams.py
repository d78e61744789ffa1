"""The operator's page of upstreams: added, changed and removed; a key goes in and never comes out."""

from __future__ import annotations

import re
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.support.gateway import ADMIN_TOKEN
from tests.web.pages.conftest import accessibility_faults
from tests.web.pages.operator_world import operator_settings


@pytest.fixture(scope="module")
def site_settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return operator_settings(tmp_path_factory)


KEY = "sk-an-upstreams-own-key-4711"
URL = "http://127.0.0.1:9/v1"


def known(site):
    return {one["name"]: one for one in site.gateway.get("/admin/upstreams", ADMIN_TOKEN).json()["items"]}


def latest_change(site):
    entries = site.gateway.get("/admin/audit", ADMIN_TOKEN).json()["items"]
    entry = next(one for one in entries if one["action"] != "upstream_checked")
    return entry["actor"], entry["action"], entry["details"]["has_new_key"]


def test_an_upstream_is_added_changed_and_removed_and_its_key_is_never_shown(admins_page, site, admin):
    page, actor = admins_page, f"user/{admin.id}"
    bodies: list[str] = []
    page.on("response", lambda answer: "/operator" in answer.url and bodies.append(answer.text()))
    page.goto("/operator/upstreams")
    expect(page.get_by_text("No upstream besides OpenRouter")).to_be_visible()
    page.get_by_role("button", name="New upstream").click()
    new = page.get_by_role("dialog", name="New upstream")
    assert accessibility_faults(page) == []
    new.get_by_label("Name").fill("mine")
    new.get_by_label("Base URL").fill(URL)
    new.get_by_label("Key; empty for none").fill(KEY)
    new.get_by_label("Model prefixes").fill("mine/ =\nours/ = theirs/")
    new.get_by_label("Prices").fill("* 0.15 0.6")
    new.get_by_role("button", name="Save and test").click()
    expect(page.get_by_role("status").filter(has_text="mine can’t be used")).to_be_visible()
    expect(page.get_by_role("row", name="mine")).to_contain_text("sk-***4711")
    added = known(site)["mine"]
    assert added["model_prefixes"] == {"mine/": "", "ours/": "theirs/"}
    assert added["prices"] == {"*": {"prompt": 0.15, "completion": 0.6}}
    assert (added["is_active"], added["is_default"]) == (True, False)
    assert latest_change(site) == (actor, "upstream_added", True)

    page.get_by_role("button", name="Change mine").press("Enter")
    form = page.get_by_role("dialog", name="Change mine")
    expect(form.get_by_label("Key; empty to keep")).to_have_value("")
    form.get_by_label("First content timeout (seconds)").fill("60")
    form.get_by_label("In use").uncheck()
    form.get_by_role("button", name="Save").click()
    expect(page.get_by_role("row", name="mine")).to_contain_text("off")
    changed = known(site)["mine"]
    assert changed["api_key"] == added["api_key"]
    assert (changed["timeout_seconds"], changed["is_active"]) == (60, False)
    assert (changed["model_prefixes"], changed["prices"]) == (added["model_prefixes"], added["prices"])
    assert latest_change(site) == (actor, "upstream_changed", False)

    page.get_by_role("button", name="Change mine").click()
    form.get_by_label("Remove the stored key").check()
    form.get_by_role("button", name="Save").click()
    expect(page.get_by_role("row", name="mine")).to_contain_text("none")
    assert known(site)["mine"]["api_key"] is None

    page.get_by_role("button", name="Remove mine").click()
    expect(page.get_by_text("No upstream besides OpenRouter")).to_be_visible()
    assert known(site) == {}
    assert latest_change(site) == (actor, "upstream_removed", False)
    assert not any(KEY in body for body in bodies)


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("model_prefixes", "local/", "lines such as: local/ = their/"),
        ("prices", "* 1", "lines such as: openai/gpt-4o-mini 0.15 0.6"),
        ("prices", "* 1 much", "prices"),
        ("timeout_seconds", "0", "timeout_seconds"),
        ("base_url", "ftp://x", "base_url"),
        ("name", "Openai", "name"),
        ("name", "7", "not digits alone"),
        ("colour", "blue", "colour"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_added(admin, site, field, value, says):
    form = {"name": "bad", "base_url": URL} | {field: value}
    answer = admin.ask("POST", "/operator/upstreams", **form)
    assert answer.status_code == 400
    assert says in answer.text
    assert "bad" not in known(site)


def test_what_is_wrong_is_said_in_the_readers_language(admin):
    form = {"name": "7", "base_url": URL}
    admin.cookies["lang"] = "zh"
    assert "不能全是数字" in admin.ask("POST", "/operator/upstreams", **form).text
    both = admin.ask("POST", "/operator/upstreams", **form | {"name": "a b", "prices": "* 1"}).text
    assert both.count("data-fault=") == 2
    assert "每行格式须如" in both


def test_what_is_wrong_is_said_in_the_dialog(admins_page):
    page = admins_page
    page.goto("/operator/upstreams")
    page.get_by_role("button", name="New upstream").click()
    page.get_by_label("Name").fill("bad")
    page.get_by_label("Base URL").fill("http://user:secret@127.0.0.1/")
    page.get_by_role("dialog").get_by_role("button", name="Save").click()
    expect(page.get_by_role("dialog").get_by_label("Base URL")).to_have_accessible_description(
        re.compile("no user, query, fragment")
    )
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)


def test_an_upstream_is_begun_from_a_preset_and_tried(admins_page, site, admin, stand_in):
    page = admins_page
    page.goto("/operator/upstreams")
    page.get_by_role("button", name="Add Ollama").click()
    new = page.get_by_role("dialog", name="New upstream")
    expect(new.get_by_label("Name")).to_have_value("ollama")
    expect(new.get_by_label("Base URL")).to_have_value("http://127.0.0.1:11434/v1")
    expect(new.get_by_label("Model prefixes")).to_have_value("ollama/ =")
    expect(new.get_by_text("ALLOW_PRIVATE_UPSTREAMS=true")).to_be_visible()
    assert accessibility_faults(page) == []
    page.keyboard.press("Escape")
    page.get_by_role("button", name="New upstream").click()
    expect(new.get_by_label("Name")).to_have_value("")
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Add Ollama").click()
    new.get_by_label("Base URL").fill("http://127.0.0.1:9/v1")
    new.get_by_role("button", name="Save and test").click()
    expect(page.get_by_role("status").filter(has_text="ollama can’t be used")).to_contain_text("connect")
    page.get_by_role("button", name="Change ollama").click()
    form = page.get_by_role("dialog", name="Change ollama")
    form.get_by_label("Base URL").fill(stand_in.address)
    form.get_by_label("Key; empty to keep").fill(stand_in.new_key()["key"])
    form.get_by_role("button", name="Save").click()
    page.get_by_role("button", name="Test ollama").click()
    expect(page.get_by_role("status").filter(has_text="answers and takes its key")).to_be_visible()
    entry = site.gateway.get("/admin/audit", ADMIN_TOKEN).json()["items"][0]
    assert (entry["action"], entry["subject"]) == ("upstream_checked", "upstream/ollama")
    page.on("dialog", lambda asked: asked.accept())
    page.get_by_role("button", name="Remove ollama").click()
    expect(page.get_by_text("No upstream besides OpenRouter")).to_be_visible()


def test_a_key_is_limited_to_upstreams_where_there_are_others(page, site, person):
    upstream = {"name": "groq", "base_url": "https://api.groq.com/openai/v1"}
    assert site.gateway.post("/admin/upstreams", upstream, ADMIN_TOKEN).status_code == 201
    key = site.gateway.post("/api/api-keys", {"name": "report", "upstreams": ["groq"]}, person["token"]).json()
    try:
        page.goto("/keys")
        for ticked, wanted in [({"groq"}, ["groq", "openrouter"]), ({"groq", "openrouter"}, None)]:
            page.get_by_role("button", name="Limits of report").click()
            boxes = {name: page.get_by_role("dialog").get_by_label(name) for name in ("groq", "openrouter")}
            assert {name for name, box in boxes.items() if box.is_checked()} == ticked
            for box in boxes.values():
                box.set_checked(wanted is not None)
            page.get_by_role("dialog").get_by_role("button", name="Save").click()
            expect(page.get_by_role("dialog")).to_have_count(0)
            assert site.gateway.get(f"/api/api-keys/{key['id']}", person["token"]).json()["upstreams"] == wanted
    finally:
        site.gateway.ask("DELETE", "/admin/upstreams/groq", None, ADMIN_TOKEN)
