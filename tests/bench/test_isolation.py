"""The measure of what a bad caller does to others: a small one runs, and a good call that fails is seen and fails it."""

from __future__ import annotations

import asyncio
import http.server
import io
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import httptools
import pytest
from rich.console import Console

from bench import good_callers, memory_limit
from bench.bad_caller import BAD, BY_ANSWERS, BY_CALLERS
from bench.good_callers import Seen
from bench.isolation import Row, show
from bench.odd_stand_in import SCRIPTS
from sandbox.openrouter_faults import ROWS
from tests.support.gateway import ROOT
from tests.support.rows import each_row


def test_a_small_one_says_in_a_pipe_what_good_callers_saw():
    """How soon is the machine's; that a call fails is the gateway's, and the exit code says so."""
    command = [sys.executable, "-m", "bench.isolation", "--quick", "400"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    [line] = [json.loads(line) for line in ended.stdout.splitlines()]
    assert (line["row"], line["bad_caller_is_ready"]) == ("400", True), ended.stderr
    assert line["calls"] > good_callers.COUNT
    assert 0 < line["undisturbed_p50_ms"] <= line["undisturbed_p99_ms"]
    assert line["pss_mb"] > 10
    assert ended.returncode == bool(line["failed"])


def row(before: Seen, during: Seen) -> Row:
    return Row("tree", before, during, True, 0)


def test_a_call_that_fails_is_told_and_marked():
    quiet = Seen([0.01] * 99 + [0.02], [], [0.003], 90.0)
    one = row(quiet, Seen([0.01, 0.05], ["503, whole: no"], [0.2], 600.0))
    figures = one.figures()
    assert (figures["calls"], figures["failed"], figures["examples"]) == (3, 1, ["503, whole: no"])
    assert (figures["undisturbed_p99_ms"], figures["p99_ms"], figures["slower"]) == (20.0, 50.0, 2.5)
    assert one.failed
    assert not row(quiet, quiet).failed
    text = io.StringIO()
    show([one], Console(file=text, width=160, force_terminal=True, color_system="standard"))
    red = "\x1b[1;31m"
    assert all(f"{red}{figure}" in text.getvalue() for figure in ("1", "2.5", "600"))
    assert "tree: failed: 503, whole: no" in text.getvalue()


class Refuses(http.server.BaseHTTPRequestHandler):
    """A gateway at its end: whatever one asks for, it has no time."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.do_GET()

    def do_GET(self) -> None:
        self.send_response(503)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"no")

    def log_message(self, *_words: Any) -> None:
        pass


@pytest.fixture
def refusing_port() -> Iterator[int]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refuses) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def watched(port: int, tokens: list[str], pss_mb: float) -> Seen:
    """In a thread: the browser of other tests keeps a loop of its own in this one."""
    program: Any = SimpleNamespace(memory_mb=lambda: {"rss_mb": pss_mb})
    with ThreadPoolExecutor(1) as threads:
        return threads.submit(lambda: asyncio.run(good_callers.watch(port, tokens, program, 0.1))).result()


def test_good_callers_see_refusals_and_a_health_that_is_none(refusing_port):
    seen = watched(refusing_port, ["a", "b"], 7.0)
    assert seen.first_byte == []
    assert set(seen.failed) == {"503, whole: no"}
    assert set(seen.health) == {good_callers.PATIENCE_SECONDS}
    assert seen.pss_mb == 7.0


def test_a_gateway_that_has_ended_is_a_failure_too():
    seen = watched(1, ["a"], 0.0)
    assert set(seen.failed) == {"no answer, not whole: "}


class Whole:
    is_whole = False

    def on_message_complete(self) -> None:
        self.is_whole = True


@each_row("name", SCRIPTS)
def test_each_odd_answer_is_whole(name):
    """Odd by what it says, not by how it is sent."""
    whole = Whole()
    parser = httptools.HttpResponseParser(whole)
    for step in SCRIPTS[name]:
        if isinstance(step, bytes):
            parser.feed_data(step)
    assert whole.is_whole
    assert parser.get_status_code() == 200


def test_rows_are_what_callers_do_and_what_models_answer():
    assert set(BAD) == BY_CALLERS.keys() | BY_ANSWERS.keys()
    assert not BY_CALLERS.keys() & BY_ANSWERS.keys()
    assert {"429c", "502", "402a", "403c"} & BAD.keys() == {"429c", "502"}  # our own key and account rest rightly
    assert BAD.keys() - BY_CALLERS.keys() <= SCRIPTS.keys() | ROWS.keys()


def test_who_takes_more_memory_than_the_group_has_is_ended():
    with memory_limit.group(64) as group:
        if group is None:
            pytest.skip("no control group can be made here")
        script = "import sys; sys.stdin.readline(); data = bytearray(b'x') * 256_000_000"
        process = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE)
        group.take(process.pid)
        process.communicate(b"\n", timeout=60)
        assert process.returncode == -9
        assert group.kills() == 1
