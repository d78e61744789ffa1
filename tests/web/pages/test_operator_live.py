"""Pages that keep themselves up to date: what is sent, to whom, for how long, and that every thread comes back."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from playwright.sync_api import expect

from tests.support.gateway import in_threads, wait_for
from tests.web.pages.operator_world import (
    Somebody,
    add_requests,
    new_admin,
    operator_settings,
    rename_pool_key,
    set_role,
)
from web.pages.operator_live import MAX_STREAMS, STREAM_SECONDS

Event = dict[str, str]
THREADS = 8  # the fewest that a worker may have


@pytest.fixture(scope="module", params=["granian", "gunicorn"])
def site_settings(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return operator_settings(tmp_path_factory) | {"SERVER": request.param, "SERVER_THREADS": THREADS}


def open_stream(who: Somebody, part: str, seen: str = "") -> requests.Response:
    headers = {"Last-Event-ID": seen} if seen else {}
    url = f"{who.site.url}/operator/live/{part}"
    return requests.get(url, headers=headers, cookies=who.cookies, stream=True, timeout=10, allow_redirects=False)


def events_of(stream: requests.Response) -> Iterator[Event]:
    """What the stream's events say, until it ends."""
    event: Event = {}
    for line in stream.iter_lines(chunk_size=1, decode_unicode=True):
        if not line and "data" in event:
            yield event
        if not line:
            event = {}
        name, _, value = line.partition(": ")
        if name:
            event[name] = f"{event[name]}\n{value}" if name in event else value


def opened(who: Somebody) -> list[requests.Response]:
    """As many streams as may be open, once there is place for them."""
    streams: list[requests.Response] = []

    def try_it() -> bool:
        stream = open_stream(who, "pool")
        if stream.status_code == 200:
            streams.append(stream)
        return len(streams) == MAX_STREAMS

    wait_for(try_it)
    return streams


def test_a_stream_begins_with_what_is_there_says_what_changes_and_ends_in_time(admin, database):
    began = time.monotonic()
    with open_stream(admin, "logs") as stream:
        assert stream.headers["Content-Type"].startswith("text/event-stream")
        assert stream.headers["Cache-Control"] == "no-store"
        events = events_of(stream)
        first = next(events)
        assert first["event"] == "part"
        assert "live/model" not in first["data"]
        add_requests(database, 1, 1, model="live/model", user_id=admin.id)
        second = next(events)
        assert "live/model" in second["data"]
        assert second["id"] != first["id"]
        assert list(events) == []
    assert time.monotonic() - began > STREAM_SECONDS - 1
    with open_stream(admin, "logs", second["id"]) as stream:
        add_requests(database, 1, 2, model="later/model", user_id=admin.id)
        assert "later/model" in next(events_of(stream))["data"]  # and not first what has been seen


def test_no_more_streams_are_open_than_may_be_and_all_else_is_answered(admin):
    streams = opened(admin)
    refused = open_stream(admin, "logs")
    assert refused.status_code == 503
    assert int(refused.headers["Retry-After"]) > 0
    answers = in_threads(12, lambda: admin.ask("GET", "/operator/pool").status_code)
    answers += in_threads(8, lambda: admin.site.gateway.chat(admin.token).status_code)
    assert answers == [200] * 20
    for stream in streams:
        stream.close()


def test_whoever_leaves_gives_the_thread_back_at_once(admin):
    began = time.monotonic()
    for stream in opened(admin):
        stream.close()
    for stream in opened(admin):
        stream.close()
    assert time.monotonic() - began < STREAM_SECONDS  # when the first ones would have ended by themselves


def test_a_question_for_the_head_alone_and_a_wrong_filter_take_no_place(admin):
    began = time.monotonic()
    for _ in range(MAX_STREAMS + 2):
        assert admin.ask("HEAD", "/operator/live/pool").status_code in {200, 503}
        assert admin.ask("GET", "/operator/live/logs?status=perhaps").status_code == 400
    for stream in opened(admin):
        stream.close()
    assert time.monotonic() - began < STREAM_SECONDS


@pytest.mark.parametrize("lost", ["role", "session"])
def test_an_admin_who_loses_the_rights_gets_no_more_events(site, database, lost):
    former = new_admin(site)
    with wait_for(lambda: next((one for one in [open_stream(former, "logs")] if one.ok), None)) as stream:
        events = events_of(stream)
        next(events)
        if lost == "role":
            set_role(site, former.id, "user")
        else:
            assert site.gateway.post("/api/auth/logout", {}, former.token).ok
        assert [event["event"] for event in events if event["event"] != "part"] == ["over"]
    again = open_stream(former, "logs")
    assert again.status_code == (403 if lost == "role" else 303)


