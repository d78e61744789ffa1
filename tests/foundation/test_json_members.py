"""JSON that nobody builds: what passes is JSON for every reader, and means one thing."""

import json
import sys
import threading
import time
import tracemalloc

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foundation import json_members
from foundation.json_members import LARGE, MOST_MARKS, NotAnObject, check, first, items, members, replaced
from foundation.json_text import BadJson
from tests.support.rows import each_row

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
)
objects = st.dictionaries(st.text(max_size=5), values, max_size=6)
spaces = st.sampled_from(["", " ", "\n\t", "\r\n  "])


def read(text):
    check(text)
    return {name: bytes(raw) for name, raw in members(text).items()}


@st.composite
def texts(draw):
    """An object's text as somebody may write it."""
    given_object, space = draw(objects), draw(spaces)
    text = json.dumps(
        given_object,
        ensure_ascii=draw(st.booleans()),
        indent=draw(st.sampled_from([None, 1])),
        separators=(f"{space},{space}", f"{space}:{space}"),
    )
    return given_object, f"{space}{text}{space}".encode("utf-8", "surrogatepass")


@given(texts())
def test_members_are_what_a_parser_makes_of_them(case):
    given_object, text = case
    assert {name: json.loads(raw) for name, raw in read(text).items()} == given_object
    assert {name: json.loads(raw) for name, raw in read(bytearray(text)).items()} == given_object


@given(st.binary(max_size=40) | st.text(alphabet='{}[]",:\\ud8001e-.tfn \n', max_size=40).map(str.encode))
def test_what_passes_is_json(tail):
    text = b'{"a":' + tail
    try:
        found = read(text)
    except BadJson:
        return
    expected = json.loads(text.decode("utf-8"))
    assert found.keys() == expected.keys()


@each_row(
    "value",
    [
        b"NaN",
        b"-Infinity",
        b"01",
        b"1.",
        b"+1",
        b"[1,]",
        b'{"a":1,}',
        b"'a'",
        b'"\\x"',
        b'"\x01"',
        b'"\xff"',
        b'"\xc3"',
    ],
)
def test_what_is_no_json_is_refused(value):
    with pytest.raises(BadJson):
        read(b'{"a":%b}' % value)


@pytest.mark.parametrize(
    "text", [b"", b"{", b'{"a":1}x', b"\xef\xbb\xbf{}", b'{"a":' * 100_000, b'{"a":%b}' % (b"[" * 10**5)]
)
def test_what_does_not_end_or_is_too_deep_is_refused(text):
    with pytest.raises(BadJson):
        read(text)


@pytest.mark.parametrize("text", [b"[1]", b'"text"', b"null", b"7"])
def test_other_kinds_are_told_apart(text):
    with pytest.raises(NotAnObject):
        read(text)


@pytest.mark.parametrize("text", [b'{"a":1,"b":2,"a":1}', b'{"a":1,"\\u0061":2}', b'{"":1,"":2}'])
def test_two_members_of_one_name_are_refused(text):
    with pytest.raises(BadJson, match="twice"):
        read(text)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (rb"\ud83d", r"\ufffd"),
        (rb"\uDE00\ud83d\ude00\ud83d", r"\ufffd\ud83d\ude00\ufffd"),
        (rb"\\\ud83d", r"\\\ufffd"),
    ],
)
def test_half_an_emoji_passes(text, shown):
    assert read(b'{"a":"%b"}' % text) == {"a": f'"{shown}"'.encode()}


@given(texts(), values)
def test_a_replaced_member_leaves_all_other_bytes_as_they_are(case, value):
    given_object, text = case
    written = orjson.dumps(value) if isinstance(value, str) else json.dumps(value).encode()
    for name in [*given_object][:3]:
        if not given_object:
            continue
        raw = read(text)[name]
        changed = b"".join(replaced(text, name, written))
        assert read(changed) == read(text) | {name: written}
        assert len(changed) == len(text) - len(raw) + len(written)


def test_a_member_that_is_not_there_is_put_first():
    assert b"".join(replaced(b' { "a":1 }', "model", b'"m"')) == b' {"model":"m", "a":1 }'


