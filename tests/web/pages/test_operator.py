"""Who is let into the operator's pages; everybody's requests, keys and changes on them; and texts that would be markup."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import pytest
import requests
from flask import Flask
from playwright.sync_api import Page, expect

from tests.support.gateway import ADMIN_TOKEN
from tests.web.pages.conftest import PHONE, Site, accessibility_faults, has_no_sideways_scroll
from tests.web.pages.operator_world import (
    PAYLOAD,
    add_requests,
    new_admin,
    new_team,
    operator_settings,
    rename_pool_key,
)
from web.pages.table import register_pages


@pytest.fixture(scope="module")
def site_settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return operator_settings(tmp_path_factory)


NOBODYS_ID = 10**12


def operator_routes() -> list[tuple[str, str]]:
    app = Flask(__name__)
    register_pages(app)
    rules = [rule for rule in app.url_map.iter_rules() if rule.rule.startswith("/operator")]
    return sorted((method, rule.rule) for rule in rules for method in (rule.methods or set()) - {"HEAD", "OPTIONS"})


ROUTES = operator_routes()
PAGES = [path for method, path in ROUTES if method == "GET" and "live" not in path and "csv" not in path]


def path_of(rule: str, number: object = NOBODYS_ID) -> str:
    return re.sub(r"<[^>]+>", str(number), rule)


def test_all_pages_are_known_here():
    assert len(ROUTES) >= 20
    assert ("PUT", "/operator/users/<int:user_id>/quota") in ROUTES
    assert ("GET", "/operator/live/pool") in ROUTES


@pytest.mark.parametrize(("method", "rule"), ROUTES, ids=" ".join)
def test_admins_are_let_in_users_are_not_and_strangers_are_sent_to_the_log_in(site, admin, user, method, rule):
    path = path_of(rule)
    with admin.ask(method, path) as let_in:
        assert let_in.status_code in ({200} if method == "GET" and path in PAGES else {200, 400, 404})
    refused = user.ask(method, path)
    assert refused.status_code == 403
    assert "This page is for operators" in refused.text
    assert 'href="/operator' not in refused.text
    stranger = requests.request(method, site.url + path, allow_redirects=False, timeout=30)
    assert stranger.status_code == 303
    assert stranger.headers["Location"] == f"/login?next={path if method == 'GET' else '/dashboard'}"
    by_token = requests.request(
        method,
        site.url + path,
        headers={"Authorization": f"Bearer {ADMIN_TOKEN}"},
        allow_redirects=False,
        timeout=30,
    )
    assert by_token.status_code == 303


@pytest.mark.parametrize(("method", "rule"), [(m, rule) for m, rule in ROUTES if m != "GET"], ids=" ".join)
def test_no_change_is_made_without_the_token_of_the_pages(site, admin, method, rule):
    answer = requests.request(method, site.url + path_of(rule, 1), cookies=admin.cookies, timeout=30)
    assert answer.status_code == 403


def test_an_auditor_reads_every_page_and_changes_nothing(site, page, admin):
    auditor = new_admin(site, "auditor")
    for method, rule in ROUTES:
        path = path_of(rule, auditor.id)
        with auditor.ask(method, path) as answer:
            if method == "GET" or path == "/operator/users/find":
                assert answer.status_code in {200, 400, 404}, (method, path)
            else:
                assert answer.status_code == 403, (method, path)
                assert "You may only read here" in answer.text
    site.enter(page.context, {"token": auditor.token})
    team = f"/operator/teams/{new_team(site)}"
    for path in ("/operator/users", f"/operator/users/{admin.id}", "/operator/pool", "/operator/invitations", team):
        page.goto(path)
        expect(page.get_by_text("You may read everything here")).to_be_visible()
        buttons = {button.inner_text() for button in page.locator("main button:visible:not(th *)").all()}
        assert buttons <= {"Show", "Find", "Pause updates"}, path
        assert accessibility_faults(page) == []
    page.goto(f"/operator/users/{admin.id}")
    expect(page.locator("select[name=state]")).to_have_value("active")  # what there is to read stays


def test_only_admins_see_the_link(admin, user):
    assert 'href="/operator"' in admin.ask("GET", "/dashboard").text
    assert 'href="/operator"' not in user.ask("GET", "/dashboard").text


@pytest.mark.parametrize("rule", [rule for _, rule in ROUTES if "<int:" in rule])
def test_numbers_that_no_row_can_have_are_not_found(admin, rule):
    methods = [method for method, known in ROUTES if known == rule]
    for method in methods:
        assert admin.ask(method, path_of(rule, 10**30)).status_code == 404


def test_pages_count_as_requests_to_the_operators_api(start, stand_in, site_settings):
    key = stand_in.new_key()["key"]
    settings = site_settings | {"DATABASE_URL": site_settings["DATABASE_URL"] + "2", "ADMIN_RATE_LIMIT_PER_MINUTE": 20}
    asker = new_admin(Site(start(OPENROUTER_API_URL=stand_in.address, OPENROUTER_API_KEYS=key, **settings)))
    answers = [asker.ask("GET", "/operator/audit") for _ in range(21)]
    assert answers[-1].status_code == 429
    assert int(answers[-1].headers["Retry-After"]) > 0
    assert asker.ask("GET", "/dashboard").status_code == 200


@pytest.mark.usefixtures("one_day")
def test_the_overview_shows_what_was_spent_by_model_and_by_upstream(admins_page, database):
    page = admins_page
    add_requests(database, 3, 100, model="a/model", cost_nano=500_000_000)
    add_requests(database, 2, 200, model="b/model", cost_nano=0, pool_key_id=None, outcome="refused")
    page.goto("/operator")
    expect(page.get_by_role("row", name="a/model")).to_have_text(re.compile(r"a/model\s*3\s*\$1.50\s*3\s*\$1.50"))
    expect(page.get_by_role("row", name="none: refused here")).to_contain_text("2")
    expect(page.locator("canvas")).to_be_visible()
    check_chart(page, "Spent and requests by day; the table below has the figures", "Day")
    page.context.add_cookies([{"name": "lang", "value": "zh", "url": page.url}])
    page.reload()
    check_chart(page, "按日的花费与请求数；下方表格列出数值", "日期")
    page.context.clear_cookies(name="lang")
    page.goto("/operator")
    expect(page.get_by_role("link", name="1 of 1 keys usable")).to_be_visible()


def check_chart(page: Page, name: str, day: str) -> None:
    """The chart says what it is, has its figures as a table too, and its legend has them where the pointer is."""
    chart = page.get_by_role("img", name=name)
    expect(chart.locator(".u-legend tr").first).to_contain_text(day)
    expect(chart.locator(".u-legend")).not_to_contain_text("Time")
    chart.scroll_into_view_if_needed()
    box = chart.locator(".u-over").bounding_box()
    assert box
    page.mouse.move(box["x"] + box["width"] - 1, box["y"] + box["height"] / 2)
    today = datetime.now(UTC).date().isoformat()
    expect(chart.locator(".u-legend tr").first).to_contain_text(today)
    expect(chart.locator(".u-legend")).to_contain_text("$1.50")
    page.locator("summary").click()
    expect(page.locator("details tbody tr").last).to_contain_text(f"{today}")


def test_the_log_is_filtered_paged_and_taken_along_as_a_file(admins_page, database, admin):
    page = admins_page
    add_requests(database, 25, 1000, model="c/model", user_id=admin.id)
    page.goto("/operator/logs")
    page.get_by_label("Model contains").fill("c/model")
    page.get_by_role("button", name="Show").click()
    expect(page.locator("#logs tbody tr")).to_have_count(20)
    page.get_by_role("link", name="Older").click()
    expect(page.locator("#logs tbody tr")).to_have_count(5)
    expect(page.get_by_label("Model contains")).to_have_value("c/model")
    with page.expect_download() as download:
        page.get_by_role("link", name="CSV").click()
    lines = download.value.path().read_text().splitlines()
    assert len(lines) == 26
    assert all("c/model" in line for line in lines[1:])


def test_filters_stay_when_one_of_them_is_wrong(admins_page, admin):
    page = admins_page
    page.goto("/operator/logs?model_contains=gpt&client_key_id=99999&start=2026-11-01")
    expect(page.get_by_label("Client key")).to_have_accessible_description("Must be the number of a client key")
    assert accessibility_faults(page) == []
    expect(page.get_by_label("Model contains")).to_have_value("gpt")
    expect(page.get_by_label("Client key")).to_have_value("99999")
    for path in ("logs?nobody=1", "audit?nobody=1", "users?nobody=1", "keys?nobody=1"):
        refused = admin.ask("GET", f"/operator/{path}")
        assert (refused.status_code, "There is no field" in refused.text) == (400, True), path


def test_what_sums_do_not_count_is_searched_for_and_not_kept_up_to_date(admins_page, database, admin):
    page = admins_page
    why = {"error_type": "rate_limit_exceeded", "outcome": "refused", "http_status": 429}
    add_requests(database, 3, 8000, model="search/one", user_id=admin.id, **why)
    add_requests(database, 2, 8100, model="search/two", user_id=admin.id)
    page.goto("/operator/logs")
    page.get_by_label("Model contains").fill("SEARCH/")
    page.get_by_label("Status").select_option("4xx")
    page.get_by_role("button", name="Show").click()
    expect(page.locator("#logs tbody tr")).to_have_count(3)
    expect(page.get_by_role("button", name="Pause updates")).to_have_count(0)
    assert "not kept up to date" in admin.ask("GET", "/operator/live/logs?status=4xx").text
    page.get_by_role("link", name="Today").click()
    expect(page.locator("#logs tbody tr")).to_have_count(3)
    expect(page.get_by_role("link", name="Today")).to_have_attribute("aria-current", "true")
    expect(page.get_by_label("Status")).to_have_value("4xx")


def test_why_a_call_failed_is_one_click_away_from_the_log(admins_page, database, admin):
    page = admins_page
    why = {"error_type": "rate_limit_exceeded", "error_message": "Slow down, please", "outcome": "refused"}
    add_requests(database, 1, 9000, model="why/model", user_id=admin.id, http_status=429, **why)
    page.goto("/operator/logs?model=why/model")
    expect(page.locator("#logs tbody tr")).to_contain_text("rate_limit_exceeded")
    page.locator("#logs tbody tr a").first.click()
    facts = page.locator(".facts")
    expect(facts).to_contain_text("Slow down, please")
    expect(facts).to_contain_text("429")
    expect(page.locator("table tbody tr")).to_have_count(1)  # its one try
    request_id = page.get_by_label("Request id").input_value()
    assert admin.ask("GET", f"/operator/request?id={request_id}").status_code == 200
    assert admin.ask("GET", "/operator/request?id=nobodys").status_code == 404


def test_tables_are_sorted_by_the_column_that_is_pressed(admins_page, database, admin):
    page = admins_page
    for number, cost_nano in enumerate((20_000_000, 3_000_000_000, 100)):
        add_requests(database, 1, 7000 + number, model="s/model", user_id=admin.id, cost_nano=cost_nano)
    page.goto("/operator/logs?model=s/model")
    spent = page.get_by_role("columnheader", name="Spent")
    cells = page.locator("#logs tbody tr td:nth-child(7)")
    spent.get_by_role("link").press("Enter")
    expect(spent).to_have_attribute("aria-sort", "descending")
    expect(cells).to_have_text(["$3.00", "$0.0200", "$0.0000001"])
    assert accessibility_faults(page) == []
    page.get_by_role("link", name="Time").click()
    expect(page.get_by_role("columnheader", name="Time")).to_have_attribute("aria-sort", "descending")


def test_changes_are_found_by_action_and_user(admins_page, admin):
    page = admins_page
    assert admin.ask("PUT", f"/operator/users/{admin.id}/quota", limit_usd="7").status_code == 200
    page.goto("/operator/audit")
    page.get_by_label("Action").fill("quota_set")
    page.get_by_label("User").fill(str(admin.id))
    page.get_by_role("button", name="Show").click()
    row = page.locator("tbody tr").first
    expect(row).to_contain_text(f"user/{admin.id}")
    expect(row).to_contain_text("limit_usd: 7")


def test_anybodys_key_is_revoked_and_the_change_is_written_down(admins_page, site, admin, user):
    page = admins_page
    made = site.gateway.post("/api/api-keys", {"name": "theirs"}, user.token).json()
    page.goto(f"/operator/keys?user_id={user.id}")
    page.get_by_role("button", name="Revoke theirs").click()
    expect(page.get_by_role("row", name="theirs")).to_contain_text("revoked")
    expect(page.get_by_role("button", name="Revoke theirs")).to_have_count(0)
    [entry] = site.gateway.get("/admin/audit?action=client_key_revoked", ADMIN_TOKEN).json()["items"]
    assert (entry["actor"], entry["subject"], entry["user_id"]) == (
        f"user/{admin.id}",
        f"client-key/{made['id']}",
        user.id,
    )


@pytest.fixture(scope="module")
def payloads(site: Any, database: Any, admin: Any) -> str:
    """The same text in whatever comes from outside; returns what a page shows of it."""
    rename_pool_key(database, PAYLOAD)
    add_requests(database, 1, 5000, model=PAYLOAD, user_id=admin.id, outcome=PAYLOAD[:16])
    made = site.gateway.post("/api/api-keys", {"name": PAYLOAD}, admin.token)
    assert made.status_code == 201, made.text
    upstream = {"name": "x", "base_url": "http://127.0.0.1:9/v1", "model_prefixes": {PAYLOAD.replace(" ", "/"): ""}}
    added = site.gateway.ask("POST", "/admin/upstreams", upstream, ADMIN_TOKEN)
    assert added.status_code == 201, added.text
    return PAYLOAD


@pytest.mark.parametrize("path", ["/operator", "/operator/pool", "/operator/logs", "/operator/keys", "/operator/audit"])
def test_texts_from_outside_are_shown_as_they_are(admins_page, payloads, path):
    page = admins_page
    page.goto(path)
    expect(page.locator("main")).to_contain_text("<script>alert(2)</script>")
    check_no_markup(page)


@pytest.mark.parametrize("path", ["/operator/upstreams", "/operator/users"])
def test_none_becomes_markup(admins_page, payloads, path):
    admins_page.goto(path)
    check_no_markup(admins_page)


@pytest.mark.parametrize("part", ["pool", "logs"])
def test_none_becomes_markup_in_what_is_swapped_in(admins_page, payloads, database, admin, part):
    page = admins_page
    page.goto(f"/operator/{part}")
    if part == "pool":
        rename_pool_key(database, f"{PAYLOAD}again")  # too long: its end is shown, the whole is an attribute
    else:
        add_requests(database, 1, 5100, model=f"{PAYLOAD}again", user_id=admin.id)
    expect(page.locator(f"#{part}")).to_contain_text("k-gain" if part == "pool" else "again")
    check_no_markup(page)


@pytest.mark.parametrize("path", ["/operator/audit", "/operator/logs", "/operator/users", "/operator/keys"])
def test_filters_that_are_not_understood_are_refused_in_words(admins_page, path):
    page = admins_page
    page.goto(f"{path}?page=%22%3E%3Cimg%20src%3Dx%3E")
    expect(page.get_by_role("alert")).to_contain_text("page: Must be a whole number")
    check_no_markup(page)


def check_no_markup(page: Page) -> None:
    assert page.locator("main img, main script, [onerror]").count() == 0
    assert "49" not in page.title()


@pytest.mark.parametrize("rule", PAGES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_are_accessible_and_fit_a_phone(admins_page, admin, payloads, rule, scheme):
    page = admins_page
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size(PHONE)
    page.goto(path_of(rule, admin.id))
    assert accessibility_faults(page) == []
    assert has_no_sideways_scroll(page)


@pytest.mark.parametrize("rule", PAGES)
def test_pages_have_all_their_words_in_chinese(admins_page, admin, site, rule):
    page = admins_page
    page.context.add_cookies([{"name": "lang", "value": "zh", "url": site.url}])
    page.goto(path_of(rule, admin.id))
    expect(page.locator("html")).to_have_attribute("lang", "zh")
    for heading in page.locator("h1, h2, thead th").all_text_contents():
        assert re.search(r"[\u4e00-\u9fff]|^p\d\d$|^team-\w+$", heading), heading
