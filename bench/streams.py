"""Many streamed answers at a time: opens them, times each piece, and afterwards checks every byte of every answer."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import httptools

from bench.load import Way
from sandbox.openrouter_answers import filler
from sandbox.openrouter_chat import CHUNK_DELTA, CHUNK_END, deltas_of

RAMP_SECONDS = 2.0
PATIENCE_SECONDS = 60


@dataclass(frozen=True)
class Shape:
    """How many streams, and what each looks like."""

    streams: int
    chunks: int = 50
    pace_ms: int = 100

    @property
    def nominal_seconds(self) -> float:
        """From the first chunk to the last, if nothing is late."""
        return (self.chunks - 1) * self.pace_ms / 1000

    def request(self, way: Way) -> bytes:
        """The request for one such stream."""
        return stream_of(way, f"sandbox/stream?chunks={self.chunks}&pace_ms={self.pace_ms}")


def stream_of(way: Way, model: str) -> bytes:
    """The request for a stream of this model."""
    return way.post(model, stream=True, messages=[{"role": "user", "content": "Count."}])


class Stream(asyncio.Protocol):
    """One client of one stream. The clock begins before it connects."""

    def __init__(self, message: bytes, on_end: Callable[[], None]) -> None:
        self._message = message
        self._on_end = on_end
        self._parser = httptools.HttpResponseParser(self)
        self.begun = time.perf_counter()
        self.arrivals: list[float] = []
        self.parts: list[bytes] = []
        self.status = 0
        self.whole = False
        self._ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio calls this once connected."""
        self.transport = transport
        transport.write(self._message)

    def data_received(self, data: bytes) -> None:
        """asyncio calls this with bytes of the answer."""
        before = len(self.parts)
        self._parser.feed_data(data)
        if len(self.parts) > before:  # more than a head or the end of the chunks
            self.arrivals.append(time.perf_counter())

    def on_headers_complete(self) -> None:
        """The parser calls this at the end of the head."""
        self.status = self._parser.get_status_code()

    def on_body(self, part: bytes) -> None:
        """The parser calls this with bytes of the body."""
        self.parts.append(part)

    def on_message_complete(self) -> None:
        """The parser calls this at the regular end of the answer."""
        self.whole = True
        self.transport.close()
        self._end()

    def connection_lost(self, _error: Exception | None) -> None:
        """asyncio calls this when the connection has gone."""
        self._end()

    def _end(self) -> None:
        if not self._ended:
            self._ended = True
            self._on_end()


Judge = Callable[[Stream], str]  # what is wrong with a stream, or nothing


@dataclass
class StreamResults:
    """All streams of a run."""

    first_token: list[float] = field(default_factory=list)
    gaps: list[float] = field(default_factory=list)
    durations: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def add(self, stream: Stream, judge: Judge) -> None:
        """Count one stream."""
        if fault := judge(stream):
            self.wrong.append(fault)
            return
        times = stream.arrivals
        self.first_token.append(times[0] - stream.begun)
        self.gaps.extend(after - before for before, after in itertools.pairwise(times))
        self.durations.append(times[-1] - times[0])


def fault_of(stream: Stream, deltas: list[bytes]) -> str:
    """What is wrong with an answer, or nothing: each chunk is compared byte by byte with what the stand-in sends."""
    body = b"".join(stream.parts)
    if stream.status != 200 or not stream.whole:
        return f"{stream.status}, {len(body)} bytes, {'whole' if stream.whole else 'broken off'}: {body[:200]!r}"
    events = [event for event in body.split(b"\n\n") if not event.startswith(b":")]
    start = events[0].partition(CHUNK_DELTA)[0]  # the id, model and time that all chunks of an answer share
    expected = [(start + CHUNK_DELTA + delta + CHUNK_END)[:-2] for delta in deltas]
    if events[: len(deltas)] != expected:
        return f"chunks differ from what was sent; {len(events)} events, {body.count(CHUNK_DELTA)} chunks"
    *closing, done, end = events[len(deltas) :]
    if len(closing) != 2 or any(not event.startswith(start) for event in closing) or b'"usage":{' not in closing[1]:
        return f"the end differs: {closing!r}"
    return "" if (done, end) == (b"data: [DONE]", b"") else f"ends in {done!r} {end!r}"


def text_of(body: bytes) -> str:
    """The text of a streamed chat completion, whatever else its events hold."""
    text = ""
    for line in body.split(b"\n"):
        if line.startswith(b"data: {"):
            choices = json.loads(line[6:]).get("choices") or [{}]
            text += choices[0].get("delta", {}).get("content") or ""
    return text


def judge_of(shape: Shape, way: Way) -> Judge:
    """What tells the fault of a stream: other bytes than were sent or, where answers are rewritten, another text."""
    words = filler(shape.chunks, False)
    deltas, text = deltas_of(words), "".join(words.pieces)

    def differs(stream: Stream) -> str:
        body = b"".join(stream.parts)
        if stream.status == 200 and stream.whole and text_of(body) == text:
            return ""
        return f"{stream.status}, {len(body)} bytes: {body[:200]!r}"

    return differs if way.rewrites else lambda stream: fault_of(stream, deltas)


async def open_streams(
    port: int, message: bytes, shape: Shape, judge: Judge, while_all_are_open: Callable[[], None] = lambda: None
) -> StreamResults:
    """Open all streams within RAMP_SECONDS, wait for their ends, and check them."""
    loop, finished, left = asyncio.get_running_loop(), asyncio.Event(), shape.streams

    def on_end() -> None:
        nonlocal left
        left -= 1
        if not left:
            finished.set()

    async def open_one(number: int) -> Stream:
        await asyncio.sleep(number * RAMP_SECONDS / shape.streams)
        stream = Stream(message, on_end)
        try:
            await loop.create_connection(lambda: stream, "127.0.0.1", port)
        except OSError as error:
            stream.connection_lost(error)  # counted as a stream that did not come
        return stream

    async def look() -> None:
        await asyncio.sleep((RAMP_SECONDS + shape.nominal_seconds) / 2)
        await asyncio.to_thread(while_all_are_open)

    looking = asyncio.ensure_future(look())
    streams = await asyncio.gather(*(open_one(number) for number in range(shape.streams)))
    results = StreamResults()
    try:
        await asyncio.wait_for(finished.wait(), shape.nominal_seconds + PATIENCE_SECONDS)
    except TimeoutError:
        results.wrong.append(f"{left} streams had not ended after {PATIENCE_SECONDS} more seconds")
    await looking
    for stream in streams:
        results.add(stream, judge)
    return results
