"""Signing up, logging in and out in a real browser; what a page takes for proof of who is there."""

from __future__ import annotations

import re
import secrets

import pytest
import requests
from playwright.sync_api import Page, expect

from tests.support.gateway import wait_for
from tests.web.pages.conftest import PHONE, Site, accessibility_faults, has_no_sideways_scroll, log_out

PASSWORD = "violet Harbor 27 lantern"


def fill(page: Page, form: str, **fields: str) -> None:
    for name, value in fields.items():
        page.fill(f"{form} [name={name}]", value)


def sign_up(page: Page, name: str, password: str = PASSWORD, again: str | None = None) -> list[str]:
    """Make an account; returns its recovery codes, if it was made."""
    page.goto("/register")
    fill(page, "#sign-up", username=name, password=password, again=password if again is None else again)
    page.click("#sign-up button")
    return keep_codes(page)


def keep_codes(page: Page) -> list[str]:
    """The recovery codes of a sign-up that went well; then the browser goes on."""
    codes, error = page.locator("#codes"), page.locator("#sign-up .error")
    expect(codes.or_(error).locator("visible=true").first).to_be_visible()
    if error.is_visible():
        return []
    shown = codes.inner_text().splitlines()
    page.click("#go-on")
    return shown


def log_in(page: Page, name: str, password: str = PASSWORD) -> None:
    fill(page, "#log-in", username=name, password=password)
    page.click("#log-in button:not([type])")


def new_name() -> str:
    return f"{secrets.token_hex(6)}@example.com"


def test_somebody_signs_up_leaves_and_comes_back_and_no_password_is_sent(page, site):
    sent: list[str] = []
    page.on("request", lambda request: sent.append(f"{request.url} {request.post_data or ''}"))
    name = new_name()
    sign_up(page, name)
    page.wait_for_url("**/dashboard")
    expect(page.get_by_role("heading", name="Dashboard")).to_be_visible()
    log_out(page)
    page.wait_for_url("**/login*")
    page.goto("/keys")
    assert page.url.endswith("/login?next=/keys")
    log_in(page, name)
    page.wait_for_url(f"{site.url}/keys")
    assert any("derived_key" in line for line in sent)
    assert not any(word in line for line in sent for word in ("violet", "Harbor", "lantern"))


@pytest.mark.parametrize(
    ("path", "form"), [("/login", "#log-in"), ("/register", "#sign-up"), ("/profile", "#change-password")]
)
def test_a_form_that_no_script_listens_to_yet_sends_no_password(browser, site, path, form):
    """As on a slow line: somebody may be quicker than the script that derives the key."""
    context = browser.new_context(base_url=site.url, java_script_enabled=False)
    site.enter(context, site.new_person())
    if path != "/profile":
        context.clear_cookies()
    page = context.new_page()
    page.goto(path)
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.url))
    page.eval_on_selector_all(f"{form} button", "buttons => buttons.forEach((one) => (one.disabled = false))")
    fields = page.locator(f"{form} input:not([type=checkbox], [type=hidden])").filter(visible=True)
    for field in fields.all():
        field.fill(PASSWORD)
    page.click(f"{form} button")
    fields.last.press("Enter")
    page.screenshot()  # drawn after what the key did: had it sent the form, that would have begun
    assert [url for url in sent if "/static/" not in url] == []
    assert page.url == site.url + path
    context.close()


def test_no_script_reads_the_session(page, person):
    page.goto("/dashboard")
    assert page.evaluate("document.cookie") == ""
    assert page.evaluate("Object.keys(localStorage)") == []
    assert page.evaluate("Object.values(sessionStorage)") == ["/dashboard"]  # htmx notes where it is


@pytest.mark.parametrize(
    ("password", "again", "says"),
    [
        (PASSWORD, PASSWORD + "x", "The two passwords differ"),
        ("aaaaaaaaaaaaaaaa", "aaaaaaaaaaaaaaaa", "The password is too weak"),
        ("123456789012", "123456789012", "The password is too weak"),
    ],
)
def test_what_is_wrong_with_a_new_password_is_said_and_nothing_is_sent(page, site, password, again, says):
    posted: list[str] = []
    page.on("request", lambda request: request.method == "POST" and posted.append(request.url))
    sign_up(page, new_name(), password, again)
    expect(page.get_by_role("alert")).to_have_text(says)
    assert posted == []
    expect(page.locator("#sign-up button")).to_be_enabled()


