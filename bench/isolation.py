"""`python -m bench.isolation`: what one bad caller, model or odd answer does to everybody else.

Method. For each row a fresh gateway as in production (`python app.py`, granian, SQLite, 512 MB of memory where there
can be a control group), ten users who call streams and plain answers by turns, each from an address of their own, and
somebody who asks for /api/health. At first they are alone: that is the undisturbed run. Then one bad caller joins, a
program of its own with an account and an address of its own (bench/bad_caller.py), and goes on at full tilt. The
upstream is the stand-in with odd answers besides (bench/odd_stand_in.py).

    the first rows    what a caller can do: bodies, connections, streams, leaving; an edge that closes idle connections
    the others        what a model can answer: errors within 200 in each format, and OpenRouter's refusals, but for
                      those that are about our own key or account

It fails (exit code 1) if a call of a good caller fails, never for slowness; a p99 that is more than twice the
undisturbed one is marked, and so is more memory than 512 MB. Nothing leaves the loopback interface.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import secrets
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench import good_callers, memory_limit
from bench.bad_caller import BAD, BY_CALLERS
from bench.load import run
from bench.processes import Cores, Program, bare_environment, pin, raise_open_files, start
from bench.set_up import Bench, ask

LIMIT_MB = 512
MOST_SLOWER = 2.0
READY_SECONDS = 30
EXAMPLES = 3


@dataclass(frozen=True)
class Scale:
    """Seconds of the undisturbed and of the disturbed run."""

    before: float = 10.0
    during: float = 30.0


QUICK = Scale(2.0, 4.0)


@dataclass(frozen=True)
class Row:
    """What the good callers saw of one bad one. kills: for want of memory; None where it was not bounded."""

    name: str
    before: good_callers.Seen
    during: good_callers.Seen
    is_ready: bool
    kills: int | None

    @property
    def failed(self) -> list[str]:
        """What went wrong for good callers."""
        return self.before.failed + self.during.failed

    def figures(self) -> dict[str, object]:
        """For a JSON line and a row of the table; times in milliseconds, slower: p99 over the undisturbed one."""
        before, during = self.before.figures("undisturbed_"), self.during.figures("")
        alone = before["undisturbed_p99_ms"]
        numbers = {**before, **during, "slower": during["p99_ms"] / alone if alone else 0.0}
        return {
            "row": self.name,
            "calls": len(self.during.first_byte) + len(self.during.failed),
            "failed": len(self.failed),
            **{name: round(number, 2) for name, number in numbers.items()},
            "kills": self.kills,
            "bad_caller_is_ready": self.is_ready,
            **({"examples": sorted(set(self.failed))[:EXAMPLES]} if self.failed else {}),
        }


@dataclass(frozen=True)
class People:
    """Whose tokens they are: of the good ones, and of the bad one. folder: the database that knows them."""

    folder: Path
    good: list[str]
    bad: str


def sign_up(port: int) -> str:
    """Somebody new; returns their token."""
    account = {"username": f"{secrets.token_hex(8)}@bench.test", "derived_key": secrets.token_urlsafe(48)}
    ask(port, "/register", account, expect=201)
    token: str = ask(port, "/login", account, expect=200)["token"]
    return token


def prepare(bench: Bench) -> People:
    """A database with all accounts, which each row gets a copy of."""
    program, port, _seconds = bench.start_gateway("granian")
    try:
        tokens = [sign_up(port) for _ in range(good_callers.COUNT + 1)]
    finally:
        program.stop()
    return People(bench.folder, tokens[1:], tokens[0])


@contextlib.contextmanager
def bad_caller(bench: Bench, name: str, port: int, token: str) -> Iterator[bool]:
    """One bad caller; tells whether it got as far as it wanted."""
    environment = bare_environment(PORT=port, TOKEN=token, UPSTREAM=bench.stand_in.port)
    load, arguments = bench.cores.load, ["-m", "bench.bad_caller", name]
    program = start(arguments, load, load, env=environment, stdout=subprocess.PIPE)
    try:
        told = program.process.stdout
        yield bool(told and select.select([told], [], [], READY_SECONDS)[0] and told.readline())
    finally:
        kill(program)


def kill(program: Program) -> None:
    """End it at once: what a row has stopped might not end by itself for minutes."""
    for process in program.tree():
        with contextlib.suppress(OSError):
            process.kill()
    program.stop()


def measure(bench: Bench, people: People, name: str, scale: Scale) -> Row:
    """One row, on a gateway that nothing else has used."""
    bench.folder = people.folder.with_name(f"row-{name}")
    shutil.copytree(people.folder, bench.folder)
    with memory_limit.group(LIMIT_MB) as group:
        program, port, _seconds = bench.start_gateway("granian", group.take if group else None)
        try:
            before = run(good_callers.watch(port, people.good, program, scale.before))
            with bad_caller(bench, name, port, people.bad) as is_ready:
                during = run(good_callers.watch(port, people.good, program, scale.during))
            kills = group.kills() if group else None
        finally:
            kill(program)
    return Row(name, before, during, is_ready, kills)


def measured(bench: Bench, names: Sequence[str], scale: Scale) -> Iterator[Row]:
    """One row after the other."""
    with bench.stand_in_running("bench.odd_stand_in"):
        people = prepare(bench)
    for name in names:
        with bench.stand_in_running("bench.odd_stand_in"):
            yield measure(bench, people, name, scale)


COLUMNS = {
    "calls": "calls",
    "failed": "failed",
    "undisturbed_p50_ms": "p50 alone",
    "p50_ms": "p50",
    "undisturbed_p99_ms": "p99 alone",
    "p99_ms": "p99",
    "slower": "×",
    "undisturbed_health_ms": "health alone",
    "health_ms": "health",
    "undisturbed_pss_mb": "MB alone",
    "pss_mb": "MB",
}
MOST = {"failed": 0.0, "slower": MOST_SLOWER, "pss_mb": float(LIMIT_MB)}


def cell(name: str, value: float) -> str:
    """A figure, marked if it is more than it should be."""
    text = f"{value:.1f}" if name == "slower" else f"{value:.0f}"
    return f"[bold red]{text}[/]" if value > MOST.get(name, float("inf")) else text


def show(rows: list[Row], console: Console) -> None:
    """Print the table, and what went wrong."""
    bounded = any(row.kills is not None for row in rows)
    title = f"{good_callers.COUNT} good callers beside a bad one; ms to the first byte, slowest answer of health; "
    title += f"memory {'bounded to' if bounded else 'NOT bounded, marked above'} {LIMIT_MB} MB"
    table = Table("bad caller", title=title, title_justify="left")
    for heading in COLUMNS.values():
        table.add_column(heading, justify="right")
    for row in rows:
        figures = row.figures()
        table.add_row(row.name, *(cell(name, float(str(figures[name]))) for name in COLUMNS))
    console.print(table)
    for row in rows:
        notes = [f"failed: {text}" for text in sorted(set(row.failed))[:EXAMPLES]]
        notes += [f"{row.kills} processes were killed for want of memory"] if row.kills else []
        notes += [] if row.is_ready else ["the bad caller did not get as far as it wanted"]
        for note in notes:
            console.print(f"{row.name}: {note}", markup=False, highlight=False)


def options_from(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.isolation", description="One bad caller beside ten good ones."
    )
    parser.add_argument("names", nargs="*", choices=[*BAD, []], metavar="ROW", help="of these only: " + ", ".join(BAD))
    parser.add_argument("--quick", action="store_true", help="some seconds for each row")
    parser.add_argument("--callers", action="store_true", help="without the rows of odd answers")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns the exit code."""
    options = options_from(arguments)
    names = options.names or list(BY_CALLERS if options.callers else BAD)
    cores, console, rows = Cores.choose(), Console(), []
    pin(cores.load)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that nothing outlives us
    raise_open_files()  # for thousands of connections
    with tempfile.TemporaryDirectory(prefix="isolation-bench-") as folder:
        people = Path(folder) / "people"
        people.mkdir()
        bench = Bench(cores, people, server_threads=1100, settings={})  # with the shares that callers have by default
        try:
            for row in measured(bench, names, QUICK if options.quick else Scale()):
                rows.append(row)
                if not console.is_terminal:
                    print(json.dumps(row.figures()), flush=True)
        except (RuntimeError, OSError) as error:
            sys.stderr.write(f"{type(error).__name__}: {error}\n")
            return 1
        except KeyboardInterrupt:
            return 130
    if console.is_terminal:
        show(rows, console)
    return 1 if any(row.failed for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