def test_a_name_writes_no_event_of_its_own(admin, database):
    rename_pool_key(database, "env/x\r\revent: over\r\rdata: y\x0b\u2028")
    with wait_for(lambda: next((one for one in [open_stream(admin, "pool")] if one.ok), None)) as stream:
        event = next(events_of(stream))
        assert event["event"] == "part"
        assert event["data"].endswith("</section>")  # and no other event has cut it short
    rename_pool_key(database, "env/first")


def test_the_pages_show_what_happens_without_being_loaded_again(admins_page, database, admin):
    page = admins_page
    page.goto("/operator/pool")
    page.get_by_role("button", name="Disable").focus()
    rename_pool_key(database, "env/renamed")
    expect(page.locator("#pool")).to_contain_text("env/renamed")
    expect(page.locator(":focus")).to_have_attribute("id", re.compile("^disable-"))
    page.goto("/operator/logs?model=shown/model")
    expect(page.locator("#logs")).to_contain_text("No requests")
    add_requests(database, 1, 10, model="other/model", user_id=admin.id)
    add_requests(database, 1, 11, model="shown/model", user_id=admin.id)
    expect(page.locator("#logs")).to_contain_text("shown/model")
    expect(page.locator("#logs")).not_to_contain_text("other/model")
    assert page.evaluate("document.activeElement === document.body")  # who has the focus nowhere is not led there


def test_how_many_requests_and_pages_there_are_is_kept_up_to_date_too(admins_page, database, admin):
    page = admins_page
    add_requests(database, 20, 100, model="paged/model", user_id=admin.id)
    page.set_viewport_size({"width": 820, "height": 900})  # where the table scrolls; on a phone its rows are cards
    page.goto("/operator/logs?model=paged/model")
    expect(page.get_by_role("heading", name="Requests: 20")).to_be_visible()
    expect(page.get_by_role("link", name="Older")).to_have_count(0)
    # In one go: the first part may come at any moment and put another element in this one's place.
    page.evaluate("(place => { place.scrollLeft = 60; place.focus(); })(document.getElementById('logs-scroll'))")
    add_requests(database, 1, 200, model="paged/model", user_id=admin.id)
    expect(page.get_by_role("heading", name="Requests: 21")).to_be_visible(timeout=20_000)
    expect(page.get_by_text("Page 1 of 2")).to_be_visible()
    expect(page.locator("#logs-scroll")).to_have_js_property("scrollLeft", 60)
    expect(page.locator("#logs-scroll")).to_be_focused()
    expect(page.locator("#logs tbody td").first).to_have_attribute("data-label", "Time")


def test_older_pages_stay_as_they_are_and_say_so(admins_page, database, admin):
    page = admins_page
    add_requests(database, 21, 300, model="older/model", user_id=admin.id)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto("/operator/logs?model=older/model&page=2")
    expect(page.locator("#logs tbody tr")).to_have_count(1)
    expect(page.get_by_text("This page stays as it is.")).to_be_visible()
    expect(page.get_by_role("button", name="Pause updates")).to_have_count(0)
    page.wait_for_load_state("networkidle")
    assert not any("/live" in url for url in asked)
    page.get_by_role("link", name="To the first page").click()
    expect(page.locator("#logs tbody tr")).to_have_count(20)
    expect(page.get_by_role("button", name="Pause updates")).to_be_visible()


def test_updates_can_be_paused(admins_page, database):
    page = admins_page
    page.goto("/operator/pool")
    pause = page.get_by_role("button", name="Pause updates")
    pause.press("Enter")
    expect(pause).to_have_attribute("aria-pressed", "true")
    rename_pool_key(database, "env/unseen")
    page.wait_for_timeout(2500)
    expect(page.locator("#pool")).not_to_contain_text("env/unseen")
    pause.press("Enter")
    expect(page.locator("#pool")).to_contain_text("env/unseen")


def test_the_page_of_an_admin_who_loses_the_role_says_so(page, site):
    former = new_admin(site)
    site.enter(page.context, {"token": former.token})
    page.goto("/operator/pool")
    set_role(site, former.id, "user")
    expect(page.get_by_role("alert")).to_have_text("This page is for operators")
