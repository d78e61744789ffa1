"""The scenarios on the raw wire: what a client sees of each, byte by byte."""

import gzip
import itertools
import json

import pytest

from sandbox.openrouter_faults import ROWS
from sandbox.openrouter_scenarios import PRESETS, Plan, UnknownScenario, parse_scenario
from tests.support.rows import each_row

COMMENT = b": OPENROUTER PROCESSING\n\n"
WHITESPACE = b"\n         \n"


@pytest.fixture(scope="module")
def key(stand_in):
    return stand_in.new_key()["key"]


@pytest.fixture
def stream(stand_in, key, body_of):
    """Plays a scenario as a stream and returns the raw answer and its body; it must end with the connection."""

    def play(scenario, streamed=True, expected_end="closed"):
        silence = 0.5 if expected_end == "silent" else 30.0
        answer, end = stand_in.raw_chat(key, f"sandbox/{scenario}", streamed, silence=silence)
        assert end == expected_end
        return answer, body_of(answer)

    return play


def chunks_of(answer):
    """Return the HTTP chunks of a raw answer."""
    rest, chunks = answer.partition(b"\r\n\r\n")[2], []
    while rest and not rest.startswith(b"0\r\n"):
        size, _, rest = rest.partition(b"\r\n")
        chunks.append(rest[: int(size, 16)])
        rest = rest[int(size, 16) + 2 :]
    return chunks


def test_a_regular_stream_ends_with_reason_usage_and_mark(stream, events_of):
    answer, body = stream("stream?chunks=2")
    *words, finish, usage, mark = events_of(answer)
    assert [word["choices"][0]["delta"]["content"] for word in words] == ["This", " is"]
    assert finish["choices"][0]["finish_reason"] == usage["choices"][0]["finish_reason"] == "stop"
    assert usage["usage"]["completion_tokens"] == 2
    assert mark == "[DONE]"
    assert body.endswith(b"data: [DONE]\n\n")
    assert answer.endswith(b"\r\n0\r\n\r\n")


def test_comments_come_before_and_among_the_chunks(stream):
    assert stream("comments?comments=4")[1].startswith(COMMENT * 4 + b"data: ")
    assert stream("mid-comments?chunks=3")[1].count(COMMENT) == 5


def test_comments_can_go_on_forever(stand_in, key):
    answer, end = stand_in.raw_chat(key, "sandbox/endless-comments?comment_ms=1", until=(COMMENT[:-2] + b"\n\n\r\n"))
    assert end == "seen"
    assert b"0\r\n\r\n" not in answer


def test_the_usage_chunk_has_an_old_form_and_may_be_missing(stream, events_of):
    assert events_of(stream("old-usage")[0])[-2]["choices"] == []
    assert b'"usage"' not in stream("no-usage")[1]


def test_streams_may_end_without_their_marks(stream):
    without_mark, without_reason = stream("no-done")[1], stream("no-finish")[1]
    assert b"[DONE]" not in without_mark
    assert b'"finish_reason":"stop"' in without_mark
    assert b'"finish_reason":"stop"' not in without_reason
    assert b"[DONE]" not in without_reason


def test_bytes_can_come_one_by_one(stream, events_of):
    answer, _ = stream("one-byte?chunks=2")
    assert {len(chunk) for chunk in chunks_of(answer)} == {1}
    assert events_of(answer)[-1] == "[DONE]"


def test_characters_can_be_split(stream, events_of):
    answer, body = stream("split-utf8")
    assert "🌍 こんにちは".encode() not in body
    text = "".join(event["choices"][0]["delta"]["content"] for event in events_of(answer)[:-3])
    assert "🌍 こんにちは 👩‍🚀" in text

    def decodes(chunk):
        try:
            return bool(chunk.decode())
        except UnicodeDecodeError:
            return False

    assert not all(decodes(chunk) for chunk in chunks_of(answer))


def test_lines_can_end_with_carriage_returns(stream):
    body = stream("crlf?comments=1&chunks=2")[1]
    assert body.count(b"\n") == body.count(b"\r\n") > 0


def test_events_can_come_in_halves(stream, events_of):
    answer, _ = stream("half-events?chunks=2&half_ms=5")
    assert not any(chunk.endswith(b"\n\n") and chunk.startswith(b"data") for chunk in chunks_of(answer))
    assert events_of(answer)[-1] == "[DONE]"


