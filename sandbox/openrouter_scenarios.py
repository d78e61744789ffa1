"""How an answer goes over the wire: the knobs of a plan, named presets of them, and the stages that carry them out."""

import dataclasses
import itertools
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

from sandbox.http_server import Ending, Heads, Mark, Reply, Step, in_chunk
from sandbox.openrouter_faults import ROWS

MODEL_PREFIX = "sandbox/"
COMMENT = b": OPENROUTER PROCESSING\n\n"
WHITESPACE = b"\n         \n"
BLOCK = 65536
HUGE = 100 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Plan:
    """The knobs of one answer. A name ending in _ms is milliseconds; a number that stands for a switch is 0 or 1."""

    # anywhere
    break_at: str = ""  # headers | body | middle | usage | done | end: where the answer breaks, see `break_off`
    break_how: str = "reset"  # fin | reset | stall | pause: how it breaks
    break_ms: int = 1000  # how long a pause is
    # before the head
    delay_ms: int = 0
    early_hints: int = 0
    # the head and the frame of the body
    header_bytes: int = 0
    close: int = 0
    framing: str = "chunked"  # chunked | close | http10
    gzip: int = 0
    retry_after: str = ""
    # the body, whole or streamed
    chunks: int = 0  # words of the answer; 0 leaves it to the echo
    text: str = ""  # utf8: words made of multi-byte characters
    tools: int = 0  # calls the first tool unless the last message is a tool's result
    ending: str = ""  # fin | reset | stall | comments: instead of the regular end
    empty: int = 0
    huge_bytes: int = 0
    one_byte: int = 0
    error_after: int = -1  # the error comes after so many chunks
    error_code: str = "502"
    # a whole body
    whitespace: int = 0
    whitespace_ms: int = 20
    # a stream
    pace_ms: float = 20
    comments: int = 0
    comment_ms: int = 20
    mid_comments: int = 0  # one comment after every so many chunks
    usage: str = "new"  # new | old | none
    finish: int = 1
    done: int = 1
    runs_on: int = 0  # the provider can't be stopped: a stream that its client leaves is billed in full
    malformed: int = 0
    crlf: int = 0
    split_utf8: int = 0
    half_ms: int = 0  # every event in two halves with this pause between
    error_shape: str = "full"  # full | null-finish | no-choices
    error_usage: int = 0
    opened: int = 0  # before an error that comes first: the events that open a stream of responses or messages
    error_done: int = 0
    error_split_ms: int = 0


PRESETS: dict[str, dict[str, Any]] = {
    "stream": {},
    "tools": {"tools": 1},
    "comments": {"comments": 5},
    "mid-comments": {"comments": 2, "mid_comments": 1},
    "one-byte": {"one_byte": 1},
    "utf8": {"text": "utf8"},
    "split-utf8": {"text": "utf8", "split_utf8": 1},
    "crlf": {"crlf": 1},
    "half-events": {"half_ms": 20},
    "old-usage": {"usage": "old"},
    "no-usage": {"usage": "none"},
    "no-done": {"done": 0},
    "no-finish": {"finish": 0, "usage": "none", "done": 0},
    "error-first": {"error_after": 0},
    "error-opened": {"error_after": 0, "opened": 1},
    "error-first-comments": {"error_after": 0, "comments": 3},
    "error-mid": {"error_after": 3},
    "error-string-code": {"error_after": 3, "error_code": "server_error"},
    "error-usage": {"error_after": 3, "error_shape": "null-finish", "error_usage": 1, "error_done": 1},
    "error-no-choices": {"error_after": 3, "error_shape": "no-choices"},
    "error-split": {"error_after": 3, "error_split_ms": 20},
    "reset": {"chunks": 3, "ending": "reset"},
    "cut": {"chunks": 3, "ending": "fin"},
    "stall": {"chunks": 3, "ending": "stall"},
    "endless-comments": {"chunks": 1, "ending": "comments"},
    "huge-line": {"huge_bytes": HUGE},
    "malformed": {"malformed": 1},
    "empty": {"empty": 1},
    "whitespace": {"whitespace": 3},
    "whitespace-error": {"whitespace": 3, "error_after": 0},
    "slow-headers": {"delay_ms": 6000},
    "gzip": {"gzip": 1},
    "close-delimited": {"framing": "close"},
    "http10": {"framing": "http10"},
    "drop": {"break_at": "headers", "break_how": "fin"},
    "drop-reset": {"break_at": "headers"},
    "early-hints": {"early_hints": 1},
    "large-headers": {"header_bytes": 20_000},
    "connection-close": {"close": 1},
}
CHOICES = {
    "break_at": ("", "headers", "body", "middle", "usage", "done", "end"),
    "break_how": ("fin", "reset", "stall", "pause"),
    "framing": ("chunked", "close", "http10"),
    "text": ("", "utf8"),
    "ending": ("", "fin", "reset", "stall", "comments"),
    "usage": ("new", "old", "none"),
    "error_shape": ("full", "null-finish", "no-choices"),
}
ENDINGS = {"fin": Ending.CLOSE, "reset": Ending.RESET, "stall": Ending.STALL}
FLUSH_SECONDS = 0.02  # what was sent must have left the buffers before the connection breaks
DEFAULTS: dict[str, Any] = {knob.name: knob.default for knob in dataclasses.fields(Plan)}
LARGEST_NUMBER = 2**31


