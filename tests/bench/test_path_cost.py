"""What a call takes of the interpreter is what is written down, and whoever adds to it is told."""

from __future__ import annotations

import copy
import json
import subprocess
import sys

import pytest

from bench.path_cost import VERSION, WRITTEN_DOWN, cheaper, dearer, tables
from bench.path_counter import ORDER, STEPS, step_of
from tests.support.gateway import ROOT

KNOWN = json.loads(WRITTEN_DOWN.read_text())
# One encoding more for each record of the journal.
ONE_MORE = """
import json, os, sys, orjson, billing.journal as journal
from bench.path_cost import report
line_of = journal.line_of
journal.line_of = lambda record: {} and line_of(record)
status = report([])
sys.stderr.flush()
os._exit(status)
"""


def run(*arguments: str) -> tuple[int, str]:
    """Exit code, and what was said beside the gateway's own log."""
    command = [sys.executable, *arguments]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200, check=False)
    said = [line for line in ended.stderr.splitlines() if not line.startswith("{")]
    return ended.returncode, "\n".join(said)


def need_this_version() -> None:
    if VERSION not in KNOWN:
        pytest.skip(f"for Python {VERSION} nothing is written down: python -m bench.path_cost --update")


def test_a_call_takes_what_is_written_down():
    need_this_version()
    assert run("-m", "bench.path_cost") == (0, "")


@pytest.mark.parametrize("encoding", ["json.dumps", "orjson.dumps"])
def test_one_encoding_more_is_seen(encoding):
    need_this_version()
    status, said = run("-c", ONE_MORE.format(f"{encoding}(record)"))
    assert (status, f"a plain call uses {encoding} " in said) == (1, True), said


def test_what_is_dearer_by_more_than_three_percent_is_told_in_words():
    before = {"plain": {"bytecodes": 1000, "calls": 100, "outside": {"orjson.dumps": 2}}}
    for unit, amount, words in (
        ("bytecodes", 1030, []),
        ("bytecodes", 1031, ["a plain call takes 1031 bytecodes, 3.1 % more than 1000"]),
        ("calls", 104, ["a plain call takes 104 calls, 4.0 % more than 100"]),
        ("outside", {"orjson.dumps": 2}, []),
        ("outside", {"orjson.dumps": 3}, ["a plain call uses orjson.dumps 3 times instead of 2"]),
        ("outside", {"orjson.dumps": 2, "re.sub": 1}, ["a plain call uses re.sub 1 times instead of 0"]),
    ):
        now = copy.deepcopy(before)
        now["plain"][unit] = amount
        assert dearer(before, now) == words


def test_what_was_saved_is_to_be_written_down():
    before = {"plain": {"bytecodes": 1000}}
    assert [cheaper(before, {"plain": {"bytecodes": count}}) for count in (1000, 970, 969)] == [False, False, True]


def test_every_step_that_is_written_down_has_its_line():
    [counts, *_] = KNOWN.values()
    lines = tables(counts).splitlines()
    assert [line.split("|")[1].strip() for line in lines[2 : 2 + len(ORDER)]] == ORDER
    assert all(sum(numbers[0] for numbers in one["steps"].values()) == one["bytecodes"] for one in counts.values())


def test_a_function_belongs_to_its_step():
    for path, function, step in (
        ("billing/quotas/slices.py", "QuotaSlices.headers", "limits"),
        ("billing/quotas/slices.py", "QuotaSlices.reserve", "reserve"),
        ("billing/journal.py", "UsageJournal.append", "journal"),
        ("upstream/http.py", "Exchange._send", "send"),
        ("upstream/http.py", "Exchange._receive", "receive"),
        ("foundation/clock.py", "Clock.monotonic", None),
    ):
        assert step_of(path, function) == step
    for name in STEPS:
        path, _, function = name.partition(":")
        assert (ROOT / path).exists(), name
        assert not function or f"def {function.rpartition('.')[2]}(" in (ROOT / path).read_text(), name
