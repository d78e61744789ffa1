"""The comparison of failed log-ins: a small one runs, and whatever tells two kinds apart fails it."""

from __future__ import annotations

import io
import json
import subprocess
import sys

import pytest
from rich.console import Console

from bench.logins import Attempt, Series, comparable, is_whole, mann_whitney, show
from tests.support.gateway import ROOT

REFUSAL = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\n{}"


def series(unknown_ms: list[float], wrong_ms: list[float], unknown: bytes = REFUSAL, wrong: bytes = REFUSAL) -> Series:
    """With these times and answers."""
    return Series(
        "/login",
        [Attempt(ms / 1000, unknown) for ms in unknown_ms],
        [Attempt(ms / 1000, wrong) for ms in wrong_ms],
    )


def test_a_small_one_compares_both_routes_in_a_pipe_line_by_line():
    """What the times say of so few is chance; the answers are the same bytes however slow the machine."""
    command = [sys.executable, "-m", "bench.logins", "--count", "8"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    lines = [json.loads(line) for line in ended.stdout.splitlines()]
    assert [line["route"] for line in lines] == ["/login", "/api/auth/login"], ended.stderr
    for line in lines:
        assert (line["attempts_of_each"], line["different_answers"]) == (8, 1)
        assert 0 < line["unknown_p50_ms"] <= line["unknown_p95_ms"]
        assert 0 < line["wrong_p50_ms"] <= line["wrong_p95_ms"]
        assert 0 <= line["p"] <= 1
    apart = [line["route"] for line in lines if not 1 / 1.05 <= line["ratio"] <= 1.05]
    assert [line.partition(":")[0] for line in ended.stderr.splitlines()] == apart
    assert ended.returncode == bool(apart)


def test_a_terminal_gets_a_table_with_both_routes_side_by_side():
    text = io.StringIO()
    show([series([20] * 20, [21] * 20), series([30] * 20, [30] * 20)], Console(file=text, width=100))
    [medians] = [line for line in text.getvalue().splitlines() if "unknown p50" in line]
    assert medians.replace("│", " ").split() == ["unknown", "p50", "ms", "20.0", "30.0"]


def test_series_that_are_alike_have_no_fault():
    assert series([20, 21, 22] * 10, [20.5, 21.5, 22.5] * 10).faults() == []


@pytest.mark.parametrize(("unknown_ms", "wrong_ms"), [(20, 21.2), (21.2, 20), (1, 20)])
def test_medians_more_than_five_percent_apart_are_a_fault(unknown_ms, wrong_ms):
    [fault] = series([unknown_ms] * 20, [wrong_ms] * 20).faults()
    assert "medians differ" in fault


@pytest.mark.parametrize("other", [REFUSAL.replace(b"{}", b"[]"), REFUSAL.replace(b"Content", b"content")])
def test_one_byte_of_difference_is_a_fault(other):
    [fault] = series([20] * 20, [20] * 20, wrong=other).faults()
    assert "2 different answers" in fault


def test_answers_that_are_alike_but_no_refusal_of_a_log_in_are_a_fault():
    busy = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 2\r\n\r\n{}"
    [fault] = series([20] * 20, [20] * 20, busy, busy).faults()
    assert "other than 401" in fault


def test_only_the_date_and_the_request_id_are_left_out():
    head = b"HTTP/1.1 401 Unauthorized\r\ndate: now\r\nX-Request-Id: 1\r\nX-Date: x\r\nContent-Length: 4\r\n\r\n"
    assert comparable(head + b"date") == b"HTTP/1.1 401 Unauthorized\r\nX-Date: x\r\nContent-Length: 4\r\n\r\ndate"


def test_an_answer_is_whole_with_its_last_byte():
    assert [is_whole(REFUSAL[:length]) for length in (0, 10, len(REFUSAL) - 1, len(REFUSAL))] == [False] * 3 + [True]
    with pytest.raises(RuntimeError):
        is_whole(b"HTTP/1.1 401 Unauthorized\r\nTransfer-Encoding: chunked\r\n\r\n")


@pytest.mark.parametrize(
    ("a", "b", "p"),
    [  # of U = 0, 190 and 200, each with the mean 200 and the variance 20 * 20 * 41 / 12
        (list(range(1, 21)), list(range(21, 41)), 6.302e-08),
        (list(range(0, 40, 2)), list(range(1, 41, 2)), 0.7868),
        (list(range(20)), list(range(20)), 1.0),
    ],
)
def test_the_p_value_is_that_of_the_u_test(a, b, p):
    assert mann_whitney(a, b) == pytest.approx(p, rel=0.01)
