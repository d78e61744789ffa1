"""What every measure needs: a stand-in, and gateways with the settings of production and a user who has logged in."""

from __future__ import annotations

import base64
import http.client
import json
import secrets
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.load import Way
from bench.processes import Cores, Program, bare_environment, free_port, start

POOL_KEYS = 10
START_SECONDS = 60


@dataclass
class Target:
    """Where a load goes: the gateway under some server, or the stand-in itself."""

    name: str
    program: Program
    port: int
    way: Way
    account: dict[str, str] = field(default_factory=dict)


# One user, from one address, is the whole load.
ONE_CALLER: dict[str, object] = {"RATE_LIMIT_USER_CONCURRENT": 0, "RATE_LIMIT_ADDRESS_CONCURRENT": 0}


@dataclass
class Bench:
    """What all measures share: cores, the stand-in, and the settings of production that gateways start with."""

    cores: Cores
    folder: Path
    server_threads: int
    pool_keys: list[str] = field(
        default_factory=lambda: [f"sk-or-v1-{secrets.token_hex(32)}" for _ in range(POOL_KEYS)]
    )
    secret_key: str = field(default_factory=lambda: secrets.token_urlsafe(48))
    encryption_key: str = field(default_factory=lambda: base64.urlsafe_b64encode(secrets.token_bytes(32)).decode())
    management_key: str | None = None
    settings: dict[str, object] = field(default_factory=lambda: dict(ONE_CALLER))  # of the gateways, besides
    stand_in: Target = field(init=False)

    @contextmanager
    def stand_in_running(self, module: str = "bench.stand_in") -> Iterator[None]:
        """Run the stand-in on the load's core."""
        arguments = ["-m", module, "--log-length", "0", "--balance", "1000000000"]
        arguments += [word for key in self.pool_keys for word in ("--inference-key", key)]
        if self.management_key:
            arguments += ["--management-key", self.management_key]
        load = self.cores.load
        program = start(arguments, load, load, env=bare_environment(), stdout=subprocess.PIPE)
        try:
            assert program.process.stdout
            address = json.loads(program.process.stdout.readline())["listening"]
            port = int(address.rpartition(":")[2].partition("/")[0])
            self.stand_in = Target(
                "direct", program, port, Way("/api/v1/chat/completions", "".join(self.pool_keys[:1]))
            )
            yield
        finally:
            program.stop()

    @contextmanager
    def gateway(self, server: str) -> Iterator[Target]:
        """Run the gateway under one server, healthy and with a user who has registered and logged in."""
        program, port, _seconds = self.start_gateway(server)
        try:
            key = base64.urlsafe_b64encode(secrets.token_bytes(48)).decode()
            account = {"username": f"{secrets.token_hex(8)}@bench.test", "derived_key": key}
            ask(port, "/register", account, expect=201)
            token = ask(port, "/login", account, expect=200)["token"]
            yield Target(server, program, port, Way("/v1/chat/completions", token), account)
        finally:
            program.stop()

    def start_gateway(self, server: str, begun_as: Callable[[int], None] | None = None) -> tuple[Program, int, float]:
        """Start `python app.py`; returns it, its port, and the seconds until /api/health answered 200.

        begun_as: gets its process id, before it has children.
        """
        port = free_port()
        environment = self.environment(PORT=port, SERVER=server)
        with (self.folder / f"{server}.log").open("ab") as log:
            begun = time.perf_counter()
            program = start(["app.py"], self.cores.gateway, self.cores.load, env=environment, stdout=log, stderr=log)
        try:
            if begun_as:
                begun_as(program.process.pid)
            wait_until_healthy(program, port)
        except BaseException:
            program.stop()
            raise
        return program, port, time.perf_counter() - begun

    def environment(self, **settings: object) -> dict[str, str]:
        """The settings of production, shared by all programs, and these."""
        return bare_environment(
            APP_ENV="production",
            SECRET_KEY=self.secret_key,
            ENCRYPTION_KEY=self.encryption_key,
            DEPLOYMENT_ID="bench",
            HOST="127.0.0.1",
            SERVER_THREADS=self.server_threads,
            LOG_LEVEL="INFO",
            DATA_DIR=self.folder,
            OPENROUTER_API_URL=f"http://127.0.0.1:{self.stand_in.port}/api/v1",
            OPENROUTER_API_KEYS=",".join(self.pool_keys),
            # The load comes from one address and knows one account.
            LOGIN_RATE_LIMIT_PER_MINUTE=0,
            LOGIN_RATE_LIMIT_ACCOUNT_PER_MINUTE=0,
            # Whoever measures signs up by itself, and spends what it wants.
            REGISTRATION="open",
            ALLOW_OPEN_WITHOUT_QUOTA="true",
            QUOTA_USD="none",
            **self.settings,
            **settings,
        )


def wait_until_healthy(program: Program, port: int) -> None:
    """Return at the first 200 of /api/health. Raises RuntimeError if that does not come."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if program.process.poll() is not None:
            raise RuntimeError(f"the gateway ended with {program.process.returncode} instead of starting")
        try:
            ask(port, "/api/health", None, expect=200)
            return
        except (OSError, http.client.HTTPException, WrongStatus):
            time.sleep(0.005)
    raise RuntimeError(f"the gateway was not healthy after {START_SECONDS} s")


class WrongStatus(RuntimeError):
    """A request of the set-up was answered in another way than it has to be."""


def ask(port: int, path: str, body: dict[str, str] | None, expect: int) -> dict[str, Any]:
    """One JSON request of the set-up, and its answer. Raises WrongStatus."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        sent = json.dumps(body) if body else None
        connection.request("POST" if body else "GET", path, sent, {"Content-Type": "application/json"} if body else {})
        response = connection.getresponse()
        text = response.read()
    finally:
        connection.close()
    if response.status != expect:
        raise WrongStatus(f"{path} answered {response.status} instead of {expect}: {text[:200]!r}")
    answer: dict[str, Any] = json.loads(text)
    return answer
