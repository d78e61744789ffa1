"""The playground: a streamed chat with its cost, stopped, failing, renewed; what its token may do, and for how long."""

from __future__ import annotations

import json
import re
from typing import Any

import jwt
import pytest
import requests
from playwright.sync_api import Page, Route, expect

from tests.support.gateway import wait_for
from tests.web.pages.conftest import PHONE, Site, accessibility_faults, has_no_sideways_scroll


@pytest.fixture(autouse=True)
def models_are_known(site: Site) -> None:
    token = site.new_person()["token"]
    wait_for(lambda: site.gateway.get("/v1/models", token).status_code == 200)


def choose(page: Page, model: str) -> None:
    """Choose a model, one that is not listed too: the stand-in's scenarios are."""
    page.evaluate(
        "name => { const one = new Option(name, name); document.getElementById('model').append(one); one.selected = true }",
        model,
    )


def say(page: Page, text: str) -> None:
    page.get_by_label("Your message").fill(text)
    page.get_by_label("Your message").press("Enter")


def answers(page: Page) -> Any:
    return page.locator(".turn.theirs")


def asked_for(page: Page) -> list[Any]:
    """The bodies of the model calls from now on."""
    bodies: list[Any] = []
    page.on(
        "request", lambda one: one.url.endswith("/chat/completions") and bodies.append(json.loads(one.post_data or ""))
    )
    return bodies


def test_a_chat_goes_on_and_each_answer_says_what_it_cost(page, site, person):
    sent = asked_for(page)
    page.goto("/playground?model=openai/gpt-4o")
    expect(page.get_by_label("Model")).to_have_value("openai/gpt-4o")
    say(page, "How are you?")
    expect(answers(page).locator(".hint")).to_contain_text(" tokens")
    assert "$0.0" in answers(page).locator(".hint").inner_text()
    first = answers(page).locator(".said").inner_text()
    assert first
    expect(page.get_by_label("Your message")).to_be_focused()
    say(page, "And now?")
    expect(answers(page)).to_have_count(2)
    expect(answers(page).nth(1).locator(".hint")).to_contain_text(" tokens")
    assert [turn["role"] for turn in sent[1]["messages"]] == ["user", "assistant", "user"]
    assert sent[1]["messages"][1]["content"] == first
    assert {one["model"] for one in sent} == {"openai/gpt-4o"}
    wait_for(lambda: site.gateway.get("/api/usage/logs", person["token"]).json()["total"] == 2)
    page.get_by_role("button", name="New chat").click()
    expect(page.locator(".turn")).to_have_count(0)
    say(page, "Who am I?")
    expect(answers(page).locator(".hint")).to_contain_text(" tokens")
    assert len(sent[2]["messages"]) == 1
    page.reload()
    expect(page.locator(".turn")).to_have_count(0)


def test_ones_default_model_is_chosen_at_first(page, site, person):
    site.gateway.ask("PUT", "/api/models/default", {"model": "google/gemini-2.5-flash"}, person["token"])
    page.goto("/playground")
    expect(page.get_by_label("Model")).to_have_value("google/gemini-2.5-flash")


def test_an_answer_is_stopped_and_the_chat_goes_on(page, person):
    sent = asked_for(page)
    page.goto("/playground")
    choose(page, "sandbox/stream?chunks=5000&pace_ms=20")
    say(page, "Tell me a lot")
    expect(answers(page).locator(".said")).not_to_be_empty()
    expect(page.get_by_role("button", name="Send")).to_be_disabled()
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_text("Stopped.")).to_be_visible()
    expect(page.get_by_role("button", name="Stop")).to_be_hidden()
    choose(page, "openai/gpt-4o-mini")
    say(page, "Less")
    expect(answers(page).nth(1).locator(".hint")).to_contain_text(" tokens")
    assert [turn["role"] for turn in sent[1]["messages"]] == ["user", "assistant", "user"]


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ("no/such-model", "no/such-model"),
        ("sandbox/error-mid", "Service temporarily overloaded"),
        ("sandbox/cut", "The upstream's answer broke off"),
    ],
)
def test_what_went_wrong_is_said(page, person, model, says):
    page.goto("/playground")
    choose(page, model)
    say(page, "Hello")
    expect(answers(page).get_by_role("alert")).to_contain_text(says)
    expect(page.get_by_role("button", name="Send")).to_be_enabled()
    if model.startswith("no/"):  # nothing was answered, so that the question can be sent again
        expect(page.get_by_label("Your message")).to_have_value("Hello")


