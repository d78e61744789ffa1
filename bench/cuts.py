"""What a client sees of a stream that breaks upstream: told, broken off, or as if it were whole."""

from __future__ import annotations

import asyncio

from bench.load import Way
from bench.streams import Stream, stream_of

# How the stand-in breaks a stream after some chunks of text, and the model that asks for it.
BREAKS = {"closed": "sandbox/cut", "reset": "sandbox/reset", "error": "sandbox/error-mid"}
PATIENCE_SECONDS = 60


async def seen(port: int, way: Way, model: str) -> str:
    """One such stream, in words."""
    ended = asyncio.Event()
    stream = Stream(stream_of(way, model), ended.set)
    await asyncio.get_running_loop().create_connection(lambda: stream, "127.0.0.1", port)
    try:
        await asyncio.wait_for(ended.wait(), PATIENCE_SECONDS)
    except TimeoutError:
        stream.transport.abort()
        return f"nothing for {PATIENCE_SECONDS} s"
    return verdict(stream)


def verdict(stream: Stream) -> str:
    """How a broken stream looks to its client. An error that is told comes first; then what SDKs take for an end."""
    body = b"".join(stream.parts)
    if stream.status != 200:
        return f"status {stream.status}"
    if b'"error"' in body:
        return "error event"
    if b"data: [DONE]" in body:
        return "[DONE]: looks whole"
    return "ends properly: looks whole" if stream.whole else "broken transfer"
