"""A private Redis on a free port, started, killed and started again by tests."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import redis

from tests.support.gateway import free_port, wait_for

PASSWORD = "redis-kZ4-pw9"  # known to everybody


class RedisServer:
    """One server process. It keeps nothing when it ends, like a cache that restarts."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.url = f"redis://:{PASSWORD}@127.0.0.1:{self.port}/0"
        self.client = redis.Redis.from_url(self.url, decode_responses=True)
        options = {"--port": self.port, "--bind": "127.0.0.1", "--dir": folder, "--requirepass": PASSWORD, "--save": ""}
        self._command = ["redis-server", *(str(word) for option in options.items() for word in option)]
        self._log = folder / "redis.log"
        self.start()

    def start(self) -> None:
        """Start the server and wait until it answers."""
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(self._command, stdout=log, stderr=log)
        wait_for(self._answers)

    def _answers(self) -> bool:
        assert self.process.poll() is None, self._log.read_text()
        try:
            return self.client.info("server")["process_id"] == self.process.pid
        except redis.ConnectionError:
            return False

    def send(self, number: int) -> None:
        """Send the server a signal: SIGSTOP makes it hang, SIGCONT goes on."""
        self.process.send_signal(number)

    def kill(self) -> None:
        """End the server at once; a second time does nothing."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(60)