def test_a_wrong_password_and_a_taken_name_are_said(page, site):
    name = new_name()
    sign_up(page, name)
    page.wait_for_url("**/dashboard")
    page.context.clear_cookies()
    page.goto("/login")
    log_in(page, name, PASSWORD + "!")
    expect(page.get_by_role("alert")).to_have_text("Username or password is wrong")
    sign_up(page, name)
    expect(page.get_by_role("alert")).to_have_text("Username already exists")


def test_what_is_wrong_is_said_in_chinese_too(page, site):
    page.context.add_cookies([{"name": "lang", "value": "zh", "url": site.url}])
    page.goto("/login")
    log_in(page, new_name())
    expect(page.get_by_role("alert")).to_have_text("用户名或密码错误")


def test_whoever_logs_in_in_a_second_tab_ends_the_session_of_the_first(page, site):
    name = new_name()
    sign_up(page, name)
    page.wait_for_url("**/dashboard")
    page.context.clear_cookies()
    page.goto("/login?next=/keys")
    first = page.context.new_page()
    first.goto("/login")
    log_in(first, name)
    first.wait_for_url("**/dashboard")
    [before] = page.context.cookies()
    log_in(page, name)
    page.wait_for_url(f"{site.url}/keys")
    wait_for(lambda: not is_let_in(site, before["value"]))
    first.reload()
    expect(first.get_by_role("heading", name="Dashboard")).to_be_visible()  # with the cookie of the newer one


@pytest.mark.parametrize(
    "path", ["//evil.test", "/\\evil.test", "https://evil.test", "/%09/evil.test", "javascript:alert(1)"]
)
def test_a_log_in_ends_up_on_this_host(page, site, person, path):
    page.goto(f"/login?next={path}")
    assert page.url == f"{site.url}/dashboard"


def test_pages_take_no_token_and_the_api_takes_no_cookie(page, site, person):
    bearer = {"Authorization": f"Bearer {person['token']}"}
    assert requests.get(f"{site.url}/dashboard", headers=bearer, allow_redirects=False, timeout=30).status_code == 303
    [cookie] = page.context.cookies()
    cookies = {cookie["name"]: cookie["value"]}
    assert requests.get(f"{site.url}/dashboard", cookies=cookies, allow_redirects=False, timeout=30).status_code == 200
    assert requests.get(f"{site.url}/api/auth/me", cookies=cookies, timeout=30).status_code == 401


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 403),
        ({"X-CSRF-Token": "x"}, 403),
        ({"X-CSRF-Token": "right", "Sec-Fetch-Site": "cross-site"}, 403),
        ({"X-CSRF-Token": "right", "Sec-Fetch-Site": "same-site"}, 403),
        ({"X-CSRF-Token": "right", "Origin": "https://evil.test"}, 403),
        ({"X-CSRF-Token": "right", "Origin": "null"}, 403),
        ({"X-CSRF-Token": "another person's"}, 403),
        ({"X-CSRF-Token": "right"}, 200),
        ({"X-CSRF-Token": "right", "Sec-Fetch-Site": "same-origin"}, 200),
    ],
)
def test_a_change_takes_the_token_of_this_sessions_pages_and_comes_from_them(page, site, person, headers, status):
    [cookie] = page.context.cookies()
    cookies = {cookie["name"]: cookie["value"]}
    tokens = {"right": token_of(site, cookies), "another person's": other_persons_token(site)}
    headers = {name: tokens.get(value, value) for name, value in headers.items()}
    form = {"name": "mine"}
    asked = requests.post(f"{site.url}/keys/client", form, headers=headers, cookies=cookies, timeout=30)
    assert asked.status_code == status
    shown = site.gateway.get("/api/api-keys", person["token"]).json()
    assert shown["total"] == (status == 200)


# What an attacker can have put into somebody's browser: over http, from another program on the same host, for one.
PLANTED = {
    "nothing of ours": "x" * 43,
    "of a session that has ended": "",
    "forged": "eyJhbGciOiJub25lIn0.eyJzdWIiOiIxIn0.",
}


