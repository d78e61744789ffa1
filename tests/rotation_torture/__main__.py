"""`make torture`: run every schedule, with two workers, and say what was violated.

    python -m tests.rotation_torture                                   all schedules
    python -m tests.rotation_torture --every 10                        each tenth
    python -m tests.rotation_torture --schedule sqlite/kills=12,40     this one, with all that happened

Exits with 1 if an invariant was violated. A violation tells the address of its schedule.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from tests.rotation_torture.schedules import all_schedules
from tests.rotation_torture.workers import run


def main() -> int:
    """The command line. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.rotation_torture", description="Kill tests of the rotation.")
    parser.add_argument("--schedule", action="append", metavar="ADDRESS", help="run this one; may be repeated")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="run each Nth schedule only")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the workers end with this
    addresses = options.schedule or [schedule.address for schedule in all_schedules()[:: options.every]]
    began, violated, passes, console = time.monotonic(), 0, 0, Console()
    columns = TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}")
    columns = *columns, TimeElapsedColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("torture", total=len(addresses))
        for address, points, its_passes, violations in run(addresses):
            passes += its_passes
            violated += bool(violations)
            progress.update(task, advance=1, description=f"torture, {violated} violated")
            if console.is_terminal:
                for violation in violations:
                    progress.console.print(f"[red]{address}[/red] {violation}", highlight=False, soft_wrap=True)
            else:
                line = {"schedule": address, "points": points, "passes": its_passes, "violations": violations}
                print(json.dumps(line), flush=True)
    summary = {"schedules": len(addresses), "passes": passes, "violated": violated}
    print(json.dumps(summary | {"seconds": round(time.monotonic() - began, 1)}))
    return 1 if violated else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
