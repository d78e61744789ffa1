"""The pictures of the documents: pages as they look after some weeks of use. `make screenshots` keeps them."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from db import Database
from tests.web.pages.conftest import PHONE, Site
from tests.web.pages.operator_world import Somebody, operator_settings
from tests.web.pages.weeks_of_use import lived_in

DESKTOP = {"width": 1280, "height": 800}
MOST_BYTES = 150_000
QUESTION = "What does a streamed answer cost if I stop it halfway?"
ANSWER = (
    "You pay for what was produced until the upstream noticed that you left: the prompt in full, and the tokens of "
    "the answer up to that moment.\n\nThe gateway asks OpenRouter for the bill of the broken call afterwards, so the "
    "amount on your dashboard is the one that was charged, not a guess."
)
# How many colours a picture has, and what share of it has the most frequent one.
COLOURS = """async (address) => {
  const image = new Image();
  image.src = address;
  await image.decode();
  const canvas = new OffscreenCanvas(image.width, image.height);
  const pen = canvas.getContext('2d');
  pen.drawImage(image, 0, 0);
  const counts = new Map();
  for (const one of new Uint32Array(pen.getImageData(0, 0, image.width, image.height).data.buffer))
    counts.set(one, (counts.get(one) ?? 0) + 1);
  return { size: [image.width, image.height], colours: counts.size, share: Math.max(...counts.values()) / image.width / image.height };
}"""


@pytest.fixture(scope="module")
def site_settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return operator_settings(tmp_path_factory)


@pytest.fixture(scope="module")
def regular(site: Site, database: Database, stand_in: Any) -> dict[str, str]:
    """Somebody who has used the service for weeks."""
    return lived_in(site, database, stand_in)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the pictures go: the folder that SCREENSHOTS_FOLDER names, else one that is thrown away."""
    return Path(os.environ.get("SCREENSHOTS_FOLDER") or tmp_path)


def answer_once(page: Page) -> None:
    """Let a model answer something that is worth reading; the stand-in repeats the question."""
    pieces = [{"choices": [{"delta": {"content": f"{word} "}}]} for word in ANSWER.split(" ")]
    usage = {"prompt_tokens": 21, "completion_tokens": 74, "cost": 0.001173}
    events = [*pieces, {"choices": [{"delta": {}, "finish_reason": "stop"}], "usage": usage}]
    body = "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"
    page.route("**/v1/chat/completions", lambda route: route.fulfill(content_type="text/event-stream", body=body))


def show(page: Page, path: str) -> None:
    """Load a page and wait until it has what makes it worth a picture."""
    page.goto(path)
    if path == "/dashboard":
        expect(page.locator(".chart canvas")).to_be_visible()
    if path.startswith("/playground"):
        answer_once(page)
        page.get_by_label("Your message").fill(QUESTION)
        page.get_by_role("button", name="Send").click()
        expect(page.get_by_text("95 tokens")).to_be_visible()
    page.mouse.move(0, 0)


@pytest.mark.parametrize(
    ("name", "path", "scheme", "size"),
    [
        ("dashboard", "/dashboard", "light", DESKTOP),
        ("dashboard-dark", "/dashboard", "dark", DESKTOP),
        ("dashboard-phone", "/dashboard", "light", PHONE),
        ("keys", "/keys", "light", DESKTOP),
        ("models", "/models", "light", DESKTOP),
        ("playground", "/playground?model=anthropic/claude-sonnet-4.6", "light", DESKTOP),
        ("operator-pool", "/operator/pool", "light", DESKTOP),
        ("operator-logs", "/operator/logs", "light", DESKTOP),
    ],
)
def test_a_picture_shows_the_page(
    page: Page,
    browser: Browser,
    site: Site,
    regular: dict[str, str],
    admin: Somebody,
    folder: Path,
    name: str,
    path: str,
    scheme: Any,
    size: Any,
) -> None:
    site.enter(page.context, {"token": admin.token} if path.startswith("/operator") else regular)
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    page.set_viewport_size(size)
    show(page, path)
    page.screenshot(path=folder / f"{name}.png")
    picture = (folder / f"{name}.png").read_bytes()
    assert len(picture) < MOST_BYTES
    blank = browser.new_page()  # where no policy is in the way
    found = blank.evaluate(COLOURS, f"data:image/png;base64,{base64.b64encode(picture).decode()}")
    blank.close()
    assert found["size"] == [size["width"], size["height"]]
    assert found["colours"] > 50
    assert found["share"] < 0.95
