"""The page of keys in a real browser: made and shown once, renamed and replaced in place, synchronised, revoked."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import requests
from playwright.sync_api import expect

from config.checks import OPENROUTER_KEY
from config.settings import Config
from db import Database, database_url
from tables import user_sessions, watched_keys
from tests.sdks.conftest import CLIENTS
from tests.support.browser import watched_page
from tests.support.gateway import user_id_of, wait_for
from tests.web.pages.conftest import PHONE, accessibility_faults, has_no_sideways_scroll, tab_to

PAYLOADS = ['"><img src=x onerror=alert(1)>', "{{7*7}}"]


@pytest.fixture(scope="module")
def site_settings(tmp_path_factory):
    return {"MAX_API_KEYS_PER_USER": 3, "DATABASE_URL": f"sqlite:///{tmp_path_factory.mktemp('site')}/x.db"}


@pytest.fixture(scope="module")
def database(site):
    found = Database(database_url(Config(database_url=site.gateway.settings["DATABASE_URL"])))
    yield found
    found.close()


def let_a_minute_pass(database):
    """As far as the rows of all watched keys know."""
    earlier = datetime.now(UTC) - timedelta(minutes=2)
    database.transact(lambda tx: tx.execute(watched_keys.update().values(asked_at=earlier)))


def used_key(stand_in, calls=1):
    """A key of somebody's own at OpenRouter, which has been used today."""
    key = stand_in.new_key(limit=5)["key"]
    for _ in range(calls):
        assert stand_in.chat(key).status_code == 200
    return key


def add_watched_key(page, name, key):
    page.get_by_role("button", name="Add a key").click()
    page.fill("#new-watched-key [name=name]", name)
    page.fill("#new-watched-key [name=key]", key)
    page.get_by_role("button", name="Add key").click()


def api_total(site, person, path):
    return site.gateway.get(path, person["token"]).json()["total"]


# ── OpenRouter keys


def test_a_key_of_ones_own_is_added_renamed_replaced_and_removed_and_never_told(page, site, person, stand_in):
    first, second = used_key(stand_in), used_key(stand_in)
    page.goto("/keys")
    part = page.locator("#watched-keys")
    expect(part).to_contain_text("No key yet")
    add_watched_key(page, "laptop", first)
    expect(part.locator("tbody tr")).to_have_count(1)
    expect(page.locator("dialog:modal")).to_have_count(0)
    [shown] = site.gateway.get("/api/keys", person["token"]).json()["items"]
    [cost] = site.gateway.get(f"/api/keys/{shown['id']}/usage", person["token"]).json()["items"]
    bars = part.get_by_role("img")
    expect(bars).to_have_attribute("aria-label", re.compile(rf"^{cost['date']}: \$0\.\d+$"))
    expect(part).to_contain_text("$5.00")
    name = part.get_by_label("Name of")
    name.fill("desk")
    name.press("Enter")
    wait_for(lambda: site.gateway.get("/api/keys", person["token"]).json()["items"][0]["name"] == "desk")
    expect(part.get_by_role("button", name="Replace desk")).to_be_visible()
    part.get_by_role("button", name="Replace desk").click()
    page.fill("dialog:modal [name=key]", second)
    page.get_by_role("button", name="Replace key").click()
    expect(part.locator("td code")).to_have_text(f"{second[:11]}****")
    assert first[11:] not in page.content()
    assert second[11:] not in page.content()
    events = site.gateway.get("/api/auth/events", person["token"]).json()["items"]
    assert [one["details"] for one in events if one["action"] == "personal_key_changed"] == [
        {"name": "desk", "is_replaced": True},
        {"name": "desk", "is_replaced": False},
    ]
    part.get_by_role("button", name="Remove desk").click()
    expect(part).to_contain_text("No key yet")
    assert api_total(site, person, "/api/keys") == 0


def test_what_openrouter_refuses_is_said_in_the_dialog_and_not_stored(page, site, person, stand_in):
    page.goto("/keys")
    add_watched_key(page, "made up", "sk-or-v1-" + "0" * 64)
    expect(page.locator("dialog:modal").get_by_role("alert")).to_contain_text("OpenRouter does not accept this key")
    assert api_total(site, person, "/api/keys") == 0
    key = used_key(stand_in)
    page.fill("#new-watched-key [name=key]", key)
    page.get_by_role("button", name="Add key").click()
    expect(page.locator("#watched-keys tbody tr")).to_have_count(1)
    add_watched_key(page, "twice", key)
    expect(page.locator("dialog:modal").get_by_role("alert")).to_contain_text("already")
    assert api_total(site, person, "/api/keys") == 1


