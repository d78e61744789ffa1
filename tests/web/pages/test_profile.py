"""The profile in a real browser: names, log-ins elsewhere, sessions, what happened, and a new password."""

from __future__ import annotations

import json
import re
import secrets
from datetime import UTC, datetime, timedelta

import pytest
import requests
from playwright.sync_api import expect

from config.settings import Config
from db import Database, database_url
from tables import user_sessions
from tests.support.gateway import free_port, new_derived_key, user_id_of, wait_for
from tests.support.sign_on import Browser, sign_on_settings
from tests.web.pages.conftest import PHONE, accessibility_faults, has_no_sideways_scroll, log_out, tab_to
from tests.web.pages.test_sessions import PASSWORD, log_in, new_name, sign_up

PAYLOADS = ['"><img src=x onerror=alert(1)>', "{{7*7}}"]
NEW_PASSWORD = "quiet Meadow 84 compass"


@pytest.fixture(scope="module")
def site_settings(identity_provider, tmp_path_factory):
    """Providers send the browser back to the gateway's own address."""
    port, file = free_port(), tmp_path_factory.mktemp("site") / "x.db"
    settings = sign_on_settings(identity_provider, f"http://127.0.0.1:{port}")
    return {"PORT": port, "DATABASE_URL": f"sqlite:///{file}"} | settings


@pytest.fixture(scope="module")
def database(site):
    found = Database(database_url(Config(database_url=site.gateway.settings["DATABASE_URL"])))
    yield found
    found.close()


def make_old(database, person):
    """Let somebody's sessions have begun twenty minutes ago."""
    mine = user_sessions.c.user_id == user_id_of(person["token"])
    begun = datetime.now(UTC) - timedelta(minutes=20)
    database.transact(lambda tx: tx.execute(user_sessions.update().where(mine).values(created_at=begun)))


def make_all_old(database):
    begun = datetime.now(UTC) - timedelta(minutes=20)
    database.transact(lambda tx: tx.execute(user_sessions.update().values(created_at=begun)))


def another_session(site, person, agent="Lynx/2.9"):
    """A log-in of the same person elsewhere; returns its access token."""
    account = {name: person[name] for name in ("username", "derived_key")}
    answer = site.gateway.post("/login", account, headers={"User-Agent": agent})
    return person | {"token": answer.json()["token"]}


def works(site, person):
    return site.gateway.get("/api/auth/me", person["token"]).status_code == 200


def link(page, title, somebody="bob"):
    """Link what somebody has at a provider; the browser is back on the profile at the end."""
    page.get_by_role("button", name=f"Link {title}").click()
    page.click(f"#log-in-as-{somebody}")
    page.wait_for_url("**/profile")


def show_pictures(page):
    """Answer for the hosts that people's pictures are at."""
    picture = {"content_type": "image/svg+xml", "body": "<svg xmlns='http://www.w3.org/2000/svg'/>"}
    page.context.route(re.compile("^https://"), lambda route: route.fulfill(**picture))


# ── the account


def test_somebody_is_called_as_they_wish(page, site, person):
    page.goto("/profile")
    about = page.locator("#about")
    for fact in ("Member since", datetime.now(UTC).date().isoformat()[:7], "user", "active"):
        expect(about).to_contain_text(fact)
    about.get_by_label("Display name").fill("  Ann ")
    about.get_by_role("button", name="Save").click()
    expect(about.get_by_role("status")).to_have_text("Saved")
    expect(about.get_by_label("Display name")).to_have_value("Ann")
    about.get_by_label("Display name").fill("A\u202enn")
    about.get_by_role("button", name="Save").click()
    expect(about.get_by_label("Display name")).to_have_accessible_description(re.compile("printable characters"))
    assert site.gateway.get("/api/auth/me", person["token"]).json()["display_name"] == "Ann"
    about.get_by_label("Display name").fill("")
    about.get_by_role("button", name="Save").click()
    wait_for(lambda: site.gateway.get("/api/auth/me", person["token"]).json()["display_name"] is None)


# ── log-ins elsewhere


