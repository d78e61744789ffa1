"""What operators want to know or do, from their first page, in at most three clicks; Enter in a field counts as one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect

from db import Database
from tests.support.alarms import SECRET, Receiver
from tests.support.gateway import ADMIN_TOKEN, wait_for
from tests.support.usage_rows import row, store
from tests.web.pages.conftest import Site
from tests.web.pages.operator_world import Somebody, add_pool_key, operator_settings, somebody

MODEL = "openai/gpt-4o-mini"
MOST_CLICKS = 3


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


@pytest.fixture(scope="module")
def site_settings(tmp_path_factory: pytest.TempPathFactory, receiver: Receiver) -> dict[str, Any]:
    webhook = {"ALERT_WEBHOOK_URL": f"{receiver.url}/ring", "ALERT_WEBHOOK_SECRET": SECRET}
    return operator_settings(tmp_path_factory) | webhook | {"POOL_SIZE": 7}


class Way:
    """An operator's way through the pages, whose clicks are counted."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.clicks = 0
        page.goto("/operator")
        self.side = page.get_by_role("navigation", name="Operator pages")

    def click(self, what: Locator) -> None:
        what.click()
        self.clicks += 1

    def go(self, name: str) -> None:
        """To another of the operators' pages."""
        self.click(self.side.get_by_role("link", name=name, exact=True))

    def enter(self, text: str) -> None:
        """Type into what has the focus, and send it."""
        self.page.keyboard.type(text)
        self.page.keyboard.press("Enter")
        self.clicks += 1


@pytest.fixture
def way(admins_page: Page) -> Iterator[Way]:
    made = Way(admins_page)
    yield made
    assert 1 <= made.clicks <= MOST_CLICKS


def test_why_did_a_request_fail(way: Way, site: Site, user: Somebody) -> None:
    refused = site.gateway.chat(user.token, "no/such-model")
    assert refused.status_code == 400
    said = refused.json()["error"]["message"]
    request_id = refused.headers["X-Request-Id"]
    path = f"/admin/logs/{request_id}"
    wait_for(lambda: site.gateway.get(path, ADMIN_TOKEN).status_code == 200)
    way.page.keyboard.press("/")
    way.enter(request_id)
    shown = way.page.get_by_role("region", name="One request")
    expect(shown).to_contain_text(said)
    expect(shown).to_contain_text("400")
    expect(shown.get_by_role("link", name=str(user.id), exact=True)).to_be_visible()


def test_who_spent_most_yesterday(way: Way, site: Site, database: Database) -> None:
    thrifty, lavish = (somebody(site, site.new_person()["token"]) for _ in range(2))
    label = {"label": "marketing, laptop 3"}
    assert site.gateway.ask("PATCH", f"/admin/users/{lavish.id}", label, ADMIN_TOKEN).status_code == 200
    noon = (datetime.now(UTC) - timedelta(days=1)).replace(hour=12)
    today = [row(900, datetime.now(UTC), user_id=thrifty.id, cost_nano=90 * 10**9)]
    yesterday = [
        row(901, noon, user_id=thrifty.id, cost_nano=2 * 10**9),
        row(902, noon, user_id=lavish.id, cost_nano=7 * 10**9),
    ]
    store(database, today + yesterday)
    way.go("Usage")
    way.click(way.page.get_by_role("link", name="Yesterday"))
    lines = way.page.locator("[data-sort=shares] tbody tr")
    expect(lines.first).to_contain_text("marketing, laptop 3")
    expect(lines.first).to_contain_text("$7.00")
    expect(lines.nth(1)).to_contain_text("$2.00")


def test_which_key_fails_most_and_since_when(way: Way, database: Database) -> None:
    calm, sick, broken = (add_pool_key(database, f"gateway/{name}", "active") for name in ("calm", "sick", "broken"))
    hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)

    def failures(key: int, number: int, hours: list[int]) -> list[Any]:
        failed = {"outcome": "error", "http_status": 502, "error_type": "provider_error", "error_message": "Overloaded"}
        at = [hour - timedelta(hours=back) for back in hours]
        return [row(number + place, one, pool_key_id=key, **failed) for place, one in enumerate(at)]

    fine = [row(1000 + number, hour - timedelta(hours=3), pool_key_id=calm) for number in range(9)]
    fine += [row(1050, hour - timedelta(hours=7), pool_key_id=broken)]
    store(database, fine + failures(sick, 1100, [5, 5]) + failures(broken, 1200, [5, 3, 3, 0, 0]))
    way.go("Pool")
    way.click(way.page.get_by_role("button", name="Failed in a day"))
    line = way.page.locator("[data-sort=pool] tbody tr").first
    expect(line).to_contain_text("gateway/broken")
    expect(line).to_contain_text(f"since {hour - timedelta(hours=5):%Y-%m-%d %H:%M}")
    expect(line).to_contain_text("Overloaded (502)")
    expect(way.page.locator("[data-sort=pool] tbody tr", has_text="gateway/calm")).not_to_contain_text("since")


def test_give_one_account_20_dollars_a_month(way: Way, site: Site, user: Somebody) -> None:
    way.go("Users")
    way.click(way.page.get_by_role("link", name=f"User {user.id}", exact=True))
    quota = way.page.get_by_role("region", name="Quota")
    quota.get_by_label("Limit in dollars").fill("20")
    quota.get_by_label("Period").select_option("month")
    way.click(quota.get_by_role("button", name="Set quota"))
    expect(way.page.get_by_role("status").filter(has_text="The quota is set")).to_be_visible()
    kept = site.gateway.get(f"/admin/quotas/user/{user.id}", ADMIN_TOKEN).json()
    assert (kept["limit_usd"], kept["period"]) == (20, "month")


def test_add_ollama_and_try_it(way: Way, site: Site, stand_in: Any) -> None:
    way.go("Upstreams")
    way.click(way.page.get_by_role("button", name="Add Ollama"))
    form = way.page.get_by_role("dialog", name="New upstream")
    expect(form.get_by_label("Base URL")).to_have_value("http://127.0.0.1:11434/v1")
    form.get_by_label("Base URL").fill(stand_in.address)  # where this machine has something like it
    form.get_by_label("Key; empty for none").fill(stand_in.new_key()["key"])
    way.click(form.get_by_role("button", name="Save and test"))
    expect(way.page.get_by_role("status").filter(has_text="ollama answers and takes its key")).to_be_visible()
    wait_for(lambda: site.gateway.chat(site.new_person()["token"], f"ollama/{MODEL}").status_code == 200)


def test_be_told_when_credit_runs_low(way: Way, receiver: Receiver) -> None:
    way.go("Alerts")
    expect(way.page.get_by_role("row", name="Little credit at OpenRouter")).to_contain_text("told")
    way.click(way.page.get_by_role("button", name="Send a test"))
    expect(way.page.get_by_role("status").filter(has_text="arrived")).to_be_visible()
    assert json.loads(receiver.posted[-1].body)


def test_what_is_set_and_where_it_comes_from(way: Way) -> None:
    way.go("Settings")
    for name, value, source in (("POOL_SIZE", "7", "environment"), ("ADMIN_TOKEN", "set, secret", "environment")):
        line = way.page.locator("tbody tr", has=way.page.get_by_text(name, exact=True))
        expect(line.locator("td").nth(1)).to_have_text(value)
        expect(line.locator("td").nth(2)).to_have_text(source)
