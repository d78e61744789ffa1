"""`make bench-peers`: this gateway beside nginx and other gateways, one after the other, pinned and loaded alike.

Each target has one core to itself; load and stand-in share another. Callers are known by a key, and each target keeps
what accounts it keeps by default; the table says what it leaves out. A target that is not installed is left out, and
how it is got is told. Other gateways are described by files in bench/peers; `--programs FOLDER` says where what you
have built is, each below its name.

    plain    chat completions of 0.9 kB over 32 keep-alive connections, each as fast as answers come
    latency  the same call, 500 a second whether or not answers come
    streams  300, then 1,000 at a time, 50 chunks each, ten a second; each compared with what was sent
    start    from the start of the program, on a database that exists, to the first right answer of a call; its memory
    cuts     what a client sees of a stream that closes, is reset, or ends in an error upstream

A wrong answer of this gateway fails the run (exit code 1), one of another is told in the table.
"""

from __future__ import annotations

import argparse
import gc
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from bench import chart, measures, report
from bench.cuts import BREAKS, seen
from bench.gateway import collect, names
from bench.load import question, run
from bench.peer import Peer, all_peers, until_right
from bench.processes import Cores, pin, raise_open_files
from bench.set_up import Bench, Target

OURS = ["granian", "gunicorn"]
STREAMS = [300, 1000]


@dataclass(frozen=True)
class Candidate:
    """Something to measure: its name, and how it runs; `took` gets the seconds to its first right answer."""

    name: str
    running: Callable[[list[float]], AbstractContextManager[Target]]
    leaves_out: str
    version: str = ""


def direct(bench: Bench) -> Candidate:
    """The stand-in itself: the part of each figure that is no gateway's."""

    @contextmanager
    def running(_took: list[float]) -> Iterator[Target]:
        yield bench.stand_in

    return Candidate("direct", running, "all: the stand-in itself")


def ours(bench: Bench, server: str) -> Candidate:
    """This gateway under one of its servers."""

    @contextmanager
    def running(took: list[float]) -> Iterator[Target]:
        begun = time.perf_counter()
        with bench.gateway(server) as target:
            until_right(target.program, target.port, question(target.way, 0), time.monotonic() + 60)
            took.append(time.perf_counter() - begun)
            yield target

    return Candidate(server, running, "nothing")


def of_peer(bench: Bench, peer: Peer, program: str) -> Candidate:
    """Another gateway."""
    return Candidate(
        peer.name, lambda took: peer.running(program, bench, took), peer.leaves_out, peer.version_of(program)
    )


def measured(bench: Bench, candidate: Candidate, scale: measures.Scale, streams: list[int]) -> Iterator[report.Result]:
    """All figures of one candidate; each measure begins with a fresh program."""

    def result(measure: str, figures: measures.Figures) -> report.Result:
        return report.Result(measure, candidate.name, figures)

    for name in ("plain", "latency"):
        with candidate.running([]) as target:
            yield result(name, measures.WITH_DIRECT[name](target, bench, scale))
    for count in streams:
        with candidate.running([]) as target:
            of_count = measures.Scale(scale.seconds, count, scale.rate)
            yield result(f"{count} streams", measures.streams(target, bench, of_count))
    took: list[float] = []
    with candidate.running(took) as target:
        memory = target.program.memory_mb()
        if took:
            yield result("start", {"seconds": took[0], **memory, "wrong": 0})
        cuts = {how: run(seen(target.port, target.way, model)) for how, model in BREAKS.items()}
        yield result("cuts", {**cuts, "wrong": 0})


def rows_of(streams: list[int]) -> list[report.Row]:
    """The rows of the table."""
    rows = [
        report.Row("plain", "cpu_us_per_request", "CPU per request", "µs", against="x"),
        report.Row("plain", "requests_per_second", "requests per second, one core", against="x"),
        report.Row("latency", "latency_p50_ms", "latency p50 at a fixed rate", "ms", 2, "+"),
        report.Row("latency", "latency_p99_ms", "latency p99 at a fixed rate", "ms", 2, "+"),
    ]
    for count in streams:
        measure = f"{count} streams"
        rows += [
            report.Row(measure, "streams_whole", "whole"),
            report.Row(measure, "cpu_us_per_chunk", "CPU per chunk", "µs", 1, "x"),
            report.Row(measure, "first_token_p50_ms", "first token p50", "ms", 1, "+"),
            report.Row(measure, "first_token_p99_ms", "first token p99", "ms", 1, "+"),
            report.Row(measure, "gap_p99_ms", "gap between chunks p99 (100 is right)", "ms", 1),
            report.Row(measure, "rss_mb", "memory (RSS)", "MB"),
        ]
    rows += [
        report.Row("start", "seconds", "start to the first right answer", "s", 2),
        report.Row("start", "rss_mb", "memory then (RSS)", "MB"),
        *[report.Row("cuts", how, f"a stream that ends in: {how}") for how in BREAKS],
    ]
    measured_ones = dict.fromkeys(row.measure for row in rows)
    rows += [report.Row(name, "wrong", "wrong answers") for name in measured_ones if name not in {"start", "cuts"}]
    return [*rows, report.Row("target", "version", "version"), report.Row("target", "leaves_out", "leaves out")]


