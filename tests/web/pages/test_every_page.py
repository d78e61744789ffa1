"""Every page with real shapes, at the widths of a desk, a tablet and a phone: nothing scrolls sideways.

Long names, 72-character keys, the largest amounts. `make gallery` keeps a picture of each, light and dark, in English
and Chinese.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser

import tables
from db import Database
from tests.support.browser import watched_page
from tests.support.gateway import ADMIN_TOKEN, user_id_of
from tests.support.usage_rows import row, store
from tests.web.pages.conftest import PHONE, Site
from tests.web.pages.operator_world import Somebody, add_pool_key, operator_settings
from tests.web.pages.test_speed_of_pages import NOBODYS, OPERATORS, USERS
from tests.web.pages.weeks_of_use import lived_in

DESK, TABLET = {"width": 1440, "height": 900}, {"width": 768, "height": 1024}
GALLERY = os.environ.get("GALLERY_FOLDER")
LONG_KEY = "gw/eecc3617-5e8a-4f0b-9f43-1f6a5d0a9b11/0123456789abcdef0123456789ab70f9"
LONG_MODEL = "nousresearch/hermes-4-405b-instruct-preview-with-a-very-long-name-2026-11-21:extended"
MOST_NANO = 9_223_372_036_854_775_807
# What is wider than it may be: the page, or what scrolls in it.
TOO_WIDE = """() => [document.documentElement, ...document.querySelectorAll('main .scroll, main .card')]
  .filter((one) => one.scrollWidth > one.clientWidth + 1 && getComputedStyle(one).overflowX !== 'hidden')
  .map((one) => `${one.className || one.tagName} ${one.ariaLabel ?? one.id}: ${one.scrollWidth} in ${one.clientWidth}`)"""


@pytest.fixture(scope="module")
def site_settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return operator_settings(tmp_path_factory)


@pytest.fixture(scope="module")
def people(site: Site, database: Database, stand_in: Any, admin: Somebody) -> dict[str, str | None]:
    """Tokens of those who look: nobody, a user and an operator, all of whom have used the service for weeks."""
    user = lived_in(site, database, stand_in)["token"]
    ask, token = site.gateway.ask, ADMIN_TOKEN
    for number in (admin.id, user_id_of(user)):
        label = {"label": "marketing, laptop 3 (Ann’s desk, 2nd floor)"}
        assert ask("PATCH", f"/admin/users/{number}", label, token).status_code == 200
    assert ask("PUT", f"/admin/quotas/user/{admin.id}", {"limit_usd": 1_000_000_000}, token).status_code == 200
    assert ask("POST", "/admin/invitations", {"note": "Ann", "limit_usd": 20}, token).status_code == 201
    assert ask("POST", "/admin/tokens", {"name": "nightly-report", "scope": "read"}, token).status_code == 201
    models = [{"model": LONG_MODEL, "weight": 9}, {"model": "openai/gpt-4o-mini", "weight": 1}]
    assert ask("PUT", "/admin/aliases/fast", {"models": models}, token).status_code in {200, 201}
    rule = {"fallbacks": [{"model": LONG_MODEL}], "timeout_seconds": 60}
    assert ask("PUT", "/admin/model-rules/openai/gpt-4o", rule, token).status_code in {200, 201}
    at, broken = datetime.now(UTC), add_pool_key(database, LONG_KEY, "active")
    failed = {"outcome": "error", "http_status": 502, "error_type": "provider_error", "pool_key_id": broken}
    failed["error_message"] = "Provider returned an error: the service is temporarily overloaded, try again later"
    rows = [row(9000, at, user_id=user_id_of(user), model=LONG_MODEL, cost_nano=MOST_NANO // 4)]
    rows += [row(9001 + one, at - timedelta(hours=one), user_id=user_id_of(user), **failed) for one in range(3)]
    store(database, rows)
    alert = {"kind": "credit-low", "subject": "account", "details": '{"whose": "The account", "left": "$0.40"}'}
    rings = alert | {"began_at": at - timedelta(hours=2), "open_as": "credit-low/account"}
    rang = alert | {"began_at": at - timedelta(days=2), "ended_at": at - timedelta(days=1)}
    database.transact(lambda tx: [tx.execute(tables.alerts.insert().values(one)) for one in (rings, rang)])
    return {"nobody": None, "user": user, "operator": admin.token, "failed": rows[1]["request_id"]}


PAGES = [("nobody", path) for path in NOBODYS]
PAGES += [("user", path) for path in [*USERS, "/playground", "/dashboard/request?id={failed}"]]
PAGES += [("operator", path) for path in [*OPERATORS, "/operator/request?id={failed}", "/operator/latency?by=pool_key"]]


@pytest.mark.parametrize("who", ["nobody", "user", "operator"])
def test_nothing_scrolls_sideways(browser: Browser, site: Site, people: dict[str, str | None], who: str) -> None:
    faults: list[str] = []
    for language in ("en", "zh") if GALLERY else ("en",):
        locale = {"en": "en-GB", "zh": "zh-CN"}[language]
        with watched_page(browser, but="/live/", base_url=site.url, locale=locale) as page:
            if token := people[who]:
                site.enter(page.context, {"token": token})
            for path in [path.format(**people) for one, path in PAGES if one == who]:
                for size in (DESK, TABLET, PHONE):
                    page.set_viewport_size(size)
                    page.goto(path)
                    wide = page.evaluate(TOO_WIDE) if size is not DESK else []
                    faults += [f"{path} at {size['width']}, {language}: {one}" for one in wide]
                    for scheme in ("light", "dark") if GALLERY else ():
                        page.emulate_media(color_scheme=scheme)
                        name = path.strip("/").partition("?")[0].replace("/", "-") + ("-by" if "by=" in path else "")
                        file = Path(GALLERY or "") / f"{language}-{size['width']}-{scheme}-{who}-{name}.png"
                        page.screenshot(path=file, full_page=True)
    assert faults == []
