"""Whose client has sent a request, where that shows before it is read: errors are in the form that it understands."""

from __future__ import annotations

import re
from typing import Any

from formats.chat import ModelApi
from formats.registry import CHAT, MESSAGES

ANTHROPICS_OWN = re.compile(r"(?:/api)?/v1/messages(?:/.*)?")
SHARED = re.compile(r"(?:/api)?/v1/models(?:/.*)?")


def speaks_anthropic(environ: dict[str, Any]) -> bool:
    """True on Anthropic's own paths, and where clients of all kinds ask, for those that name a version of its API."""
    path: str = environ["PATH_INFO"]
    return bool(ANTHROPICS_OWN.fullmatch(path) or (environ.get("HTTP_ANTHROPIC_VERSION") and SHARED.fullmatch(path)))


def format_of_errors(environ: dict[str, Any]) -> ModelApi:
    """The format whose errors and request ids this client reads."""
    return MESSAGES if speaks_anthropic(environ) else CHAT
