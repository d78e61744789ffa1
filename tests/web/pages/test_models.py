"""The list of models in a browser: searched as one types, sorted, with each person's own favourites and default."""

from __future__ import annotations

import json
from typing import Any

import pytest
import requests
from playwright.sync_api import Page, expect

from tests.support.gateway import wait_for
from tests.support.scripted_upstream import ScriptedUpstream, json_answer
from tests.web.pages.conftest import PHONE, Site, accessibility_faults, has_no_sideways_scroll

CHOSEN = "/api/models/favourites"
NOTHING: dict[str, Any] = {"favourites": [], "default_model": None}


@pytest.fixture(autouse=True)
def models_are_known(site: Site) -> None:
    token = site.new_person()["token"]
    wait_for(lambda: site.gateway.get("/v1/models", token).status_code == 200)


def ids(page: Page) -> list[str]:
    return page.locator("#models tbody code").all_inner_texts()


def chosen(site: Site, person: dict[str, str]) -> dict[str, Any]:
    return site.gateway.get(CHOSEN, person["token"]).json()


def test_models_are_listed_with_prices_per_million_tokens_and_context(page, person):
    page.goto("/models")
    row = page.get_by_role("row").filter(has_text="openai/gpt-4o-mini")
    expect(row.get_by_role("cell").nth(2)).to_have_text("$0.15")
    expect(row.get_by_role("cell").nth(3)).to_have_text("$0.60")
    expect(row.get_by_role("cell").nth(4)).to_have_text("128,000")
    free = page.get_by_role("row").filter(has_text=":free")
    expect(free.get_by_role("cell").nth(2)).to_have_text("free")
    assert "openai/text-embedding-3-small" not in ids(page)  # which can't chat


def test_the_search_narrows_the_list_as_one_types(page, person):
    page.goto("/models")
    box = page.get_by_role("searchbox", name="Search")
    box.press_sequentially("OPENAI mini")
    expect(page.locator("#models tbody tr")).to_have_count(1)
    assert ids(page) == ["openai/gpt-4o-mini"]
    expect(box).to_be_focused()
    box.fill("nothing of this kind")
    expect(page.get_by_text("No model has all of these words")).to_be_visible()
    box.fill("")
    expect(page.locator("#models tbody tr")).to_have_count(7)


@pytest.mark.parametrize(
    ("sort", "first", "last"),
    [
        ("Price in", "meta-llama/llama-3.3-70b-instruct:free", "anthropic/claude-sonnet-4.6"),
        ("Price out", "meta-llama/llama-3.3-70b-instruct:free", "anthropic/claude-sonnet-4.6"),
        ("Context, largest first", "google/gemini-2.5-flash", "deepseek/deepseek-chat"),
        ("Name", "anthropic/claude-sonnet-4.6", "sandbox/stream"),
    ],
)
def test_the_list_is_sorted(page, person, sort, first, last):
    page.goto("/models")
    with page.expect_response("**/models/list*"):
        page.get_by_label("Sort by").select_option(label=sort)
    expect(page.locator("#models [aria-sort]")).to_have_count(1)
    found = ids(page)
    assert (found[0], found[-1]) == (first, last)


def test_favourites_and_the_default_are_each_persons_own(page, site, person):
    teammate = site.new_person()
    page.goto("/models?q=gpt")
    star = page.get_by_role("button", name="Favourite: OpenAI: GPT-4o-mini")
    star.press("Enter")
    expect(star).to_have_attribute("aria-pressed", "true")
    expect(star).to_be_focused()
    default = page.get_by_role("button", name="Default: OpenAI: GPT-4o", exact=True)
    default.click()
    expect(default).to_have_attribute("aria-pressed", "true")
    assert len(ids(page)) == 2  # still what was searched for
    assert chosen(site, person) == {"favourites": ["openai/gpt-4o-mini"], "default_model": "openai/gpt-4o"}
    assert chosen(site, teammate) == NOTHING

    page.goto("/models?only=favourites")
    assert ids(page) == ["openai/gpt-4o-mini"]
    page.goto("/models")
    star.click()
    expect(star).to_have_attribute("aria-pressed", "false")
    default.click()
    expect(default).to_have_attribute("aria-pressed", "false")
    assert chosen(site, person) == NOTHING
    page.locator("[name=only]").select_option(label="My favourites")
    expect(page.get_by_text("No favourites yet")).to_be_visible()


