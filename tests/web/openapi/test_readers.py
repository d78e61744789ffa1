"""The API's documents over HTTP: whole without the internet, under a strict policy, and off in production."""

from __future__ import annotations

import hashlib
import json
import re
import secrets

import pytest
from playwright.sync_api import expect

from tests.support.browser import watched_page
from tests.support.gateway import ROOT, Gateway, check_headers, refusal_of
from tests.test_nothing_private_is_written import encryption_key

PAGES = ["/api/docs", "/api/redoc"]


@pytest.fixture(scope="module")
def served(start) -> Gateway:
    return start()


def assets_of(page: str) -> list[str]:
    return re.findall(r'(?:src|href)="([^"]+)"', page)


def test_the_document_is_served_as_json(served):
    answer = served.get("/api/openapi.json")
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "application/json")
    check_headers(answer)
    assert answer.json()["openapi"].startswith("3.1")


@pytest.mark.parametrize("path", PAGES)
def test_pages_hold_nothing_from_elsewhere_and_no_script(served, path):
    page = served.get(path)
    assert page.status_code == 200
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    check_headers(page)
    assert page.headers["X-Frame-Options"] == "DENY"
    policy = dict(part.strip().split(" ", 1) for part in page.headers["Content-Security-Policy"].split(";"))
    assert (policy["default-src"], policy["script-src"], policy["connect-src"]) == ("'none'", "'self'", "'self'")
    assert "unsafe" not in str(policy)
    assert not re.search(r"<script(?![^>]*\bsrc=)|https?://|\bon\w+=", page.text)
    assert assets_of(page.text)
    for asset in assets_of(page.text):
        answer = served.get(f"/api/{asset}")
        assert answer.status_code == 200, asset
        assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_each_page_has_a_nonce_of_its_own(served):
    policies = {served.get("/api/redoc").headers["Content-Security-Policy"] for _ in range(3)}
    assert len(policies) == 3


def test_what_has_its_version_in_its_name_may_be_kept_for_long(served):
    names = [name for path in PAGES for name in assets_of(served.get(path).text)]
    kept = {name: served.get(f"/api/{name}").headers["Cache-Control"] for name in names}
    assert len(kept) == 4
    for name, control in kept.items():
        assert ("immutable" in control) == bool(re.search(r"-\d+\.\d+\.\d+\.", name)), name


@pytest.mark.parametrize("name", ["vendor.json", "..%2Fapp.py", "%2e%2e/%2e%2e/app.py", "x", "api-docs.js%00"])
def test_no_other_file_is_served(served, name):
    refused = served.get(f"/api/docs/assets/{name}")
    assert refused.status_code == 404
    refusal_of(refused)


def test_files_are_those_that_their_makers_published():
    entries = json.loads((ROOT / "web/static/vendor/vendor.json").read_text())
    for entry in entries:
        content = (ROOT / "web/static/vendor" / entry["file"]).read_bytes()
        assert hashlib.sha384(content).hexdigest() == entry["sha384"], entry["file"]
        assert (ROOT / "web/static/vendor" / entry["license_file"]).stat().st_size > 500
    named = {name for entry in entries for name in (entry["file"], entry["license_file"])}
    assert {path.name for path in (ROOT / "web/static/vendor").iterdir()} == named | {"vendor.json"}


@pytest.mark.parametrize(("setting", "status"), [("auto", 404), ("off", 404), ("on", 200)])
def test_production_shows_them_only_if_it_is_told_to(start, setting, status):
    secret = {name: secrets.token_urlsafe(48) for name in ("SECRET_KEY", "ADMIN_TOKEN")}
    gateway = start(APP_ENV="production", HOST="127.0.0.1", API_DOCS=setting, ENCRYPTION_KEY=encryption_key(), **secret)
    for path in (*PAGES, "/api/openapi.json", "/api/docs/assets/api-docs.js"):
        assert gateway.get(path).status_code == status


def test_development_can_do_without(start):
    assert start(API_DOCS="off").get("/api/docs").status_code == 404


@pytest.mark.parametrize("path", PAGES)
def test_a_browser_shows_them_under_their_policy(served, browser, path):
    with watched_page(browser, but="logo-mini") as page:  # Redoc's advertisement is kept out
        page.goto(served.url + path)
        for text in ("A gateway between your clients and OpenRouter", "Model calls", "Quota"):
            expect(page.get_by_text(text).first).to_be_visible(timeout=30_000)
