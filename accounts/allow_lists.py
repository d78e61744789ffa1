"""Which models and upstreams calls may use: what a client key and a team are limited to in the same words."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from foundation import json_text
from foundation.errors import BadRequest, Forbidden

MAX_MODELS, MAX_UPSTREAMS = 100, 100
MODEL_PATTERN = re.compile(r"[!-)+-~]{1,254}\*?|\*")  # printable ASCII; an asterisk only at the end
UPSTREAM_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

Rule = tuple[int, Callable[[str], object], str]
"""How many names a list may have, which, and how that is told."""
RULES: Mapping[str, Rule] = {
    "models": (MAX_MODELS, MODEL_PATTERN.fullmatch, "models' names or beginnings with an asterisk, as openai/*"),
    "upstreams": (MAX_UPSTREAMS, UPSTREAM_NAME.fullmatch, "upstreams' names"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class AllowLists:
    """What calls may use; None stands for all. The checks raise Forbidden with a message that says what is allowed."""

    whose: ClassVar[str]
    models: tuple[str, ...] | None = None
    upstreams: frozenset[str] | None = None

    def check_model(self, names: Collection[str]) -> None:
        """Refuse a call unless every model that it names is allowed, and it names one."""
        if self.models is None:
            return
        if not all(names) or not names:
            raise Forbidden(f"{self.whose} needs a `model` in the request; it may use {told(self.models)}")
        for name in names:
            if not self.allows_model(name):
                raise Forbidden(f"{self.whose} may not use {name[:200]!r}; it may use {told(self.models)}")

    def allows_model(self, name: str) -> bool:
        """True for a model that may be used. Names are compared letter by letter."""
        return self.models is None or any(
            name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern for pattern in self.models
        )

    def check_upstream(self, name: str) -> None:
        """Refuse an upstream that may not be used."""
        if not self.allows_upstream(name):
            raise Forbidden(
                f"{self.whose} may not use the upstream {name[:64]!r}; it may use {told(self.upstreams or ())}"
            )

    def allows_upstream(self, name: str) -> bool:
        """True for an upstream that may be used."""
        return self.upstreams is None or name in self.upstreams


def told(allowed: Iterable[str]) -> str:
    """A list in a message."""
    return ", ".join(sorted(allowed))


def with_columns(fields: Mapping[str, Any], rules: Mapping[str, Rule] = RULES) -> dict[str, Any]:
    """The fields, with those that are lists as columns hold them. Raises BadRequest with what is accepted."""
    lists = {name: fields[name] for name in rules if fields.get(name) is not None}
    return dict(fields) | {name: _column(name, names, rules[name]) for name, names in lists.items()}


def _column(field: str, names: Collection[str], rule: Rule) -> str:
    most, is_right, which = rule
    if not 1 <= len(names) <= most or not all(map(is_right, names)):
        raise BadRequest(f"{field} must be a list of 1 to {most} texts, {which}; null stands for all")
    return json_text.write(sorted(set(names))).decode()


def names_in(column: str | None) -> tuple[str, ...] | None:
    """The names that a column holds; None for all."""
    return None if column is None else tuple(json_text.parse(column.encode()))


def set_in(column: str | None) -> frozenset[str] | None:
    """The same, as a set."""
    return None if column is None else frozenset(json_text.parse(column.encode()))