def candidates(bench: Bench, only: list[str], programs: Path | None, tell: Callable[[str], None]) -> list[Candidate]:
    """What is to be measured and can be; of the others is told how they are got."""
    found = [direct(bench)] if "direct" in only else []
    for peer in all_peers():
        if peer.name not in only:
            continue
        if program := peer.program(programs):
            found.append(of_peer(bench, peer, program))
        else:
            tell(f"{peer.name} is not installed ({peer.install}); it is left out")
    found += [ours(bench, server) for server in OURS if server in only]
    return sorted(found, key=lambda one: only.index(one.name))


def results_of(
    bench: Bench, found: list[Candidate], scale: measures.Scale, streams: list[int]
) -> Iterator[report.Result]:
    """One candidate after the other. One that does not start, or breaks, has one line that says so."""
    for one in found:
        about = {"version": one.version, "leaves_out": one.leaves_out, "wrong": 0}
        yield report.Result("target", one.name, about)
        try:
            yield from measured(bench, one, scale, streams)
        except (RuntimeError, OSError) as error:
            yield report.Result("failed", one.name, {"wrong": 1, "examples": f"{type(error).__name__}: {error}"})


PANELS = {
    "CPU of a plain call, µs": ("plain", "cpu_us_per_request"),
    "CPU of a chunk of 1,000 streams, µs": ("1000 streams", "cpu_us_per_chunk"),
    "First token of 1,000 streams, p99, ms": ("1000 streams", "first_token_p99_ms"),
}


def panels_of(results: list[report.Result]) -> dict[str, dict[str, float]]:
    """The figures of the chart, of targets whose answers were all right; panels without any are left out."""
    found = {
        title: {
            result.target: float(value)
            for result in results
            if result.measure == measure and not result.figures["wrong"] and (value := result.figures[figure])
        }
        for title, (measure, figure) in PANELS.items()
    }
    return {title: figures for title, figures in found.items() if figures}


def options_from(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    default, known = measures.Scale(), ["direct", "nginx", *OURS]
    known += [peer.name for peer in all_peers() if peer.name not in known]
    parser = argparse.ArgumentParser(prog="python -m bench.side_by_side", description="Measure gateways side by side.")
    parser.add_argument("--only", type=names(known), default=known, help=",".join(known))
    parser.add_argument("--programs", type=Path, help="folder with a folder for each gateway that is not on the PATH")
    parser.add_argument("--seconds", type=float, default=default.seconds, help="of plain and latency")
    parser.add_argument("--rate", type=float, default=default.rate, help="requests a second of `latency`")
    parser.add_argument("--streams", type=int, nargs="*", default=STREAMS, help="open at a time, for each measure")
    parser.add_argument("--results", type=Path, default=report.FOLDER, help="folder for peers.json, .md and .svg")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparison; returns the exit code."""
    options = options_from(arguments)
    scale = measures.Scale(options.seconds, 0, options.rate)
    cores, console = Cores.choose(), Console()
    gc.disable()  # a collection in the load generator would look like a slow answer
    raise_open_files()
    pin(cores.load)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that nothing outlives us
    with tempfile.TemporaryDirectory(prefix="peers-bench-") as folder:
        bench = Bench(cores, Path(folder), server_threads=max([1000, *options.streams]) + 100)
        try:
            with bench.stand_in_running():
                found = candidates(bench, options.only, options.programs, lambda text: print(text, file=sys.stderr))
                total = len(found) * (len(options.streams) + 5)
                results = collect(results_of(bench, found, scale, options.streams), total, console)
        except KeyboardInterrupt:
            return 130
    form = report.Form("peers", "Gateways side by side", "make bench-peers", "nginx", rows_of(options.streams))
    scales = {"seconds": options.seconds, "rate": options.rate}
    whole = report.Report(results, report.describe_machine(cores), scales, form)
    whole.write(options.results)
    (options.results / "peers.svg").write_text(chart.bars(panels_of(results), set(OURS)), encoding="utf-8")
    if console.is_terminal:
        whole.show(console)
    return 1 if any(result.figures["wrong"] for result in results if result.target in OURS) else 0


if __name__ == "__main__":
    sys.exit(main())
