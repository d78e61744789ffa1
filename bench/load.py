"""The load generator: HTTP/1.1 clients on raw asyncio transports, in closed loops, at a fixed rate, or all at once.

One client costs some 20 µs a request: it shares its core with the stand-in and must leave it most of that.
"""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import TypeVar

import httptools
import uvloop

ANSWER_SECONDS = 30
Check = Callable[[int, bytes], bool]
Outcome = TypeVar("Outcome")


def run(load: Coroutine[None, None, Outcome]) -> Outcome:
    """Run a load to its end. Raises KeyboardInterrupt for SIGTERM too: within a callback uvloop would swallow it."""

    async def stoppable() -> Outcome:
        task = asyncio.current_task()
        assert task
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        return await load

    try:
        return uvloop.run(stoppable())
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
    finally:
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # the loop has reset it


@dataclass
class Results:
    """What came back: seconds of the right answers, and what the wrong ones looked like."""

    seconds: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    answer_bytes: int = 0

    def add(self, client: Client, right: bool) -> None:
        """Count one answer."""
        if right:
            self.seconds.append(client.seconds)
            self.answer_bytes = len(client.body)
        else:
            self.wrong.append(f"{client.status} {client.body[:200]!r}")


class Client(asyncio.Protocol):
    """One keep-alive connection. `on_answer` is called with it once per request; status 0 is a lost connection."""

    def __init__(self, on_answer: Callable[[Client], None]) -> None:
        self.on_answer = on_answer
        self.status = 0
        self.body = b""
        self.seconds = 0.0
        self._sent_at = 0.0
        self._waiting = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio calls this once connected."""
        self.transport = transport

    def send(self, message: bytes) -> None:
        """Send a request; the clock of its answer begins now."""
        self._parser = httptools.HttpResponseParser(self)
        self._parts: list[bytes] = []
        self._waiting = True
        self._sent_at = time.perf_counter()
        self.transport.write(message)

    def data_received(self, data: bytes) -> None:
        """asyncio calls this with bytes of the answer."""
        self._parser.feed_data(data)

    def on_body(self, part: bytes) -> None:
        """The parser calls this with bytes of the body."""
        self._parts.append(part)

    def on_message_complete(self) -> None:
        """The parser calls this at the end of the answer."""
        self._end(self._parser.get_status_code(), b"".join(self._parts))

    def connection_lost(self, _error: Exception | None) -> None:
        """asyncio calls this when the connection has gone."""
        if self._waiting:
            self._end(0, b"the connection was lost")

    def _end(self, status: int, body: bytes) -> None:
        self.seconds = time.perf_counter() - self._sent_at
        self._waiting = False
        self.status, self.body = status, body
        self.on_answer(self)


async def connect(port: int, on_answer: Callable[[Client], None]) -> Client:
    """A connected client."""
    loop = asyncio.get_running_loop()
    _transport, client = await loop.create_connection(lambda: Client(on_answer), "127.0.0.1", port)
    return client


def post(path: str, body: object, token: str = "", headers: str = "") -> bytes:
    """The bytes of one JSON request. headers: more of them, each with its end of line."""
    text = json.dumps(body).encode()
    authorization = f"Authorization: Bearer {token}\r\n" if token else ""
    head = f"POST {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n{authorization}{headers}"
    return f"{head}Content-Length: {len(text)}\r\n\r\n".encode() + text


@dataclass(frozen=True)
class Way:
    """How a gateway is called: at which path, as whom, and whether the bytes of an answer are those that were sent."""

    path: str
    token: str
    headers: str = ""  # besides, each with its end of line
    prefix: str = ""  # before the name of a model
    rewrites: bool = False  # it writes answers anew: their text is compared instead of their bytes

    def post(self, model: str, **fields: object) -> bytes:
        """The bytes of one call of a model."""
        return post(self.path, {"model": self.prefix + model, **fields}, self.token, self.headers)


def question(way: Way, number: int) -> tuple[bytes, Check]:
    """A chat request of client `number`, and what tells its right answer: whole, and not that of another client."""
    own = f"I am client {number}. "
    messages = [{"role": "system", "content": "You are a helpful assistant."}]
    messages.append({"role": "user", "content": own + "Please tell me about gateways."})
    mark = own.encode()

    def is_right(status: int, answer: bytes) -> bool:
        whole = b'"usage"' in answer if way.rewrites else b'"usage":{' in answer and answer.endswith(b"}}")
        return status == 200 and mark in answer and whole

    return way.post("openai/gpt-4o-mini", temperature=0.7, messages=messages), is_right


async def closed_loop(port: int, requests: list[tuple[bytes, Check]], seconds: float) -> Results:
    """One connection for each request, which it sends again as soon as the answer is there, until the time is over."""
    results, finished = Results(), asyncio.Event()
    until = time.perf_counter() + seconds
    running = len(requests)

    def again(message: bytes, is_right: Check) -> Callable[[Client], None]:
        def on_answer(client: Client) -> None:
            nonlocal running
            results.add(client, is_right(client.status, client.body))
            if client.status and time.perf_counter() < until:
                client.send(message)
                return
            running -= 1
            if not running:
                finished.set()

        return on_answer

    clients = [await connect(port, again(*request)) for request in requests]
    for client, (message, _check) in zip(clients, requests, strict=True):
        client.send(message)
    await _finish(finished, results, seconds, clients)
    return results


async def fixed_rate(port: int, request: tuple[bytes, Check], rate: float, seconds: float) -> Results:
    """Send at a fixed rate whether or not answers come; a request that finds no idle connection opens one."""
    results, finished, idle, clients = Results(), asyncio.Event(), list[Client](), list[Client]()
    message, is_right = request
    total = left = int(rate * seconds)

    def on_answer(client: Client) -> None:
        nonlocal left
        results.add(client, is_right(client.status, client.body))
        if client.status:
            idle.append(client)
        left -= 1
        if not left:
            finished.set()

    for _ in range(8):
        idle.append(await connect(port, on_answer))
    clients.extend(idle)
    begun = time.perf_counter()
    for number in range(total):
        await asyncio.sleep(max(0.0, begun + number / rate - time.perf_counter()))
        if not idle:
            idle.append(await connect(port, on_answer))
            clients.append(idle[-1])
        idle.pop().send(message)
    await _finish(finished, results, 0, clients)
    return results


async def all_at_once(port: int, message: bytes, count: int) -> list[Client]:
    """Send `count` requests in the same instant over a connection each; the clients hold their answers."""
    finished, left = asyncio.Event(), count

    def on_answer(_client: Client) -> None:
        nonlocal left
        left -= 1
        if not left:
            finished.set()

    clients = [await connect(port, on_answer) for _ in range(count)]
    for client in clients:
        client.send(message)
    await _finish(finished, Results(), 0, clients)
    return clients


async def _finish(finished: asyncio.Event, results: Results, seconds: float, clients: list[Client]) -> None:
    try:
        await asyncio.wait_for(finished.wait(), seconds + ANSWER_SECONDS)
    except TimeoutError:
        results.wrong.append(f"no answer within {ANSWER_SECONDS} s")
    for client in clients:
        client.transport.close()
