"""A real browser, and pages that fail a test for whatever their console, their policy or their scripts complain of."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, expect, sync_playwright

# The first is the same engine without what surrounds a page in a window, and opens one in a quarter of the time.
PROGRAMS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
# Refusals that a test provokes are answers, and Chromium and htmx write a line for each.
ANSWER = re.compile("status of 4|Response Status Error Code 4")
expect.set_options(timeout=30_000)  # what is waited for ends the wait: this is for a machine that does much else beside


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Chromium without a window; each of its contexts is somebody's browser, with cookies of its own.

    While Playwright is there, it holds the event loop of the thread: `asyncio.run` would be refused, which no test needs.
    """
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    assert program, f"the tests need a browser, one of {', '.join(PROGRAMS)}: tests/install-servers installs it"
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield launched
        launched.close()


@contextmanager
def watched_page(browser: Browser, but: str = "", **settings: Any) -> Iterator[Page]:
    """A page in a browser of somebody new. At the end nothing may have been complained of.

    but: complaints are let pass in whose text or place this stands.
    """
    context = browser.new_context(**{"locale": "en-GB", "timezone_id": "UTC"} | settings)
    page = context.new_page()
    complaints: list[str] = []

    def note(line: ConsoleMessage) -> None:
        is_expected = ANSWER.search(line.text) or (but and but in f"{line.text} {line.location}")
        if line.type in {"error", "warning"} and not is_expected:
            complaints.append(line.text)

    page.on("console", note)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("dialog", lambda dialog: dialog.accept())
    yield page
    context.close()
    assert not complaints, complaints
