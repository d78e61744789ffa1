"""Ten callers who do nothing odd, and somebody who asks for the gateway's health: what they get, and how soon."""

from __future__ import annotations

import asyncio
import itertools
import time
from dataclasses import dataclass, field

from bench.load import Check, Way, question
from bench.measures import percentile
from bench.processes import Program
from bench.streams import Stream, stream_of

COUNT = 10
PATH = "/v1/chat/completions"
PAUSE_SECONDS = 0.2  # of a caller, after an answer
LOOK_SECONDS = 0.25  # between two questions for the health, and two looks at the memory
PATIENCE_SECONDS = 10.0
CHUNKS = 5
HEALTH = b"GET /api/health HTTP/1.1\r\nHost: bench\r\n\r\n"


@dataclass
class Seen:
    """What was seen in some seconds. first_byte: seconds of calls that went well; failed: what the others got."""

    first_byte: list[float] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    health: list[float] = field(default_factory=list)
    """Seconds; PATIENCE_SECONDS for an answer that did not come, or was not 200."""
    pss_mb: float = 0.0

    def figures(self, name: str) -> dict[str, float]:
        """In milliseconds and megabytes."""
        return {
            f"{name}p50_ms": percentile(self.first_byte, 50),
            f"{name}p99_ms": percentile(self.first_byte, 99),
            f"{name}health_ms": 1000 * max(self.health, default=0.0),
            f"{name}pss_mb": self.pss_mb,
        }


def _stream(token: str) -> tuple[bytes, Check]:
    """A short stream, and what tells that it is whole."""
    model = f"sandbox/stream?chunks={CHUNKS}&pace_ms=20"

    def is_right(status: int, answer: bytes) -> bool:
        return status == 200 and answer.endswith(b"data: [DONE]\n\n") and b'"error"' not in answer

    return stream_of(Way(PATH, token), model), is_right


async def _ask(port: int, message: bytes, number: int) -> Stream:
    """One request over a connection of its own, from the address of this caller, and its answer."""
    ended = asyncio.Event()
    exchange = Stream(message, ended.set)
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            connecting = asyncio.get_running_loop().create_connection
            await connecting(lambda: exchange, "127.0.0.1", port, local_addr=(f"127.0.1.{number}", 0))
            await ended.wait()
    except OSError:  # TimeoutError is one
        if hasattr(exchange, "transport"):
            exchange.transport.close()
    return exchange


def _first_content(exchange: Stream) -> float:
    """Seconds until the first byte that is no comment."""
    times = zip(exchange.arrivals, exchange.parts, strict=False)
    return next((at for at, part in times if not part.startswith(b":")), time.perf_counter()) - exchange.begun


async def _call_again_and_again(port: int, token: str, number: int, until: float, seen: Seen) -> None:
    """Streams and plain calls by turns."""
    for message, is_right in itertools.cycle([_stream(token), question(Way(PATH, token), number)]):
        if time.perf_counter() >= until:
            return
        exchange = await _ask(port, message, number)
        body = b"".join(exchange.parts)
        if exchange.whole and is_right(exchange.status, body):
            seen.first_byte.append(_first_content(exchange))
        else:
            how = "whole" if exchange.whole else "not whole"
            seen.failed.append(f"{exchange.status or 'no answer'}, {how}: {body[:200].decode(errors='replace')}")
        await asyncio.sleep(PAUSE_SECONDS)


async def _ask_health(port: int, until: float, seen: Seen) -> None:
    while time.perf_counter() < until:
        exchange = await _ask(port, HEALTH, COUNT + 1)
        answered = exchange.arrivals[0] if exchange.status == 200 and exchange.arrivals else None
        seen.health.append(PATIENCE_SECONDS if answered is None else answered - exchange.begun)
        await asyncio.sleep(LOOK_SECONDS)


async def _weigh(program: Program, until: float, seen: Seen) -> None:
    while time.perf_counter() < until:
        memory = await asyncio.to_thread(program.memory_mb)
        seen.pss_mb = max(seen.pss_mb, memory.get("pss_mb", memory["rss_mb"]))
        await asyncio.sleep(LOOK_SECONDS)


async def watch(port: int, tokens: list[str], program: Program, seconds: float) -> Seen:
    """Call for so long with each of these tokens at once, and look on."""
    seen, until = Seen(), time.perf_counter() + seconds
    callers = [_call_again_and_again(port, token, number, until, seen) for number, token in enumerate(tokens, 1)]
    await asyncio.gather(*callers, _ask_health(port, until, seen), _weigh(program, until, seen))
    return seen
