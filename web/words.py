"""The words of the pages in other languages, by the English ones. A text that is missing is shown in English."""

from __future__ import annotations

import json
from functools import cache

from config.settings import ROOT

LANGUAGES = {"en": "English", "zh": "中文"}


@cache
def words(language: str) -> dict[str, str]:
    """The texts of a language, by the English ones."""
    if language == "en":
        return {}
    found: dict[str, str] = json.loads((ROOT / "web/translations" / f"{language}.json").read_text("utf-8"))
    return found


def translate(text: str, language: str, **parts: object) -> str:
    """A text in a language; `{name}` in it is replaced by the part of this name."""
    found = words(language).get(text, text)
    return found.format(**parts) if parts else found
