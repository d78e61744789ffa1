"""Every path of OpenRouter's document: carried, answered, or refused for a reason, and docs/api.md says which."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

from werkzeug.exceptions import HTTPException
from werkzeug.routing import RequestRedirect

from config.settings import ROOT
from serving.door import PATHS
from serving.wrong_paths import why_not_carried
from tests.support.api_world import flask_app
from tests.support.gateway import Gateway

# The paths of OpenRouter's document with their methods, as of November 2026.
DOCUMENTED: dict[str, list[str]] = json.loads(Path(ROOT, "docs", "openrouter-paths.json").read_text())
BASES = ("/v1", "/api/v1")
HEADER = "| path below `/v1` | | |\n|---|---|---|\n"


def state_of(path: str, method: str) -> str:
    """Whether a path is `carried` to OpenRouter as a model call, `answered`, or `refused`."""
    concrete = re.sub(r"\{\w+\}", "x", path)
    if method == "POST" and any(f"{base}{path}" in PATHS for base in BASES):
        return "carried"
    routes = flask_app().url_map.bind("here")
    for base in BASES:
        try:
            routes.match(f"{base}{concrete}", method)
        except (HTTPException, RequestRedirect):
            continue
        return "answered"
    return "refused"


def row_of(path: str, methods: list[str]) -> str:
    states: dict[str, list[str]] = {}
    for method in methods:
        states.setdefault(state_of(path, method), []).append(method)
    told = "; ".join(f"{', '.join(names)} {state}" for state, names in states.items())
    reason = why_not_carried(path) if "refused" in states else None
    assert ("refused" in states) == (reason is not None), f"{path} is refused without a reason"
    return f"| `{path}` | {told} | {reason or ''} |"


def test_the_table_of_the_documents_paths_is_what_happens() -> None:
    table = HEADER + "\n".join(row_of(path, methods) for path, methods in DOCUMENTED.items())
    assert len(DOCUMENTED) == 73
    assert table in Path(ROOT, "docs", "api.md").read_text(), f"docs/api.md must have this table:\n{table}"


def test_a_path_that_is_refused_says_why(gateway: Callable[..., Gateway]) -> None:
    """Whoever asks, below both base URLs; nothing is sent to OpenRouter."""
    for path, methods in DOCUMENTED.items():
        if all(state_of(path, method) == "refused" for method in methods):
            for base in BASES:
                answer = gateway.ask("GET", base + re.sub(r"\{\w+\}", "x", path))
                assert (answer.status_code, answer.json()["error"]["message"]) == (404, why_not_carried(path)), path
