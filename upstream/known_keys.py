"""The keys that calls are sent with, as far as this process knows them, and how they are kept from coming back down.

An upstream may repeat what it was sent: in an error, a comment, a debugging field, a header. So every byte of an answer
is searched before anybody looks at it, whatever it holds, and stars stand in the place of a key: as many as it had
characters, so that lengths stay. What is searched for is the keys themselves; a text that merely looks like one may be
the client's own, and is hidden only where an error stands in the place of an answer (disclosure.py).

A key that was known once stays so: calls that it carries may outlive its time in the pool.
"""

from __future__ import annotations

import re

from foundation import json_text

# How nearly all of them begin. To look for this costs some ten nanoseconds for each event.
PREFIX = b"sk-or-"
# Shorter ones, such as those of services that want none but have to be given something, are no secrets but words.
MIN_LENGTH = 16
MAX_LENGTH = 512
_KEY_TEXT = re.compile(rb"[A-Za-z0-9_-]*\Z")
# Characters of keys, of which JSON may write any by its number, as \u002d for a hyphen; and such texts from their first
# character on, so that none is looked through twice.
_CHARACTER = re.compile(rb"\\u00([2-7][0-9a-fA-F])|[A-Za-z0-9_-]")
_ESCAPED = re.compile(rb"(?<![A-Za-z0-9_-])[A-Za-z0-9_-]*+(?:(?<!\\)\\u00[2-7][0-9a-fA-F][A-Za-z0-9_-]*+)++")
_BEGINNINGS = tuple(PREFIX[:length] for length in range(len(PREFIX) - 1, 0, -1))

_known: set[bytes] = set()
"""Those with the prefix."""
_lengths: tuple[int, ...] = ()
"""Of these, the longest first."""
_others: tuple[bytes, ...] = ()


def note_key(text: str) -> None:
    """Learn of a key, for good."""
    global _lengths, _others  # noqa: PLW0603 - one set for the process, like the log's own
    key = text.encode("utf-8", "replace")
    if not MIN_LENGTH <= len(key) <= MAX_LENGTH:
        return
    if key.startswith(PREFIX):
        _known.add(key)
        if len(key) not in _lengths:
            _lengths = tuple(sorted((*_lengths, len(key)), reverse=True))
        return
    in_json = json_text.write(text)[1:-1]
    spellings = (key, in_json, in_json.replace(b"/", rb"\/"))
    _others = tuple(sorted({*_others, *spellings}, key=len, reverse=True))


def hide_keys(data: bytes) -> bytes:
    """The bytes with stars in the place of every known key."""
    if b"\\u00" in data:
        data = _ESCAPED.sub(_hide_escaped, data)
    if PREFIX in data:
        data = _hide_prefixed(data)
    for key in _others:
        if key in data:
            data = data.replace(key, b"*" * len(key))
    return data


def _hide_escaped(found: re.Match[bytes]) -> bytes:
    """The same text, with stars for all that a key is written with."""
    characters = list(_CHARACTER.finditer(found[0]))
    text = b"".join(bytes([int(one[1], 16)]) if one[1] else one[0] for one in characters)
    if (hidden := _hide_prefixed(text)) == text:
        return found[0]
    pairs = zip(characters, text, hidden, strict=True)
    return b"".join(one[0] if before == after else b"*" * len(one[0]) for one, before, after in pairs)


def _hide_prefixed(data: bytes) -> bytes:
    at = data.find(PREFIX)
    while at >= 0:
        for length in _lengths:
            if (key := data[at : at + length]) in _known:  # at the end it may be a shorter one
                data = b"%s%s%s" % (data[:at], b"*" * len(key), data[at + len(key) :])
                break
        at = data.find(PREFIX, at + 1)
    return data


def _begun(data: bytes) -> int:
    """How many bytes at the end may be the beginning of a known key."""
    if data.endswith(b"\n"):  # as every event does: nothing of a stream is ever held back
        return 0
    begun = 0
    if _lengths:
        at = data.rfind(PREFIX, max(0, len(data) - _lengths[0] + 1))
        if at >= 0 and _KEY_TEXT.match(data, at):
            begun = len(data) - at
        else:
            begun = next((len(one) for one in _BEGINNINGS if data.endswith(one)), 0)
    for key in _others:
        longest = min(len(key) - 1, len(data))
        begun = max(begun, next((n for n in range(longest, 0, -1) if data.endswith(key[:n])), 0))
    return begun


class Screen:
    """Hides known keys in one answer's bytes as they come, also where a key comes in pieces."""

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held = b""

    def feed(self, data: bytes, is_last: bool) -> bytes:
        """What may be looked at now: all but what may be the beginning of a key. is_last: nothing comes after it."""
        if self._held:
            data, self._held = self._held + data, b""
        data = hide_keys(data)
        if not is_last and (begun := _begun(data)):
            data, self._held = data[:-begun], data[-begun:]
        return data
