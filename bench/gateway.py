"""`make bench`: what the gateway costs, beside calls that go straight to the stand-in for OpenRouter.

Method. The gateway runs as in production: `python app.py` with APP_ENV=production, SQLite, a registered user's token,
ten keys in the pool, logging at INFO into a file. It is alone on one core. The load generator and the stand-in share
another, so that they take nothing from the gateway; they are often the bottleneck, and therefore the figure to compare
is CPU per request (user and system time of the gateway's whole process tree divided by right answers), not requests
per second. Every measure starts a fresh gateway. "direct" is the same load on the stand-in itself: the part of every
latency that is not the gateway's.

    plain    POST /v1/chat/completions, 0.9 kB answers, 32 keep-alive connections, each as fast as answers come
    streams  1,000 streams at a time, 50 chunks, 10 a second; each compared byte by byte with what was sent
    latency  the same call as in `plain`, 500 a second whether or not answers come
    startup  from `python app.py` to the first 200 of /api/health, on an existing database
    login    POST /login by 8 clients, then 100 in the same instant

It fails (exit code 1) for wrong answers only, never for slowness. Nothing leaves the loopback interface. While it runs,
`others` is the share of the two cores that strangers took: above a few percent, run it again.
"""

from __future__ import annotations

import argparse
import gc
import json
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from bench import measures, report
from bench.processes import Cores, pin
from bench.set_up import Bench

SERVERS = ["granian", "gunicorn"]
DIRECT = "direct"


def names(known: list[str]) -> Callable[[str], list[str]]:
    """A type of argument: names out of a list, separated by commas."""

    def read(text: str) -> list[str]:
        chosen = [name for name in text.split(",") if name]
        if not chosen or set(chosen) - set(known):
            raise argparse.ArgumentTypeError(f"choose from {','.join(known)}")
        return chosen

    return read


def options_from(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    default = measures.Scale()
    parser = argparse.ArgumentParser(prog="python -m bench.gateway", description="Measure the gateway on two cores.")
    parser.add_argument("--only", type=names(measures.NAMES), default=measures.NAMES, help=",".join(measures.NAMES))
    parser.add_argument("--servers", type=names(SERVERS), default=SERVERS, help=",".join(SERVERS))
    parser.add_argument("--seconds", type=float, default=default.seconds, help="of plain, latency and login")
    parser.add_argument("--streams", type=int, default=default.streams, help="open at a time")
    parser.add_argument("--rate", type=float, default=default.rate, help="requests a second of `latency`")
    parser.add_argument("--results", type=Path, default=report.FOLDER, help="folder for gateway.json and gateway.md")
    return parser.parse_args(arguments)


def run(bench: Bench, only: list[str], servers: list[str], scale: measures.Scale) -> Iterator[report.Result]:
    """Measure one thing after the other."""
    with bench.stand_in_running():
        for name in only:
            if name in measures.WITH_DIRECT:
                yield report.Result(name, DIRECT, measures.WITH_DIRECT[name](bench.stand_in, bench, scale))
            for server in servers:
                yield report.Result(name, server, measure(bench, name, server, scale))


def measure(bench: Bench, name: str, server: str, scale: measures.Scale) -> measures.Figures:
    """One measure of a gateway that nothing else has used."""
    with bench.gateway(server) as target:  # makes the database, if it is the first
        if name == "login":
            return measures.login(target, bench, scale)
        if name in measures.WITH_DIRECT:
            return measures.WITH_DIRECT[name](target, bench, scale)
    return measures.startup(bench, server)


def collect(results: Iterator[report.Result], total: int, console: Console) -> list[report.Result]:
    """All results, with a bar of progress on a terminal and a JSON line for each in a pipe."""
    if not console.is_terminal:
        collected = []
        for result in results:
            print(json.dumps(result.as_dict()), flush=True)
            collected.append(result)
        return collected
    columns = TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}")
    # Drawn between measures only: a thread that draws would disturb the load.
    with Progress(*columns, TimeElapsedColumn(), console=console, auto_refresh=False, transient=True) as progress:
        task = progress.add_task("measuring", total=total)
        collected = []
        for result in results:
            collected.append(result)
            progress.update(task, advance=1, description=f"{result.measure} {result.target}", refresh=True)
    return collected


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns the exit code."""
    options = options_from(arguments)
    scale = measures.Scale(options.seconds, options.streams, options.rate)
    cores, console = Cores.choose(), Console()
    gc.disable()  # a collection in the load generator would look like a slow answer
    pin(cores.load)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that nothing outlives us
    count = sum(len(options.servers) + (name in measures.WITH_DIRECT) for name in options.only)
    with tempfile.TemporaryDirectory(prefix="gateway-bench-") as folder:
        bench = Bench(cores, Path(folder), server_threads=max(1100, scale.streams + 100))
        try:
            results = collect(run(bench, options.only, options.servers, scale), count, console)
        except (RuntimeError, OSError) as error:
            sys.stderr.write(f"{type(error).__name__}: {error}\n")
            return 1
        except KeyboardInterrupt:
            return 130
    whole = report.Report(results, report.describe_machine(cores), vars(scale))
    whole.write(options.results)
    if console.is_terminal:
        whole.show(console)
    return 1 if whole.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