def test_a_log_in_is_linked_used_and_unlinked(page, site, person):
    page.goto("/profile")
    link(page, "GitHub")
    expect(page.locator("#outcome")).to_contain_text("The log-in is linked")
    assert page.evaluate("location.hash") == ""
    part = page.locator("#log-ins")
    expect(part.locator("li", has_text="GitHub")).to_contain_text("linked")
    expect(page.locator("#events")).to_contain_text("A log-in was linked")
    log_out(page)
    page.get_by_role("link", name="GitHub").click()
    page.click("#log-in-as-bob")
    page.wait_for_url(f"{site.url}/dashboard")
    page.goto("/profile")
    expect(page.locator("#sessions")).to_contain_text("GitHub")
    page.get_by_role("button", name="Unlink GitHub").click()
    expect(part.get_by_role("button", name="Link GitHub")).to_be_visible()


def test_who_says_no_there_is_told_that_nothing_was_linked(page, site, person):
    page.goto("/profile")
    page.get_by_role("button", name="Link Linux.do").click()
    page.click("#deny")
    page.wait_for_url("**/profile")
    expect(page.locator("#outcome")).to_have_text("Nothing was linked: you did not agree there.")
    expect(page.get_by_role("button", name="Link Linux.do")).to_be_visible()


def test_a_log_in_that_has_an_account_is_not_linked(page, site, person):
    Browser(site.gateway).log_in("github", **{"as": "cyd"})
    page.goto("/profile")
    link(page, "GitHub", "cyd")
    expect(page.locator("#outcome")).to_contain_text("that log-in has an account here already")
    expect(page.get_by_role("button", name="Link GitHub")).to_be_visible()


@pytest.mark.parametrize("told", ["sso_error=constructor", "sso_error=new", "sso=x", "x", "__proto__"])
def test_what_stands_behind_the_hash_is_never_shown(page, person, told):
    page.goto(f"/profile#{told}")
    expect(page).to_have_url(f"{page.url.split('#')[0]}")
    said = "Nothing was linked. Try again in a moment." if told.startswith("sso_error") else ""
    expect(page.locator("#outcome")).to_have_text(said)


def test_an_older_session_confirms_who_it_is_and_comes_back_here(page, site, database):
    name = new_name()
    sign_up(page, name)
    page.wait_for_url("**/dashboard")
    page.goto("/profile")
    make_all_old(database)
    page.get_by_role("button", name="Link GitHub").click()  # which this page shows still
    page.wait_for_url("**/step-up?next=/profile")
    assert accessibility_faults(page) == []
    confirm(page, name, "not the password of this one")
    expect(page.get_by_role("alert")).to_have_text("Username or password is wrong")
    page.goto("/profile")
    expect(page.get_by_role("button", name="Link GitHub")).to_have_count(0)
    page.locator("#log-ins").get_by_role("link", name="Confirm that it’s you").press("Enter")
    confirm(page, name, PASSWORD)
    page.wait_for_url("**/profile")
    expect(page.get_by_role("button", name="Link GitHub")).to_be_visible()
    page.goto("/step-up?next=https://elsewhere.test/")
    confirm(page, name, PASSWORD)
    page.wait_for_url("**/dashboard")


def confirm(page, name, password):
    page.get_by_label("Username or e-mail").fill(name)
    page.get_by_label("Password").fill(password)
    page.get_by_label("Password").press("Enter")


def test_who_came_in_through_a_provider_alone_is_sent_to_log_in(page, site, person, database):
    arrived = Browser(site.gateway).log_in("oidc", **{"as": secrets.token_hex(4)})
    site.enter(page.context, {"token": arrived["access_token"]})
    page.goto("/step-up?next=/profile")
    page.get_by_role("button", name="Log in again").click()
    page.wait_for_url("**/login?next=/profile")
    assert works(site, person)


def test_the_only_way_in_stays(page, site):
    show_pictures(page)
    arrived = Browser(site.gateway).log_in("oidc", **{"as": "dora"})
    site.enter(page.context, {"token": arrived["access_token"]})
    page.goto("/profile")
    expect(page.locator("#password")).to_contain_text("This account has no password")
    page.get_by_role("button", name="Unlink oidc").click()
    expect(page.locator("#log-ins").get_by_role("alert").first).to_contain_text("the only way to log in")


# ── sessions


