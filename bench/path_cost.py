"""What one model call takes of the interpreter, step by step, compared with what is written down.

    python -m bench.path_cost            # compare; exit code 1 if a call has become dearer
    python -m bench.path_cost --steps    # the tables of docs/performance.md
    python -m bench.path_cost --update   # write down what it is now

It makes the calls in this process, without a server and with a stand-in on a socket, and counts (bench/path_counter.py)
what they do in their own thread. The count is the same in every run, and seconds are enough. It differs between
versions of Python, so each has an entry of its own in bench/results/path_cost.json.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench.path_calls import Gateway, StandIn
from bench.path_counter import ORDER, PathCounter

Count = dict[str, Any]  # bytecodes, calls, steps: each one's [bytecodes, calls], outside: calls of what is not ours

WRITTEN_DOWN = Path(__file__).parent / "results" / "path_cost.json"
VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"
TOLERANCE = 0.03
WARM_UP_CALLS = 120  # until forecasts, caches and connections are as they stay
CALLS = 15  # counted; what most of them do is the count, for now and then one sees a clock's next second


def count(call: Callable[[], None]) -> Count:
    """What one call does."""
    counter = PathCounter()
    with counter.counting():
        call()
    steps = {name: [step.bytecodes, step.calls] for name, step in counter.steps.items()}
    whole = [sum(numbers) for numbers in zip(*steps.values(), strict=True)]
    return {"bytecodes": whole[0], "calls": whole[1], "steps": steps, "outside": dict(sorted(counter.outside.items()))}


def measure() -> dict[str, Count]:
    """The counts of a plain and of a streamed call."""
    with tempfile.TemporaryDirectory(prefix="path-cost-") as folder:
        stand_in = StandIn()
        gateway = Gateway(stand_in, Path(folder))
        found: dict[str, Count] = {}
        for name, stream in (("plain", False), ("streamed", True)):
            for _ in range(WARM_UP_CALLS):
                gateway.call(stream)()
            counts = Counter(json.dumps(count(gateway.call(stream))) for _ in range(CALLS))
            found[name] = json.loads(counts.most_common(1)[0][0])
    return found


def dearer(before: dict[str, Count], now: dict[str, Count]) -> list[str]:
    """How calls are dearer than before, in words; nothing if they are not."""
    faults = []
    for name, count in now.items():
        for unit in ("bytecodes", "calls"):
            was, is_now = before[name][unit], count[unit]
            if is_now > was * (1 + TOLERANCE):
                faults.append(f"a {name} call takes {is_now} {unit}, {100 * (is_now / was - 1):.1f} % more than {was}")
        for function, times in count["outside"].items():
            if times > (was := before[name]["outside"].get(function, 0)):
                faults.append(f"a {name} call uses {function} {times} times instead of {was}")
    return faults


def cheaper(before: dict[str, Count], now: dict[str, Count]) -> bool:
    """True if so much is saved that somebody could spend it again unseen."""
    return any(now[name]["bytecodes"] < before[name]["bytecodes"] * (1 - TOLERANCE) for name in now)


def tables(counts: dict[str, Count]) -> str:
    """Markdown: what each step takes, and what is asked of others."""
    lines = ["| step | " + " | ".join(f"{name}: bytecodes | calls" for name in counts) + " |"]
    lines.append("|---|" + "---:|---:|" * len(counts))
    for step in ORDER:
        lines.append(
            f"| {step} | " + " | ".join("{:,} | {:,}".format(*one["steps"][step]) for one in counts.values()) + " |"
        )
    whole = " | ".join(f"**{one['bytecodes']:,}** | **{one['calls']:,}**" for one in counts.values())
    lines += [
        f"| **all** | {whole} |",
        "",
        "| not ours | " + " | ".join(counts) + " |",
        "|---|" + "---:|" * len(counts),
    ]
    for function in sorted({name for one in counts.values() for name in one["outside"]}):
        lines.append(
            f"| `{function}` | " + " | ".join(str(one["outside"].get(function, 0)) for one in counts.values()) + " |"
        )
    return "\n".join(lines)


def report(arguments: Sequence[str] | None = None) -> int:
    """Measure, and do what the command line says."""
    parser = argparse.ArgumentParser(prog="python -m bench.path_cost", description="What a call takes, by step.")
    parser.add_argument("--update", action="store_true", help="write down what it is now")
    parser.add_argument("--steps", action="store_true", help="print it step by step")
    options = parser.parse_args(arguments)
    known: dict[str, dict[str, Count]] = json.loads(WRITTEN_DOWN.read_text()) if WRITTEN_DOWN.exists() else {}
    now = measure()
    if options.steps:
        print(tables(now))
    if options.update:
        known[VERSION] = now
        WRITTEN_DOWN.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")
    elif VERSION not in known:
        versions = ", ".join(sorted(known))
        print(
            f"nothing is written down for Python {VERSION}, only for {versions}: add it with --update", file=sys.stderr
        )
    elif faults := dearer(known[VERSION], now):
        print(*faults, "if that is worth it: python -m bench.path_cost --update", sep="\n", file=sys.stderr)
        return 1
    elif cheaper(known[VERSION], now):
        print("calls have become cheaper; hold that: python -m bench.path_cost --update", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    status = report()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # the gateway's threads are in the middle of something
