"""What clients send: bodies are checked no further than needed and never rewritten."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from formats.body import (
    CallBody,
    read_chat,
    read_completion,
    read_embeddings,
    read_images,
    read_message,
    read_rerank,
    read_response,
    read_speech,
    read_transcription,
)
from foundation.errors import AppError, BadRequest
from tests.support.rows import each_row

HELLO = b'"messages":[{"role":"user","content":"hi"}]'


@each_row(
    ("body", "expected"),
    [
        (b'{"model":"a/b",%s}' % HELLO, CallBody("a/b", False)),
        (b'{"model":"a/b","stream":true,%s}' % HELLO, CallBody("a/b", True)),
        (b'{"stream":null,%s}' % HELLO, CallBody("", False)),
        (b'{"prompt":"an older form"}', CallBody("", False)),
        (b' \n{"model":"a","future_field":{"x":[1e400,12345678901234567890]},%s}\n ' % HELLO, CallBody("a", False)),
        (b'{"messages":[{"role":"user","content":"half an emoji \\ud83d"}]}', CallBody("", False)),
        (b'{"session_id":"s-1",%s}' % HELLO, CallBody("", False, "s-1")),
        (b'{"session_id":"",%s}' % HELLO, CallBody("", False, None)),
        (b'{"session_id":{"odd":1},%s}' % HELLO, CallBody("", False, None)),
        (b'{"max_tokens":1,%s}' % HELLO, CallBody("", False, None, 1)),
        (b'{"max_completion_tokens":10000000,%s}' % HELLO, CallBody("", False, None, 10_000_000)),
        (b'{"max_tokens":7,"max_completion_tokens":9,%s}' % HELLO, CallBody("", False, None, 9)),
        (b'{"max_tokens":9,"max_completion_tokens":7,%s}' % HELLO, CallBody("", False, None, 9)),
        (b'{"max_tokens":9,"max_completion_tokens":null,%s}' % HELLO, CallBody("", False, None, 9)),
        (b'{"n":128,%s}' % HELLO, CallBody("", False, None, None, 128)),
        (b'{"models":["a/b","c"],%s}' % HELLO, CallBody("", False, None, None, 1, ("a/b", "c"))),
        (b'{"models":[],%s}' % HELLO, CallBody("", False)),
        (b'{"max_tokens":1024.0,"n":2.0,%s}' % HELLO, CallBody("", False, None, 1024, 2)),
        (b'{"max_completion_tokens":1e3,%s}' % HELLO, CallBody("", False, None, 1000)),
        (b'{"max_tokens":null,"n":null,"models":null,%s}' % HELLO, CallBody("", False)),
    ],
)
def test_usable_bodies_tell_what_the_gateway_must_know(body, expected):
    assert read_chat(body) == expected


@each_row(
    ("body", "word"),
    [
        (b"", "JSON"),
        (b"{", "JSON"),
        (b"[1]", "object"),
        (b'"text"', "object"),
        (b"null", "object"),
        (b"{}", "messages"),
        (b'{"messages":[]}', "messages"),
        (b'{"messages":"hi"}', "messages"),
        (b'{"messages":{"role":"user"}}', "messages"),
        (b'{"messages":["hi"]}', "messages"),
        (b'{"messages":"{"}', "messages"),
        (b'{"stream":false,"stream":true,%s}' % HELLO, "'stream' twice"),
        (b'{"model":"a","mod\\u0065l":"b",%s}' % HELLO, "'model' twice"),
        (b'{"plugins":[{"id":"web","id":"fusion"}],%s}' % HELLO, "'id' twice"),
        (b'{"tools":[{"type":"function","type":"openrouter:fusion"}],%s}' % HELLO, "'type' twice"),
        (b'{"tools":[{"type":"openrouter:x","parameters":{"model":"a","model":"b"}}],%s}' % HELLO, "'model' twice"),
        (b'{"tools":[%s],%s}' % (b",".join([b"{}"] * 4097), HELLO), "tools"),
        (b'{"session_id":"%s",%s}' % (b"s" * 70_000, HELLO), "session_id"),
        (b'{"prompt":7}', "messages"),
        (b'{"model":7,%s}' % HELLO, "model"),
        (b'{"model":["a"],%s}' % HELLO, "model"),
        (b'{"stream":"true",%s}' % HELLO, "stream"),
        (b'{"stream":1,%s}' % HELLO, "stream"),
        (b'{"temperature":NaN,%s}' % HELLO, "JSON"),
        (b'{"a":Infinity,%s}' % HELLO, "JSON"),
        (b"\xff\xfe{\x00}\x00", "JSON"),
        (b"[" * 100_000, "JSON"),
        (b'{"messages":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "JSON"),
        (b'{"a":"' + b"\xc3", "JSON"),
    ],
)
def test_unusable_bodies_are_refused_with_what_is_wrong(body, word):
    with pytest.raises(BadRequest, match=word):
        read_chat(body)


ODD_NUMBERS = [
    "0",
    "-1",
    "1.5",
    "0.0",
    "1e-3",
    "1e300",
    "true",
    "false",
    '"5"',
    "[5]",
    "{}",
    "2147483648",
    "1" + "0" * 400,
    "1e400",
]
ACCEPTED = {"max_tokens": "1 to 10000000", "max_completion_tokens": "1 to 10000000", "n": "1 to 128"}


@each_row("number", [*ODD_NUMBERS, "9" * 5000, "NaN", "-Infinity"])
@each_row("name", sorted(ACCEPTED))
def test_odd_numbers_are_refused_with_what_is_accepted(name, number):
    # Digits without end, and words, are no JSON.
    expected = f"`{name}` must be a whole number from {ACCEPTED[name]}" if number in ODD_NUMBERS else "JSON"
    with pytest.raises(BadRequest, match=expected):
        read_chat(b'{"%s":%s,%s}' % (name.encode(), number.encode(), HELLO))


@pytest.mark.parametrize(("name", "largest"), [("max_tokens", 10**7), ("max_completion_tokens", 10**7), ("n", 128)])
def test_the_largest_number_is_accepted_and_the_next_is_not(name, largest):
    assert read_chat(b'{"%s":%d,%s}' % (name.encode(), largest, HELLO))
    with pytest.raises(BadRequest, match=name):
        read_chat(b'{"%s":%d,%s}' % (name.encode(), largest + 1, HELLO))


@each_row(
    "member",
    [
        b'"model":"a@preset/x"', b'"models":["a/b@preset/x"]', b'"fallbacks":[{"model":"a@preset/x"}]', b'"preset":"x"',
        b'"plugins":[{"id":"@preset/x"}]', b'"tools":[{"type":"openrouter:@preset/x"}]',
    ],
)  # fmt: skip
def test_each_member_in_which_a_model_can_stand_is_looked_into_by_itself(member):
    [named] = read_chat(b"{%b,%b}" % (member, HELLO)).others
    assert named.removeprefix("openrouter:") == "@preset/x"


def test_what_nobody_reads_may_be_as_large_as_it_likes():
    tool = b'{"type":"function","function":{"name":"f","description":"%s"}}' % (b"long, " * 50_000)
    assert read_chat(b'{"model":"a","tools":[%s],%s}' % (tool, HELLO)) == CallBody("a", False)
    texts = b",".join([b'"%s"' % (b"a, b" * 50_000)] * 3)
    assert read_completion(b'{"model":"a","prompt":[%s]}' % texts).n == 3
    assert read_completion(b'{"model":"a","prompt":[%s]}' % b",".join([b"17"] * 300_000)).n == 1
    assert read_embeddings(b'{"model":"a","input":[%s]}' % b",".join([b"17"] * 400_000)) == CallBody(
        "a", False, None, 0
    )


@each_row("models", ['"a/b"', "7", "{}", "[7]", '["a",null]', '[["a"]]', "true", str(["a"] * 33)])
def test_odd_lists_of_models_are_refused_with_what_is_accepted(models):
    with pytest.raises(BadRequest, match="`models` must be a list of at most 32 strings"):
        read_chat(b'{"models":%s,%s}' % (models.replace("'", '"').encode(), HELLO))


def test_as_many_models_as_the_list_may_have_are_accepted():
    assert len(read_chat(b'{"models":[%s],%s}' % (b",".join([b'"a"'] * 32), HELLO)).models) == 32


@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_any_bytes_are_read_or_refused(body):
    try:
        read_chat(body)
    except AppError as error:
        assert error.status == 400


# ── the other formats


@each_row(
    ("read", "body", "expected"),
    [
        (read_completion, b'{"model":"a/b","prompt":"hi"}', CallBody("a/b", False)),
        (read_completion, b'{"prompt":[1,2,3],"max_tokens":9}', CallBody("", False, None, 9)),
        (read_completion, b'{"prompt":[1.0,2.0],"best_of":2.0}', CallBody("", False, None, None, 2)),
        (read_completion, b'{"prompt":["a","b"],"n":3,"stream":true}', CallBody("", True, None, None, 6)),
        (read_completion, b'{"prompt":[[1,2],[3]],"n":2,"best_of":5}', CallBody("", False, None, None, 10)),
        (read_completion, b'{"prompt":"hi","session_id":"s","models":["x"]}', CallBody("", False, "s", models=("x",))),
        (read_embeddings, b'{"model":"a/b","input":"hi"}', CallBody("a/b", False, None, 0)),
        (read_embeddings, b'{"input":["a","b"],"stream":false}', CallBody("", False, None, 0)),
        (read_embeddings, b'{"input":[[1,2]],"max_tokens":"odd","n":"odd"}', CallBody("", False, None, 0)),
        (read_response, b'{"model":"a/b","input":"hi"}', CallBody("a/b", False)),
        (read_response, b'{"input":[{"role":"user"}],"max_output_tokens":7}', CallBody("", False, None, 7)),
        (read_response, b'{"input":"hi","max_tokens":1,"stream":true}', CallBody("", True)),
        (read_response, b'{"input":"hi","previous_response_id":null,"background":false}', CallBody("", False)),
        (read_message, b'{"model":"a/b","max_tokens":5,%s}' % HELLO, CallBody("a/b", False, None, 5)),
        (read_message, b'{"stream":true,"max_completion_tokens":"odd",%s}' % HELLO, CallBody("", True)),
        (read_message, b'{"model":"a","fallbacks":[{"model":"b"}],%s}' % HELLO, CallBody("a", False, models=("b",))),
        (read_message, b'{"fallbacks":null,"models":["b"],%s}' % HELLO, CallBody("", False, models=("b",))),
        (read_rerank, b'{"model":"a","query":"hi","documents":["b"]}', CallBody("a", False, None, 0)),
        (
            read_rerank,
            b'{"model":"a","query":"hi","documents":[{"text":"b"}],"top_n":1}',
            CallBody("a", False, None, 0),
        ),
    ],
)
def test_each_format_says_the_same_in_its_own_words(read, body, expected):
    assert read(body) == expected


@each_row(
    ("read", "body", "word"),
    [
        *((read, b"[1]", "object") for read in (read_completion, read_embeddings, read_response, read_message)),
        *((read, b"{", "JSON") for read in (read_completion, read_embeddings, read_response, read_message)),
        (read_completion, b"{}", "prompt"),
        (read_completion, b'{"prompt":""}', "prompt"),
        (read_completion, b'{"prompt":[]}', "prompt"),
        (read_completion, b'{"prompt":{"a":1}}', "prompt"),
        (read_completion, b"{%s}" % HELLO, "prompt"),
        (read_completion, b'{"prompt":"hi","best_of":1000}', "best_of"),
        (read_completion, b'{"prompt":"hi","max_tokens":-1}', "max_tokens"),
        (read_embeddings, b"{}", "input"),
        (read_embeddings, b'{"input":[]}', "input"),
        (read_embeddings, b'{"input":"hi","stream":true}', "streamed"),
        (read_response, b"{}", "input"),
        (read_response, b'{"input":7}', "input"),
        (read_response, b'{"input":"hi","max_output_tokens":1.5}', "max_output_tokens"),
        (read_response, b'{"input":"hi","previous_response_id":"resp_of_somebody"}', "previous_response_id"),
        (read_response, b'{"input":"hi","conversation":"conv_of_somebody"}', "conversation"),
        (read_response, b'{"input":"hi","background":true}', "background"),
        (read_message, b"{}", "messages"),
        (read_message, b'{"prompt":"an older form"}', "messages"),
        (read_message, b'{"max_tokens":0,%s}' % HELLO, "max_tokens"),
        (read_message, b'{"fallbacks":["b"],%s}' % HELLO, "fallbacks"),
        (read_message, b'{"fallbacks":{"model":"b"},%s}' % HELLO, "fallbacks"),
        (read_message, b'{"fallbacks":[{"model":7}],%s}' % HELLO, "fallbacks"),
        (read_transcription, b'{"input_audio":{}}', "`model` is missing"),
        (read_transcription, b'{"model":"a","input_audio":"x"}', "input_audio"),
        (read_transcription, b'{"model":"a","input_audio":{},"stream":true}', "streamed"),
        (read_speech, b'{"input":"hi"}', "`model` is missing"),
        (read_speech, b'{"model":"a","input":["hi"]}', "input"),
        (read_speech, b'{"model":"a","input":"hi","stream_format":"sse"}', "stream_format"),
        (read_images, b'{"prompt":"hi"}', "`model` is missing"),
        (read_images, b'{"model":"a","prompt":["hi"]}', "prompt"),
        (read_images, b'{"model":"a","prompt":"hi","n":11}', "from 1 to 10"),
        (read_rerank, b'{"query":"hi","documents":["b"]}', "`model` is missing"),
        (read_rerank, b'{"model":"a","documents":["b"]}', "query"),
        (read_rerank, b'{"model":"a","query":["hi"],"documents":["b"]}', "query"),
        (read_rerank, b'{"model":"a","query":"hi","documents":[]}', "documents"),
        (read_rerank, b'{"model":"a","query":"hi","documents":["b"],"top_n":0}', "top_n"),
    ],
)
def test_each_format_refuses_in_its_own_words(read, body, word):
    with pytest.raises(BadRequest, match=word):
        read(body)


@pytest.mark.parametrize(
    ("model", "models", "names"),
    [("a", (), ("a",)), ("a", ("b", "c"), ("a", "b", "c")), ("", ("b",), ("b",)), ("", (), ("",))],
)
def test_the_names_are_those_of_all_models_that_may_answer(model, models, names):
    assert CallBody(model, False, models=models).names == names


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["model", "role"]), inner, max_size=2),
    max_leaves=6,
)
FIELDS = ["model", "stream", "messages", "prompt", "input", "max_tokens", "n", "best_of", "models", "fallbacks"]


@given(st.dictionaries(st.sampled_from([*FIELDS, "session_id", "max_output_tokens", "background"]), json_values))
def test_any_object_is_read_or_refused_by_every_format(fields):
    for read in (
        read_chat,
        read_completion,
        read_embeddings,
        read_response,
        read_message,
        read_rerank,
        read_images,
        read_speech,
    ):
        try:
            call = read(json.dumps(fields).encode())
        except BadRequest:
            continue
        assert call.n >= 1
        assert all(isinstance(name, str) for name in call.names)


def test_pictures_in_a_body_count_as_pictures_and_not_by_their_length():
    picture = b'{"type":"image_url","image_url":{"url":"data:image/png;base64,%s"}}' % (b"A" * 1_000_000)
    plain = read_images(b'{"model":"a","prompt":"hi","n":3}')
    with_two = read_images(b'{"model":"a","prompt":"hi","input_references":[%s,%s]}' % (picture, picture))
    assert (plain.n, plain.images, plain.prompt_bytes) == (3, 3, 4)
    assert (with_two.images, with_two.prompt_bytes) == (1, 4 + 2 * 8192)