def test_sessions_are_shown_and_ended(page, site, person):
    others = [another_session(site, person) for _ in range(3)]
    page.goto("/profile")
    part = page.locator("#sessions")
    expect(part.locator("li")).to_have_count(4)
    expect(part.locator("li", has_text="this one")).to_have_count(1)
    part.locator("li", has_text="Lynx/2.9").first.get_by_role("button").click()
    expect(part.locator("li")).to_have_count(3)
    wait_for(lambda: [works(site, one) for one in others].count(False) == 1)
    part.get_by_role("button", name="End all others").click()
    expect(part.locator("li")).to_have_count(1)
    assert [works(site, one) for one in others] == [False] * 3
    assert works(site, person)
    expect(part.get_by_role("button", name="End all others")).to_have_count(0)


@pytest.mark.parametrize("button", ["End all", "End the session since"])
def test_who_ends_this_session_has_to_log_in_again(page, site, person, button):
    other = another_session(site, person)
    page.goto("/profile")
    place = page.locator("#sessions" if button == "End all" else "#sessions li:has-text('this one')")
    place.get_by_role("button", name=button, exact=button == "End all").click()
    page.wait_for_url("**/login")
    assert not works(site, person)
    assert works(site, other) is (button != "End all")
    assert page.context.cookies() == []


def test_everything_ends_from_the_profile_or_with_a_new_password(site):
    owner, teammate = site.new_person(), site.new_person()
    keys = [site.gateway.post("/api/api-keys", {"name": "k"}, one["token"]).json()["key"] for one in (owner, teammate)]
    ended = site.signed_in(owner).post(f"{site.url}/profile/end-everything", timeout=30, allow_redirects=False)
    assert (ended.status_code, ended.headers["Location"]) == (303, "/login")
    assert [works(site, one) for one in (owner, teammate)] == [False, True]
    assert [site.gateway.get("/v1/models", key).status_code for key in keys] == [401, 200]
    form = {"derived_key": teammate["derived_key"], "new_derived_key": new_derived_key(), "revoke_all": "true"}
    assert site.signed_in(teammate).post(f"{site.url}/profile/password", form, timeout=30).status_code == 204
    assert site.gateway.get("/v1/models", keys[1]).status_code == 401


def test_nobody_elses_account_is_shown_or_changed(site):
    owner, teammate = site.new_person(), site.new_person()
    [session] = site.gateway.get("/api/auth/sessions", owner["token"]).json()["items"]
    http = site.signed_in(teammate)
    assert http.delete(f"{site.url}/profile/sessions/{session['id']}", timeout=30).status_code == 404
    assert http.post(f"{site.url}/profile/sessions/end-others", timeout=30).status_code == 200
    assert session["id"] not in http.get(f"{site.url}/profile", timeout=30).text
    assert works(site, owner)
    for method, path in [
        ("PUT", "/profile"),
        ("POST", "/profile/links/github"),
        ("DELETE", "/profile/links/github"),
        ("DELETE", f"/profile/sessions/{session['id']}"),
        ("POST", "/profile/sessions/end-others"),
        ("POST", "/profile/sessions/end-all"),
        ("POST", "/profile/password"),
        ("DELETE", "/profile"),
    ]:
        stranger = requests.request(method, site.url + path, timeout=10, allow_redirects=False)
        assert (stranger.status_code, stranger.headers["Location"]) == (303, "/login?next=/dashboard")
        assert requests.request(method, site.url + path, cookies=http.cookies, timeout=30).status_code == 403
    assert works(site, owner)
    for path in ("/profile", "/profile/events"):
        stranger = requests.get(site.url + path, timeout=10, allow_redirects=False)
        assert (stranger.status_code, stranger.headers["Location"]) == (303, f"/login?next={path}")


# ── leaving


