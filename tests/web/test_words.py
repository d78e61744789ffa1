"""The pages' words in other languages: every text of every template, with the same parts, and none that is not used."""

from __future__ import annotations

import re

import pytest

from accounts.users import UserRole, UserState
from alerts.kinds import KINDS, OTHERS_SENTENCE
from alerts.messages import BEGAN, ENDED, GIVEN_UP, SENT, WAITING
from billing.daily_check_rows import Verdict
from billing.reports.row_filter import Ending
from pool.life import PoolKeySource, PoolKeyState
from pool.overview import SEVERITY
from tests.support.gateway import ROOT
from tests.web.pages.test_field_faults import all_said
from web.words import LANGUAGES, translate, words

TEXT = re.compile(r"""\bt\(\s*(["'])(.+?)\1""")
LISTED = re.compile(r"""\(\s*"[^"]+",\s*"([A-Z][^"]*)"\s*\)""")  # in lists of (value, "Name"), shown by t(name)
PART = re.compile(r"\{(\w+)\}")
OTHERS = sorted(set(LANGUAGES) - {"en"})
# Of the service itself, which templates show by their values.
VALUES = {"day", "week", "month", "none", "active", "expired", "revoked", "reset", "steady"}
VALUES |= {*PoolKeyState, *PoolKeySource, *UserState, *UserRole, *SEVERITY}
VALUES |= {"degraded", "unavailable", "unreachable", "off", "behind", "empty", "wrong"}  # of GET /api/health
VALUES |= {*Verdict, "silent"}
VALUES |= {text for kind in KINDS.values() for text in (kind.title, kind.sentence, kind.advice)} | {OTHERS_SENTENCE}
VALUES |= {BEGAN, ENDED, SENT, WAITING, GIVEN_UP}  # of alerts
VALUES |= {*Ending}  # how requests end


def texts() -> set[str]:
    found = VALUES | all_said()
    for path in (ROOT / "web/templates").glob("*.html"):
        source = path.read_text("utf-8")
        found |= {match[2] for match in TEXT.finditer(source)} | {match[1] for match in LISTED.finditer(source)}
    return found


@pytest.mark.parametrize("language", OTHERS)
def test_every_text_is_translated_and_nothing_else(language):
    assert texts() - words(language).keys() == set()
    # Some stand in tables of the views, and some are values of the service itself.
    files = [path for room in ("pool", "monitor", "web") for path in (ROOT / room).rglob("*.py")]
    files += [*ROOT.glob("web/templates/*.html"), *ROOT.glob("*.py")]
    sources = "".join(path.read_text("utf-8") for path in files)
    unused = {text for text in words(language).keys() - texts() if text not in sources}
    assert unused <= {"active", "silenced", "disabled", "user", "admin", "service", "valid", "suspect", "refused"}


@pytest.mark.parametrize("language", OTHERS)
def test_a_translation_has_the_parts_of_its_text(language):
    for text, translated in words(language).items():
        assert sorted(PART.findall(translated)) == sorted(PART.findall(text)), text
        assert translated.strip()


def test_what_is_missing_is_english_and_parts_are_filled_in():
    assert translate("not there", "zh") == "not there"
    assert translate("of {limit}", "en", limit="$1") == "of $1"
    assert translate("Log in", "zh") != "Log in"
    assert words("en") == {}
