"""The operator's page of the pool: keys with their health and limits, renewals under way, and changes to single keys."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from playwright.sync_api import expect

from tables import gateway_processes, pool_keys, rotator
from tests.support.gateway import ADMIN_TOKEN
from tests.web.pages.operator_world import add_pool_key, operator_settings


@pytest.fixture(scope="module")
def site_settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return operator_settings(tmp_path_factory)


def pool(site):
    items = site.gateway.get("/admin/pool?all=true", ADMIN_TOKEN).json()["items"]
    return {one["name"]: one for one in items}


def latest_change(site):
    entry = site.gateway.get("/admin/audit", ADMIN_TOKEN).json()["items"][0]
    return entry["actor"], entry["action"], entry["subject"]


def test_a_key_is_disabled_and_enabled_in_place(admins_page, site, admin):
    page = admins_page
    [name] = pool(site)
    page.goto("/operator/pool")
    page.get_by_role("button", name=f"Disable {name}").press("Enter")
    expect(page.get_by_role("row", name=name)).to_contain_text("off")
    assert pool(site)[name]["enabled"] is False
    assert latest_change(site) == (f"user/{admin.id}", "pool_key_disabled", f"pool/{name}")
    page.get_by_role("button", name=f"Enable {name}").click()
    expect(page.get_by_role("button", name=f"Disable {name}")).to_be_visible()
    assert pool(site)[name]["enabled"] is True
    assert latest_change(site) == (f"user/{admin.id}", "pool_key_enabled", f"pool/{name}")


def test_a_long_name_is_shown_short_and_copied_whole(admins_page, database):
    page, name = admins_page, "gw/eecc3617-5e8a-4f0b-9f43-1f6a5d0a9b11/0123456789abcdef0123456789ab70f9"
    add_pool_key(database, name, "draining")
    page.goto("/operator/pool")
    expect(page.get_by_text(name)).to_have_count(0)
    short = page.get_by_text("k-70f9", exact=True)
    expect(short).to_have_attribute("title", name)
    page.evaluate(
        "document.addEventListener('copy', (event) => { window.copied = event.clipboardData.getData('text/plain') })"
    )
    short.click()
    page.keyboard.press("Control+C")
    assert page.evaluate("window.copied") == name
    expect(page.get_by_role("button", name="Disable k-70f9")).to_be_visible()


def test_limits_renewals_and_the_rotation_are_shown(admins_page, site, database, admin):
    page = admins_page
    add_pool_key(database, "gw/one", "draining", limit_nano=10_000_000_000, remaining_nano=2_500_000_000)
    old = add_pool_key(database, "gw/old", "draining")
    add_pool_key(database, "gw/new", "quarantined", replaces_id=old)
    add_pool_key(database, "gw/gone", "deleted")
    held = datetime(2099, 1, 2, 3, 4, tzinfo=UTC)
    values = {"lease_until": datetime.now(UTC) + timedelta(minutes=5), "deletions_held_until": held}
    database.transact(lambda tx: tx.execute(rotator.update().values(values)))
    page.goto("/operator/pool")
    expect(page.get_by_role("row", name="gw/one")).to_contain_text("$2.50")
    expect(page.get_by_role("row", name="gw/one")).to_contain_text("of $10.00")
    expect(page.get_by_role("progressbar", name="Renewal of gw/old")).to_have_attribute("value", "4")
    expect(page.get_by_text("the old key finishes its calls")).to_be_visible()
    expect(page.get_by_text("at work")).to_be_visible()
    expect(page.get_by_text("deletes nothing before 2099-01-02 03:04")).to_be_visible()
    expect(page.get_by_text("gw/gone")).to_have_count(0)
    page.get_by_role("link", name="Show deleted keys").click()
    expect(page.get_by_text("gw/gone")).to_have_count(1)
    database.transact(lambda tx: tx.execute(rotator.update().values(lease_until=None, deletions_held_until=None)))
    expect(page.get_by_text("at work")).to_have_count(0)
    expect(page.get_by_text("gw/gone")).to_have_count(1)


def test_users_own_keys_are_shown_to_whoever_wants_them(admins_page, database, admin):
    page = admins_page
    add_pool_key(database, "gw/owned", "active", owner_id=admin.id)
    page.goto("/operator/pool")
    expect(page.get_by_role("heading", name="Keys")).to_be_visible()
    expect(page.get_by_text("gw/owned")).to_have_count(0)
    page.get_by_role("link", name="With users’ own keys").click()
    expect(page.get_by_role("row", name="gw/owned")).to_contain_text(f"user {admin.id}")
    page.get_by_role("link", name="Without users’ own keys").click()
    expect(page.get_by_text("gw/owned")).to_have_count(0)


def test_a_resting_key_says_why_and_until_when(admins_page, site, database):
    page = admins_page
    until = "2099-01-02T03:04:05+00:00"
    row = database.transact(lambda tx: tx.execute(sa.select(pool_keys.c.id).order_by(pool_keys.c.id)).first())
    told = {str(row.id): {"health": "resting", "reason": "rate limited", "until": until}}
    beat = {
        "id": "f" * 32,
        "beat_at": datetime.now(UTC) + timedelta(minutes=1),
        "keys_revision": 1,
        "report": json.dumps(told),
    }
    database.transact(lambda tx: tx.execute(gateway_processes.insert().values(beat)))
    page.goto("/operator/pool")
    expect(page.locator("#pool tbody tr").last).to_contain_text("resting rate limited")
    expect(page.locator("#pool tbody tr").last).to_contain_text("until 2099-01-02 03:04:05")
    database.transact(lambda tx: tx.execute(gateway_processes.delete().where(gateway_processes.c.id == beat["id"])))


def test_a_minted_key_is_renewed(admins_page, site, database, admin):
    page = admins_page
    add_pool_key(database, "gw/minted", "active")
    page.goto("/operator/pool")
    page.get_by_role("button", name="Renew gw/minted").click()
    expect(page.get_by_role("progressbar", name="Renewal of gw/minted")).to_have_attribute("value", "1")
    assert latest_change(site) == (f"user/{admin.id}", "pool_key_rotation_asked", "pool/gw/minted")


@pytest.mark.parametrize(("change", "name"), [("enable", "none such"), ("disable", ""), ("renew", "none such")])
def test_a_key_that_there_is_not_is_said_so(admin, change, name):
    answer = admin.ask("POST", f"/operator/pool/{change}", name=name)
    assert answer.status_code == (404 if name else 400)