def test_a_key_is_synchronised_once_a_minute(page, site, person, stand_in, database):
    made = stand_in.new_key(limit=5)
    page.goto("/keys")
    add_watched_key(page, "laptop", made["key"])
    row = page.locator("#watched-keys tbody tr")
    expect(row).to_contain_text("$0.00")
    assert stand_in.chat(made["key"]).status_code == 200
    sync = page.get_by_role("button", name="Sync now: laptop")
    sync.click()
    expect(page.locator("#notices")).to_contain_text("once a minute")
    expect(row.get_by_role("img")).to_have_count(0)
    let_a_minute_pass(database)
    sync.click()
    expect(row.get_by_role("img")).to_have_count(1)
    expect(sync).to_be_focused()
    stand_in.control("POST", "faults", row="401b", path="/key", key=made["hash"], times=1)
    let_a_minute_pass(database)
    sync.click()
    expect(row).to_contain_text("suspect")
    expect(row).to_contain_text("OpenRouter does not accept this key")


# ── client keys


def test_a_client_key_has_the_limits_of_the_form_and_a_wrong_one_is_said(page, site, person):
    page.goto("/keys")
    page.get_by_role("button", name="New key").click()
    fields = {"name": "report", "models": "openai/*\n\nanthropic/claude\n", "limit_usd": "lots", "rpm": "never"}
    for name, value in fields.items():
        page.fill(f"#new-client-key [name={name}]", value)
    page.fill("#new-client-key [name=expires_at]", "2098-12-31")
    page.get_by_role("button", name="Make key").click()
    budget, rpm = page.get_by_label("Budget in dollars"), page.get_by_label("Requests a minute")
    # All that is wrong, each at its field.
    expect(budget).to_have_accessible_description(re.compile("Must be a number from 0 to 1,000,000,000"))
    expect(rpm).to_have_accessible_description(re.compile("Must be a whole number"))
    expect(budget).to_be_focused()
    assert accessibility_faults(page) == []
    expect(page.locator("dialog:modal")).not_to_contain_text("limit_usd")
    budget.fill("2.5")
    page.get_by_role("button", name="Make key").click()
    expect(rpm).to_be_focused()
    expect(page.locator("dialog:modal .fault")).to_have_count(1)
    rpm.fill("7")
    page.get_by_role("button", name="Make key").click()
    expect(page.locator("#made-key")).to_contain_text("sk-auto-")
    expect(page.locator("#client-keys")).to_contain_text("until 2098-12-31")
    [key] = site.gateway.get("/api/api-keys", person["token"]).json()["items"]
    assert (key["models"], key["rpm"], key["budget"]["limit_usd"]) == (["anthropic/claude", "openai/*"], 7, 2.5)
    assert key["expires_at"].startswith("2098-12-31T23:59:59")


