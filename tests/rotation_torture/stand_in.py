"""The stand-in of a worker: a process of its own, asked over one connection, which is quick."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
from typing import Any
from urllib.parse import urlsplit

from tests.support.gateway import ROOT


class StandIn:
    """A stand-in for OpenRouter, asked over one connection."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "sandbox.openrouter", "--port", "0", "--log-length", "10"]
        self._process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout
        self.address: str = json.loads(self._process.stdout.readline())["listening"]
        self._connection = http.client.HTTPConnection("127.0.0.1", urlsplit(self.address).port or 0, timeout=10)

    def call(self, method: str, path: str, document: object = None, key: str = "") -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._connection.request(method, path, json.dumps(document) if document is not None else None, headers)
        answer = self._connection.getresponse()
        return answer.status, json.loads(answer.read())

    def control(self, method: str, path: str, /, **document: Any) -> Any:
        status, answer = self.call(method, f"/sandbox/{path}", document)
        assert status == 200, answer
        return answer

    def close(self) -> None:
        self._connection.close()
        self._process.terminate()
        self._process.wait(10)
        assert self._process.stdout
        self._process.stdout.close()
