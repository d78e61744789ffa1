"""What is wrong with the fields of a form, in words that the pages' translations have.

The API speaks of its own terms: of objects, of null, of patterns. Who fills in a form sees none of these.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from pydantic import BaseModel, ValidationError

from web.bad_input import Schema, alternatives, faults_of, schema_at

MADE_HERE = "Is made from the password by this page: load it again"
# Whatever is wrong there: fields that a form has in a way of its own.
WORDS = {
    "client_key_id": "Must be the number of a client key",
    "derived_key": MADE_HERE,
    "expires_at": "Must be a day from 2000 to 2998, such as 2027-11-21",
    "fallbacks": "Must have at most 3 lines such as: openai/gpt-4o-mini upstream=local after=away,rate-limited",
    "model_prefixes": "Must have lines such as: local/ = their/",
    "models": "Must have one model on each line, such as openai/gpt-4o-mini or openai/gpt-4o-mini 9",
    "pool_key": "Must be the name of a pool key, or a part that only one has",
    "prices": "Must have lines such as: openai/gpt-4o-mini 0.15 0.6",
    "upstreams": "Must have lines such as: local 9",
}
PATTERNS = {
    r"^sk-or-[A-Za-z0-9_\-]{16,200}$": "A key begins with sk-or-, and at least 16 letters, digits, - or _ follow",
    r"^[a-z0-9][a-z0-9._-]{0,47}$": "Must be 1 to 48 of a-z 0-9 . _ -, the first a letter or a digit",
    r"^[a-z0-9][a-z0-9._-]{0,63}$": "Must be 1 to 64 of a-z 0-9 . _ -, the first a letter or a digit",
    r"^[A-Za-z0-9_-]{64}$": MADE_HERE,
    r"^[a-z_]{1,64}$": "Must be the name of an action, such as quota_set",
}
UNREADABLE = "This can't be used here"
MOST_TOLD = 10**12  # a bound above that is the database's, and tells nobody anything
REFUSAL = re.compile(r"([a-z_]{1,64})(?:\.\w+)? ((?:must|can't) .+)", re.DOTALL)


class Words(NamedTuple):
    """A text to be translated, and what stands in it."""

    text: str
    parts: Mapping[str, str] = MappingProxyType({})


def faults_by_field(model: type[BaseModel], error: ValidationError, shown: set[str]) -> dict[str, Words]:
    """All faults, by the fields that they belong to. shown: the fields of the form."""
    found: dict[str, Words] = {}
    for fault in faults_of(error):
        names = [part for part in fault["loc"] if isinstance(part, str)]
        if not names or fault["type"] == "extra_forbidden":
            continue
        field = next((name for name in reversed(names) if name in shown), names[0])
        found.setdefault(field, _words(field, model, fault))
    return found


def refusal_by_field(message: str) -> dict[str, Words]:
    """The same of what was found wrong later, `label must be ...`; nothing if that belongs to no one field."""
    found = REFUSAL.fullmatch(message)
    return {found[1]: _said(found[1], found[2])} if found else {}


def _words(field: str, model: type[BaseModel], fault: dict[str, Any]) -> Words:
    if fault["type"] == "value_error":
        return _said(field, fault["msg"].removeprefix("Value error, "))
    if field in WORDS:
        return Words(WORDS[field])
    if fault["type"] == "missing":
        return Words("Must be filled in")
    schema, _ = schema_at(model, fault["loc"])
    return next((_accepted(one) for one in alternatives(model, schema) if one.get("type") != "null"), Words(UNREADABLE))


def _said(field: str, must: str) -> Words:
    return Words(WORDS.get(field) or must[:1].upper() + must[1:])


def _accepted(schema: Schema) -> Words:
    kind = schema.get("type")
    if "enum" in schema or "const" in schema or kind == "boolean":
        return Words("Must be one of those listed")
    if "pattern" in schema:
        return Words(PATTERNS.get(schema["pattern"], UNREADABLE))
    if kind in {"integer", "number"}:
        whole = "whole number" if kind == "integer" else "number"
        return _between(f"Must be a {whole}", "", schema.get("minimum"), schema.get("maximum"))
    if kind == "string":
        return _between("Must be a text", " characters", schema.get("minLength"), schema.get("maxLength"))
    if kind == "array":
        return _between("Must be a list", " lines", schema.get("minItems"), schema.get("maxItems"))
    return Words(UNREADABLE)


def _between(what: str, unit: str, low: float | None, high: float | None) -> Words:
    """From low to high, as far as there are such bounds."""
    parts = {name: f"{bound:,.0f}" for name, bound in (("low", low), ("high", high)) if bound is not None}
    if high is not None and high > MOST_TOLD:
        del parts["high"]
    bounds = {
        ("low", "high"): " of {low} to {high}" if unit else " from {low} to {high}",
        ("low",): " of at least {low}",
        ("high",): " of at most {high}",
        (): "",
    }[tuple(parts)]
    return Words(f"{what}{bounds}{unit if bounds else ''}", parts)
