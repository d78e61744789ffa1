"""`python -m bench.rotation`: does a rotation every few seconds disturb the streams that run through the pool?

Method. A stand-in, `python app.py` with an empty pool, and `python key_rotation.py`, all as in production. 50 clients
hold a stream of 60 s each, and open the next when one ends, for three minutes. All the while the oldest key of the pool
is renewed every five seconds by `python key_rotation.py --now NAME`, a process of its own each time. Each stream is
compared byte by byte with what the stand-in sent; from the logs of both programs we know which key carried it when, and
when each key was disabled at OpenRouter.

Exit code 1 if a client saw an error, or a key was disabled while a call used it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import secrets
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from bench.load import run
from bench.processes import ROOT, Cores
from bench.report import FOLDER
from bench.set_up import Bench, Target
from bench.streams import Shape, Stream, fault_of
from sandbox.openrouter_answers import filler
from sandbox.openrouter_chat import deltas_of

POOL_SIZE = 5


class Rotation:
    """The rotation's programs: one run each, their log lines kept."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._environment = environment
        self.events: list[dict[str, Any]] = []
        self.failed: list[str] = []

    async def run(self, *arguments: str) -> None:
        """Run `python key_rotation.py ...` to its end."""
        command = [sys.executable, "key_rotation.py", *arguments]
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            *command, cwd=ROOT, env=self._environment, stdout=pipe, stderr=pipe
        )
        output, complaints = await process.communicate()
        self.events += events_of(output + complaints)
        if process.returncode:
            self.failed.append(complaints.decode(errors="replace")[-300:])

    def oldest_active(self) -> str:
        """The key that has been in the pool for longest."""
        active = [event["key"] for event in self.events if event["event"] == "key_active"]
        draining = {event["key"] for event in self.events if event["event"] == "key_renewal_asked"}
        return next(name for name in active if name not in draining)

    async def renew_every(self, seconds: float, until: float) -> int:
        """Renew the oldest key, again and again. Returns how often."""
        count = 0
        while time.monotonic() < until:
            started = time.monotonic()
            name = self.oldest_active()
            self.events.append({"event": "key_renewal_asked", "key": name})
            await self.run("--now", name)
            count += 1
            await asyncio.sleep(max(0.0, seconds - (time.monotonic() - started)))
        return count


def events_of(text: bytes) -> list[dict[str, Any]]:
    """The log lines in a program's output."""
    lines = [line for line in text.splitlines() if line.startswith(b"{")]
    return [event for event in map(json.loads, lines) if "event" in event]


async def hold_streams(target: Target, shape: Shape, until: float) -> list[Stream]:
    """One client: a stream after the other until the time is over. Returns all of them, ended."""
    loop, streams = asyncio.get_running_loop(), []
    while time.monotonic() < until:
        ended = asyncio.Event()
        stream = Stream(shape.request(target.way), ended.set)
        await loop.create_connection(lambda stream=stream: stream, "127.0.0.1", target.port)  # type: ignore[misc]
        await asyncio.wait_for(ended.wait(), shape.nominal_seconds + 60)
        streams.append(stream)
    return streams


async def measure(target: Target, rotation: Rotation, options: argparse.Namespace) -> dict[str, Any]:
    """Streams and rotations side by side; the figures."""
    shape = Shape(options.streams, chunks=int(options.stream_seconds * 10))
    deltas = deltas_of(filler(shape.chunks, False))
    until = time.monotonic() + options.seconds
    clients = [hold_streams(target, shape, until) for _ in range(shape.streams)]
    renewing = asyncio.ensure_future(rotation.renew_every(options.every, until))
    streams = [stream for held in await asyncio.gather(*clients) for stream in held]
    renewed = await renewing
    faults = [fault for stream in streams if (fault := fault_of(stream, deltas))]
    return {"streams_whole": len(streams) - len(faults), "wrong": len(faults), "faults": faults[:3], "renewed": renewed}


def disabled_in_use(calls: list[dict[str, Any]], rotation: list[dict[str, Any]]) -> dict[str, Any]:
    """How many keys were disabled, how many while a call used them, and the shortest time since a key's last call."""
    last_use: dict[str, list[tuple[float, float]]] = {}
    for call in calls:
        if call["event"] == "proxied" and call["key"]:
            end = datetime.fromisoformat(call["at"]).timestamp()
            last_use.setdefault(call["key"], []).append((end - call["total_ms"] / 1000, end))
    disabled = {event["key"]: datetime.fromisoformat(event["at"]).timestamp() for event in rotation}
    in_use = [key for key, at in disabled.items() if any(a <= at <= b for a, b in last_use.get(key, []))]
    since = [at - max(b for _a, b in last_use[key]) for key, at in disabled.items() if last_use.get(key)]
    return {"disabled": len(disabled), "disabled_in_use": len(in_use), "shortest_rest_s": min(since, default=None)}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.rotation", description="Rotate under running streams.")
    parser.add_argument("--seconds", type=float, default=180, help="how long streams are opened")
    parser.add_argument("--streams", type=int, default=50, help="open at a time")
    parser.add_argument("--stream-seconds", type=float, default=60, help="length of one stream")
    parser.add_argument("--every", type=float, default=5, help="seconds between two renewals")
    parser.add_argument("--server", choices=("granian", "gunicorn"), default="granian")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="gateway-bench-") as folder:
        bench = Bench(Cores.choose(), Path(folder), server_threads=200, pool_keys=[])
        bench.management_key = f"sk-or-v1-{secrets.token_hex(32)}"
        with bench.stand_in_running():
            environment = bench.environment() | {"OPENROUTER_PROVISION_KEY": bench.management_key}
            rotation = Rotation(environment | {"POOL_SIZE": str(POOL_SIZE)})
            run(rotation.run("--once"))
            with bench.gateway(options.server) as target:
                figures = run(measure(target, rotation, options))
            calls = events_of((Path(folder) / f"{options.server}.log").read_bytes())
    disabled = [event for event in rotation.events if event["event"] == "key_disabled"]
    figures |= disabled_in_use(calls, disabled)
    figures |= {"rotation_failures": rotation.failed[:3], "server": options.server, "seconds": options.seconds}
    text = json.dumps(figures, indent=2)
    (FOLDER / "rotation.json").write_text(text + "\n", encoding="utf-8")
    print(text)
    return 1 if figures["wrong"] or figures["disabled_in_use"] or rotation.failed else 0


if __name__ == "__main__":
    sys.exit(main())