@pytest.mark.parametrize(
    ("scenario", "words", "code"),
    [
        ("error-first", 0, 502),
        ("error-first-comments", 0, 502),
        ("error-mid", 3, 502),
        ("error-mid?error_after=1&error_code=429", 1, 429),
        ("error-string-code", 3, "server_error"),
        ("error-split", 3, 502),
    ],
)
def test_errors_come_as_the_last_event(stream, events_of, scenario, words, code):
    answer, body = stream(scenario)
    *before, error = events_of(answer)
    assert len(before) == words
    assert error["error"]["code"] == code
    assert error["choices"][0]["finish_reason"] == "error"
    assert {"id", "object", "created", "model", "provider"} <= set(error)
    assert (COMMENT in body) == ("comments" in scenario)


def test_errors_have_other_forms(stream, events_of):
    *_, error, mark = events_of(stream("error-usage")[0])
    assert (error["choices"][0]["finish_reason"], error["usage"]["cost"], mark) == (None, 0, "[DONE]")
    assert "choices" not in events_of(stream("error-no-choices")[0])[-1]


@pytest.mark.parametrize(("scenario", "end"), [("reset", "reset"), ("cut", "closed"), ("stall", "silent")])
@pytest.mark.parametrize("streamed", [True, False])
def test_answers_break_off(stream, scenario, end, streamed):
    answer, body = stream(scenario, streamed, end)
    assert not answer.endswith(b"0\r\n\r\n")
    assert b"[DONE]" not in body
    assert body.count(b'"delta"') == (3 if streamed else 0)
    assert body


def test_a_malformed_event_is_not_json(stream, events_of):
    with pytest.raises(json.JSONDecodeError):
        events_of(stream("malformed")[0])


@pytest.mark.parametrize("streamed", [True, False])
def test_a_body_can_be_empty(stream, streamed):
    answer, body = stream("empty", streamed)
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert body == b""


def test_whitespace_comes_before_a_whole_answer_or_its_error(stream):
    success = stream("whitespace?whitespace=4", streamed=False)[1]
    assert success.startswith(WHITESPACE * 4 + b"{")
    assert json.loads(success)["choices"]
    failure = json.loads(stream("whitespace-error", streamed=False)[1])
    assert failure["error"]["code"] == 502
    assert "choices" not in failure


@pytest.mark.parametrize("streamed", [True, False])
def test_gzip_comes_unasked(stream, streamed):
    answer, body = stream("gzip", streamed)
    assert b"content-encoding: gzip" in answer
    assert b"stand-in" in gzip.decompress(body)


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize(("scenario", "version"), [("close-delimited", b"1.1"), ("http10", b"1.0")])
def test_the_end_of_the_connection_can_end_the_body(stream, scenario, version, streamed):
    answer, body = stream(scenario, streamed)
    head = answer.partition(b"\r\n\r\n")[0]
    assert head.startswith(b"HTTP/" + version)
    assert b"content-length" not in head
    assert b"transfer-encoding" not in head
    assert b'"usage"' in body


def test_connections_end_before_any_byte(stream):
    assert stream("drop")[0] == b""
    assert stream("drop-reset", expected_end="reset")[0] == b""


BREAKS = {  # how many chunks, and which other parts of a stream, have come before it breaks
    "headers": (0, []),
    "body": (0, [b"\r\n\r\n"]),
    "middle": (3, [b"\r\n\r\n"]),
    "usage": (6, [b"\r\n\r\n", b'"finish_reason":"stop"']),
    "done": (6, [b"\r\n\r\n", b'"finish_reason":"stop"', b'"usage"']),
    "end": (6, [b"\r\n\r\n", b'"finish_reason":"stop"', b'"usage"', b"data: [DONE]"]),
}
PARTS = BREAKS["end"][1]


@pytest.mark.parametrize(("how", "end"), [("reset", "reset"), ("fin", "closed"), ("stall", "silent")])
@pytest.mark.parametrize("point", BREAKS)
def test_a_stream_breaks_at_any_point(stand_in, key, stream, point, how, end):
    answer, _ = stream(f"stream?chunks=6&break_at={point}&break_how={how}", expected_end=end)
    words, parts = BREAKS[point]
    assert answer.count(b'"finish_reason":null') == words
    assert [part for part in PARTS if part in answer] == parts
    assert not answer.endswith(b"\r\n0\r\n\r\n")
    assert stand_in.control("GET", "log")["requests"][-1]["at_break"]


