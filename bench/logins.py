"""`make bench-logins`: does a failed log-in tell, by its answer or by the time it takes, whether the name exists?

Method. One gateway as in production (granian, SQLite, a log line for each attempt), except that log-ins are not
limited. Some accounts are registered. Then come log-ins of unknown names and log-ins with a wrong key of accounts that
exist, in random order, so that whatever disturbs the machine disturbs both alike; one at a time over one kept-alive
connection; names, keys and passwords all of one length. Each of the two routes is a series of its own:

    POST /login             with the derived key
    POST /api/auth/login    with the password, from which the gateway derives the key

It fails (exit code 1) if any answer is another one than the rest, byte by byte without Date and X-Request-Id, or if the
medians differ by more than 5 %. p is that of a Mann-Whitney U test: how likely two series that are drawn from the same
times lie so far apart. It is for reading only: given enough attempts it finds differences that no attacker can use.
`others` is the share of the two cores that strangers took: above a few percent, run it again.
"""

from __future__ import annotations

import argparse
import json
import random
import secrets
import socket
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist

from rich.console import Console
from rich.table import Table

from bench.load import post
from bench.measures import percentile
from bench.meter import Meter
from bench.processes import Cores, pin
from bench.set_up import Bench, ask

ACCOUNTS = 50
WARM_UP = 10  # log-ins of each kind that are not counted
MAX_RATIO = 1.05  # of the medians
ORDER = 20261121  # so that two runs send the same sequence
ROUTES = {"/login": ("username", "derived_key"), "/api/auth/login": ("email", "password")}
OF_ITS_OWN = (b"date:", b"x-request-id:")


@dataclass(frozen=True)
class Attempt:
    """A log-in that failed. answer: without what differs between any two."""

    seconds: float
    answer: bytes


@dataclass(frozen=True)
class Series:
    """The log-ins by one route: of names that do not exist, and of accounts with a wrong key."""

    route: str
    unknown: list[Attempt]
    wrong: list[Attempt]
    others_percent: float = 0.0

    @property
    def answers(self) -> set[bytes]:
        """The different answers."""
        return {attempt.answer for attempt in self.unknown + self.wrong}

    def figures(self) -> dict[str, float | str]:
        """What was measured, times in milliseconds. ratio: of the medians."""
        unknown, wrong = ([attempt.seconds for attempt in kind] for kind in (self.unknown, self.wrong))
        medians = percentile(unknown, 50), percentile(wrong, 50)
        return {
            "route": self.route,
            "attempts_of_each": len(unknown),
            "different_answers": len(self.answers),
            "unknown_p50_ms": round(medians[0], 3),
            "wrong_p50_ms": round(medians[1], 3),
            "unknown_p95_ms": round(percentile(unknown, 95), 3),
            "wrong_p95_ms": round(percentile(wrong, 95), 3),
            "ratio": round(medians[0] / medians[1], 4),
            "p": round(mann_whitney(unknown, wrong), 4),
            "others_percent": round(self.others_percent, 1),
        }

    def faults(self) -> list[str]:
        """What tells unknown names from known ones; nothing, if all is well."""
        faults = []
        if len(self.answers) > 1:
            faults.append(f"{self.route}: {len(self.answers)} different answers, as {sorted(self.answers)[:2]}")
        if any(not answer.startswith(b"HTTP/1.1 401 ") for answer in self.answers):
            faults.append(f"{self.route}: an answer other than 401, as {min(self.answers)[:200]!r}")
        ratio = float(self.figures()["ratio"])
        if not 1 / MAX_RATIO <= ratio <= MAX_RATIO:
            faults.append(f"{self.route}: the medians differ by more than {MAX_RATIO - 1:.0%}, ratio {ratio}")
        return faults


def mann_whitney(a: list[float], b: list[float]) -> float:
    """The two-sided p value of the U test by the normal approximation, which is good from 20 values of each on.

    Ties share their ranks; that they make the variance smaller is left out, because clocks of nanoseconds have none.
    """
    ordered = sorted(a + b)
    first = {value: rank for rank, value in reversed(list(enumerate(ordered, 1)))}
    last = {value: rank for rank, value in enumerate(ordered, 1)}
    u = sum((first[value] + last[value]) / 2 for value in a) - len(a) * (len(a) + 1) / 2
    mean, variance = len(a) * len(b) / 2, len(a) * len(b) * (len(a) + len(b) + 1) / 12
    return 2 * NormalDist().cdf(-abs(u - mean) / variance**0.5)


