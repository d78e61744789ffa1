"""What the stand-in says: the words of an answer, JSON that fits a schema, the arguments of a tool, and errors."""

import functools
import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

LONGEST_ECHO = 200
DEEPEST_SAMPLE = 8
FILLER_TEXT = "This is the stand-in for OpenRouter, and it counts its words one by one."
MULTI_BYTE_TEXT = "Grüße 🌍 こんにちは 👩‍🚀 Ελλάδα ñandú 🇨🇳 čau €5 naïve"
SAMPLES_OF_FORMATS = {
    "date-time": "2026-01-02T03:04:05Z",
    "date": "2026-01-02",
    "time": "03:04:05Z",
    "email": "someone@example.com",
    "uri": "https://example.com/",
    "uuid": "00000000-0000-4000-8000-000000000000",
}


@dataclass(frozen=True, slots=True)
class Words:
    """An answer in pieces of one token each. With a tool they are its arguments, and the first, empty, names it."""

    pieces: tuple[str, ...]
    finish_reason: str = "stop"  # stop | length | tool_calls
    tool: str = ""

    @property
    def tokens(self) -> int:
        return len(self.pieces)

    @property
    def text(self) -> str:
        return "".join(self.pieces)


NOTHING = Words(())  # where no tokens are written


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool that must be called, and the JSON schema of its arguments."""

    name: str
    schema: Any


def spoken(text: str) -> Words:
    """Return an answer that says this, word by word; all but the first have the space before them."""
    first, *others = text.split(" ")
    return Words((first, *(" " + word for word in others)))


@functools.lru_cache(maxsize=64)
def filler(count: int, multi_byte: bool) -> Words:
    """Return an answer of so many words."""
    text = MULTI_BYTE_TEXT if multi_byte else FILLER_TEXT
    return spoken(" ".join(itertools.islice(itertools.cycle(text.split(" ")), count)))


def echo(said: str) -> Words:
    """Return an answer that repeats what the user said last."""
    if len(said) > LONGEST_ECHO:
        said = said[:LONGEST_ECHO] + "…"
    return spoken(f'This is the stand-in for OpenRouter speaking. You said: "{said}"')


def text_of(content: object) -> str:
    """Return the text of a content, which is text or a list of parts."""
    if isinstance(content, list):
        parts = (part.get("text") for part in content if isinstance(part, dict))
        return " ".join(part for part in parts if isinstance(part, str))
    return content if isinstance(content, str) else ""


def json_object(said: str) -> Words:
    """Return an answer that is some JSON object."""
    return spoken(orjson.dumps({"stand_in": True, "you_said": said[:LONGEST_ECHO]}).decode())


def structured(schema: object) -> Words:
    """Return an answer that is JSON as a schema wants it."""
    return spoken(orjson.dumps(sample(schema)).decode())


def tool_call(tool: Tool) -> Words:
    """Return an answer that calls a tool, its arguments in two pieces."""
    arguments = sample(tool.schema)
    text = orjson.dumps(arguments if isinstance(arguments, dict) else {}).decode()
    middle = len(text) // 2
    return Words(("", text[:middle], text[middle:]), "tool_calls", tool.name)


def sample(schema: object, root: object = None, depth: int = 0) -> Any:
    """Return the smallest value that a JSON schema allows: of objects only what is required.

    Understood are the parts of JSON Schema that providers take for structured output, and no patterns.
    """
    root = schema if root is None else root
    if not isinstance(schema, Mapping) or depth > DEEPEST_SAMPLE:
        return {}
    for name in ("anyOf", "oneOf", "allOf", "enum"):
        if isinstance(options := schema.get(name), list) and options:
            return options[0] if name == "enum" else sample(options[0], root, depth + 1)
    if isinstance(reference := schema.get("$ref"), str):
        return sample(referred(root, reference), root, depth + 1)
    return schema["const"] if "const" in schema else sample_of_type(schema, root, depth)


def sample_of_type(schema: Mapping[str, Any], root: object, depth: int) -> Any:
    """Return a value of the type, or the first of the types, that a schema names; an object if it names none."""
    kind = schema.get("type")
    if isinstance(kind, list) and kind:
        kind = kind[0]
    if kind == "array":
        return [sample(schema.get("items"), root, depth + 1)] * max(1, min(5, number_in(schema, "minItems")))
    if kind == "string":
        text = SAMPLES_OF_FORMATS.get(str(schema.get("format")), "stand-in")
        return text.ljust(number_in(schema, "minLength"), ".")
    if kind in ("integer", "number"):
        return number_in(schema, "minimum") if "minimum" in schema else 1
    return {"boolean": True, "null": None}[kind] if kind in ("boolean", "null") else sample_object(schema, root, depth)


def sample_object(schema: Mapping[str, Any], root: object, depth: int) -> dict[str, Any]:
    """Return an object with the properties that its schema requires."""
    properties, required = schema.get("properties"), schema.get("required")
    if not isinstance(properties, Mapping) or not isinstance(required, list):
        return {}
    return {name: sample(properties.get(name), root, depth + 1) for name in required if isinstance(name, str)}


def number_in(schema: Mapping[str, Any], name: str) -> int:
    """Return a whole number of a schema, bounded, so that no schema makes a sample huge."""
    value = schema.get(name)
    return int(max(-1_000_000, min(value, 1000))) if isinstance(value, int | float) else 0


def referred(root: object, reference: str) -> object:
    """Return the part of a schema that a reference such as `#/$defs/Step` points at."""
    found = root
    for step in reference.removeprefix("#").strip("/").split("/"):
        found = found.get(step) if isinstance(found, Mapping) and step else found
    return found


def shortened(words: Words, tokens: int) -> Words:
    """Return the answer cut off after so many tokens."""
    return Words(words.pieces[:tokens], "length", words.tool)


def error_of(code: str, metadata: bool = True) -> dict[str, Any]:
    """Return the error object of an answer that failed after its 200; the code is a number if it looks like one."""
    number = int(code) if code.isdecimal() else None
    error: dict[str, Any] = {
        "code": code if number is None else number,
        "message": "Upstream error from Nvidia: Service temporarily overloaded",
    }
    if metadata:
        error["metadata"] = {"error_type": "rate_limit_exceeded" if number == 429 else "provider_unavailable"}
    return error
