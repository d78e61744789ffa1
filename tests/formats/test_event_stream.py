"""Events pass byte for byte however they are cut; usage, errors and the end are noticed; memory stays bounded."""

import itertools
import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from formats.chat import MAX_HELD_BYTES
from formats.event_stream import MAX_LOOKED_AT, EventStream, events_in
from formats.registry import CHAT

CONTENT = b'data: {"id":"gen-1","choices":[{"index":0,"delta":{"content":"h\xc3\xa9 \xf0\x9f\x91\x8b"},"finish_reason":null}]}\n\n'
COMMENT = b": OPENROUTER PROCESSING\n\n"
USAGE_NEW = b'data: {"id":"gen-1","choices":[{"index":0,"delta":{"content":""},"finish_reason":"stop"}],"usage":{"cost":7.1e-05}}\n\n'
USAGE_OLD = b'data: {"id":"gen-1","choices":[],"usage": {"cost":7.1e-05}}\n\n'
DONE = b"data: [DONE]\n\n"
CLEAN_ERROR = b'data: {"id":"gen-1","error":{"code":502,"message":"Provider returned error"},"choices":[]}\n\n'
ACCOUNT_ERROR = (
    b'data: {"id":"gen-1","object":"chat.completion.chunk","error":{"code":400,"message":"No key sk-or-v1-0123456789abcdef",'
    b'"metadata":{"error_type":"invalid_request","raw":"the prompt"}},"user_id":"user_2abcdefghijk","choices":[]}\n\n'
)


def pass_through(*pieces: bytes) -> tuple[bytes, EventStream]:
    events = EventStream(CHAT)
    out = b"".join(events.feed(piece) for piece in pieces)
    return out + events.finish(), events


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(edges) if b > a]


blocks = st.sampled_from(
    [CONTENT, COMMENT, USAGE_NEW, USAGE_OLD, CLEAN_ERROR, DONE, b"data: not json\n\n", b"\n\n", b": a\n"]
)
streams = st.lists(blocks, max_size=8).map(b"".join)
line_ends = st.sampled_from([b"\n", b"\r\n", b"\r"])


@given(streams, line_ends, st.lists(st.integers(0, 2000), max_size=30), st.binary(max_size=20))
def test_harmless_bytes_pass_unchanged_however_they_are_cut(stream, line_end, places, tail):
    stream = stream.replace(b"\n", line_end) + tail.replace(b'"error"', b"")
    out, _ = pass_through(*cut(stream, places))
    assert out == stream


@given(st.lists(st.integers(0, 2000), max_size=40), line_ends)
def test_what_comes_out_is_the_same_for_every_cut(places, line_end):
    stream = (COMMENT + CONTENT + ACCOUNT_ERROR + USAGE_NEW + DONE).replace(b"\n", line_end)
    whole, _ = pass_through(stream)
    out, events = pass_through(*cut(stream, places))
    assert out == whole
    assert events.done
    assert events.usage == {"cost": Decimal("0.000071")}


def test_each_whole_event_goes_on_at_once():
    events = EventStream(CHAT)
    for event in (COMMENT, CONTENT, CONTENT, USAGE_NEW, DONE):
        assert events.feed(event) == event


def test_a_cut_event_waits_for_its_end_so_that_we_stay_at_a_border():
    events = EventStream(CHAT)
    assert events.feed(CONTENT + CONTENT[:20]) == CONTENT
    assert events.at_border
    assert events.feed(CONTENT[20:]) == CONTENT


@pytest.mark.parametrize("usage", [USAGE_NEW, USAGE_OLD])
def test_usage_is_found_in_both_shapes(usage):
    _, events = pass_through(CONTENT, usage, DONE)
    assert events.usage == {"cost": Decimal("0.000071")}


def test_usage_null_in_every_chunk_is_not_usage():
    _, events = pass_through(b'data: {"choices":[],"usage":null}\n\n')
    assert events.usage is None


def test_a_stream_without_done_is_noticed():
    assert not pass_through(CONTENT, USAGE_NEW)[1].done
    assert pass_through(CONTENT, b"data:[DONE]\r\n\r\n")[1].done


def test_done_within_an_answers_text_is_not_the_end():
    said = CONTENT.replace(b"h\xc3\xa9", b"data: [DONE]")
    assert not pass_through(said)[1].done


@pytest.mark.parametrize("size", [1, 7, 40, 10_000])
def test_an_errors_account_fields_never_pass_however_it_is_cut(size):
    pieces = [ACCOUNT_ERROR[i : i + size] for i in range(0, len(ACCOUNT_ERROR), size)]
    out, events = pass_through(CONTENT, *pieces)
    passed = json.loads(out.removeprefix(CONTENT)[6:])
    assert passed["error"] == {"code": 400, "message": "No key ***", "metadata": {"error_type": "invalid_request"}}
    assert passed["choices"] == []
    for secret in (b"sk-or", b"user_2", b"the prompt"):
        assert secret not in out
    assert events.refusal.status == 400


def test_behind_a_byte_order_mark_an_error_is_one_too():
    """Clients skip it, and read what comes after it."""
    out, stream = pass_through(b"\xef\xbb\xbf" + ACCOUNT_ERROR)
    assert stream.refusal
    assert b"user_2abcdefghijk" not in out
    assert b"the prompt" not in out


def test_an_error_without_account_fields_passes_byte_for_byte():
    out, events = pass_through(CLEAN_ERROR)
    assert out == CLEAN_ERROR
    assert events.refusal.status == 502