class Connection:
    """One kept-alive connection, byte by byte: a client library would hide what the answers may differ in."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def attempt(self, message: bytes) -> Attempt:
        """Send a log-in and read its whole answer. Raises RuntimeError if the connection ends."""
        begun = time.perf_counter()
        self._socket.sendall(message)
        received = b""
        while not is_whole(received):
            data = self._socket.recv(65536)
            if not data:
                raise RuntimeError(f"the gateway has closed the connection after {received[:200]!r}")
            received += data
        return Attempt(time.perf_counter() - begun, comparable(received))

    def close(self) -> None:
        """Close it."""
        self._socket.close()


def is_whole(received: bytes) -> bool:
    """True if these are all bytes of an answer. Raises RuntimeError if it does not say how long it is."""
    head, end, body = received.partition(b"\r\n\r\n")
    if not end:
        return False
    lengths = [line.split(b":")[1] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    if len(lengths) != 1:
        raise RuntimeError(f"an answer without its length: {head[:200]!r}")
    return len(body) >= int(lengths[0])


def comparable(received: bytes) -> bytes:
    """An answer without the headers that are different in each."""
    head, end, body = received.partition(b"\r\n\r\n")
    lines = [line for line in head.split(b"\r\n") if not line.lower().startswith(OF_ITS_OWN)]
    return b"\r\n".join(lines) + end + body


def new_name() -> str:
    """A name that nobody has."""
    return f"{secrets.token_hex(8)}@bench.test"


def new_secret() -> str:
    """64 characters, as derived keys have, and as a password may have."""
    return secrets.token_urlsafe(48)


def attempts(connection: Connection, route: str, names: list[str], count: int) -> tuple[list[Attempt], list[Attempt]]:
    """`count` log-ins of unknown names, and as many of these with a wrong key."""
    kinds = [True, False] * count
    random.Random(ORDER).shuffle(kinds)
    found: dict[bool, list[Attempt]] = {True: [], False: []}
    for number, is_known in enumerate(kinds):
        unknown, known = new_name(), names[number % len(names)]  # both each time: the client too takes the same steps
        said = known if is_known else unknown, new_secret()
        found[is_known].append(connection.attempt(post(route, dict(zip(ROUTES[route], said, strict=True)))))
    return found[False], found[True]


def run(bench: Bench, count: int) -> Iterator[Series]:
    """One series for each route, on one gateway."""
    with bench.stand_in_running(), bench.gateway("granian") as target:
        names = [new_name() for _ in range(min(ACCOUNTS, count))]
        for name in names:
            ask(target.port, "/register", {"username": name, "derived_key": new_secret()}, expect=201)
        for route in ROUTES:
            with closing(Connection(target.port)) as connection:
                attempts(connection, route, names, WARM_UP)
                with Meter(target, bench) as meter:
                    unknown, wrong = attempts(connection, route, names, count)
            yield Series(route, unknown, wrong, meter.others_percent)


def show(found: list[Series], console: Console) -> None:
    """Print the table."""
    table = Table("log-ins that fail", *(f"POST {one.route}" for one in found))
    for name, *values in zip(found[0].figures(), *(one.figures().values() for one in found), strict=True):
        if name != "route":
            table.add_row(name.replace("_", " "), *map(str, values))
    console.print(table)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.logins", description="Compare log-ins that fail.")
    parser.add_argument("--count", type=int, default=500, help="log-ins of each kind, by each route")
    options = parser.parse_args(arguments)
    cores, console, found = Cores.choose(), Console(), []
    pin(cores.load)
    with tempfile.TemporaryDirectory(prefix="logins-bench-") as folder:
        for one in run(Bench(cores, Path(folder), server_threads=32), options.count):
            found.append(one)
            if not console.is_terminal:
                print(json.dumps(one.figures()), flush=True)
    if console.is_terminal:
        show(found, console)
    faults = [fault for one in found for fault in one.faults()]
    for fault in faults:
        sys.stderr.write(f"{fault}\n")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
