"""The operator's page of aliases: one is made, changed and removed, and what it does to a bill stands beside it."""

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


def known(site):
    return [(one["name"], one["models"]) for one in site.gateway.get("/admin/aliases", ADMIN_TOKEN).json()["items"]]


def test_an_alias_is_made_changed_and_removed(admins_page, site):
    page = admins_page
    page.goto("/operator/aliases")
    expect(page.get_by_text("No alias: each call goes to the model that it asks for.")).to_be_visible()
    page.get_by_role("button", name="New alias").click()
    new = page.get_by_role("dialog", name="New alias")
    assert accessibility_faults(page) == []
    expect(new.get_by_text("A call is billed at the price of the model behind the alias")).to_be_visible()
    new.get_by_label("Name").fill("fast")
    new.get_by_label("Models, one on each line").fill("openai/gpt-4o-mini many")
    new.get_by_role("button", name="Save").click()
    expect(new.get_by_label("Models, one on each line")).to_have_accessible_description(
        re.compile("openai/gpt-4o-mini 9")
    )
    assert known(site) == []
    new.get_by_label("Models, one on each line").fill("openai/gpt-4o-mini 9\nx-ai/grok-4")
    new.get_by_role("button", name="Save").click()
    expect(page.get_by_role("row", name="fast")).to_contain_text("openai/gpt-4o-mini × 9")
    weighted = [{"model": "openai/gpt-4o-mini", "weight": 9}, {"model": "x-ai/grok-4", "weight": 1}]
    assert known(site) == [("fast", weighted)]

    page.get_by_role("button", name="Change fast").press("Enter")
    form = page.get_by_role("dialog", name="Change fast")
    form.get_by_label("Models, one on each line").fill("x-ai/grok-4")
    form.get_by_role("button", name="Save").click()
    expect(page.get_by_role("row", name="fast")).not_to_contain_text("gpt-4o-mini")
    assert known(site) == [("fast", weighted[1:])]
    page.on("dialog", lambda asked: asked.accept())
    page.get_by_role("button", name="Remove fast").click()
    expect(page.get_by_text("No alias: each call goes to the model that it asks for.")).to_be_visible()
    assert known(site) == []
