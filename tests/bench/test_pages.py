"""The measure of pages: a small one runs, and what is slow, wrong or missing fails it."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import closing

import pytest

from bench.ledger_rows import BIG_USER, SMALL_USER
from bench.pages import GOAL_MS, WHO, Browser, Found, Page, faults, markdown
from bench.set_up import WrongStatus
from tests.support.gateway import ROOT, new_derived_key

ROWS, TURNS = 20_000, 2


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    """A small measure, in a pipe, with the folder of its results."""
    folder = tmp_path_factory.mktemp("results")
    command = [sys.executable, "-m", "bench.pages", "--rows", str(ROWS), "--turns", str(TURNS)]
    command += ["--buffer-pool", "64M", "--folder", str(folder)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=500, check=False), folder


def test_a_small_one_measures_every_page_in_a_pipe_line_by_line(ended):
    """How soon the pages of so few requests are there is the machine's; that their sums are right, it says itself."""
    process, _folder = ended
    lines = [json.loads(line) for line in process.stdout.splitlines()]
    assert {line["visitor"] for line in lines} == set(WHO.values()), process.stderr
    named = [line["page"] for line in lines if line["visitor"] == WHO[BIG_USER]]
    assert len(set(named)) == len(named)
    assert {"dashboard, 366 days", "operator's overview, 30 days", "operator's log, everybody, page 1,000"} < set(named)
    for line in lines:
        assert 0 < line["p50_ms"] <= line["p95_ms"] <= line["max_ms"]
        assert line["kb"] > (0.1 if "CSV" in line["page"] else 2)
    slow = [line["page"] for line in lines if line["p95_ms"] >= GOAL_MS]
    assert [fault.partition(": p95")[0] for fault in process.stderr.splitlines()] == slow
    assert process.returncode == bool(slow)


def test_its_results_are_written_for_machines_and_for_people(ended):
    process, folder = ended
    results = json.loads((folder / "pages.json").read_text())
    assert [results["rows"], results["turns"]] == [ROWS, TURNS]
    assert results["pages"] == [json.loads(line) for line in process.stdout.splitlines()]
    text = (folder / "pages.md").read_text()
    assert text == markdown(results, results["machine"])
    assert all(f"| {page['page']} |" in text for page in results["pages"])


def test_percentiles_are_of_all_times_and_the_first_is_told_apart():
    found = Found(Page("keys", SMALL_USER, "/keys"), [0.5, *[0.01] * 27, 0.03, 0.02], 1500)
    figures = found.figures()
    assert [figures[name] for name in ("p50_ms", "p95_ms", "max_ms", "first_ms", "kb")] == [10, 30, 500, 500, 1.5]


@pytest.mark.parametrize(("p95_ms", "is_fault"), [(GOAL_MS - 0.1, False), (GOAL_MS, True), (GOAL_MS + 0.1, True)])
def test_a_page_that_is_not_below_the_goal_is_a_fault(p95_ms, is_fault):
    page = {"page": "keys", "visitor": WHO[SMALL_USER], "p95_ms": p95_ms}
    assert bool(faults({"pages": [page]})) == is_fault


def test_a_refused_page_and_one_that_shows_another_sum_end_the_measure(start, stand_in):
    gateway = start(OPENROUTER_API_URL=stand_in.address, OPENROUTER_API_KEYS=stand_in.new_key()["key"])
    account = {"username": "somebody@bench.test", "derived_key": new_derived_key()}
    assert gateway.post("/register", account).status_code == 201
    with closing(Browser(gateway.port)) as browser:
        browser.enter(SMALL_USER, account)
        seconds, content = browser.ask(Page("dashboard", SMALL_USER, "/dashboard", ">0<"))
        assert seconds > 0
        assert content.endswith(b"</html>")
        with pytest.raises(WrongStatus, match="answered 200, or without '>10,000,000<'"):
            browser.ask(Page("dashboard", SMALL_USER, "/dashboard", ">10,000,000<"))
        with pytest.raises(WrongStatus, match="answered 403"):
            browser.ask(Page("operator's overview", SMALL_USER, "/operator"))
        with pytest.raises(WrongStatus, match="without 'settled'"):
            browser.ask(Page("CSV", SMALL_USER, "/dashboard/requests.csv", "settled", is_file=True))
