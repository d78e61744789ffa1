"""The members of a JSON object as the bytes that they are: checked to their last character, and not built.

A tree of many small values takes thirty times the bytes of its text, and no parser lets other threads run before it is
whole. So of a text that strangers may make as large as they like, msgspec passes over the values and says where they
stand; only small ones are then parsed (json_text.py). Keys must differ: of two, one reader takes the first and another
the last.

Of large texts one is looked through at a time, with pauses: many together hold other threads up no longer than one.
"""

from __future__ import annotations

import codecs
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

from foundation.json_text import INVALID, BadJson, ambiguous

Text = bytes | bytearray
Raw = msgspec.Raw
LARGE = 1024 * 1024
# To pass over one value costs some nanoseconds, over a character of a string a fraction of one. So many of these
# characters may be in a large text, a lot more than in any prompt: with them 48 MiB take less than 50 ms.
MARKS, MOST_MARKS = b",[{\\ \n\r\t", 3_000_000
MOST_MEMBERS = 2000  # of an object that is looked into; a request has dozens
SMALL = 8 * 1024  # in which there is no room for so many
MOST_COMMAS, MOST_LIST_BYTES = 200_000, 8 * LARGE  # of a list whose items are looked at
MOST_HALVES, MOST_BACKSLASHES = 10_000, 1000
_PIECE = 4 * LARGE
_PAUSE_SECONDS = 0.0002  # a shorter one ends before another thread has woken up
_KEY = re.compile(rb'[ \t\n\r]*+"(?:[^"\\]++|\\.)*+"[ \t\n\r]*+:[ \t\n\r]*+')
_WITHIN = re.compile(rb'\[[ \t\n\r]*+([^\]])|"([^"])', re.DOTALL)
_COMMA = re.compile(rb"[ \t\n\r]*+,?")
# Half an emoji that stands alone. JavaScript cuts texts within them; OpenRouter takes that, and msgspec does not.
_HEX = rb"[0-9a-fA-F]{2}"
_FIRST, _SECOND = rb"\\u[dD][89abAB]", rb"\\u[dD][c-fC-F]"
_HALF = re.compile(rb"%b%b(?!%b)|%b%b(?<!%b..\\u....)" % (_FIRST, _HEX, _SECOND, _SECOND, _HEX, _FIRST), re.DOTALL)
_HALF_BYTES = 6
_turn = threading.Lock()


class NotAnObject(BadJson):
    """JSON, but of another kind."""


class _Key:
    """A key that is no other's equal, so that of two equal ones none is lost."""

    __slots__ = ("text",)

    def __init__(self, _type: type, text: str) -> None:
        """As msgspec's dec_hook, which is told the type that it wants first, calls it: once for each key of a body."""
        self.text = text


class _TooMany(Exception):
    """Keys, so far."""


class _Keys:
    """Makes the keys of one object, up to a number: each is an object of ours, and takes microseconds."""

    __slots__ = ("_left",)

    def __init__(self) -> None:
        self._left = MOST_MEMBERS

    def __call__(self, kind: type, text: str) -> _Key:
        self._left -= 1
        if self._left < 0:
            raise _TooMany
        return _Key(kind, text)


_Members = dict[_Key, Raw]
_few_members = msgspec.json.Decoder(_Members, dec_hook=_Key)
_items = msgspec.json.Decoder(list[Raw])


def check(text: Text) -> None:
    """Raise BadJson if a text is not UTF-8, or has more of something than a large one may."""
    if len(text) <= LARGE:
        _check_encoding(text, 0, len(text))
        return
    with _our_turn():
        left, position = MOST_MARKS, 0
        while position < len(text):
            piece = text[position : position + _PIECE]
            left -= len(piece) - len(piece.translate(None, MARKS))
            if left < 0:
                raise BadJson("too complex: it has too many values, spaces or backslashes for its length")
            position += _check_encoding(text, position, position + len(piece))
            time.sleep(_PAUSE_SECONDS)


def members(text: Text | Raw) -> dict[str, Raw]:
    """An object's members; all of the text is JSON then, if `check` has passed it.

    Raises BadJson, also for two of one name; NotAnObject.
    """
    found: dict[str, Raw] = {}
    for key, raw in _decoded(text):
        if key.text in found:
            raise ambiguous(key.text)
        found[key.text] = raw
    return found