def test_the_limits_of_a_key_are_changed_in_place(page, site, person):
    limits = {"models": ["openai/*"], "rpm": 5, "expires_at": "2098-12-31T23:59:59Z", "scopes": ["chat"]}
    budget = {"limit_usd": 3, "period": "week", "recovery": "steady"}
    body = {"name": "report", "description": "kept", "budget": budget, **limits}
    made = site.gateway.post("/api/api-keys", body, person["token"]).json()
    other = site.gateway.post("/api/api-keys", {"name": "other", "rpm": 9}, person["token"]).json()
    page.goto("/keys")
    change = page.get_by_role("button", name="Limits of report")
    change.click()
    dialog = page.get_by_role("dialog", name="Limits of report")
    expect(dialog.get_by_label("Models")).to_have_value("openai/*")
    expect(dialog.get_by_label("Last day")).to_have_value("2098-12-31")
    expect(dialog.get_by_label("Period")).to_have_value("week")
    expect(dialog).to_contain_text("In force within two seconds")
    assert accessibility_faults(page) == []
    dialog.get_by_label("Budget in dollars").fill("lots")
    dialog.get_by_role("button", name="Save").click()
    expect(dialog.get_by_label("Budget in dollars")).to_have_accessible_description(re.compile("Must be a number"))
    dialog.get_by_label("Budget in dollars").fill("0")
    dialog.get_by_label("Models").fill("")
    dialog.get_by_label("Requests a minute").fill("")
    dialog.get_by_role("button", name="Save").click()
    expect(page.get_by_role("dialog")).to_have_count(0)

    def shown(key: dict[str, Any]) -> dict[str, Any]:
        return site.gateway.get(f"/api/api-keys/{key['id']}", person["token"]).json()

    changed = shown(made)
    assert (changed["models"], changed["rpm"], changed["scopes"], changed["description"]) == (
        None,
        None,
        ["chat"],
        "kept",
    )
    assert [changed["budget"][name] for name in ("limit_usd", "period", "recovery")] == [0, "week", "steady"]
    assert changed["expires_at"].startswith("2098-12-31T23:59:59")
    assert shown(other)["rpm"] == 9
    wait_for(lambda: site.gateway.chat(made["key"]).status_code == 402)
    assert site.gateway.chat(other["key"]).status_code == 200

    change.click()
    dialog.get_by_label("Budget in dollars").fill("")
    dialog.get_by_label("Last day").fill("")
    dialog.get_by_role("button", name="Save").click()
    expect(page.get_by_role("dialog")).to_have_count(0)
    assert (shown(made)["budget"], shown(made)["expires_at"]) == (None, None)
    wait_for(lambda: site.gateway.chat(made["key"]).status_code == 200)


def test_what_is_to_last_is_confirmed_first_in_an_older_session(page, site, person, database):
    other = site.new_person()
    begun = user_sessions.update().where(user_sessions.c.user_id == user_id_of(person["token"]))
    database.transact(lambda tx: tx.execute(begun.values(created_at=datetime.now(UTC) - timedelta(minutes=20))))
    for button, dialog, make in (
        ("New key", "New client key", "Make key"),
        ("New token", "New API token", "Make token"),
    ):
        page.goto("/keys")
        page.get_by_role("button", name=button).click()
        form = page.get_by_role("dialog", name=dialog)
        form.get_by_label("Name").fill("report")
        expect(form).to_contain_text("is confirmed first if it is to work for more than a year")
        form.get_by_role("button", name=make).click()
        page.wait_for_url("**/step-up?next=/keys")
    assert [api_total(site, person, path) for path in ("/api/api-keys", "/api/tokens")] == [0, 0]
    page.goto("/keys")
    page.get_by_role("button", name="New key").click()
    page.fill("#new-client-key [name=name]", "report")
    page.fill("#new-client-key [name=expires_at]", (datetime.now(UTC) + timedelta(days=30)).strftime("%Y-%m-%d"))
    page.get_by_role("button", name="Make key").click()
    expect(page.locator("#made-key")).to_contain_text("sk-auto-")
    page.get_by_role("button", name="Limits of report").click()
    page.get_by_role("dialog").get_by_label("Last day").fill("")
    page.get_by_role("dialog").get_by_role("button", name="Save").click()
    page.wait_for_url("**/step-up?next=/keys")
    [key] = site.gateway.get("/api/api-keys", person["token"]).json()["items"]
    assert key["expires_at"]
    assert site.gateway.post("/api/api-keys", {"name": "lasts"}, other["token"]).status_code == 201


def test_a_budget_for_all_time_recovers_at_no_time(page, site, person):
    budget = {"limit_usd": 3, "period": "week", "recovery": "steady"}
    key = site.gateway.post("/api/api-keys", {"name": "report", "budget": budget}, person["token"]).json()
    page.goto("/keys")
    page.get_by_role("button", name="Limits of report").click()
    page.get_by_role("dialog").get_by_label("Period").select_option("none")
    page.get_by_role("dialog").get_by_role("button", name="Save").click()
    expect(page.get_by_role("dialog")).to_have_count(0)
    shown = site.gateway.get(f"/api/api-keys/{key['id']}", person["token"]).json()["budget"]
    assert (shown["period"], shown["recovery"]) == ("none", "reset")