@pytest.mark.parametrize(
    ("value", "kind", "within"),
    [
        (b'"text"', '"', "t"),
        (b'""', '"', ""),
        (b"[ ]", "[", ""),
        (b"[\n1]", "[", "1"),
        (b"[{}]", "[", "{"),
        (b"7", "7", ""),
    ],
)
def test_a_value_tells_its_kind(value, kind, within):
    raw = members(b'{"a":%b}' % value)["a"]
    assert (first(raw), first(raw, within=True)) == (kind, within)
    assert first(None) == first(None, within=True) == ""


def test_items_are_told_apart_up_to_a_number():
    assert [bytes(raw) for raw in items(members(b'{"a":[1, "b" ,{"c":[]}]}')["a"])] == [b"1", b'"b"', b'{"c":[]}']
    with pytest.raises(BadJson, match="too many"):
        items(members(b'{"a":[%b]}' % b",".join([b"1"] * 300_000))["a"])


# ── large ones

NEST = b"[]," * (MOST_MARKS // 2 - 10)
WORST = {
    "values": b'{"a":[%b[]]}' % NEST,
    "spaces": b'{"a":%b1}' % (b" " * (MOST_MARKS - 10)),
    "escapes": b'{"a":"%b"}' % (b"\\n" * (MOST_MARKS - 10)),
    "an image": b'{"a":"%b"}' % (b"QUJD" * 10_000_000),
    "other letters": b'{"a":"%b"}' % ("日本" * 3_000_000).encode(),
    "half an emoji": b'{"a":"%b\\ud83d"}' % (b"QUJD" * 2_000_000),
}


@pytest.mark.parametrize("what", WORST)
def test_large_texts_are_read_and_nothing_is_built(what):
    text = WORST[what]
    tracemalloc.start()
    try:
        read_members = members(text)
        check(text)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert read_members.keys() == {"a"}
    assert most < 20 * LARGE + (len(text) if what == "half an emoji" else 0)  # some pieces of it at most


@pytest.mark.parametrize("piece", [b"[],", b'{"":0},', b"1,", b" ", b"\\n"])
def test_what_has_more_values_than_a_large_text_may_is_refused_before_it_is_read(piece, monkeypatch):
    monkeypatch.setattr(json_members, "members", None)
    with pytest.raises(BadJson, match="too complex"):
        check(b'{"a":[%b]}' % (piece * (MOST_MARKS + 1)))


@pytest.mark.parametrize("where", [b"{%b}", b'{"x": 1, %b}', b'{"messages": [], "model": "m", %b}'])
def test_an_object_has_so_many_members_and_no_more(where):
    """Each is an object of ours: with a million of them, one body would hold the interpreter for seconds."""
    for count, is_refused in ((1900, False), (2001, True), (1_400_000, True)):
        text = where % b",".join(b'"k%d":1' % number for number in range(count))
        if is_refused:
            with pytest.raises(BadJson, match="more than 2000 members"):
                members(text)
        else:
            assert len(members(text)) >= count
    within = b'{"model": "m", "x": {%b}}' % b",".join(b'"k%d":1' % number for number in range(100_000))
    assert members(within).keys() == {"model", "x"}  # what is in there nobody looks into


def test_other_threads_run_while_large_texts_are_read():
    """However many there are: counted in turns of another thread, and not in time."""
    text = WORST["an image"]
    begun, is_over, turns = threading.Event(), threading.Event(), []

    def tick():
        begun.set()
        while not is_over.is_set():
            turns.append(time.monotonic())
            time.sleep(0.0001)

    before = sys.getswitchinterval()
    sys.setswitchinterval(10)  # nobody is interrupted: whoever runs must give way
    ticking = threading.Thread(target=tick)
    try:
        ticking.start()
        begun.wait()
        count = len(turns)
        check(text)
        seen = len(turns) - count
    finally:
        is_over.set()
        sys.setswitchinterval(before)
        ticking.join()
    assert seen >= len(text) // (8 * LARGE)