def test_from_a_model_one_goes_to_the_playground(page, person):
    page.goto("/models")
    page.get_by_role("link", name="Try DeepSeek: DeepSeek V3").click()
    expect(page.get_by_label("Model")).to_have_value("deepseek/deepseek-chat")


@pytest.mark.parametrize(
    "query", ["sort=price", "page=0", "page=x", "q=a&q=b", "is_admin=1", "only=all", "q=" + "x" * 101]
)
def test_what_is_not_understood_is_refused(site, page, person, query):
    [cookie] = page.context.cookies()
    cookies = {cookie["name"]: cookie["value"]}
    assert requests.get(f"{site.url}/models?{query}", cookies=cookies, timeout=30).status_code == 400


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/models"),
        ("GET", "/models/list"),
        ("PUT", "/models/favourites/openai/gpt-4o"),
        ("DELETE", "/models/favourites/openai/gpt-4o"),
        ("PUT", "/models/default/openai/gpt-4o"),
        ("DELETE", "/models/default"),
    ],
)
def test_nobody_gets_in_without_a_session_and_nothing_changes_without_its_token(site, person, page, method, path):
    asked = requests.request(method, site.url + path, timeout=10, allow_redirects=False)
    assert asked.status_code == 303
    assert asked.headers["Location"].startswith("/login")
    if method != "GET":
        [cookie] = page.context.cookies()
        cookies = {cookie["name"]: cookie["value"]}
        assert requests.request(method, site.url + path, cookies=cookies, timeout=30).status_code == 403
    assert chosen(site, person) == NOTHING


def test_a_long_list_has_pages_and_before_the_first_list_it_is_said_that_there_is_none(page, start):
    upstream = ScriptedUpstream()  # which at first has no list
    house = Site(start(OPENROUTER_API_URL=upstream.url))
    person = house.new_person()
    house.enter(page.context, person)
    page.goto(f"{house.url}/models")
    expect(page.get_by_text("has not been fetched from OpenRouter yet")).to_be_visible()
    page.goto(f"{house.url}/playground")
    expect(page.get_by_text("has not been fetched from OpenRouter yet")).to_be_visible()

    price = {"prompt": "0.000001", "completion": "0.0000000751"}
    models = [{"id": f"a/{number:03}", "pricing": price, "context_length": 1} for number in range(101)]
    upstream.play("", json_answer("200 OK", json.dumps({"data": models}).encode()))
    wait_for(lambda: house.gateway.get("/v1/models", person["token"]).status_code == 200)
    page.goto(f"{house.url}/models?q=a/&page=9")  # there are three
    expect(page.get_by_text("Page 3 of 3")).to_be_visible()
    assert ids(page) == ["a/100"]
    expect(page.get_by_role("cell").nth(3)).to_have_text("$0.0751")
    page.get_by_role("button", name="Back").click()
    expect(page.get_by_text("Page 2 of 3")).to_be_visible()
    assert (ids(page)[0], ids(page)[-1]) == ("a/050", "a/099")
    page.get_by_role("button", name="Favourite: a/051").click()
    expect(page.get_by_role("button", name="Favourite: a/051")).to_have_attribute("aria-pressed", "true")
    expect(page.get_by_text("Page 2 of 3")).to_be_visible()
    upstream.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_accessible_and_fits_a_phone(page, person, scheme):
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size(PHONE)
    page.goto("/models")
    page.get_by_role("button", name="Favourite: OpenAI: GPT-4o-mini").click()
    page.get_by_role("button", name="Default: OpenAI: GPT-4o-mini").click()
    expect(page.locator("[aria-pressed=true]")).to_have_count(2)
    assert accessibility_faults(page) == []
    assert has_no_sideways_scroll(page)
