"""Logging: JSON lines with request ids in production, readable lines in development, secrets redacted in both.

A line is a static event name and fields: `logs.event(log, "login_failed", user_id=7)`. Fields never hold a prompt,
an answer, a key, a token or a username; redaction is the net beneath that rule, by pattern and by known value.
"""

from __future__ import annotations

import logging
import re
import sys
import time
from collections.abc import Iterable
from contextlib import nullcontext
from contextvars import ContextVar
from typing import Any, TextIO

import orjson

request_id: ContextVar[str] = ContextVar("request_id", default="")

REDACTED = "***"
SECRET_PATTERNS = (
    r"sk-or-[A-Za-z0-9_-]{8,}",  # OpenRouter keys
    r"sk-auto-[A-Za-z0-9_-]{8,}",  # our client keys
    r"or_api_[A-Za-z0-9_-]{8,}",  # our API tokens
    r"or_op_[A-Za-z0-9_-]{8,}",  # our operator tokens
    r"eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*",  # JSON web tokens
    r"\$argon2[a-z]*\$[A-Za-z0-9+/=,.$-]+",
    r"gAAAA[A-Za-z0-9_-]{20,}={0,2}",  # Fernet
    r"(?<=://)[^/\s:@\"]*:[^/\s@\"]+(?=@)",  # user:password in a URL
    r"(?i:(?<=bearer )[A-Za-z0-9._~+/=-]{8,})",
)
# Each pattern needs one of these, or "bearer " in any case. Nearly no line has any, and looking for them is cheap.
MARKS = ("sk-or-", "sk-auto-", "or_api_", "or_op_", "eyJ", "$argon2", "gAAAA", "://")
_known_values: set[str] = set()
_marks: tuple[str, ...] = MARKS
_secret = re.compile("|".join(SECRET_PATTERNS))


def redact(text: str) -> str:
    """The text with everything that looks like a secret, or is a known one, replaced by `***`."""
    return _secret.sub(REDACTED, text) if _may_hold_secret(text) else text


def _may_hold_secret(text: str) -> bool:
    for mark in _marks:  # a loop, because any() costs twice as much
        if mark in text:
            return True
    return "bearer " in text.lower()


def hide_values(values: Iterable[str]) -> None:
    """Redact these texts from now on wherever they appear in a line."""
    global _secret, _marks  # noqa: PLW0603 - one pattern for the process, like the log itself
    _known_values.update(value for value in values if len(value) >= 8)
    longest_first = sorted(_known_values, key=len, reverse=True)
    _secret = re.compile("|".join([*map(re.escape, longest_first), *SECRET_PATTERNS]))
    as_in_json = [orjson.dumps(value, default=str).decode()[1:-1] for value in longest_first]
    spellings = dict.fromkeys([*longest_first, *as_in_json])
    _marks = (*MARKS, *(text for text in spellings if not any(mark in text for mark in MARKS)))


def _json_line(line: dict[str, Any]) -> str:
    """One line of JSON. Secrets are taken out of the values, not of the line: its escapes must stay whole."""
    try:
        text = orjson.dumps(line, default=str).decode()
        if not _may_hold_secret(text):
            return text
    except TypeError:
        pass  # half of a surrogate pair, or a number of more than 64 bits
    return orjson.dumps(_cleaned(line)).decode()


def _cleaned(value: object) -> object:
    if isinstance(value, dict):
        return {str(_cleaned(str(name))): _cleaned(one) for name, one in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_cleaned(one) for one in value]
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, int) and abs(value) < 2**63:
        return value
    return redact(str(value).encode(errors="backslashreplace").decode())


class _Formatter(logging.Formatter):
    def __init__(self, as_json: bool) -> None:
        super().__init__()
        self._as_json = as_json
        self._second = (0, "")

    def _stamp(self, at: float) -> str:
        second = int(at)
        if self._second[0] != second:
            self._second = second, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        return f"{self._second[1]}.{int(at % 1 * 1000):03d}Z"

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = getattr(record, "fields", None) or {}
        cause = self.formatException(record.exc_info) if record.exc_info else ""
        return self.line(record.created, record.levelname, record.name, record.getMessage(), fields, cause)

    def line(self, at: float, level: str, logger: str, name: str, fields: dict[str, Any], cause: str = "") -> str:
        if (current := request_id.get()) and "request_id" not in fields:
            fields = {"request_id": current, **fields}
        stamp = self._stamp(at)
        if self._as_json:
            line = {"at": stamp, "level": level, "logger": logger, "event": name, **fields}
            if cause:
                line["exception"] = cause
            return _json_line(line)
        parts = [stamp[11:], f"{level:<7}", name]
        parts += [f"{field}={value}" for field, value in fields.items() if value is not None]
        return redact(" ".join(parts) + (f"\n{cause}" if cause else ""))


class _Stderr(logging.StreamHandler[TextIO]):
    """Our lines on stderr: records' like any handler's, and those of `event` without a record."""

    def __init__(self, as_json: bool) -> None:
        super().__init__(sys.stderr)
        self._lines = _Formatter(as_json)
        self.setFormatter(self._lines)

    def write(self, logger: logging.Logger, name: str, level: int, fields: dict[str, Any]) -> None:
        line = self._lines.line(time.time(), logging.getLevelName(level), logger.name, name, fields)
        with self.lock or nullcontext():
            try:
                self.stream.write(line + self.terminator)
                self.stream.flush()
            except (OSError, ValueError):
                pass  # nobody reads the log any more; the service goes on


def event(logger: logging.Logger, name: str, /, level: int = logging.INFO, **fields: object) -> None:
    """Log one event with its fields.

    Past logging's records where it can: a record costs a busy service more than all else about its line.
    """
    if not logger.isEnabledFor(level):
        return
    handlers = logging.root.handlers
    if len(handlers) == 1 and isinstance(handlers[0], _Stderr):
        handlers[0].write(logger, name, level, fields)
    else:
        logger.log(level, name, extra={"fields": fields})


def set_up(level: str, as_json: bool, secrets: Iterable[str]) -> None:
    """Send all logging of the process to stderr in our form. Called once, by each program's start."""
    hide_values(secrets)
    root = logging.getLogger()
    root.handlers[:] = [_Stderr(as_json)]
    root.setLevel(level)
    for chatty in ("urllib3", "alembic", "mysql.connector", "werkzeug", "sqlalchemy.engine"):
        logging.getLogger(chatty).setLevel(max(logging.WARNING, root.level))
    # The file, line and thread of a call are not in our lines: finding them costs a third of each record.
    logging._srcfile = None
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
