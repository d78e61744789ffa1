"""One bad caller at full tilt, a program of its own: `python -m bench.bad_caller NAME`, with PORT, TOKEN and UPSTREAM.

It says `ready` once it does all that it wants to do, and goes on until it is ended. What the gateway refuses it tries
again; what is closed it opens again. It calls from an address of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

import uvloop

from bench.odd_stand_in import EDGE, SCRIPTS
from sandbox.openrouter_faults import ROWS as REFUSALS

ADDRESS = ("127.0.0.2", 0)
AGAIN_SECONDS = 0.2
AT_ONCE = 4
HELLO = [{"role": "user", "content": "Hello"}]
CHAT, MESSAGES, RESPONSES = "/v1/chat/completions", "/v1/messages", "/v1/responses"
# What OpenRouter says of our own key or account: it rests rightly, and no good caller can be promised anything.
OF_OUR_OWN = {"401a", "401b", "401c", "402a", "402b", "402c", "402d", "403c", "403d", "403e", "403g", "429a", "429b"}


@dataclass
class Gateway:
    """Whom to call, with which token; and the upstream behind."""

    port: int
    token: str
    upstream: int

    def head(self, path: str, length: int) -> bytes:
        """The head of a JSON request."""
        head = f"POST {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"
        return f"{head}Authorization: Bearer {self.token}\r\nContent-Length: {length}\r\n\r\n".encode()

    def request(self, model: str, stream: bool, path: str = CHAT, content: object = "Hello", extra: str = "") -> bytes:
        """A whole call. extra: more JSON before the end of its object."""
        body = {"model": model, "stream": stream, "max_tokens": 100}
        body |= {"input": content} if path == RESPONSES else {"messages": [{"role": "user", "content": content}]}
        text = (json.dumps(body)[:-1] + extra + "}").encode()
        return self.head(path, len(text)) + text

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection from the bad caller's address."""
        return await asyncio.open_connection("127.0.0.1", self.port, local_addr=ADDRESS)


Bad = Callable[[Gateway, Callable[[], None]], Awaitable[None]]


async def _again(act: Callable[[], Awaitable[None]]) -> None:
    """Do it for ever, whatever comes of it."""
    while True:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await act()
        await asyncio.sleep(AGAIN_SECONDS)


async def _many(count: int, act: Callable[[Callable[[], None]], Awaitable[None]], ready: Callable[[], None]) -> None:
    """So many at once, for ever; ready when each has been there, or has failed, once."""
    left = count

    def there() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            ready()

    async def one() -> None:
        once = [there]

        def told() -> None:
            if once:
                once.pop()()

        async def attempt() -> None:
            try:
                await act(told)
            finally:
                told()

        await _again(attempt)

    await asyncio.gather(*(one() for _ in range(count)))


async def _call(message: bytes, gateway: Gateway, there: Callable[[], None]) -> None:
    """A call and its whole answer, over a connection that is kept while that works."""
    reader, writer = await gateway.connect()
    with contextlib.closing(writer):
        while True:
            writer.write(message)
            await writer.drain()
            head = await reader.readuntil(b"\r\n\r\n")
            there()
            if b"chunked" in head.lower():
                while (piece := await reader.readuntil(b"\r\n")) != b"0\r\n":
                    await reader.readexactly(int(piece, 16) + 2)
                await reader.readexactly(2)
            else:
                length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
                await reader.readexactly(int(length or b"0"))
            if b"connection: close" in head.lower():
                return


async def calls(gateway: Gateway, ready: Callable[[], None], model: str, stream: bool, path: str = CHAT) -> None:
    """Calls, each as soon as the one before is answered."""
    message = gateway.request(model, stream, path)
    await _many(AT_ONCE, partial(_call, message, gateway), ready)


async def bodies(gateway: Gateway, ready: Callable[[], None], count: int, message: bytes) -> None:
    """So many bodies at once, over and over."""
    await _many(count, partial(_call, message, gateway), ready)


async def tree(gateway: Gateway, ready: Callable[[], None]) -> None:
    """A body of 19 MB of empty lists."""
    message = gateway.request("odd/whole", False, extra=f', "x": [{",".join(["[]"] * 6_300_000)}]')
    await bodies(gateway, ready, 1, message)


