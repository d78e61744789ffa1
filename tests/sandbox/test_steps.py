"""Steps with times: one line that counts on a terminal, plain lines in a pipe."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import threading

from tests.support.gateway import ROOT, wait_for

STEP = """
import sys
from sandbox import steps
steps.ELSEWHERE_SECONDS = 0.1
with steps.Step("2/4 Installing 7 packages", is_alone={alone}) as step:
    step.note("3 of 7, flask")
    input()
"""
TICK = "2/4 Installing 7 packages: 3 of 7, flask, "


def shown(alone: bool, terminal: bool) -> str:
    """What a step writes while it waits for a line and then ends; the line is sent once its note is to be seen."""
    ours, theirs = pty.openpty() if terminal else os.pipe()
    command = [sys.executable, "-c", STEP.format(alone=alone)]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=theirs)
    os.close(theirs)
    said: list[str] = []

    def read() -> None:
        try:
            while part := os.read(ours, 4096):
                said.append(part.decode())
        except OSError:  # how a terminal says that nobody is at its other end
            pass

    reader = threading.Thread(target=read)
    reader.start()
    wait_for(lambda: TICK in "".join(said))
    process.communicate(b"\n", timeout=30)
    reader.join(30)
    os.close(ours)
    return "".join(said)


def test_a_pipe_gets_plain_lines():
    lines = shown(alone=True, terminal=False).splitlines()
    assert lines[0] == "2/4 Installing 7 packages ..."
    assert all(re.fullmatch(re.escape(TICK) + r"\d+\.\d s", line) for line in lines[1:-1])
    assert re.fullmatch(r"2/4 Installing 7 packages: done after \d+\.\d s", lines[-1])


def test_a_terminal_gets_one_line_that_counts():
    said = shown(alone=True, terminal=True)
    assert said.count("\n") == 1
    assert said.count("\r\x1b[K") >= 2
    assert re.search(r"\r\x1b\[K2/4 Installing 7 packages: done after \d+\.\d s\r?\n$", said)


def test_nothing_counts_between_the_lines_of_others():
    assert "\x1b" not in shown(alone=False, terminal=True)
