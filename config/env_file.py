"""The file `.env`, read as a shell and docker compose read it: what can't be read stops the start.

python-dotenv finds the lines. It skips those that it can't read and replaces `${x}` within single quotes too, so values
are made here. Single quotes mean as it is. In double quotes and without quotes `${NAME}` and `${NAME:-default}` are
replaced; in double quotes `\\n`, `\\"`, `\\$` and their like too. A `$` without a brace is a character as any other.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from dotenv import dotenv_values
from dotenv.parser import Binding, parse_stream

NAME = re.compile(r"[A-Za-z0-9_.-]+")
BLANK = r"[^\S\r\n]*"
QUOTED = re.compile(rf"""[^=]*={BLANK}(?:'((?:\\.|[^'\\])*)'|"((?:\\.|[^"\\])*)")""", re.DOTALL)
REPLACED = re.compile(r"\$\{([^}]*)(\}?)")
REPLACED_OR_ESCAPED = re.compile(rf"{REPLACED.pattern}|\\(.)", re.DOTALL)
VARIABLE = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?", re.DOTALL)
ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}
ESCAPES |= {character: character for character in "\\\"'$`"}


class _Unreadable(Exception):
    """Why a line can't be read."""


def read(path: Path, environ: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """The file's values by name, with the environment's in their place where it has any; and one line for each fault.

    environ: the process's. `${NAME}` is looked up there first, too. Raises OSError, UnicodeDecodeError.
    """
    values: dict[str, str] = {}
    faults: list[str] = []
    with path.open(encoding="utf-8") as stream:
        bindings = list(parse_stream(stream))
    is_whole = not any(binding.error for binding in bindings)
    environment = _without_flasks_reading(path, environ) if is_whole else dict(environ)
    for binding in bindings:
        try:
            if binding.error or not NAME.fullmatch(binding.key or "_"):
                raise _Unreadable("can't be read; write NAME=value, or NAME='value'")
            if binding.key:
                values[binding.key] = _value(binding, {**environ, **values, **environment})
        except _Unreadable as reason:
            faults.append(f"{path}, line {_line(binding)}: {reason}")
    return values | environment, faults


def _without_flasks_reading(path: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """Flask's command line has put the file into the environment before us, with every `${x}` replaced.

    What python-dotenv makes of a line is not what somebody has set.
    """
    flasks = dotenv_values(path, encoding="utf-8")
    return {name: value for name, value in environ.items() if flasks.get(name) != value}


def _line(binding: Binding) -> int:
    """Where it begins: python-dotenv counts the blank lines before to it."""
    text = binding.original.string
    return binding.original.line + text[: len(text) - len(text.lstrip())].count("\n")


def _value(binding: Binding, known: Mapping[str, str]) -> str:
    """A line's value. Raises _Unreadable."""
    quoted = QUOTED.match(binding.original.string) if binding.value else None
    if quoted is None:
        return REPLACED.sub(lambda found: _replaced(found, known), binding.value or "")
    if (literal := quoted[1]) is not None:
        return literal.replace("\\'", "'")
    return REPLACED_OR_ESCAPED.sub(lambda found: _escaped(found[3]) if found[3] else _replaced(found, known), quoted[2])


def _escaped(character: str) -> str:
    return ESCAPES.get(character, f"\\{character}")


def _replaced(found: re.Match[str], known: Mapping[str, str]) -> str:
    variable = VARIABLE.fullmatch(found[1]) if found[2] else None
    if not variable:
        raise _Unreadable("what follows `${` can't be read; in single quotes it is left as it is")
    name, default = variable.groups()
    value = known.get(name) or default
    if value is None and name not in known:
        raise _Unreadable(f"{name} has no value for `${{{name}}}`; in single quotes that is left as it is")
    return value or ""
