"""Starts the stand-in as a process of its own on a free port, and speaks to it, if need be byte by byte."""

import dataclasses
import datetime
import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

from tests.support.gateway import ROOT, body_of, wait_for


@dataclasses.dataclass
class Running:
    """A running stand-in."""

    process: subprocess.Popen[str]
    address: str
    management_key: str

    @property
    def root(self) -> str:
        return self.address.removesuffix("/api/v1")

    def control(self, method: str, path: str, /, **document: Any) -> Any:
        answer = requests.request(method, f"{self.root}/sandbox/{path}", json=document, timeout=30)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def new_account(self, **wishes: Any) -> Any:
        return self.control("POST", "accounts", **wishes)

    def new_key(self, **wishes: Any) -> Any:
        """Make a key in an account of its own, unless one is given."""
        return self.control("POST", "keys", **({"account": self.new_account()["id"]} | wishes))

    def call(self, method: str, path: str, key: str = "", **more: Any) -> requests.Response:
        headers = {"authorization": f"Bearer {key}"} if key else {}
        return requests.request(method, self.address + path, headers=headers, timeout=10, allow_redirects=False, **more)

    def decide(self, authorization_url: str, account_id: str, decision: str = "approve") -> str:
        """Approve a log-in at OpenRouter, or not; returns where the browser is sent then."""
        form = {"account": account_id, "decision": decision}
        answer = requests.post(authorization_url, data=form, timeout=10, allow_redirects=False)
        assert answer.status_code == 302, answer.text
        return answer.headers["location"]

    def chat(self, key: str, model: str = "openai/gpt-4o-mini", **more: Any) -> requests.Response:
        document = {"model": model, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 100, **more}
        return self.call("POST", "/chat/completions", key, json=document)

    def raw_chat(
        self, key: str, model: str, stream: bool = True, until: bytes = b"", silence: float = 5
    ) -> tuple[bytes, str]:
        """Return the bytes of an answer and how they ended: closed, reset, silent, or seen what was waited for."""
        with self.open_chat(key, model, stream) as connection:
            connection.settimeout(silence)
            received = bytearray()
            while not until or until not in received:
                try:
                    data = connection.recv(1 << 20)
                except ConnectionResetError:
                    return bytes(received), "reset"
                except TimeoutError:
                    return bytes(received), "silent"
                if not data:
                    return bytes(received), "closed"
                received += data
        return bytes(received), "seen"

    def open_chat(self, key: str, model: str, stream: bool = True) -> socket.socket:
        """Send a chat request and return the connection to read the answer from."""
        document = {"model": model, "stream": stream, "messages": [{"role": "user", "content": "Hello"}]}
        body = json.dumps(document).encode()
        head = (
            f"POST /api/v1/chat/completions HTTP/1.1\r\nHost: stand-in\r\nAuthorization: Bearer {key}\r\n"
            f"Connection: close\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        connection = socket.create_connection(("127.0.0.1", urlsplit(self.address).port), timeout=30)
        connection.sendall(head.encode() + body)
        return connection

    def logged(self, key_hash: str, is_complete: Callable[[Any], bool] = lambda _: True) -> Any:
        """Wait for the last request of a key to be as wanted in the log, and return it."""

        def find() -> Any:
            requests_of_key = [
                entry for entry in self.control("GET", "log")["requests"] if entry["key_hash"] == key_hash
            ]
            return requests_of_key[-1] if requests_of_key and is_complete(requests_of_key[-1]) else None

        return wait_for(find)

    def spent(self, key_hash: str) -> int:
        return self.control("GET", "bill")["keys"][key_hash]["nano"]

    def generations_of(self, key_hash: str) -> list[Any]:
        generations = self.control("GET", "generations")["generations"]
        return [one for one in generations if one["key_hash"] == key_hash]

    def set_time(self, text: str) -> None:
        """Set the clock to a time in UTC, from which it goes on."""
        then = datetime.datetime.fromisoformat(text).replace(tzinfo=datetime.UTC).timestamp()
        self.control("POST", "settings", clock_offset_seconds=then - time.time())


def events_of(answer: bytes) -> list[Any]:
    """Return the JSON of the events of a raw answer, and other events as text."""
    blocks = [block for block in body_of(answer).replace(b"\r\n", b"\n").split(b"\n\n") if block.startswith(b"data: ")]
    texts = [block.removeprefix(b"data: ").decode() for block in blocks]
    return [json.loads(text) if text.startswith("{") else text for text in texts]


@pytest.fixture(scope="session")
def start_stand_in() -> Iterator[Callable[..., Running]]:
    """Start stand-ins that end with the tests."""
    running: list[Running] = []

    def start(*options: str) -> Running:
        command = [sys.executable, "-m", "sandbox.openrouter", "--port", "0", *options]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert process.stdout
        line = json.loads(process.stdout.readline())
        running.append(Running(process, line["listening"], line.get("management_key", "")))
        return running[-1]

    yield start
    for one in running:
        one.process.terminate()
        one.process.wait(60)
        assert one.process.stdout
        one.process.stdout.close()


@pytest.fixture(scope="session")
def stand_in(start_stand_in: Callable[..., Running]) -> Running:
    """One stand-in for all tests that do not need their own; every test has its own account in it."""
    return start_stand_in("--pace-ms", "1", "--comment-ms", "1")


@pytest.fixture
def clock(stand_in: Running) -> Iterator[Callable[[float], Any]]:
    """Moves the stand-in's clock, and moves it back afterwards."""
    yield lambda seconds: stand_in.control("POST", "settings", clock_offset_seconds=seconds)
    stand_in.control("POST", "settings", clock_offset_seconds=0)


@pytest.fixture(name="body_of")
def body_of_fixture() -> Callable[[bytes], bytes]:
    return body_of


@pytest.fixture(name="events_of")
def events_of_fixture() -> Callable[[bytes], list[Any]]:
    return events_of


@pytest.fixture(name="wait_for")
def wait_for_fixture() -> Callable[..., Any]:
    return wait_for


@pytest.fixture
def account(stand_in):
    return stand_in.new_account()


@pytest.fixture
def manage(stand_in, account):
    """Calls the management API of an account of its own."""
    return lambda method, path, **more: stand_in.call(method, path, account["management_key"], **more)