def items(raw: Raw) -> list[Raw]:
    """A list's items. raw: a value that begins with a bracket, from `members`. Raises BadJson if there are too many."""
    if len(memoryview(raw)) > MOST_LIST_BYTES or bytes(raw).count(b",") > MOST_COMMAS:
        raise BadJson("too complex: a list that is read has too many items")
    return _items.decode(raw)


def first(raw: Raw | None, within: bool = False) -> str:
    """The first character of a value, which tells its kind; "" if there is none.

    within: of what is in a list or a text, instead; "" if that is empty, or the value of another kind.
    """
    if raw is None:
        return ""
    if not within:
        return chr(memoryview(raw)[0])
    match = _WITHIN.match(memoryview(raw))
    return (match[1] or match[2]).decode("latin-1") if match else ""


def replaced(text: Text, name: str, value: bytes) -> tuple[bytes | memoryview, ...]:
    """An object's text in pieces, with this value for this member, and all others as they are; nothing is copied.

    text: one whose `members` were read, and are not none.
    """
    view = memoryview(text)
    position = begin = text.index(b"{") + 1
    for key, raw in _decoded(text):
        start = _end_of(_KEY, text, position)
        end = start + len(memoryview(raw))
        if key.text == name:
            return view[:start], value, view[end:]
        position = _end_of(_COMMA, text, end)
    return view[:begin], b'"%b":%b,' % (name.encode(), value), view[begin:]


def _end_of(pattern: re.Pattern[bytes], text: Text, position: int) -> int:
    match = pattern.match(text, position)
    assert match  # noqa: S101 - the text has been read before
    return match.end()


def _decoded(text: Text | Raw) -> list[tuple[_Key, Raw]]:
    if len(memoryview(text)) <= LARGE:
        return _decode(text)
    with _our_turn():
        return _decode(text)


def _decode(text: Text | Raw) -> list[tuple[_Key, Raw]]:
    try:
        return list(_decoder_of(text).decode(text).items())
    except _TooMany:
        raise BadJson(f"too complex: an object has more than {MOST_MEMBERS} members") from None
    except msgspec.ValidationError:
        raise NotAnObject("not a JSON object") from None
    except msgspec.DecodeError:
        if isinstance(text, Raw) or not (mended := _without_halves(text)):
            raise BadJson(INVALID) from None
    except RecursionError:
        raise BadJson(INVALID) from None
    return _decode(Raw(mended))


def _decoder_of(text: Text | Raw) -> msgspec.json.Decoder[dict[_Key, Raw]]:
    if len(memoryview(text)) <= SMALL:
        return _few_members
    return msgspec.json.Decoder(_Members, dec_hook=_Keys())


def _without_halves(text: Text) -> bytearray | None:
    """The text with another character in the place of each half emoji, and as long; None if there is none, or many."""
    mended, count, position = None, 0, 0
    while position < len(text):
        end = position + _PIECE
        for match in _HALF.finditer(text, position, min(end + 2 * _HALF_BYTES, len(text))):
            start = match.start()
            if start >= end or _is_escaped(text, start):
                continue
            mended, count = mended or bytearray(text), count + 1
            if count > MOST_HALVES:
                return None
            mended[start : start + _HALF_BYTES] = b"\\ufffd"
        position = end
        time.sleep(_PAUSE_SECONDS)
    return mended


def _is_escaped(text: Text, position: int) -> bool:
    """True if what stands here is behind an odd number of backslashes, or behind very many."""
    before = text[max(0, position - MOST_BACKSLASHES) : position]
    count = len(before) - len(before.rstrip(b"\\"))
    return count % 2 == 1 or count == MOST_BACKSLASHES


def _check_encoding(text: Text, begin: int, end: int) -> int:
    """How many bytes of this part are whole characters."""
    try:
        return codecs.utf_8_decode(memoryview(text)[begin:end], "strict", end == len(text))[1]
    except UnicodeDecodeError:
        raise BadJson(INVALID) from None


@contextmanager
def _our_turn() -> Iterator[None]:
    with _turn:
        yield
    time.sleep(_PAUSE_SECONDS)