class UnknownScenario(ValueError):
    """A scenario, or one of its parameters, does not exist."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """What to do with a request: answer with a row of the fault table, or regularly, and how it goes over the wire."""

    row: str
    plan: Plan
    ordinary: bool


def parse_scenario(text: str, defaults: Plan) -> Scenario:
    """Read `name` or `name?knob=value&...`, where the name is a preset or a row of the fault table."""
    name, _, query = text.partition("?")
    if name not in PRESETS and name not in ROWS:
        raise UnknownScenario(f"there is no scenario {name!r}")
    given = dict(parse_qsl(query, keep_blank_values=True))
    knobs = PRESETS.get(name, {}) | {knob: knob_value(knob, value) for knob, value in given.items()}
    return Scenario(name if name in ROWS else "", dataclasses.replace(defaults, **knobs), not knobs)


def knob_value(knob: str, text: str) -> Any:
    """Return the value of one knob, read from text."""
    if knob not in DEFAULTS:
        raise UnknownScenario(f"there is no parameter {knob!r}")
    if isinstance(DEFAULTS[knob], str):
        if text not in CHOICES.get(knob, (text,)):
            raise UnknownScenario(f"{knob} is one of {', '.join(filter(None, CHOICES[knob]))}")
        return printable(knob, text)
    try:
        value = type(DEFAULTS[knob])(text)
    except ValueError:
        raise UnknownScenario(f"{knob} is a number") from None
    if not -1 <= value <= LARGEST_NUMBER:
        raise UnknownScenario(f"{knob} is out of range")
    return value


def printable(knob: str, text: str) -> str:
    """Return the text if it can stand in a header."""
    if not (text.isascii() and text.isprintable()):
        raise UnknownScenario(f"{knob} has characters that cannot stand in a header")
    return text


def whole_body(plan: Plan, body: bytes) -> Iterator[Step]:
    """Yield the pieces of a body that is not streamed."""
    for _ in range(plan.whitespace):
        yield WHITESPACE
        yield plan.whitespace_ms / 1000
    yield from blocks(b" ", plan.huge_bytes)
    if plan.empty:
        return
    if plan.ending:
        yield body[: len(body) // 2]
        yield from regular_endings(plan)
    if plan.break_at in ("middle", "usage"):
        yield body[: len(body) // 2]
        yield from break_off(plan, plan.break_at)
        yield body[len(body) // 2 :]
    else:
        yield body
    yield from break_off(plan, "done")


def break_off(plan: Plan, point: str) -> Iterator[Step]:
    """Yield the break of the answer, if this is the point that `break_at` names.

    `headers`: before any byte. `body`: after the head. `middle`: after half of the chunks, or half of a whole body.
    `usage`: after the finish chunk, before the usage chunk; of a whole body, the middle. `done`: before `[DONE]`, or
    after the last byte of a whole body. `end`: after `[DONE]`, or after that last byte; the body is not ended yet.
    """
    if plan.break_at != point:
        return
    if point != "headers":
        yield FLUSH_SECONDS
    yield Mark.AT_BREAK
    if plan.break_how == "pause":
        yield plan.break_ms / 1000
    else:
        yield ENDINGS[plan.break_how]


def regular_endings(plan: Plan) -> Iterator[Step]:
    """Yield what comes instead of the regular end, if the plan has such a thing."""
    if plan.ending == "comments":
        for _ in itertools.count():
            yield plan.comment_ms / 1000
            yield COMMENT
    if plan.ending in ENDINGS:
        yield FLUSH_SECONDS
        yield ENDINGS[plan.ending]


def blocks(character: bytes, size: int) -> Iterator[Step]:
    """Yield one character again and again, in blocks, until there are this many bytes."""
    block = character * BLOCK
    for sent in range(0, size, BLOCK):
        yield block[: size - sent]


def on_the_wire(reply: Reply, plan: Plan, heads: Heads, body: Iterator[Step]) -> Iterator[Step]:
    """Yield everything of an answer, from the first wait to the last byte."""
    if plan.delay_ms:
        yield plan.delay_ms / 1000
    yield from break_off(plan, "headers")
    for _ in range(plan.early_hints):
        yield b"HTTP/1.1 103 Early Hints\r\nlink: </style.css>; rel=preload\r\n\r\n"
    yield heads.build(reply.status, head_lines(reply, plan), b"1.0" if plan.framing == "http10" else b"1.1")
    body = itertools.chain(break_off(plan, "body"), body, break_off(plan, "end"))
    for stage in STAGES:
        body = stage(plan, body)
    yield from body
    if plan.close or plan.framing != "chunked":
        yield Ending.CLOSE


def head_lines(reply: Reply, plan: Plan) -> bytes:
    """Return the header lines of an answer that follows a plan."""
    lines = [b"content-type: %b\r\n" % reply.content_type, reply.headers]
    if plan.framing == "chunked":
        lines.append(b"transfer-encoding: chunked\r\n")
    if plan.close or plan.framing == "close":
        lines.append(b"connection: close\r\n")
    if plan.gzip:
        lines.append(b"content-encoding: gzip\r\n")
    if plan.header_bytes:
        lines.append(b"x-padding: %b\r\n" % (b"p" * plan.header_bytes))
    return b"".join(lines)


def with_crlf(plan: Plan, body: Iterator[Step]) -> Iterator[Step]:
    """End lines with carriage return and line feed."""
    if not plan.crlf:
        return body
    return (step.replace(b"\n", b"\r\n") if isinstance(step, bytes) else step for step in body)


def with_halves(plan: Plan, body: Iterator[Step]) -> Iterator[Step]:
    """Send every piece in two halves with a pause between them."""
    if not plan.half_ms:
        return body
    return itertools.chain.from_iterable(
        (step[: len(step) // 2], plan.half_ms / 1000, step[len(step) // 2 :]) if isinstance(step, bytes) else (step,)
        for step in body
    )


def with_split_characters(plan: Plan, body: Iterator[Step]) -> Iterator[Step]:
    """Cut after the first byte of every character that has several."""
    if not plan.split_utf8:
        return body
    return itertools.chain.from_iterable(cut_characters(step) if isinstance(step, bytes) else (step,) for step in body)


def cut_characters(data: bytes) -> Iterator[bytes]:
    """Yield the pieces between the first and second bytes of multi-byte characters."""
    start = 0
    for at, byte in enumerate(data):
        if byte >= 0xC0:
            yield data[start : at + 1]
            start = at + 1
    yield data[start:]


def with_gzip(plan: Plan, body: Iterator[Step]) -> Iterator[Step]:
    """Compress although nobody asked for it."""
    return compressed(body) if plan.gzip else body


def compressed(body: Iterator[Step]) -> Iterator[Step]:
    """Yield the body as one gzip stream, flushed at every piece."""
    gzip = zlib.compressobj(wbits=31)
    for step in body:
        yield gzip.compress(step) + gzip.flush(zlib.Z_SYNC_FLUSH) if isinstance(step, bytes) else step
    yield gzip.flush()


def with_single_bytes(plan: Plan, body: Iterator[Step]) -> Iterator[Step]:
    """Send every byte as a piece of its own."""
    if not plan.one_byte:
        return body
    return itertools.chain.from_iterable(
        (step[at : at + 1] for at in range(len(step))) if isinstance(step, bytes) else (step,) for step in body
    )


def with_chunked_framing(plan: Plan, body: Iterator[Step]) -> Iterator[Step]:
    """Wrap the pieces as HTTP chunks, unless the end of the connection ends the body."""
    return in_chunks(body) if plan.framing == "chunked" else body


def in_chunks(body: Iterator[Step]) -> Iterator[Step]:
    """Yield every piece as one HTTP chunk, then the last chunk."""
    for step in body:
        if not isinstance(step, bytes):
            yield step
        elif step:
            yield in_chunk(step)
    yield b"0\r\n\r\n"


STAGES: tuple[Callable[[Plan, Iterator[Step]], Iterator[Step]], ...] = (
    with_crlf,
    with_halves,
    with_split_characters,
    with_gzip,
    with_single_bytes,
    with_chunked_framing,
)


def defaults_changed(defaults: Plan, changes: Mapping[str, Any]) -> Plan:
    """Return the plan that ordinary answers follow after a change of some knobs."""
    return dataclasses.replace(defaults, **{knob: knob_value(knob, str(value)) for knob, value in changes.items()})
