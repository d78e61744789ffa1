"""The operator's page of model rules: one is made, changed and removed, and what it does to a bill stands beside it."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import expect

from tests.support.gateway import ADMIN_TOKEN
from tests.web.pages.conftest import accessibility_faults
from tests.web.pages.operator_world import operator_settings

EMPTY = "No rule: a call that fails is tried again only where it was sent."


@pytest.fixture(scope="module")
def site_settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return operator_settings(tmp_path_factory)


def known(site):
    return site.gateway.get("/admin/model-rules", ADMIN_TOKEN).json()["items"]


def test_a_rule_is_made_changed_and_removed(admins_page, site):
    page = admins_page
    page.goto("/operator/model-rules")
    expect(page.get_by_text(EMPTY)).to_be_visible()
    page.get_by_role("button", name="New rule").click()
    new = page.get_by_role("dialog", name="New rule")
    assert accessibility_faults(page) == []
    expect(new.get_by_text("every upstream that it was sent to has seen the prompt")).to_be_visible()
    new.get_by_label("Model or alias").fill("x-ai/grok-4")
    new.get_by_label("Models to fall back to").fill("openai/gpt-4o-mini after=luck")
    new.get_by_role("button", name="Save").click()
    expect(new.get_by_text("Must have at most 3 lines")).to_be_visible()
    assert known(site) == []
    new.get_by_label("Models to fall back to").fill("openai/gpt-4o-mini after=away\nopenai/gpt-4o")
    new.get_by_label("Seconds to the first content").fill("60")
    new.get_by_label("Upstreams that carry the model").fill("openrouter 9")
    new.get_by_role("button", name="Save").click()
    row = page.get_by_role("row", name="x-ai/grok-4")
    expect(row).to_contain_text("openai/gpt-4o-mini after=away")
    [rule] = known(site)
    assert (rule["timeout_seconds"], rule["upstreams"]) == (60, [{"upstream": "openrouter", "weight": 9}])
    assert [(one["model"], one["after"]) for one in rule["fallbacks"]] == [
        ("openai/gpt-4o-mini", ["away"]),
        ("openai/gpt-4o", ["away", "rate-limited", "too-long", "moderated"]),
    ]

    page.get_by_role("button", name="Change x-ai/grok-4").press("Enter")
    form = page.get_by_role("dialog", name="Change x-ai/grok-4")
    form.get_by_label("Models to fall back to").fill("")
    form.get_by_role("button", name="Save").click()
    expect(row).not_to_contain_text("gpt-4o-mini")
    assert known(site)[0]["fallbacks"] == []
    page.on("dialog", lambda asked: asked.accept())
    page.get_by_role("button", name="Remove x-ai/grok-4").click()
    expect(page.get_by_text(EMPTY)).to_be_visible()
    assert known(site) == []
