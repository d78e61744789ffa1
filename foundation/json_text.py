"""JSON as clients and OpenRouter really send it: orjson, and Python's own parser for what orjson refuses.

orjson refuses half an emoji (an escaped lone surrogate, which JavaScript cuts texts into) and nesting that it can read
but not write. Both come from people's prompts, so an answer that repeats one must be readable here too.
"""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import orjson

INVALID = "not valid JSON (UTF-8, not too deeply nested)"


class BadJson(ValueError):
    """Not JSON, or nested too deeply to be looked at."""


def parse(text: bytes) -> Any:
    """The value of a JSON text. Raises BadJson; NaN and Infinity are not JSON."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        pass
    try:
        return json.loads(text.decode("utf-8"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise BadJson(INVALID) from None


def parse_unique(text: bytes) -> Any:
    """The value of a JSON text in which no object has a key twice: one reader takes the first, another the last.

    Raises BadJson. For small texts: it is some times slower than `parse`.
    """
    if b"{" not in text:
        return parse(text)
    try:
        return _unique_decoder.decode(text.decode("utf-8"))
    except BadJson:
        raise
    except (ValueError, RecursionError):
        raise BadJson(INVALID) from None


def ambiguous(key: str) -> BadJson:
    """What is wrong with an object that has this key twice."""
    return BadJson(f"ambiguous: it has the key {key[:64]!r} twice in one object")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ambiguous(key)
        found[key] = value
    return found


def parse_exact(text: bytes) -> Any:
    """The value of a JSON text with its fractions as Decimal: every digit of an amount of money. Raises BadJson."""
    try:
        return json.loads(text, parse_float=Decimal, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise BadJson(INVALID) from None


def whole(value: object) -> int | None:
    """The whole number that a JSON value is, also when it is written as 1024.0 or 1e3; None for all else.

    JSON knows one kind of number. Clients in Lua, PHP, R or Swift write all of theirs with a fraction.
    """
    if type(value) is float and value.is_integer():
        return int(value)
    return value if type(value) is int else None  # not isinstance: true is an int to Python


def write(value: Any) -> bytes:
    """The JSON text of a value that `parse` returned. Raises BadJson."""
    try:
        return orjson.dumps(value)
    except TypeError:  # half an emoji, or too deep for orjson
        pass
    try:
        return json.dumps(value, separators=(",", ":")).encode("ascii")
    except (ValueError, TypeError, RecursionError):
        raise BadJson("nested too deeply") from None


def _refuse_constant(name: str) -> None:
    raise ValueError(name)


_unique_decoder = json.JSONDecoder(parse_constant=_refuse_constant, object_pairs_hook=_unique)