def test_when_a_key_or_a_token_was_used_last_is_shown(page, site, person):
    keys = {"/api/api-keys": "key", "/api/tokens": "token"}
    texts = {path: site.gateway.post(path, {"name": "used"}, person["token"]).json()[keys[path]] for path in keys}
    assert site.gateway.chat(texts["/api/api-keys"]).status_code == 200
    assert site.gateway.get("/api/v1/stats", texts["/api/tokens"]).status_code == 200
    days = []
    for path in keys:
        items = wait_for(
            lambda path=path: [
                one for one in site.gateway.get(path, person["token"]).json()["items"] if one["last_used"]
            ]
        )
        days.append(items[0]["last_used"][:10])
    page.goto("/keys")
    for part, day in zip(("#client-keys", "#api-tokens"), days, strict=True):
        expect(page.locator(f"{part} tbody tr")).to_contain_text(f"{day} ")


@pytest.mark.parametrize(
    "text",
    [
        "sk-or-v1-" + "a" * 64,
        "sk-or-0123456789_-cdef",
        "sk-or-0123456789abcde",
        "sk-or-" + "x" * 201,
        "sk-auto-0123456789abcdef",
        "sk-or-0123456789abcdef!",
        "SK-OR-0123456789abcdef",
        "sk-or-0123456789abcdeé",
    ],
)
def test_the_browser_takes_the_form_of_a_key_that_the_service_takes(page, person, text):
    is_right = bool(OPENROUTER_KEY.fullmatch(text))
    page.goto("/keys")
    page.get_by_role("button", name="Add a key").click()
    field = page.locator("#new-watched-key [name=key]")
    field.evaluate("field => field.removeAttribute('maxlength')")
    field.press_sequentially("sk")
    hint = page.locator("#new-watched-key-format")
    expect(hint).to_have_text("A key begins with sk-or-, and at least 16 letters, digits, - or _ follow")
    field.fill(text)
    assert field.evaluate("field => field.validity.valid") is is_right
    expect(hint).to_contain_text("This has the form of a key" if is_right else "A key begins with sk-or-")


# ── API tokens


def test_a_token_is_shown_once_reads_usage_and_is_refused_once_revoked(page, site, person):
    page.goto("/keys")
    page.get_by_role("button", name="New token").click()
    page.fill("#new-api-token [name=name]", "chart")
    page.fill("#new-api-token [name=expires_at]", "2999-01-01")
    page.get_by_role("button", name="Make token").click()
    last_day = page.locator("dialog:modal").get_by_label("Last day")
    expect(last_day).to_have_accessible_description(re.compile("Must be a day from 2000 to 2998"))
    page.fill("#new-api-token [name=expires_at]", "2098-12-31")
    page.get_by_role("button", name="Make token").click()
    text = page.locator("#made-token").inner_text()
    expect(page.locator("#api-tokens")).to_contain_text("2098-12-31")
    assert site.gateway.get("/api/v1/stats", text).status_code == 200
    page.reload()
    expect(page.locator("#api-tokens")).to_contain_text("chart")
    assert text not in page.content()
    page.get_by_role("button", name="Revoke chart").click()
    expect(page.locator("#api-tokens")).to_contain_text("No token yet")
    wait_for(lambda: site.gateway.get("/api/v1/stats", text).status_code == 401)


def test_a_token_is_made_and_revoked_by_keyboard_alone(page, site, person):
    page.goto("/keys")
    tab_to(page, "New token")
    page.keyboard.press("Enter")
    page.keyboard.type("by hand")
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Copy")).to_be_focused()
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.keyboard.press("Enter")
    expect(page.locator("#notices")).to_have_text("Copied")
    copied = page.evaluate("navigator.clipboard.readText()")
    assert site.gateway.get("/api/v1/stats", copied).status_code == 200
    tab_to(page, "Revoke by hand")
    page.keyboard.press("Enter")
    expect(page.locator("#api-tokens")).to_be_focused()
    expect(page.locator("#api-tokens")).to_contain_text("No token yet")
    tab_to(page, "New token")


def test_many_tokens_come_in_pages(page, site, person):
    for number in range(21):
        assert site.gateway.post("/api/tokens", {"name": f"no. {number}"}, person["token"]).status_code == 201
    page.goto("/keys")
    rows = page.locator("#api-tokens tbody tr")
    expect(rows).to_have_count(20)
    page.get_by_role("button", name="Older").click()
    expect(rows).to_have_count(1)
    expect(rows).to_contain_text("no. 0")
    page.get_by_role("button", name="Newer").click()
    expect(rows).to_have_count(20)
    page.context.clear_cookies()  # the session has ended: it goes on, after the log-in, with the page, not with a part
    page.get_by_role("button", name="Older").click()
    expect(page).to_have_url(f"{site.url}/login?next=/keys")


