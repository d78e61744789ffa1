"""What a benchmark says: a table for the terminal, gateway.json for machines and gateway.md for people."""

from __future__ import annotations

import datetime
import json
import os
import platform
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.measures import NAMES, Figures
from bench.processes import ROOT, Cores

FOLDER = ROOT / "bench" / "results"
MISSING = "–"


@dataclass(frozen=True)
class Row:
    """One figure of the table. against: how it compares with the base's: `x` a ratio, `+` a difference, or nothing."""

    measure: str
    figure: str
    label: str
    unit: str = ""
    digits: int = 0
    against: str = ""
    goal: str = ""


ROWS = [
    Row("plain", "requests_per_second", "requests per second", against="x"),
    Row("plain", "cpu_us_per_request", "CPU per request", "µs", goal="<= 90 µs (granian)"),
    Row("plain", "core_busy_percent", "core in use", "%"),
    Row("plain", "latency_p50_ms", "latency p50", "ms", 2, "x"),
    Row("plain", "latency_p99_ms", "latency p99", "ms", 2, "x"),
    Row("streams", "streams_whole", "streams whole, byte by byte", goal="all"),
    Row("streams", "cpu_us_per_chunk", "CPU per chunk", "µs", 1, goal="<= 50 µs"),
    Row("streams", "rss_mb", "memory (RSS)", "MB", goal="< 250 MB"),
    Row("streams", "pss_mb", "memory (PSS)", "MB"),
    Row("streams", "kb_per_stream", "memory per open stream", "kB"),
    Row("streams", "first_token_p50_ms", "first token p50", "ms", 2, "+"),
    Row("streams", "first_token_p99_ms", "first token p99", "ms", 2, "+"),
    Row("streams", "gap_p99_ms", "gap between chunks p99", "ms", 1, "x"),
    Row("streams", "slowest_over_nominal", "slowest stream / nominal", "", 3, "x"),
    Row("latency", "latency_p50_ms", "latency p50 at a fixed rate", "ms", 2, "+"),
    Row("latency", "latency_p99_ms", "latency p99 at a fixed rate", "ms", 2, "+"),
    Row("latency", "cpu_us_per_request", "CPU per request", "µs"),
    Row("startup", "seconds", "start to first answer", "s", 2, goal="< 1.5 s"),
    Row("login", "logins_per_second", "log-ins per second", "", 1),
    Row("login", "cpu_ms_per_login", "CPU per log-in", "ms", 1),
    Row("login", "login_p99_ms", "log-in p99, 8 clients", "ms"),
    Row("login", "burst_refused", "refused of 100 at once"),
    Row("login", "refusal_p50_ms", "refusal p50", "ms"),
    Row("login", "refusal_p99_ms", "refusal p99", "ms"),
    *[Row(name, "others_percent", "cores taken by others", "%", 1) for name in NAMES if name != "startup"],
]


@dataclass(frozen=True)
class Result:
    """The figures of one measure of one target."""

    measure: str
    target: str
    figures: Figures

    def as_dict(self) -> dict[str, object]:
        """For JSON: numbers cut to what they are worth."""
        rounded = {name: round(x, 3) if isinstance(x, float) else x for name, x in self.figures.items()}
        return {"measure": self.measure, "target": self.target} | rounded


def describe_machine(cores: Cores) -> dict[str, str]:
    """What the figures were measured on."""
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "cores": f"{os.cpu_count()} {processor()}; {cores.note}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "system": f"{platform.system()} {platform.machine()}",
    }


def processor() -> str:
    """The processor's name, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


@dataclass(frozen=True)
class Form:
    """What a report is called, which rows it has, and which target the others are held against."""

    stem: str
    title: str
    command: str
    base: str
    rows: list[Row]


BESIDE_DIRECT = Form("gateway", "The gateway beside direct calls", "make bench", "direct", ROWS)


class Report:
    """All results of a run."""

    def __init__(
        self, results: list[Result], machine: dict[str, str], scale: dict[str, float], form: Form = BESIDE_DIRECT
    ) -> None:
        self.results = results
        self.machine = machine
        self.scale = scale
        self._form = form
        self._figures = {(result.measure, result.target): result.figures for result in results}
        self.targets = list(dict.fromkeys(result.target for result in results))

    @property
    def wrong(self) -> list[str]:
        """One line for each measure that had wrong answers."""
        faulty = [result for result in self.results if result.figures["wrong"]]
        return [
            f"{r.measure} {r.target}: {r.figures['wrong']} wrong answers, as {r.figures.get('examples')}"
            for r in faulty
        ]

    def cell(self, row: Row, target: str) -> str:
        """One figure in words, with its relation to the direct one."""
        value = self._figures.get((row.measure, target), {}).get(row.figure)
        if isinstance(value, str):
            return value
        if value is None:
            return MISSING
        text = f"{value:,.{row.digits}f} {row.unit}".strip()
        base = self._figures.get((row.measure, self._form.base), {}).get(row.figure)
        if target == self._form.base or not row.against or not isinstance(base, int | float) or not base:
            return text
        if row.against == "+":
            return f"{text} ({value - base:+,.{row.digits}f})"
        return f"{text} (× {value / base:.2f})"

    def lines(self) -> list[list[str]]:
        """The table's body: measure, label, one cell for each target, goal."""
        order = list(dict.fromkeys(row.measure for row in self._form.rows))
        rows = sorted(self._form.rows, key=lambda row: order.index(row.measure))
        cells = [[row.measure, row.label, *(self.cell(row, name) for name in self.targets), row.goal] for row in rows]
        return [line for line in cells if set(line[2:-1]) != {MISSING}]

    def show(self, console: Console) -> None:
        """Print the table."""
        table = Table("measure", "figure", title="; ".join(self.machine.values()), title_justify="left")
        for target in self.targets:
            table.add_column(target, justify="right")
        table.add_column("goal")
        last = ""
        for measure, *line in self.lines():
            if last and measure != last:
                table.add_section()
            table.add_row("" if measure == last else measure, *line)
            last = measure
        console.print(table)
        for line in self.wrong:
            console.print(f"[bold red]wrong answers[/] {line}", highlight=False)

    def markdown(self) -> str:
        """The table for people who read files."""
        head = ["measure", "figure", *self.targets, "goal"]
        rule = ["---", "---", *("---:" for _ in self.targets), "---"]
        table = [f"| {' | '.join(line)} |" for line in [head, rule, *self.lines()]]
        machine = [f"* {name}: {text}" for name, text in self.machine.items()]
        scale = ", ".join(f"{name} {value:g}" for name, value in self.scale.items())
        base = self._form.base
        intro = f"Written by `{self._form.command}`. In brackets: × the figure of {base}, or + the difference to it."
        parts = [
            f"# {self._form.title}",
            intro,
            "\n".join([*machine, f"* scale: {scale}"]),
            "\n".join(table),
        ]
        return "\n\n".join([*parts, *(f"**Wrong answers.** {line}" for line in self.wrong)]) + "\n"

    def write(self, folder: Path) -> None:
        """Write the .json and the .md file."""
        folder.mkdir(parents=True, exist_ok=True)
        document = {
            "machine": self.machine,
            "scale": self.scale,
            "results": [result.as_dict() for result in self.results],
        }
        text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
        (folder / f"{self._form.stem}.json").write_text(text, encoding="utf-8")
        (folder / f"{self._form.stem}.md").write_text(self.markdown(), encoding="utf-8")
