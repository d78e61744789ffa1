"""Every page by every kind of visitor, from the application's own map of addresses; and the headers of every answer."""

from __future__ import annotations

import re

import pytest
import requests
from flask import Flask

from tests.web.pages.conftest import Site
from tests.web.pages.test_sessions import token_of
from web.pages.table import register_pages

PUBLIC = {"GET /", "GET /login", "GET /register", "GET /recover", "GET /reset", "POST /session"}
OPERATOR = "/operator"


def pages() -> list[str]:
    app = Flask("pages", static_folder=None)
    register_pages(app)
    found = set()
    for rule in app.url_map.iter_rules():
        if not rule.rule.startswith("/static/"):
            path = re.sub(r"<int:\w+>", "1", re.sub(r"<(?:path:)?[a-z_]+>", "x", rule.rule))
            found |= {f"{method} {path}" for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}}
    return sorted(found)


each_page = pytest.mark.parametrize("page_route", [one for one in pages() if one not in PUBLIC])


@pytest.fixture(scope="module")
def cookies(site: Site) -> dict[str, str]:
    """Of a user's session."""
    bearer = {"Authorization": f"Bearer {site.new_person()['token']}"}
    found: dict[str, str] = requests.post(f"{site.url}/session", headers=bearer, timeout=30).cookies.get_dict()
    return found


def ask(site: Site, page_route: str, **more: object) -> requests.Response:
    method, _, path = page_route.partition(" ")
    return requests.request(method, site.url + path, allow_redirects=False, timeout=20, **more)  # type: ignore[arg-type]


@each_page
def test_a_stranger_is_sent_to_the_log_in(site, page_route):
    answer = ask(site, page_route)
    assert answer.status_code == 303
    assert answer.headers["Location"].startswith("/login?next=/")
    assert answer.text == ""
    part = ask(site, page_route, headers={"HX-Request": "true"})
    assert (part.status_code, part.headers["HX-Redirect"][:12]) == (204, "/login?next=")


@each_page
def test_a_user_gets_users_pages_and_no_change_without_the_token(site, page_route, cookies):
    answer = ask(site, page_route, cookies=cookies)
    is_reading = page_route.startswith("GET ")
    if OPERATOR in page_route or not is_reading:
        assert answer.status_code == 403
    else:
        assert answer.status_code in {200, 404}
    assert answer.headers["Cache-Control"] == "no-store"
    assert "Cookie" in answer.headers["Vary"]
    assert answer.headers["X-Frame-Options"] == "DENY"
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe-inline" not in policy
    assert "'unsafe-eval'" not in policy


@each_page
def test_operators_pages_refuse_a_user_who_sends_the_token(site, page_route, cookies):
    if OPERATOR in page_route:
        answer = ask(site, page_route, cookies=cookies, headers={"X-CSRF-Token": token_of(site, cookies)})
        assert answer.status_code == 403


def test_what_pages_consist_of_is_kept_by_its_hash_and_asked_for_without(site, cookies):
    text = requests.get(f"{site.url}/dashboard", cookies=cookies, timeout=30).text
    files = re.findall(r'(?:src|href)="(/static/[^"]+)"', text)
    assert len(files) >= 4
    for name in files:
        answer = requests.get(site.url + name, timeout=30)
        assert answer.status_code == 200
        assert "immutable" in answer.headers["Cache-Control"]
        assert answer.headers["Content-Encoding"] == "gzip"
        again = requests.get(site.url + name.partition("?")[0], timeout=30)
        assert "no-cache" in again.headers["Cache-Control"]
        kept = requests.get(site.url + name, headers={"If-None-Match": answer.headers["ETag"]}, timeout=30)
        assert (kept.status_code, kept.content) == (304, b"")
    for name in ("vendor/vendor.json", "../app.py", "%2e%2e/app.py", "pages.css%00", ""):
        assert requests.get(f"{site.url}/static/{name}", timeout=30).status_code == 404