# ── who may


def test_nobody_elses_keys_are_shown_or_changed(site, stand_in):
    owner, teammate = site.new_person(), site.new_person()
    body = {"name": "secret plan", "key": used_key(stand_in)}
    key = site.gateway.post("/api/keys", body, owner["token"]).json()["id"]
    token = site.gateway.post("/api/tokens", {"name": "secret plan"}, owner["token"]).json()["id"]
    client_key = site.gateway.post("/api/api-keys", {"name": "secret plan"}, owner["token"]).json()["id"]
    changes = [
        ("PUT", f"/keys/{key}", 403),
        ("DELETE", f"/keys/{key}", 403),
        ("POST", f"/keys/{key}/sync", 403),
        ("DELETE", f"/keys/tokens/{token}", 404),
        ("PUT", f"/keys/client/{client_key}", 404),
        ("DELETE", f"/keys/client/{client_key}", 404),
    ]
    others = site.signed_in(teammate)
    assert "secret plan" not in others.get(f"{site.url}/keys", timeout=30).text
    for method, path, status in changes:
        answer = others.request(method, site.url + path, data={"name": "mine"}, timeout=30)
        assert answer.status_code == status, path
        assert "secret plan" not in answer.text
        stranger = requests.request(method, site.url + path, timeout=10, allow_redirects=False)
        assert (stranger.status_code, stranger.headers["Location"]) == (303, "/login?next=/dashboard")
        forged = requests.request(method, site.url + path, cookies=others.cookies, timeout=30)
        assert forged.status_code == 403
    owns = site.signed_in(owner)
    assert owns.get(f"{site.url}/keys", timeout=30).text.count('value="secret plan"') >= 2
    for method, path, _ in changes:
        answer = owns.request(method, site.url + path, data={"name": "mine"}, timeout=30)
        assert answer.status_code in ({404} if path.endswith("sync") else {200}), path


@pytest.mark.parametrize("path", ["/keys/{}", "/keys/tokens/{}", "/keys/client/{}"])
@pytest.mark.parametrize("number", [0, 2**63 - 1, 2**63, 10**30])
def test_a_number_that_no_key_has_is_not_found(site, path, number):
    http = site.signed_in(site.new_person())
    assert http.delete(site.url + path.format(number), timeout=30).status_code == 404


# ── how it looks


@pytest.mark.parametrize("name", PAYLOADS)
def test_names_are_shown_as_they_are_and_do_nothing(page, site, person, stand_in, name):
    for path, more in (("/api/api-keys", {}), ("/api/tokens", {}), ("/api/keys", {"key": used_key(stand_in)})):
        assert site.gateway.post(path, {"name": name} | more, person["token"]).status_code == 201
    page.goto("/keys")
    assert [field.input_value() for field in page.locator("form.inline input").all()] == [name, name]
    expect(page.locator("#api-tokens td").first).to_have_text(name)
    expect(page.locator("main img")).to_have_count(0)
    asked: list[str] = []
    page.on("dialog", lambda dialog: asked.append(dialog.message))
    page.locator("#api-tokens").get_by_role("button", name=f"Revoke {name}").click()
    expect(page.locator("#api-tokens")).to_contain_text("No token yet")
    assert asked == [f"Revoke {name}? What uses it reads nothing any more within two seconds."]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_is_accessible_and_fits_a_phone_with_keys_on_it(page, site, person, stand_in, scheme):
    for path, more in (("/api/api-keys", {}), ("/api/tokens", {}), ("/api/keys", {"key": used_key(stand_in)})):
        body = {"name": "a name without any space in it at all".replace(" ", "-") * 4} | more
        assert site.gateway.post(path, body, person["token"]).status_code == 201
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size(PHONE)
    page.goto("/keys")
    assert accessibility_faults(page) == []
    assert has_no_sideways_scroll(page)
    for opener in ("New key", "Add a key", "New token"):
        page.get_by_role("button", name=opener).click()
        assert accessibility_faults(page) == []
        page.get_by_role("button", name="Cancel").click()