def test_an_answer_is_shown_as_text(page, person):
    """The stand-in answers with what it was asked."""
    page.goto("/playground")
    payload = (
        "<img src=x onerror=alert(1)>\n```\n<script>document.title='x'</script>\n```\n**bold** [a](javascript:alert(1))"
    )
    page.get_by_label("Your message").fill(payload)
    page.get_by_role("button", name="Send").click()
    expect(answers(page).locator(".hint")).to_contain_text(" tokens")
    assert page.locator("#messages").locator("img, script, a, strong").count() == 0
    assert page.locator(".turn.mine .said").inner_text() == payload
    assert page.title().startswith("Playground")


def test_shift_and_enter_makes_a_line_and_nothing_is_sent_while_characters_are_composed(page, person):
    sent = asked_for(page)
    page.goto("/playground")
    box = page.get_by_label("Your message")
    box.fill("one")
    box.press("Shift+Enter")
    box.press_sequentially("two")
    assert box.input_value() == "one\ntwo"
    box.evaluate(
        "box => box.dispatchEvent(new KeyboardEvent('keydown', {key: 'Enter', isComposing: true, bubbles: true}))"
    )
    assert sent == []
    assert box.input_value() == "one\ntwo"


def test_a_token_that_is_refused_is_renewed_once(page, site, person):
    given: list[str] = []

    def answer(route: Route) -> None:
        """The first one has expired on the way."""
        given.append(route.request.headers["authorization"])
        if len(given) == 1:
            route.fulfill(status=401, json={"message": "The token has expired; log in again"})
        else:
            route.continue_()

    page.route("**/v1/chat/completions", answer)
    page.goto("/playground")
    say(page, "Hello")
    expect(answers(page).locator(".hint")).to_contain_text(" tokens")
    assert len(set(given)) == 2


def test_who_is_logged_out_meanwhile_is_sent_to_the_log_in(page, site, person):
    page.goto("/playground")
    assert site.gateway.post("/api/auth/logout", None, person["token"]).status_code == 200
    say(page, "Hello")
    expect(page).to_have_url(re.compile("/login"))


def token_of_the_page(page: Page) -> dict[str, Any]:
    return page.evaluate(
        """async () => (await fetch('/playground/token', {method: 'POST', headers:
        {'X-CSRF-Token': document.querySelector('meta[name="csrf-token"]').content}})).json()"""
    )


def test_the_pages_token_is_of_the_same_session_and_holds_for_five_minutes(page, site, person):
    page.goto("/playground")
    given = token_of_the_page(page)
    assert given["expires_in"] == 300
    mine, theirs = (jwt.decode(one, options={"verify_signature": False}) for one in (given["token"], person["token"]))
    assert mine["exp"] - mine["iat"] == 300
    assert (mine["sub"], mine["sid"]) == (theirs["sub"], theirs["sid"])
    assert page.evaluate("Object.keys(localStorage).length + document.cookie.length") == 0
    assert site.gateway.chat(given["token"]).status_code == 200
    assert site.gateway.post("/api/auth/logout", None, person["token"]).status_code == 200
    assert site.gateway.chat(given["token"]).status_code == 401


def test_nobody_gets_a_token_without_a_session_or_the_token_of_its_pages(page, site, person):
    path = f"{site.url}/playground/token"
    for method, url in (("GET", f"{site.url}/playground"), ("POST", path)):
        asked = requests.request(method, url, timeout=10, allow_redirects=False)
        assert asked.status_code == 303
        assert "token" not in asked.text
    bearer = {"Authorization": f"Bearer {person['token']}"}
    assert requests.post(path, headers=bearer, timeout=10, allow_redirects=False).status_code == 303
    [cookie] = page.context.cookies()
    cookies = {cookie["name"]: cookie["value"]}
    assert requests.post(path, cookies=cookies, timeout=30).status_code == 403
    assert requests.get(path, cookies=cookies, timeout=30).status_code == 405
    calling = {"model": "openai/gpt-4o-mini", "messages": []}
    assert (
        requests.post(f"{site.url}/v1/chat/completions", json=calling, cookies=cookies, timeout=30).status_code == 401
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_accessible_and_fits_a_phone(page, person, scheme):
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size(PHONE)
    page.goto("/playground")
    assert accessibility_faults(page) == []
    say(page, "word " * 100 + "x" * 300)
    expect(answers(page).locator(".hint")).to_contain_text(" tokens")
    choose(page, "no/such-model")
    say(page, "Hello")
    expect(answers(page).get_by_role("alert")).to_be_visible()
    assert accessibility_faults(page) == []
    assert has_no_sideways_scroll(page)
