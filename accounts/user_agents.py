"""What a browser calls itself, in the two words that people know it by."""

from __future__ import annotations

# By what stands in their User-Agent, in this order: each after those that pretend to be it too.
BROWSERS = {
    "Edg/": "Edge",
    "EdgA/": "Edge",
    "EdgiOS/": "Edge",
    "OPR/": "Opera",
    "SamsungBrowser/": "Samsung Internet",
    "Firefox/": "Firefox",
    "FxiOS/": "Firefox",
    "CriOS/": "Chrome",
    "HeadlessChrome/": "Chromium",
    "Chromium/": "Chromium",
    "Chrome/": "Chrome",
    "Safari/": "Safari",
}
SYSTEMS = {
    "Android": "Android",
    "iPhone": "iPhone",
    "iPad": "iPad",
    "Windows NT": "Windows",
    "CrOS": "ChromeOS",
    "Macintosh": "macOS",
    "Linux": "Linux",
}


def browser_of(user_agent: str) -> tuple[str, str] | None:
    """The browser and its system; None for programs, and for what neither is known of."""
    begin, _, rest = user_agent.partition(" (")
    system, _, browser = rest.partition(")")
    if begin != "Mozilla/5.0" or "compatible" in user_agent:  # as crawlers call themselves
        return None
    browsers = [name for sign, name in BROWSERS.items() if sign in browser]
    systems = [name for sign, name in SYSTEMS.items() if sign in system]
    return (browsers[0], systems[0]) if browsers and systems else None
