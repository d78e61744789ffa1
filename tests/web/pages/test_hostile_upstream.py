"""What OpenRouter says is shown as text, whatever it is: names, descriptions, labels, errors, answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Page, expect

from tests.support.gateway import Gateway, wait_for
from tests.support.scripted_upstream import ScriptedUpstream, json_answer
from tests.web.pages.conftest import Site, has_no_sideways_scroll

SCRIPT = "<script>document.title='taken'</script>"
IMAGE = "<img/src=x/onerror=document.title='taken'>"
BREAKS_OUT = "\"'><svg/onload=document.title='taken'>{{7*7}}</script></select></option>"
MODEL = f"evil/{BREAKS_OUT}"
KEY = "sk-or-v1-" + "0" * 64


def listed() -> bytes:
    entry = {
        "id": MODEL,
        "name": f"{SCRIPT}{BREAKS_OUT}",
        "description": f"{IMAGE}{BREAKS_OUT}\u202e" + "x" * 5000,
        "context_length": 4096,
        "architecture": {"output_modalities": ["text"]},
        "pricing": {"prompt": "0.000001", "completion": "0.000002", "request": "0"},
    }
    odd = {"id": "odd/one", "name": ["<b>"], "description": {"x": IMAGE}, "pricing": {"prompt": IMAGE}}
    return json.dumps({"data": [entry, odd]}).encode()


@pytest.fixture(scope="module")
def upstream() -> Iterator[ScriptedUpstream]:
    made = ScriptedUpstream()
    made.play("", json_answer("200 OK", listed()))
    yield made
    made.close()


@pytest.fixture(scope="module")
def site(start: Callable[..., Gateway], upstream: ScriptedUpstream) -> Site:
    made = Site(start(OPENROUTER_API_URL=upstream.url, OPENROUTER_API_KEYS=KEY))
    token = made.new_person()["token"]
    wait_for(lambda: made.gateway.get("/v1/models", token).status_code == 200)
    return made


def is_untouched(page: Page) -> bool:
    """True if nothing of it has become an element, or run."""
    found = page.locator("main script, main img, main svg, main b").count()
    return not found and "taken" not in page.title()


def test_models_are_shown_and_marked_whatever_they_are_called(page, person):
    page.goto("/models")
    row = page.get_by_role("row").filter(has_text="svg")
    expect(row.locator("strong")).to_have_text(f"{SCRIPT}{BREAKS_OUT}")
    expect(row.locator("code")).to_have_text(MODEL)
    expect(row.locator(".clamp")).to_contain_text(IMAGE)
    row.locator(".star").click()
    expect(row.locator(".star")).to_have_attribute("aria-pressed", "true")
    row.get_by_role("button", name="Default").click()
    expect(row.locator(".badge")).to_be_visible()
    expect(page.locator("#models-count")).to_contain_text(MODEL)
    assert is_untouched(page)
    assert has_no_sideways_scroll(page)
    row.get_by_role("link", name="Try").click()
    expect(page.get_by_label("Model")).to_have_value(MODEL)
    assert is_untouched(page)


@pytest.mark.parametrize("query", ["q=", "model="])
def test_what_stands_in_the_address_is_shown_as_text(page, person, query):
    page.goto(f"/{'models' if query == 'q=' else 'playground'}?{query}%22%27%3E%3Cimg%20src=x%20onerror=alert(1)%3E")
    assert is_untouched(page)


def test_errors_and_answers_are_shown_as_text(page, person, upstream):
    refusal = json.dumps({"error": {"code": 400, "message": f"{IMAGE}{SCRIPT}"}}).encode()
    upstream.play(MODEL, json_answer("400 Bad Request", refusal))
    page.goto("/playground?model=odd/one")
    page.get_by_label("Model").select_option(value=MODEL)
    page.get_by_label("Your message").fill("Hello")
    page.get_by_role("button", name="Send").click()
    expect(page.get_by_role("log").get_by_role("alert")).to_contain_text(IMAGE)
    assert is_untouched(page)

    delta = {"choices": [{"delta": {"content": f"{IMAGE}{SCRIPT}"}, "finish_reason": "stop"}]}
    body = f"data: {json.dumps(delta)}\n\ndata: [DONE]\n\n".encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: {len(body)}\r\n\r\n"
    upstream.play(MODEL, head.encode() + body)
    page.get_by_role("button", name="Send").click()
    expect(page.locator(".said").last).to_have_text(f"{IMAGE}{SCRIPT}")
    assert is_untouched(page)


def test_what_openrouter_says_of_a_key_is_shown_as_text(page, person, upstream):
    told = {"label": IMAGE, "limit": 5, "limit_remaining": 4, "usage": 1, "is_provisioning_key": False}
    upstream.play("", json_answer("200 OK", json.dumps({"data": told}).encode()))
    page.goto("/connect")
    page.get_by_role("button", name="Connect to OpenRouter").click()
    page.fill("[name=api_key]", KEY[:-1] + "1")
    page.get_by_role("dialog").get_by_role("button", name="Connect", exact=True).click()
    expect(page.locator("#connection .badge")).to_have_text("Connected")
    assert is_untouched(page)