def test_somebody_leaves_by_keyboard_with_all_that_is_kept_of_them(page, site, person, database):
    other = site.new_person()
    page.goto("/profile")
    with page.expect_download() as begun:
        page.get_by_role("link", name="Download your data").press("Enter")
    assert begun.value.suggested_filename == "my-data.json"
    assert json.loads(begun.value.path().read_bytes())["account"]["id"] == user_id_of(person["token"])
    make_old(database, person)
    page.get_by_role("button", name="Delete your account").press("Enter")
    page.wait_for_url("**/step-up?next=/profile")
    assert works(site, person)
    page.goto("/profile")
    expect(page.locator("#leaving").get_by_role("link", name="Confirm that it’s you")).to_be_visible()
    site.enter(page.context, another_session(site, person))
    page.goto("/profile")
    tab_to(page, "Delete your account")
    page.keyboard.press("Enter")
    page.wait_for_url("**/login")
    assert page.context.cookies() == []
    assert [works(site, one) for one in (person, other)] == [False, True]


# ── what happened


def test_what_happened_comes_in_pages_newest_first(page, site, person):
    for number in range(10):
        assert site.gateway.post("/api/tokens", {"name": f"no. {number}"}, person["token"]).status_code == 201
    page.goto("/profile")
    rows = page.locator("#events tbody tr")
    expect(rows).to_have_count(10)
    expect(rows.first).to_contain_text("API token made")
    expect(rows.first).to_contain_text("127.0.0.1")
    page.get_by_role("button", name="Older").click()
    expect(rows).to_have_count(2)
    expect(rows.last).to_contain_text("Account made")


# ── password


def fill_passwords(page, name, old, new, again=None):
    fields = {"username": name, "password": old, "new_password": new, "again": new if again is None else again}
    for field, value in fields.items():
        page.fill(f"#change-password [name={field}]", value)
    page.get_by_role("button", name="Change password").click()


def test_a_new_password_ends_all_other_sessions_and_none_is_sent(page, site, browser):
    name = new_name()
    sign_up(page, name)
    page.wait_for_url("**/dashboard")
    elsewhere = browser.new_context(base_url=site.url)
    other = elsewhere.new_page()
    other.goto("/login")
    log_in(other, name)
    other.wait_for_url("**/dashboard")
    sent: list[str] = []
    page.on("request", lambda request: sent.append(f"{request.url} {request.post_data or ''}"))
    page.goto("/profile")
    fill_passwords(page, name, PASSWORD, NEW_PASSWORD)
    expect(page.locator("#outcome")).to_contain_text("Your password is changed")
    assert not any(
        word in line for line in sent for word in ("violet", "Harbor", "lantern", "quiet", "Meadow", "compass")
    )
    expect(page.locator("#sessions li")).to_have_count(1)
    expect(page.locator("#events tbody tr").first).to_contain_text("Password changed")
    page.get_by_label("Display name").fill("Ann")  # the page has the token of the new session
    page.get_by_role("button", name="Save").click()
    expect(page.locator("#about").get_by_role("status")).to_have_text("Saved")
    other.goto("/dashboard")
    expect(other).to_have_url(f"{site.url}/login?next=/dashboard")
    log_in(other, name)
    expect(other.get_by_role("alert")).to_have_text("Username or password is wrong")
    log_in(other, name, NEW_PASSWORD)
    other.wait_for_url("**/dashboard")
    elsewhere.close()


def test_what_is_wrong_with_a_change_of_password_is_said_and_nothing_changes(page, site):
    name = new_name()
    sign_up(page, name)
    page.wait_for_url("**/dashboard")
    page.goto("/profile")
    wrong = "The username or the password up to now is wrong"
    for who, old, new, again, says in [
        (name, PASSWORD, NEW_PASSWORD, NEW_PASSWORD + "x", "The two passwords differ"),
        (name, PASSWORD, "aaaaaaaaaaaaaaaa", None, "The password is too weak"),
        (name, PASSWORD + "x", NEW_PASSWORD, None, wrong),
        (new_name(), PASSWORD, NEW_PASSWORD, None, wrong),
    ]:
        fill_passwords(page, who, old, new, again)
        expect(page.locator("#change-password").get_by_role("alert")).to_have_text(says)
        expect(page.get_by_role("button", name="Change password")).to_be_enabled()
    page.reload()
    expect(page.locator("#sessions li")).to_have_count(1)
    expect(page.locator("#events")).not_to_contain_text("Password changed")