@pytest.mark.parametrize(("how", "end"), [("reset", "reset"), ("fin", "closed"), ("stall", "silent")])
@pytest.mark.parametrize("point", BREAKS)
def test_a_whole_answer_breaks_at_any_point(stream, point, how, end):
    answer, body = stream(f"stream?chunks=6&break_at={point}&break_how={how}", streamed=False, expected_end=end)
    assert (b"\r\n\r\n" in answer) == (point != "headers")
    if point in ("done", "end"):
        assert json.loads(body)["usage"]["completion_tokens"] == 6
    else:
        assert body.startswith(b'{"id"') == (point in ("middle", "usage"))
        assert not body.endswith(b"}}}")
    assert not answer.endswith(b"\r\n0\r\n\r\n")


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize("point", BREAKS)
def test_an_answer_goes_on_after_a_pause(stand_in, key, stream, point, streamed):
    plain = stream("stream?chunks=6", streamed=streamed)[1]
    answer, body = stream(f"stream?chunks=6&break_at={point}&break_how=pause&break_ms=1", streamed=streamed)
    assert answer.endswith(b"\r\n0\r\n\r\n")
    assert body.count(b"{") == plain.count(b"{")
    assert stand_in.control("GET", "log")["requests"][-1]["at_break"]


def test_the_log_tells_whether_an_answer_has_come_to_its_break(stand_in):
    key = stand_in.new_key()
    with stand_in.open_chat(key["key"], "sandbox/stream?pace_ms=60000&break_at=middle&chunks=4") as connection:
        assert connection.recv(1000)
        assert not stand_in.logged(key["hash"])["at_break"]
    with stand_in.open_chat(key["key"], "sandbox/stream?break_at=middle&chunks=1&break_how=stall"):
        entry = stand_in.logged(key["hash"], lambda entry: entry["at_break"])
        assert (entry["chunks_sent"], entry["ended"]) == (1, False)


@pytest.mark.parametrize("knob", ["gzip=1", "one_byte=1", "crlf=1", "half_ms=1", "framing=close", "framing=http10"])
def test_breaks_come_where_they_belong_in_other_forms_too(stand_in, key, stream, knob):
    stream(f"stream?chunks=4&break_at=middle&break_how=fin&{knob}")
    entry = stand_in.control("GET", "log")["requests"][-1]
    assert (entry["at_break"], entry["chunks_sent"]) == (True, 2)


def test_heads_can_be_late_preceded_and_large(stream):
    assert stream("early-hints")[0].startswith(b"HTTP/1.1 103 Early Hints\r\n")
    assert b"\r\n\r\nHTTP/1.1 200 OK\r\n" in stream("early-hints")[0]
    assert len(stream("large-headers?header_bytes=40000")[0].partition(b"\r\n\r\n")[0]) > 40_000
    assert stream("slow-headers?delay_ms=60000", expected_end="silent")[0] == b""


def test_a_connection_closes_after_its_answer(stand_in, key):
    answer = stand_in.chat(key, "sandbox/connection-close")
    assert answer.headers["connection"] == "close"


def test_rows_take_knobs_too(stream):
    answer, body = stream("502-html?one_byte=1", streamed=False)
    assert {len(chunk) for chunk in chunks_of(answer)} == {1}
    assert body.startswith(b"<!DOCTYPE html>")


@each_row("name", sorted(itertools.chain(PRESETS, ROWS)))
def test_every_scenario_is_understood(name):
    assert parse_scenario(name, Plan()).row == (name if name in ROWS else "")


@each_row(
    "text",
    ["", "no-such", "stream?no_such=1", "stream?chunks=x", "stream?chunks=-2", "stream?chunks=99999999999",
     "stream?ending=never", "stream?break_at=nowhere", "stream?break_at=body&break_how=", "stream?break_ms=-2",
     "stream?retry_after=%0d%0aevil:1", "stream?pace_ms=inf", "stream?pace_ms=nan"],
)  # fmt: skip
def test_other_scenarios_are_refused(text):
    with pytest.raises(UnknownScenario):
        parse_scenario(text, Plan())
