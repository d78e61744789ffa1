"""Wrong addresses, faults, strangers who ask too often, and names that the service does not answer to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import requests
import sqlalchemy as sa
from playwright.sync_api import expect

from tests.support.gateway import Gateway
from tests.web.pages.conftest import Site, accessibility_faults
from tests.web.pages.operator_world import operator_settings

BROWSERS_ACCEPT = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}


@pytest.fixture(scope="module")
def site_settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return operator_settings(tmp_path_factory)


@pytest.mark.parametrize("path", ["/nowhere", "/keys/nowhere", "/v1/nowhere"])
def test_whoever_comes_to_a_wrong_address_is_told_in_their_own_language(page, site, person, path):
    answer = page.goto(path)
    assert answer.status == 404
    expect(page.get_by_role("alert")).to_have_text("There is nothing at this path")
    assert accessibility_faults(page) == []
    page.get_by_role("link", name="Continue").click()
    expect(page.get_by_role("heading", name="Dashboard")).to_be_visible()
    for accept in ({}, {"Accept": "*/*"}, {"Accept": "application/json"}):
        told = requests.get(site.url + path, headers=accept, timeout=30)
        assert (told.status_code, told.json()["error"]["code"]) == (404, 404)


@pytest.mark.parametrize(("path", "status"), [("/logout", 405), ("/api/auth/sso/nobody", 404), ("/api/auth/me", 401)])
def test_whoever_looks_at_what_is_no_page_is_told_so_on_one(site, path, status):
    answer = requests.get(site.url + path, headers=BROWSERS_ACCEPT, timeout=30)
    assert (answer.status_code, answer.headers["Content-Type"]) == (status, "text/html; charset=utf-8")
    assert 'role="alert"' in answer.text
    assert requests.get(site.url + path, timeout=30).json()["error"]["code"] == status


def test_a_page_at_a_wrong_address_has_the_headers_of_all_pages(site):
    answer = requests.get(f"{site.url}/nowhere", headers=BROWSERS_ACCEPT, timeout=30)
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert answer.headers["Cache-Control"] == "no-store"


def test_a_fault_is_told_with_its_number_and_without_its_reason(site, database):
    http = site.signed_in(site.new_person())
    database.transact(lambda tx: tx.execute(sa.text("ALTER TABLE favourite_models RENAME TO away")))
    answer = http.get(f"{site.url}/models", timeout=30)
    database.transact(lambda tx: tx.execute(sa.text("ALTER TABLE away RENAME TO favourite_models")))
    assert answer.status_code == 503
    assert int(answer.headers["Retry-After"]) > 0
    assert f"Tell your operator this number: {answer.headers['X-Request-Id']}" in answer.text
    assert "favourite_models" not in answer.text
    assert http.get(f"{site.url}/models", timeout=30).status_code == 200


def test_a_stranger_sees_so_many_pages_a_minute_and_who_has_logged_in_any_number(start: Callable[..., Gateway]):
    site = Site(start(PAGE_RATE_LIMIT_PER_MINUTE=5))
    person = site.new_person()
    http = site.signed_in(person)
    statuses = [requests.get(f"{site.url}/login", timeout=30).status_code for _ in range(12)]
    assert statuses.count(200) in range(4, 11)  # a new minute may begin meanwhile; logging in was one of them
    assert set(statuses) == {200, 429}
    refused = requests.get(f"{site.url}/dashboard", allow_redirects=False, timeout=30)
    assert refused.status_code == 429
    assert int(refused.headers["Retry-After"]) in range(1, 61)
    assert 'role="alert"' in refused.text
    assert {http.get(f"{site.url}/dashboard", timeout=30).status_code for _ in range(12)} == {200}


def test_the_service_answers_to_its_own_names_alone(start: Callable[..., Gateway]):
    site = Site(start(TRUSTED_HOSTS="proxy.example.com, .example.org", PUBLIC_URL="https://proxy.example.com"))
    for host in ("proxy.example.com", "proxy.example.com:8443", "a.example.org", "127.0.0.1", "localhost"):
        answer = requests.get(f"{site.url}/login", headers={"Host": host}, timeout=30)
        assert answer.status_code == 200, host
        assert answer.headers["Strict-Transport-Security"] == "max-age=31536000"
    for host in ("evil.example", "proxy.example.com.evil.example", "xproxy.example.com", "example.org.evil"):
        for path in ("/login", "/api/health", "/nowhere"):
            answer = requests.get(site.url + path, headers={"Host": host}, timeout=30)
            assert answer.status_code == 400, host
            assert answer.headers["Content-Type"] == "application/json"


def test_who_is_no_operator_is_refused_and_that_is_logged(site):
    http = site.signed_in(site.new_person())
    before = site.gateway.log().count("admin_refused")
    assert http.get(f"{site.url}/operator/users", timeout=30).status_code == 403
    assert site.gateway.log().count("admin_refused") == before + 1


def test_another_log_in_in_the_same_browser_ends_the_session_that_was_there(site):
    """Or whoever had put theirs there before could go on looking."""
    http = site.signed_in(site.new_person())
    [before] = http.cookies.get_dict().items()
    after = site.new_person()
    answer = http.post(f"{site.url}/session", headers={"Authorization": f"Bearer {after['token']}"}, timeout=30)
    assert answer.status_code == 204
    assert http.cookies.get_dict() != dict([before])
    old = requests.get(f"{site.url}/dashboard", cookies=dict([before]), allow_redirects=False, timeout=30)
    assert (old.status_code, old.headers["Location"]) == (303, "/login?next=/dashboard")
    assert http.get(f"{site.url}/dashboard", allow_redirects=False, timeout=30).status_code == 200


def test_what_a_page_has_in_its_cookie_opens_no_session_and_no_api(site):
    http = site.signed_in(site.new_person())
    [cookie] = http.cookies.get_dict().values()
    [given] = [http.post(f"{site.url}/playground/token", timeout=30).json()["token"]]
    for token in (cookie, given):
        bearer = {"Authorization": f"Bearer {token}"}
        assert requests.post(f"{site.url}/session", headers=bearer, timeout=30).status_code == 403
        for path in ("/api/auth/me", "/api/api-keys", "/api/auth/sessions", "/admin/users"):
            assert requests.get(site.url + path, headers=bearer, timeout=30).status_code == 403, path
    assert site.gateway.chat(given).status_code == 200
    assert site.gateway.chat(cookie).status_code == 403


@pytest.mark.parametrize(
    ("wanted", "language"),
    [
        ("zh-CN,en;q=0.5", "zh"),
        ("en-US,zh;q=0.5", "en"),
        ("de,zh-TW;q=0.9,en;q=0.8", "zh"),
        ("de", "en"),
        ("*", "en"),
        ("", "en"),
        ("zh;q=x, %%", "en"),
    ],
)
def test_what_is_wrong_is_said_in_the_visitors_language(site, wanted, language):
    headers = BROWSERS_ACCEPT | {"Accept-Language": wanted}
    answer = requests.get(f"{site.url}/nowhere", headers=headers, timeout=30)
    assert f'<html lang="{language}"' in answer.text
    assert {"en": "There is nothing at this path", "zh": "此地址没有内容"}[language] in answer.text
