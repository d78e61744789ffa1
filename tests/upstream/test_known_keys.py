"""Keys that are known are found wherever they stand and however they are cut; nothing else is touched or held back."""

import itertools
import json
import re

import pytest

from tests.support.rows import each_row
from upstream import known_keys
from upstream.known_keys import Screen, hide_keys, note_key

POOL_KEY = f"sk-or-v1-{'5eed' * 16}"
LONGER = f"sk-or-v2-{'5eed' * 20}"
OTHER = "other/service+key==0123"
STARS = b"*" * len(POOL_KEY)


@pytest.fixture(autouse=True)
def _only_these(monkeypatch):
    monkeypatch.setattr(known_keys, "_known", set())
    monkeypatch.setattr(known_keys, "_lengths", ())
    monkeypatch.setattr(known_keys, "_others", ())
    for key in (POOL_KEY, LONGER, OTHER, "ollama"):
        note_key(key)


@each_row("around", ['"{}"', "{}{}", "sk-or-{}", "x{}f-0", "Bearer {}\r\n", "{} and {}"])
@each_row("key", [POOL_KEY, LONGER, OTHER])
def test_a_known_key_is_hidden_wherever_it_stands_and_lengths_stay(around, key):
    text = around.replace("{}", key)
    hidden = hide_keys(text.encode())
    assert hidden == around.replace("{}", "*" * len(key)).encode()
    assert len(hidden) == len(text)


@pytest.mark.parametrize(
    "text", [f"sk-or-v1-{'a' * 64}", POOL_KEY[:-1], "sk-or-", "ollama", POOL_KEY.upper(), "sk-or-v1-abc...123"]
)
def test_what_is_no_known_key_stays(text):
    assert hide_keys(text.encode()) == text.encode()


@pytest.mark.parametrize("escaped", ["-", "s", "sk-or-v1", POOL_KEY], ids=len)
def test_a_known_key_behind_escapes_is_hidden_and_lengths_stay(escaped):
    for digits in ("04x", "04X"):
        numbers = "".join(f"\\u{ord(character):{digits}}" for character in escaped)
        text = f'{{"a": "you sent {POOL_KEY.replace(escaped, numbers)}, \\u00e9", "b": "caf\\u00e9 \\u002d"}}'.encode()
        hidden = hide_keys(text)
        assert len(hidden) == len(text)
        told = json.loads(hidden)
        assert told["b"] == "café -"
        assert re.fullmatch(r"you sent \*+, é", told["a"])


def test_what_stands_beside_an_escaped_key_is_read_as_before():
    written = f"\\u00e9{POOL_KEY}\\u00fcand-\\u002d".replace("-or", "\\u002dor")
    assert json.loads(hide_keys(f'"{written}"'.encode())).replace("*", "") == "éüand--"


def test_a_backslash_is_no_escape():
    for text in (rb'"\\u0073k-or-v1"', rb'"\u00e9 \u0041bc sk-or-"'):
        assert hide_keys(text) == text


def test_a_key_that_json_writes_otherwise_is_found_so():
    assert hide_keys(rb"other\/service+key==0123") == b"*" * (len(OTHER) + 1)


@pytest.mark.parametrize("key", [POOL_KEY, LONGER, OTHER])
def test_a_key_in_pieces_is_hidden_at_each_border(key):
    text = f'{{"a":"{key}","b":1}}'.encode()
    for cut in range(len(text) + 1):
        screen = Screen()
        assert screen.feed(text[:cut], False) + screen.feed(text[cut:], True) == hide_keys(text)
    screen = Screen()
    assert b"".join(screen.feed(bytes([byte]), False) for byte in text) + screen.feed(b"", True) == hide_keys(text)


def test_nothing_of_an_event_is_held_back():
    for event in (b"data: {}\n\n", b": sk-or-\n\n", b"data: sk-or-v1-\r\n\r\n"):
        assert Screen().feed(event, False) == event


def test_no_more_is_held_back_than_a_key_may_have():
    for begin, end in itertools.product([b"", b"s", b"sk-or-v1-"], [b"s", b"sk-or", b"sk-or-v1-5eed", b"other/serv"]):
        screen = Screen()
        assert screen.feed(begin + b" " + end, False) == begin + b" "
        assert screen.feed(b"!", False) == end + b"!"
    assert Screen().feed(b"sk-or-" + b"a" * 1000, False) == b"sk-or-" + b"a" * 1000


def test_many_keys_cost_no_more_than_one():
    for number in range(2000):
        note_key(f"sk-or-v1-{number:064x}")
    assert hide_keys(f"sk-or-v1-{1999:064x}".encode()) == STARS
    assert known_keys._lengths == (len(LONGER), len(POOL_KEY))