@pytest.mark.parametrize("planted", PLANTED)
def test_a_cookie_that_was_there_before_the_log_in_is_worth_nothing_after_it(page, site, planted):
    name = new_name()
    sign_up(page, name)
    page.wait_for_url("**/dashboard")
    [cookie] = page.context.cookies()
    log_out(page)
    page.wait_for_url("**/login")
    old = PLANTED[planted] or cookie["value"]
    page.context.add_cookies([{"name": "session", "value": old, "url": site.url, "httpOnly": True}])
    page.goto("/login?next=/keys")
    log_in(page, name)
    page.wait_for_url(f"{site.url}/keys")
    [cookie] = page.context.cookies()
    assert cookie["value"] != old
    assert is_let_in(site, cookie["value"])
    assert not is_let_in(site, old)


def test_each_log_in_begins_a_session_of_its_own_and_ends_what_the_browser_came_with(site):
    """A cookie that an attacker has planted, of a session that they know, is of no use to them any more."""
    owner, attacker = site.new_person(), site.new_person()
    planted = began(site, attacker)
    mine = began(site, owner, {"session": planted})
    assert mine != planted
    assert is_let_in(site, mine)
    wait_for(lambda: not is_let_in(site, planted))
    account = {name: owner[name] for name in ("username", "derived_key")}
    again = owner | {"token": site.gateway.post("/login", account).json()["token"]}
    assert began(site, again) != mine


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.test"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "https://evil.test"},
        {"Origin": "null"},
    ],
)
def test_no_page_of_another_site_begins_a_session(site, headers):
    """Not even with an access token of its own: who works in an attacker's account tells it all they enter."""
    asked = requests.post(f"{site.url}/session", headers=bearer_of(site.new_person()) | headers, timeout=30)
    assert (asked.status_code, "Set-Cookie" in asked.headers) == (403, False)


@pytest.mark.parametrize("is_logged_in", [False, True])
@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "text/plain"])
def test_no_form_of_another_site_logs_anybody_in_or_out(page, site, kind, is_logged_in):
    if is_logged_in:
        site.enter(page.context, site.new_person())
    before = page.context.cookies()
    attacker = site.new_person()
    fields = {
        "username": attacker["username"],
        "derived_key": attacker["derived_key"],
        "access_token": attacker["token"],
    }
    inputs = "".join(f'<input name="{name}" value="{value}">' for name, value in fields.items())
    paths = ("/session", "/login", "/logout", "/api/auth/sso/token")
    forms = "".join(
        f'<form method="post" action="{site.url}{path}" enctype="{kind}">{inputs}<button>{path}</button></form>'
        for path in paths
    )
    elsewhere = site.url.replace("127.0.0.1", "localhost") + "/evil"
    page.route(elsewhere, lambda route: route.fulfill(content_type="text/html", body=forms))
    for path in paths:
        page.goto(elsewhere)
        with page.expect_response(f"{site.url}{path}") as answer:
            page.click(f"button:text-is('{path}')")
        assert 400 <= answer.value.status < 500, path
        assert page.context.cookies() == before
    page.goto(f"{site.url}/dashboard")
    assert page.url == f"{site.url}/{'dashboard' if is_logged_in else 'login?next=/dashboard'}"


def bearer_of(person: dict[str, str]) -> dict[str, str]:
    return {"Authorization": f"Bearer {person['token']}"}


def began(site: Site, person: dict[str, str], cookies: dict[str, str] | None = None) -> str:
    """The cookie of somebody's pages, in a browser that had these before."""
    answer = requests.post(f"{site.url}/session", headers=bearer_of(person), cookies=cookies, timeout=30)
    assert answer.status_code == 204, answer.text
    return str(answer.cookies["session"])


def is_let_in(site: Site, cookie: str) -> bool:
    """True if this cookie opens pages."""
    asked = requests.get(f"{site.url}/dashboard", cookies={"session": cookie}, allow_redirects=False, timeout=30)
    return asked.status_code == 200


def token_of(site: Site, cookies: dict[str, str]) -> str:
    text = requests.get(f"{site.url}/dashboard", cookies=cookies, timeout=30).text
    found = re.search(r'name="csrf-token" content="([^"]+)"', text)
    assert found
    return found[1]


def other_persons_token(site: Site) -> str:
    return token_of(site, {"session": began(site, site.new_person())})


@pytest.mark.parametrize("path", ["/login", "/register", "/dashboard", "/keys"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_are_accessible_and_fit_a_phone(page, site, person, path, scheme):
    if path in {"/login", "/register"}:
        page.context.clear_cookies()
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size(PHONE)
    page.goto(path)
    assert accessibility_faults(page) == []
    assert has_no_sideways_scroll(page)
