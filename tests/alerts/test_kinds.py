"""The table of kinds: where each begins and ends, and that its words fit what is asked."""

from __future__ import annotations

import re

from alerts.facts import Facts
from alerts.kinds import KINDS, OTHERS, AlertKind
from tests.support.gateway import ROOT
from tests.support.rows import each_row


@each_row("kind", KINDS.values(), ids=lambda kind: kind.name)
def test_what_begins_goes_on_and_its_end_is_no_beginning(kind: AlertKind):
    begun, over = (kind.begins * 0.999, kind.ends) if kind.falls else (kind.begins, kind.ends * 0.999)
    assert (kind.is_reached(begun), kind.holds(begun)) == (True, True)
    assert (kind.is_reached(over), kind.holds(over)) == (False, False)
    between = (kind.begins + kind.ends) / 2
    assert kind.begins == kind.ends or (kind.is_reached(between), kind.holds(between)) == (False, True)


@each_row("kind", KINDS.values(), ids=lambda kind: kind.name)
def test_each_kind_is_asked_by_a_method_and_explained_to_operators(kind: AlertKind):
    assert getattr(Facts, kind.ask.__name__) is kind.ask
    assert len(kind.name) <= 32
    assert f"| `{kind.name}` |" in (ROOT / "docs/alerts.md").read_text()
    assert re.fullmatch(r"[^{}]+\.", kind.advice) or kind.advice.endswith("?")


def test_many_of_a_kind_are_told_in_other_words():
    kind = KINDS["quota-80"]
    assert kind.words("user/7") == kind.sentence
    assert kind.words(OTHERS).format(count=9) == "It is so in 9 more places."