def test_the_page_speaks_chinese(page, person):
    page.goto("/keys")
    page.get_by_role("button", name="Account", exact=True).click()
    page.get_by_label("Language").select_option("zh")
    for heading in ("密钥", "客户端密钥", "您的 OpenRouter 密钥", "API 令牌"):
        expect(page.get_by_role("heading", name=heading, exact=True)).to_be_visible()


# ── what is ready to paste


@pytest.fixture(scope="module")
def pasted(browser, site):
    """The snippets that somebody got with a new key, by their names."""
    with watched_page(browser, base_url=site.url) as page:
        site.enter(page.context, site.new_person())
        page.goto("/keys")
        page.get_by_role("button", name="New key").click()
        page.fill("#new-client-key [name=name]", "snippets")
        page.get_by_role("button", name="Make key").click()
        key = page.locator("#made-key").inner_text()
        found = {}
        for one in page.locator("details[name=snippets]").all():
            one.locator("summary").click()
            expect(page.locator("details[name=snippets][open]")).to_have_count(1)
            assert key in one.locator("code").inner_text()
            found[one.locator("summary").inner_text()] = one.locator("code").inner_text()
        assert accessibility_faults(page) == []
        page.set_viewport_size(PHONE)
        assert has_no_sideways_scroll(page)
        page.reload()
        expect(page.locator("details[name=snippets]")).to_have_count(0)  # shown this once, as the key
    return found


@pytest.mark.parametrize(
    ("name", "command", "ending"),
    [
        ("curl", ["bash"], ".sh"),
        ("Python (openai)", [sys.executable], ".py"),
        ("Node (openai)", ["node"], ".mjs"),
        ("LangChain", [CLIENTS / "langchain/.venv/bin/python"], ".py"),
    ],
)
def test_what_is_pasted_runs_as_it_stands(pasted, name, command, ending):
    folder = CLIENTS / "node"  # below which node finds its packages
    with tempfile.NamedTemporaryFile("w", suffix=ending, dir=folder) as file:
        file.write(pasted[name])
        file.flush()
        ran = subprocess.run(
            [*command, file.name], capture_output=True, text=True, timeout=120, cwd=folder, check=False
        )
    assert (ran.returncode, "You said" in ran.stdout) == (0, True), ran.stderr


def test_what_other_programs_are_told_is_this_gateway(pasted, site):
    assert f"ANTHROPIC_BASE_URL={site.url} " in pasted["Claude Code"]
    assert f"Override OpenAI Base URL: {site.url}/v1" in pasted["Cursor"]
    assert f"OPENAI_API_BASE_URL={site.url}/v1\n" in pasted["Open WebUI"]


def test_the_model_of_what_is_pasted_is_one_that_the_key_may_call(site, person):
    http = site.signed_in(person)
    body = {"name": "x", "models": "anthropic/*\nmistralai/mistral-small"}
    made = http.post(f"{site.url}/keys/client", body, timeout=30)
    assert made.status_code == 200
    assert '"mistralai/mistral-small"' in made.text
    assert "openai/gpt-4o-mini" not in made.text.partition("<dialog")[0]


def test_the_response_cache_of_a_key_is_switched_on_and_off_with_what_it_does_beside_it(page, site, person):
    made, other = (
        site.gateway.post("/api/api-keys", {"name": name}, person["token"]).json() for name in ("report", "other")
    )
    switch = page.get_by_label("Answer exact repeats from memory")

    def switched(is_on: bool) -> list[bool]:
        page.goto("/keys")
        page.get_by_role("button", name="Limits of report").click()
        expect(switch.locator("visible=true")).to_have_accessible_description(re.compile("costs nothing.*no other key"))
        assert accessibility_faults(page) == []
        switch.locator("visible=true").set_checked(is_on)
        page.get_by_role("dialog", name="Limits of report").get_by_role("button", name="Save").click()
        expect(page.get_by_role("dialog")).to_have_count(0)
        found = (site.gateway.get(f"/api/api-keys/{key['id']}", person["token"]).json() for key in (made, other))
        return [one["response_cache"] for one in found]

    assert switched(True) == [True, False]
    page.fill(f"#client-key-name-{made['id']}", "report of costs")  # says nothing of the cache
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Limits of report of costs")).to_have_count(1)
    assert switched(False) == [False, False]
