"""Browsers are told from each other by what they call themselves, though all pretend to be others too."""

from __future__ import annotations

from accounts.user_agents import browser_of
from tests.support.rows import each_row

KIT = "AppleWebKit/537.36 (KHTML, like Gecko)"


@each_row(
    ("user_agent", "found"),
    [
        (f"Mozilla/5.0 (X11; Linux x86_64) {KIT} Chrome/126.0.0.0 Safari/537.36", ("Chrome", "Linux")),
        (f"Mozilla/5.0 (X11; Linux x86_64) {KIT} HeadlessChrome/126.0.0.0 Safari/537.36", ("Chromium", "Linux")),
        (f"Mozilla/5.0 (Linux; Android 10; K) {KIT} Chrome/126.0.0.0 Mobile Safari/537.36", ("Chrome", "Android")),
        (f"Mozilla/5.0 (Windows NT 10.0; Win64) {KIT} Chrome/126.0 Safari/537.36 Edg/126.0", ("Edge", "Windows")),
        (f"Mozilla/5.0 (Windows NT 10.0; Win64) {KIT} Chrome/126.0 Safari/537.36 OPR/111.0", ("Opera", "Windows")),
        (
            f"Mozilla/5.0 (Linux; Android 13) {KIT} SamsungBrowser/25.0 Chrome/121.0 Mobile Safari/537.36",
            ("Samsung Internet", "Android"),
        ),
        ("Mozilla/5.0 (X11; Linux x86_64; rv:127.0) Gecko/20100101 Firefox/127.0", ("Firefox", "Linux")),
        (f"Mozilla/5.0 (Macintosh; Intel Mac OS X 14_5) {KIT} Version/17.5 Safari/605.1.15", ("Safari", "macOS")),
        (
            f"Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) {KIT} Version/17.5 Mobile/15E148 Safari/604.1",
            ("Safari", "iPhone"),
        ),
        (
            f"Mozilla/5.0 (iPad; CPU OS 17_5 like Mac OS X) {KIT} CriOS/126.0 Mobile/15E148 Safari/604.1",
            ("Chrome", "iPad"),
        ),
        (f"Mozilla/5.0 (X11; CrOS x86_64 14541.0.0) {KIT} Chrome/126.0.0.0 Safari/537.36", ("Chrome", "ChromeOS")),
        ("python-requests/2.32.3", None),
        ("curl/8.5.0", None),
        ("", None),
        ("Mozilla/5.0", None),
        ("Mozilla/5.0 (X11; Linux x86_64", None),
        ("Mozilla/5.0 (Linux) Firefox on Windows", None),
        (f"Mozilla/5.0 {KIT} (compatible; Somebot/2.1; +http://x/bot) Chrome/126.0 Safari/537.36", None),
        (f"Mozilla/5.0 (X11; Linux x86_64) {KIT} Chrome/126.0 Safari/537.36 (compatible; Somebot/2.1)", None),
        ("Mozilla/5.0 (PlayStation 5) AppleWebKit/605.1.15 Safari/605.1.15", None),
    ],
)
def test_a_browser_and_its_system_are_told(user_agent, found):
    assert browser_of(user_agent) == found
