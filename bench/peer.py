"""Another gateway in front of the stand-in, as a file of bench/peers describes it.

A description says how the gateway is got (`install`), started (`command`, `environment`, `files` in a folder of its
own), prepared (`set_up`: JSON requests, of whose answers `take` keeps values by their place) and called (`path`,
`token`, `headers`, `prefix` of models), whether it rewrites answers, and what its default `leaves_out`. In all of it
`@name` stands for a value: port, folder, token, key0 to key9 (those of the stand-in), keys (all, a line each), upstream
(base URL of the stand-in), upstream_of_v1 (the same without /v1), upstream_host, admin (a secret), and what was taken.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from string import Template
from typing import Any

from bench.load import Check, Way, all_at_once, post, question, run
from bench.processes import Program, bare_environment, free_port, start_program
from bench.set_up import Bench, Target

FOLDER = Path(__file__).parent / "peers"
TOKEN = "sk-bench-0123456789abcdef0123456789abcdef0123456789abcdef"
ADMIN = "bench-admin-Key-0123456789abcdefXYZ"


class Placeholders(Template):
    """`@name`, because configurations are full of `$` and braces."""

    delimiter = "@"


@dataclass(frozen=True)
class Peer:
    """A description. Raises TypeError for a field that there is not."""

    name: str
    command: list[str]
    path: str
    install: str
    leaves_out: str
    version: list[str] = field(default_factory=list)
    token: str = TOKEN
    prefix: str = ""
    rewrites: bool = False
    start_seconds: float = 60
    headers: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    set_up: list[dict[str, Any]] = field(default_factory=list)

    def program(self, programs: Path | None) -> str | None:
        """Where its program is: below `programs`/NAME, or wherever programs are."""
        own = [programs / self.name / below for below in ("", "bin", "node_modules/.bin")] if programs else []
        places = [*map(str, own), os.environ.get("PATH", os.defpath), "/usr/sbin"]
        return shutil.which(self.command[0], path=os.pathsep.join(places))

    def version_of(self, program: str) -> str:
        """What it says of its version; empty if it can't be asked."""
        if not self.version:
            return ""
        environment = bare_environment() | {name: text for name, text in self.environment.items() if "@" not in text}
        command = [program, *self.version[1:]]
        asked = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
        lines = (asked.stdout + asked.stderr).strip().splitlines()
        return lines[-1] if lines else ""

    @contextmanager
    def running(self, program: str, bench: Bench, took: list[float] | None = None) -> Iterator[Target]:
        """It, once a call has been answered rightly. took: gets the seconds that this needed, set-up included."""
        folder = bench.folder / self.name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        values = self._values(bench, folder)
        for name, text in self.files.items():
            (folder / name).write_text(filled(text, values))
        environment = bare_environment() | filled(self.environment, values)
        begun = time.perf_counter()
        with (bench.folder / f"{self.name}.log").open("ab") as log:
            command = [program, *filled(self.command[1:], values)]
            started = start_program(
                command, bench.cores.gateway, bench.cores.load, cwd=folder, env=environment, stdout=log, stderr=log
            )
        try:
            way = self._prepared(started, values)
            if took is not None:
                took.append(time.perf_counter() - begun)
            yield Target(self.name, started, int(values["port"]), way)
        finally:
            started.stop()

    def _values(self, bench: Bench, folder: Path) -> dict[str, Any]:
        host = f"127.0.0.1:{bench.stand_in.port}"
        values = {f"key{number}": key for number, key in enumerate(bench.pool_keys)}
        values |= {"port": str(free_port()), "folder": str(folder), "admin": ADMIN, "keys": "\n".join(bench.pool_keys)}
        values |= {"upstream_host": host, "upstream_of_v1": f"http://{host}/api", "upstream": f"http://{host}/api/v1"}
        return values | {"token": filled(self.token, values)}

    def _prepared(self, program: Program, values: dict[str, Any]) -> Way:
        """Make what callers need, and call it until that goes well. Raises RuntimeError when the time is over."""
        port, until = int(values["port"]), time.monotonic() + self.start_seconds
        for step in self.set_up:
            message = post(filled(step["path"], values), filled(step["body"], values), values["admin"])
            answer = json.loads(until_right(program, port, (message, lambda status, _: status == 200), until))
            for name, place in step.get("take", {}).items():
                values[name] = functools.reduce(lambda inner, key: inner[key], place, answer)
        headers = "".join(f"{name}: {text}\r\n" for name, text in filled(self.headers, values).items())
        way = Way(self.path, values["token"], headers, self.prefix, self.rewrites)
        until_right(program, port, question(way, 0), until)
        return way


def until_right(program: Program, port: int, request: tuple[bytes, Check], until: float) -> bytes:
    """Ask again and again until the answer is right, and return its body. Raises RuntimeError when the time is over."""
    message, is_right = request
    seen = "nothing listens"
    while time.monotonic() < until and program.process.poll() is None:
        try:
            [client] = run(all_at_once(port, message, 1))
        except OSError:
            time.sleep(0.02)
            continue
        if is_right(client.status, client.body):
            return client.body
        seen = f"{client.status} {client.body[:300]!r}"
        time.sleep(0.1)
    raise RuntimeError(f"{Path(program.process.args[0]).name} gave no right answer: {seen}")


def filled(text: Any, values: dict[str, Any]) -> Any:
    """A text, or those in lists and tables, with what the names in them stand for. Raises KeyError for another name."""
    if isinstance(text, dict):
        return {name: filled(inner, values) for name, inner in text.items()}
    if isinstance(text, list):
        return [filled(inner, values) for inner in text]
    if isinstance(text, str) and text.startswith("@") and text[1:] in values:
        return values[text[1:]]  # a number that was taken from an answer stays one
    return Placeholders(text).substitute(values) if isinstance(text, str) else text


def all_peers(folder: Path = FOLDER) -> list[Peer]:
    """What the files of the folder describe, by name."""
    return [Peer(name=path.stem, **tomllib.loads(path.read_text())) for path in sorted(folder.glob("*.toml"))]