def test_a_session_that_has_ended_meanwhile_changes_no_password(page, site):
    name = new_name()
    sign_up(page, name)
    page.wait_for_url("**/dashboard")
    page.goto("/profile")
    page.context.clear_cookies()
    fill_passwords(page, name, PASSWORD, NEW_PASSWORD)
    expect(page).to_have_url(f"{site.url}/login?next=/profile")
    log_in(page, name)
    page.wait_for_url(f"{site.url}/profile")
    expect(page.locator("#outcome")).to_be_hidden()


def test_a_new_password_is_set_by_keyboard_alone(page, site):
    name = new_name()
    sign_up(page, name)
    page.wait_for_url("**/dashboard")
    page.goto("/profile")
    tab_to(page, "Save")
    for text in (name, PASSWORD, NEW_PASSWORD, NEW_PASSWORD):
        page.keyboard.press("Tab")
        page.keyboard.type(text)
    page.keyboard.press("Enter")
    expect(page.locator("#outcome")).to_contain_text("Your password is changed")


def test_whoever_tries_many_keys_on_the_page_is_refused(site, start, stand_in):
    gateway = start(OPENROUTER_API_URL=stand_in.address, LOGIN_RATE_LIMIT_ACCOUNT_PER_MINUTE=2)
    limited = type(site)(gateway)
    person = limited.new_person()
    http = limited.signed_in(person)
    form = {"derived_key": new_derived_key(), "new_derived_key": new_derived_key()}
    statuses = [http.post(f"{gateway.url}/profile/password", form, timeout=30).status_code for _ in range(3)]
    assert statuses == [401, 401, 429]
    assert http.post(f"{gateway.url}/profile/password", {"derived_key": "x"}, timeout=30).status_code == 400


# ── how it looks


@pytest.mark.parametrize("text", PAYLOADS)
def test_names_and_user_agents_are_shown_as_they_are_and_do_nothing(page, site, person, text):
    another_session(site, person, agent=text)
    assert site.gateway.ask("PUT", "/api/auth/profile", {"display_name": text}, person["token"]).status_code == 200
    page.goto("/profile")
    expect(page.get_by_label("Display name")).to_have_value(text)
    expect(page.locator("#sessions strong", has_text=text)).to_have_text(text)
    expect(page.locator("main img")).to_have_count(0)


def test_a_name_and_a_picture_from_elsewhere_do_nothing(page, site):
    show_pictures(page)
    wishes = {"as": "eve", "name": PAYLOADS[0], "avatar_url": "https://pictures.test/eve.png"}
    arrived = Browser(site.gateway).log_in("github", **wishes)
    site.enter(page.context, {"token": arrived["access_token"]})
    page.goto("/profile")
    expect(page.locator("#log-ins small")).to_contain_text(PAYLOADS[0])
    [picture] = page.locator("main img").all()
    assert picture.get_attribute("src") == "https://pictures.test/eve.png"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_is_accessible_and_fits_a_phone(page, site, person, database, scheme):
    agent = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) " + "x" * 120
    another_session(site, person, agent)
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size(PHONE)
    page.goto("/profile#sso_error=conflict")
    expect(page.locator("#outcome")).to_be_visible()
    assert accessibility_faults(page) == []
    assert has_no_sideways_scroll(page)
    make_old(database, person)
    page.reload()
    assert accessibility_faults(page) == []
    assert has_no_sideways_scroll(page)


def test_the_page_speaks_chinese(page, person):
    page.goto("/profile")
    page.get_by_role("button", name="Account", exact=True).click()
    page.get_by_label("Language").select_option("zh")
    for heading in ("个人资料", "修改密码", "第三方登录", "已登录的位置", "活动记录"):
        expect(page.get_by_role("heading", name=heading, exact=True)).to_be_visible()
    expect(page.locator("#events")).to_contain_text("账户已创建")


def test_a_browser_is_named_in_two_words_and_a_long_name_is_cut(page, site, person):
    agent = "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:127.0) Gecko/20100101 Firefox/127.0"
    another_session(site, person, agent)
    another_session(site, person, "program/1.0 " + "x" * 100)
    page.goto("/profile")
    browser = page.locator("#sessions strong", has_text="Firefox on Windows")
    expect(browser).to_have_attribute("title", agent)
    assert len(page.locator("#sessions strong", has_text="program/1.0").inner_text()) == 60
