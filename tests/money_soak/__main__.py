"""Two replicas under load while all kinds of things go wrong, and then: is every cent where it belongs?

    python -m tests.money_soak --minutes 10 --engine mariadb
    python -m tests.money_soak                      two minutes on each engine that can be had

Prints one line of JSON for each engine, and exits with 1 if anything does not agree. Of answers that OpenRouter billed
and whose id nobody learnt (`unnamed`), the ledger has rows without a cost: they are listed, and no difference.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console

from tests.money_soak.available import ENGINES, why_not
from tests.money_soak.world import Soak


def soak(engine: str, minutes: float, console: Console) -> dict[str, Any]:
    """One run; returns what is told of it."""
    if reason := why_not(engine):
        return {"engine": engine, "skipped": reason}
    with tempfile.TemporaryDirectory(prefix="money-soak-") as folder, console.status(engine) as status:
        run = Soak(engine, Path(folder), lambda happening: status.update(f"{engine}: {happening or 'calls'}"))
        try:
            return {"engine": engine, **run.run(minutes * 60)}
        finally:
            run.close()


def main() -> int:
    """The command line. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.money_soak", description="Is every cent where it belongs?")
    parser.add_argument("--minutes", type=float, default=2, metavar="N", help="how long calls are made (default: 2)")
    parser.add_argument("--engine", choices=ENGINES, action="append", help="this one; may be repeated (default: all)")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what was started ends with this
    console, differ = Console(stderr=True), False
    for engine in options.engine or list(ENGINES):
        told = soak(engine, options.minutes, console)
        print(json.dumps(told), flush=True)
        differ |= bool(told.get("differences"))
    return int(differ)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
