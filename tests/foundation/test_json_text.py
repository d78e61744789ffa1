"""JSON as people send it: half emojis and deep nesting are read or refused, never a surprise."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foundation.json_text import BadJson, parse, whole, write
from tests.support.rows import each_row

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
)


@given(values)
def test_what_was_parsed_can_be_written_and_means_the_same(value):
    again = parse(write(parse(json.dumps(value).encode())))
    assert again == parse(json.dumps(value).encode())


def test_half_an_emoji_survives():
    assert parse(b'"\\ud83d"') == "\ud83d"
    assert parse(write(["\ud83d"])) == ["\ud83d"]


@each_row("text", [b"", b"{", b"NaN", b"[Infinity]", b"\xff", b"[" * 100_000, b"{}x", b"'a'"])
def test_what_is_not_json_is_refused(text):
    with pytest.raises(BadJson):
        parse(text)


def test_what_is_too_deep_to_write_is_refused():
    value = []
    for _ in range(100_000):
        value = [value]
    with pytest.raises(BadJson):
        write(value)
    while value:  # taken apart by hand: Python's own way down is recursive
        value = value[0]


@pytest.mark.parametrize("text", ["1024", "1024.0", "1.024e3", "1024.000", "10240e-1"])
def test_a_whole_number_is_one_however_it_is_written(text):
    number = whole(parse(text.encode()))
    assert (number, type(number)) == (1024, int)


@pytest.mark.parametrize("text", ["1024.5", "true", "false", "null", '"1024"', "[1024]", "{}"])
def test_what_is_no_whole_number_is_none(text):
    assert whole(parse(text.encode())) is None


@pytest.mark.parametrize("number", [float("inf"), float("-inf"), float("nan")])
def test_what_has_no_value_is_no_whole_number(number):
    assert whole(number) is None
