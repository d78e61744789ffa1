"""Gateways side by side: a small run, the descriptions of other gateways, and what is said of a stream that breaks."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from bench import chart
from bench.cuts import BREAKS, verdict
from bench.load import Way, question
from bench.peer import Peer, all_peers, filled
from bench.report import Result
from bench.side_by_side import panels_of
from bench.streams import Shape, Stream, judge_of, text_of
from sandbox.openrouter_answers import filler
from tests.support.gateway import ROOT
from tests.support.rows import each_row

VALUES = {"port", "folder", "token", "admin", "keys", "upstream", "upstream_of_v1", "upstream_host"}
VALUES |= {f"key{number}" for number in range(10)}
REWRITING = Way("/v1", "t", rewrites=True)


def answered(body: bytes, status: int = 200, whole: bool = True) -> Stream:
    """A stream that has ended."""
    stream = Stream(b"", lambda: None)
    stream.status, stream.whole, stream.parts = status, whole, [body]
    return stream


def chunk(text: str) -> bytes:
    """An event as another gateway may write it."""
    return b"data: " + json.dumps({"id": "own", "choices": [{"delta": {"content": text}}]}).encode() + b"\n\n"


def test_a_small_one_measures_in_a_pipe_line_by_line_and_draws(tmp_path):
    """nginx is one of the suite's servers; a gateway that is not installed is left out, and how to get it is told."""
    only = "direct,nginx,bifrost"
    command = [sys.executable, "-m", "bench.side_by_side", "--only", only, "--seconds", "0.3", "--rate", "50"]
    command += ["--streams", "3", "--results", str(tmp_path)]
    path = {"PATH": "/usr/sbin:/usr/bin:/bin"}  # what else may be installed is not there
    ended = subprocess.run(command, cwd=ROOT, env=path, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 0, ended.stderr
    assert "bifrost is not installed (a binary of" in ended.stderr
    lines = [json.loads(line) for line in ended.stdout.splitlines()]
    measures = ["target", "plain", "latency", "3 streams", "start", "cuts"]
    assert [line["measure"] for line in lines if line["target"] == "nginx"] == measures
    assert sum(line["wrong"] for line in lines) == 0
    [cuts] = [line for line in lines if (line["measure"], line["target"]) == ("cuts", "nginx")]
    assert {how: cuts[how] for how in BREAKS} == {
        "closed": "broken transfer",
        "reset": "broken transfer",
        "error": "error event",
    }
    table = (tmp_path / "peers.md").read_text()
    assert re.search(r"\| plain \| CPU per request \| \d+ µs \(× [\d.]+\) \| \d+ µs \|", table), table
    assert "keys of users, retries, log, accounts" in table
    assert ElementTree.parse(tmp_path / "peers.svg").getroot().tag.endswith("svg")
    assert json.loads((tmp_path / "peers.json").read_text())["results"] == lines


@each_row("peer", all_peers(), ids=lambda peer: peer.name)
def test_a_description_names_only_what_it_is_given(peer):
    taken = {name for step in peer.set_up for name in step.get("take", {})}
    texts = json.dumps([peer.command, peer.token, peer.headers, peer.environment, peer.files, peer.set_up])
    assert set(re.findall(r"@(\w+)", texts)) <= VALUES | taken
    assert peer.leaves_out


def test_a_field_or_a_value_that_there_is_not_is_refused():
    with pytest.raises(TypeError, match="comand"):
        Peer(name="x", comand=[])
    with pytest.raises(KeyError, match="prot"):
        filled({"a": ["@port", "@prot"]}, {"port": "1"})
    assert filled({"a": ["@port$x{}", "@id", 7]}, {"port": "1", "id": 2}) == {"a": ["1$x{}", 2, 7]}


def test_a_program_is_found_below_its_own_name_first(tmp_path):
    peer = Peer("some", ["sh"], "/", "", "")
    own = tmp_path / "some" / "bin" / "sh"
    own.parent.mkdir(parents=True)
    own.touch(0o755)
    assert peer.program(tmp_path) == str(own)
    assert Path(peer.program(None) or "").name == "sh"
    assert Peer("some", ["no-such-program"], "/", "", "").program(tmp_path) is None


def test_where_answers_are_rewritten_their_text_must_be_what_was_sent():
    shape = Shape(1, 5)
    judge = judge_of(shape, REWRITING)
    pieces = filler(5, False).pieces
    right = b"".join(map(chunk, pieces)) + b"data: [DONE]\n\n"
    assert text_of(right) == "".join(pieces)
    assert judge(answered(right)) == ""
    assert judge(answered(b"".join(map(chunk, pieces[:-1])) + b"data: [DONE]\n\n"))
    assert judge(answered(right, whole=False))
    assert judge_of(shape, Way("/v1", "t"))(answered(right)), "without that, every byte counts"


def test_a_rewritten_answer_is_right_if_it_is_that_clients_own():
    _, is_right = question(REWRITING, 3)
    assert is_right(200, b'{ "usage": {}, "text": "I am client 3. " }')
    assert not is_right(200, b'{ "usage": {}, "text": "I am client 4. " }')
    assert not is_right(502, b'{ "usage": {}, "text": "I am client 3. " }')


@pytest.mark.parametrize(
    ("body", "status", "whole", "said"),
    [
        (chunk("a"), 200, False, "broken transfer"),
        (chunk("a"), 200, True, "ends properly: looks whole"),
        (chunk("a") + b"data: [DONE]\n\n", 200, True, "[DONE]: looks whole"),
        (chunk("a") + b'data: {"error":{}}\n\ndata: [DONE]\n\n', 200, True, "error event"),
        (b"", 502, True, "status 502"),
    ],
)
def test_how_a_broken_stream_looks_is_said_in_words(body, status, whole, said):
    assert verdict(answered(body, status, whole)) == said


def test_the_chart_has_only_targets_whose_answers_were_right_the_best_first():
    figures = {"nginx": 20.0, "granian": 400.0, "fast and wrong": 1.0}
    results = [
        Result("plain", name, {"cpu_us_per_request": us, "wrong": int(us == 1.0)}) for name, us in figures.items()
    ]
    panels = panels_of(results)
    assert panels == {"CPU of a plain call, µs": {"nginx": 20.0, "granian": 400.0}}
    drawn = chart.bars(panels, {"granian"})
    assert drawn.index("nginx") < drawn.index("granian")
    widths = [int(width) for width in re.findall(r'<rect[^>]* width="(\d+)"', drawn)]
    assert widths == [25, 500]
    assert len(re.findall('class="ours"', drawn)) == 1