async def large_bodies(gateway: Gateway, ready: Callable[[], None]) -> None:
    """40 bodies of 20 MB at once."""
    await bodies(gateway, ready, 40, gateway.request("odd/whole", False, content="x" * 20_000_000))


async def held(gateway: Gateway, ready: Callable[[], None], count: int, message: bytes, reads: bool = True) -> None:
    """So many connections, each of which sends this and then waits; closed ones are opened again."""

    async def one(there: Callable[[], None]) -> None:
        reader, writer = await gateway.connect()
        with contextlib.closing(writer):
            writer.write(message)
            await writer.drain()
            there()
            if not reads:
                writer.transport.pause_reading()  # type: ignore[attr-defined]
                await asyncio.Event().wait()
            while await reader.read(65536):
                pass

    await _many(count, one, ready)


async def half_bodies(gateway: Gateway, ready: Callable[[], None]) -> None:
    """1,110 calls whose bodies never end."""
    await held(gateway, ready, 1110, gateway.head(CHAT, 1000) + b'{"model": "odd/whole"')


async def half_heads(gateway: Gateway, ready: Callable[[], None]) -> None:
    """5,150 heads that never end."""
    await held(gateway, ready, 5150, gateway.head(CHAT, 1000)[:-20])


async def streams(gateway: Gateway, ready: Callable[[], None]) -> None:
    """As many streams as there are threads."""
    await held(gateway, ready, 1100, gateway.request("odd/stream", True))


async def large_streams(gateway: Gateway, ready: Callable[[], None]) -> None:
    """20 streams with requests of 10 MB."""
    await held(gateway, ready, 20, gateway.request("odd/stream", True, content="x" * 10_000_000))


async def deaf(gateway: Gateway, ready: Callable[[], None]) -> None:
    """50 clients that never read their long answers."""
    await held(gateway, ready, 50, gateway.request("odd/flood", True), reads=False)


async def leaves(gateway: Gateway, ready: Callable[[], None]) -> None:
    """Plain calls that are left after a second, and tried again."""
    message = gateway.request("odd/slow", False)

    async def one(there: Callable[[], None]) -> None:
        _reader, writer = await gateway.connect()
        with contextlib.closing(writer):
            writer.write(message)
            there()
            await asyncio.sleep(1)

    await _many(20, one, ready)


async def edge(gateway: Gateway, ready: Callable[[], None]) -> None:
    """Nobody calls; the upstream's edge closes idle connections."""
    connection = http.client.HTTPConnection("127.0.0.1", gateway.upstream, timeout=10)
    connection.request("POST", EDGE)
    connection.getresponse().read()
    ready()
    await asyncio.Event().wait()


def _scripted(name: str) -> Bad:
    path = {"message": MESSAGES, "response": RESPONSES}.get(name.partition("-")[0], CHAT)
    return partial(calls, model=f"odd/{name}", stream=not name.startswith("plain"), path=path)


BY_CALLERS: dict[str, Bad] = {
    "event-429": _scripted("event-429"),
    "event-402": _scripted("event-402"),
    "plain-choice-429": _scripted("plain-choice-429"),
    "tree": tree,
    "half-bodies": half_bodies,
    "half-heads": half_heads,
    "streams": streams,
    "large-bodies": large_bodies,
    "large-streams": large_streams,
    "leaves": leaves,
    "edge": edge,
    "deaf": deaf,
}
BY_ANSWERS: dict[str, Bad] = {
    name: _scripted(name) for name in SCRIPTS if name not in BY_CALLERS and name not in {"whole", "slow"}
} | {row: partial(calls, model=f"sandbox/{row}", stream=False) for row in REFUSALS if row not in OF_OUR_OWN}
BAD: dict[str, Bad] = BY_CALLERS | BY_ANSWERS


def main() -> None:
    """Do it until somebody ends this."""
    gateway = Gateway(*(int(os.environ["PORT"]), os.environ["TOKEN"], int(os.environ["UPSTREAM"])))
    uvloop.run(BAD[sys.argv[1]](gateway, lambda: print("ready", flush=True)))  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
