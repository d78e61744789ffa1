"""What is wrong with an input, in our words: which field, and what is accepted there.

pydantic's own messages speak of inputs and of Python's types; what is accepted is read from the model's JSON schema, so
that it is what the documents say too.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from pydantic import BaseModel, ValidationError

Schema = dict[str, Any]

FORMATS = {"date": "a day such as 2026-11-21", "date-time": "a time such as 2026-11-21T13:00:00Z"}
OTHERS = {"boolean": "true or false", "array": "a list", "object": "an object", "null": "null"}


def told(model: type[BaseModel], kind: str, error: ValidationError) -> str:
    """The first fault of an input. kind: `field` or `parameter`."""
    return _told(model, kind, faults_of(error)[0])


def faults_of(error: ValidationError) -> list[Any]:
    """All faults, as pydantic tells them, without what was sent."""
    return list(error.errors(include_url=False, include_context=False, include_input=False))


def _told(model: type[BaseModel], kind: str, fault: dict[str, Any]) -> str:
    """Validators of ours raise ValueError with what is accepted, as "must be a key's name"; that is told as it is."""
    loc = fault["loc"]
    if fault["type"] == "extra_forbidden":
        around, place = schema_at(model, loc[:-1])
        names = {name for one in alternatives(model, around) for name in one.get("properties", ())}
        where = f"in {place}" if place else "here"
        taken = ", ".join(sorted(names)) or "none"
        return f"There is no {kind} {str(loc[-1])[:40]!r} {where}; this takes {taken}"
    if fault["type"] == "value_error":
        place, message = ".".join(map(str, loc))[:80], fault["msg"].removeprefix("Value error, ")
        return (
            f"{place} {message}" if place and message.startswith("must") else f"{place}: {message}".removeprefix(": ")
        )
    found, place = schema_at(model, loc)
    # A parameter that may be left out has null among its types, but nobody can send it.
    wanted = [one for one in alternatives(model, found) if kind == "field" or one.get("type") != "null"]
    accepted = dict.fromkeys(map(_accepted, wanted))
    return f"{place or 'This'} must be {' or '.join(accepted)}"


@cache
def _schema_of(model: type[BaseModel]) -> Schema:
    return model.model_json_schema()


def schema_at(model: type[BaseModel], loc: tuple[int | str, ...]) -> tuple[Schema, str]:
    """The schema at a place, and the place; that around it where a union has no one schema for it."""
    found, place = _schema_of(model), ""
    for part in loc:
        inner: Any = None
        for one in alternatives(model, found):
            if isinstance(part, int):
                inner = inner or one.get("items")
            else:
                inner = inner or one.get("properties", {}).get(part) or one.get("additionalProperties")
        if not isinstance(inner, dict):
            break
        found, place = inner, f"{place}.{part}".removeprefix(".")[:80]
    return found, place


def alternatives(model: type[BaseModel], schema: Schema) -> list[Schema]:
    """The schemas of which a value has to fit one."""
    if "$ref" in schema:
        return alternatives(model, _schema_of(model)["$defs"][schema["$ref"].rpartition("/")[2]])
    if "anyOf" in schema:
        return [inner for one in schema["anyOf"] for inner in alternatives(model, one)]
    return [schema]


def _accepted(schema: Schema) -> str:
    kind, names = schema.get("type"), schema.get("enum") or [schema[name] for name in ("const",) if name in schema]
    if names:
        texts = [str(name) for name in names]
        return " or ".join(texts) if len(texts) <= 2 else f"one of {', '.join(texts)}"
    if kind in {"integer", "number"}:
        amounts = _range(schema.get("minimum"), schema.get("maximum"))
        between = f" {'from' if ' to ' in amounts else 'of'} {amounts}" if amounts else ""
        return ("a whole number" if kind == "integer" else "a number") + between
    if kind == "string":
        size = _range(schema.get("minLength"), schema.get("maxLength"))
        text = FORMATS.get(schema.get("format", "")) or (f"a text of {size} characters" if size else "a text")
        return f"{text} that matches {schema['pattern']}" if "pattern" in schema else text
    return OTHERS.get(str(kind), "as documented")


def _range(low: float | None, high: float | None) -> str:
    """From `low` to `high`, both included, in words; empty without either."""
    least, most = (None if one is None else str(int(one) if one == int(one) else one) for one in (low, high))
    if least is None:
        return f"at most {most}" if most else ""
    if most is None:
        return f"at least {least}"
    return least if least == most else f"{least} to {most}"