def test_an_error_in_a_choice_is_noticed_and_cleaned():
    chunk = (
        b'data: {"choices":[{"index":0,"finish_reason":"error","error":{"code":500,"message":"user_abcdefghij"}}]}\n\n'
    )
    out, events = pass_through(chunk)
    assert b"user_abc" not in out
    assert events.refusal.status == 500


@pytest.mark.parametrize("error", [b'"a text with sk-or-v1-0123456789"', b"[1]", b"17", b"true"])
def test_errors_of_odd_types_are_survived(error):
    out, events = pass_through(b'data: {"error":' + error + b"}\n\n")
    assert events.refusal
    assert b"sk-or-v1-0" not in out


def test_a_damaged_error_event_passes_without_what_names_our_account():
    out, events = pass_through(b'data: {"error":{"message":"user_abcdefghij sk-or-v1-0123456789\n\n')
    assert out == b'data: {"error":{"message":"*** ***\n\n'
    assert events.refusal is None


def test_finish_reason_error_is_an_error_in_the_log_and_passes_as_it_is():
    chunk = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"error"}]}\n\n'
    out, events = pass_through(chunk)
    assert out == chunk
    assert events.refusal


@pytest.mark.parametrize("written", ['"finish_reason":"stop"', '"finish_reason" :\t"stop"', '"finish_reason": "stop"'])
def test_a_choice_that_says_why_it_ended_is_noticed(written):
    for held, finished in ((written, True), ('"finish_reason":null', False), ('"finish_reason" : null', False)):
        _, events = pass_through(CONTENT, f'data: {{"choices":[{{"delta":{{}},{held}}}]}}\n\n'.encode())
        assert events.finished is finished
    _, events = pass_through(b'data: {"choices":[{"delta":{"content":"\\"finish_reason\\":\\"stop\\""}}]}\n\n')
    assert not events.finished


@given(st.sampled_from([b"\n\n", b"\r\n\r\n", b"\r\r"]), st.integers(1, 9000))
def test_a_long_line_passes_in_pieces_and_the_next_event_is_read_again(end, size):
    line = b'data: {"choices":[{"delta":{"content":"' + b"x" * (MAX_HELD_BYTES + 5000) + b'"}}]}' + end
    stream = CONTENT + line + USAGE_NEW + DONE
    out, events = pass_through(*[stream[i : i + size] for i in range(0, len(stream), size)])
    assert out == stream
    assert events.usage
    assert events.done
    assert events.at_border


def test_a_line_of_a_hundred_megabytes_is_never_held():
    events = EventStream(CHAT)
    events.feed(b"data: ")
    piece = b"x" * 65536
    passed = 0
    for _ in range(1600):
        passed += len(events.feed(piece))
        assert len(events._held) <= MAX_HELD_BYTES + len(piece)
    assert passed + len(events.finish()) == 6 + 1600 * 65536
    assert not events.at_border


def in_pieces(event):
    return [event[i : i + 16384] for i in range(0, len(event), 16384)]


def test_a_long_error_is_held_and_cleaned():
    long_error = b'data: {"error":{"code":500,"message":"m","metadata":{"raw":"%s"}},"user_id":"user_abcdefghij"}\n\n'
    out, events = pass_through(*in_pieces(long_error % (b"x" * 200_000)), CONTENT)
    assert out == b'data: {"error":{"code":500,"message":"m"}}\n\n' + CONTENT
    assert events.refusal


@pytest.mark.parametrize("word", [b"error", b"errors"])
@pytest.mark.parametrize("size", [200_000, MAX_LOOKED_AT + 1])
def test_a_long_event_in_which_a_word_looks_like_an_error_passes_as_it_is(word, size):
    event = b'data: {"choices":[{"delta":{"content":"x"},"logprobs":["%s","%s"]}]}\n\n' % (word, b"x" * size)
    out, events = pass_through(*in_pieces(event), CONTENT, DONE)
    assert out == event + CONTENT + DONE
    assert events.refusal is None
    assert events.done


def test_an_error_about_our_key_is_told_in_our_words():
    out, events = pass_through(
        b'data: {"id":"gen-1","error":{"code":401,"message":"User not found."},"choices":[]}\n\n'
    )
    told = json.loads(out[6:])
    assert (told["id"], told["error"]["code"]) == ("gen-1", 502)
    assert "User not found" not in out.decode()
    assert events.refusal.status == 401


def test_an_error_that_repeats_half_an_emoji_is_cleaned_like_any_other():
    half = b'data: {"error":{"code":403,"message":"flagged \\ud83d","metadata":{"reasons":["x"],"flagged_input":"PROMPT \\ud83d"}}}\n\n'
    out, events = pass_through(half)
    assert b"PROMPT" not in out
    assert json.loads(out[6:])["error"]["message"] == "flagged \ud83d"
    assert events.refusal.status == 403


@pytest.mark.parametrize("depth", [300, 5000])
def test_an_error_nested_too_deeply_to_be_looked_at_does_not_name_our_account(depth):
    error = b'{"code":400,"message":"m","param":%s%s}' % (b"[" * depth, b"]" * depth)
    out, _ = pass_through(b'data: {"error":%s,"user_id":"user_abcdefghij"}\n\n' % error)
    assert b"user_abc" not in out


@given(st.lists(blocks, max_size=8), line_ends)
def test_events_are_told_apart_and_nothing_is_lost(stream, line_end):
    data = b"".join(stream).replace(b"\n", line_end)
    assert b"".join(events_in(data)) == data


def test_of_several_errors_the_first_one_counts():
    _, events = pass_through(CLEAN_ERROR + ACCOUNT_ERROR)
    assert events.refusal.status == 502
