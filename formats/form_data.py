"""The fields of a multipart form, as the bytes that they are; its files are passed over.

What two readers could read in two ways is refused, because what a call may cost and who may make it hang on its fields:
a name twice, odd headers, line ends or borders. A form says its own border in its first line, and JSON never begins so.
"""

from __future__ import annotations

import re

from foundation.errors import BadRequest
from foundation.json_members import Text

MOST_PARTS, MOST_HEAD_BYTES, MOST_TEXT_BYTES = 100, 4096, 65_536
LAST_LINE_ENDS = {b"", b"\r\n"}
SEVERAL = "[]"  # a name with this at its end may come again
_FIRST_LINE = re.compile(rb"--([0-9A-Za-z'()+_,./:=?-]{1,70})\r\n")
_DISPOSITION = re.compile(rb'form-data; ?name="([^"\r\n]*)"(; ?filename\*?=[^\r\n]*)?', re.IGNORECASE)
_PLAIN_HEADERS = {b"content-disposition", b"content-type", b"content-length"}
_PLAIN_TEXT = re.compile(rb'text/plain(; ?charset="?utf-8"?)?', re.IGNORECASE)


def border_of(body: Text | memoryview) -> str:
    """The border between a form's parts; "" for what is no form."""
    found = _FIRST_LINE.match(body)
    return str(found[1], "ascii") if found else ""


def places(body: Text) -> dict[str, tuple[int, int]]:
    """Where the value of each field begins and ends; a file's name begins with a space. Raises BadRequest."""
    border = f"\r\n--{border_of(body)}".encode("ascii")
    found: dict[str, tuple[int, int]] = {}
    at = len(border) - 2  # the first one has no line before it
    for _ in range(MOST_PARTS):
        mark = bytes(body[at : at + 2])
        if mark == b"--":
            if bytes(body[at + 2 : at + 6]) not in LAST_LINE_ENDS:  # parts, to a reader that goes on
                raise _bad("something follows its last border")
            return found
        if mark != b"\r\n":
            raise _bad("a border is followed by something else than a line's end")
        head_end = body.find(b"\r\n\r\n", at, at + MOST_HEAD_BYTES)
        end = body.find(border, head_end + 4)
        if head_end < 0 or end < 0:
            raise _bad("a part has no end")
        name = _name_of(bytes(body[at + 2 : head_end]))
        if {name.strip(), f" {name.strip()}"} & found.keys() and not name.endswith(SEVERAL):
            raise _bad(f"it has {name.strip()[:64]!r} twice")
        found[name] = (head_end + 4, end)
        at = end + len(border)
    raise _bad(f"it has more than {MOST_PARTS} parts")


def text(body: Text, found: dict[str, tuple[int, int]], name: str) -> str:
    """A field's text. Raises BadRequest if it is none, or a long one."""
    begin, end = found[name]
    if end - begin > MOST_TEXT_BYTES:
        raise _bad(f"{name!r} is too long: it may have {MOST_TEXT_BYTES} bytes")
    try:
        return bytes(body[begin:end]).decode("utf-8")
    except UnicodeDecodeError:
        raise _bad(f"{name!r} is not UTF-8") from None


def replaced(body: Text, name: str, value: str) -> tuple[bytes | memoryview, ...]:
    """A form's text in pieces, with this value for this field. Raises BadRequest."""
    begin, end = places(body)[name]
    view = memoryview(body)
    return view[:begin], value.encode(), view[end:]


def _name_of(head: bytes) -> str:
    headers: dict[bytes, bytes] = {}
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() in headers or name.lower() not in _PLAIN_HEADERS:
            raise _bad("a part has headers twice, or other ones than Content-Disposition and Content-Type")
        headers[name.lower()] = value.strip()
    found = _DISPOSITION.fullmatch(headers.get(b"content-disposition", b""))
    if not found:
        raise _bad('a part does not begin with Content-Disposition: form-data; name="..."')
    if not found[2] and not _PLAIN_TEXT.fullmatch(headers.get(b"content-type", b"text/plain")):
        raise _bad("a field is something else than text")
    field = str(found[1], "utf-8", "replace")
    return f" {field}" if found[2] else field


def _bad(why: str) -> BadRequest:
    return BadRequest(f"The form can't be read: {why}")
