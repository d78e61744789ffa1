"""What clients send: bodies are checked no further than needed and never rewritten; few headers go up."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from errors import AppError, BadRequest
from proxy_request import FORWARDED, ChatBody, forwarded_headers, read_body
from tests.data_plane import request

HELLO = b'"messages":[{"role":"user","content":"hi"}]'


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"model":"a/b",%s}' % HELLO, ChatBody("a/b", False)),
        (b'{"model":"a/b","stream":true,%s}' % HELLO, ChatBody("a/b", True)),
        (b'{"stream":null,%s}' % HELLO, ChatBody("", False)),
        (b'{"prompt":"an older form"}', ChatBody("", False)),
        (b' \n{"model":"a","future_field":{"x":[1e400,12345678901234567890]},%s}\n ' % HELLO, ChatBody("a", False)),
        (b'{"messages":[{"role":"user","content":"half an emoji \\ud83d"}]}', ChatBody("", False)),
        (b'{"stream":false,"stream":true,%s}' % HELLO, ChatBody("", True)),
        (b'{"session_id":"s-1",%s}' % HELLO, ChatBody("", False, "s-1")),
        (b'{"session_id":"",%s}' % HELLO, ChatBody("", False, None)),
        (b'{"session_id":{"odd":1},%s}' % HELLO, ChatBody("", False, None)),
        (b'{"max_tokens":1,%s}' % HELLO, ChatBody("", False, None, 1)),
        (b'{"max_completion_tokens":10000000,%s}' % HELLO, ChatBody("", False, None, 10_000_000)),
        (b'{"max_tokens":7,"max_completion_tokens":9,%s}' % HELLO, ChatBody("", False, None, 9)),
        (b'{"max_tokens":9,"max_completion_tokens":7,%s}' % HELLO, ChatBody("", False, None, 9)),
        (b'{"max_tokens":9,"max_completion_tokens":null,%s}' % HELLO, ChatBody("", False, None, 9)),
        (b'{"n":128,%s}' % HELLO, ChatBody("", False, None, None, 128)),
        (b'{"models":["a/b","c"],%s}' % HELLO, ChatBody("", False, None, None, 1, ("a/b", "c"))),
        (b'{"models":[],%s}' % HELLO, ChatBody("", False)),
        (b'{"max_tokens":null,"n":null,"models":null,%s}' % HELLO, ChatBody("", False)),
    ],
)
def test_usable_bodies_tell_what_the_gateway_must_know(body, expected):
    assert read_body(body) == expected


@pytest.mark.parametrize(
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
        read_body(body)


ODD_NUMBERS = ["0", "-1", "1.0", "1e3", "true", "false", '"5"', "[5]", "{}", "2147483648", "1" + "0" * 400, "1e400"]
ACCEPTED = {"max_tokens": "1 to 10000000", "max_completion_tokens": "1 to 10000000", "n": "1 to 128"}


@pytest.mark.parametrize("number", [*ODD_NUMBERS, "9" * 5000, "NaN", "-Infinity"])
@pytest.mark.parametrize("name", sorted(ACCEPTED))
def test_odd_numbers_are_refused_with_what_is_accepted(name, number):
    # Digits without end, and words, are no JSON.
    expected = f"`{name}` must be a whole number from {ACCEPTED[name]}" if number in ODD_NUMBERS else "JSON"
    with pytest.raises(BadRequest, match=expected):
        read_body(b'{"%s":%s,%s}' % (name.encode(), number.encode(), HELLO))


@pytest.mark.parametrize(("name", "largest"), [("max_tokens", 10**7), ("max_completion_tokens", 10**7), ("n", 128)])
def test_the_largest_number_is_accepted_and_the_next_is_not(name, largest):
    assert read_body(b'{"%s":%d,%s}' % (name.encode(), largest, HELLO))
    with pytest.raises(BadRequest, match=name):
        read_body(b'{"%s":%d,%s}' % (name.encode(), largest + 1, HELLO))


@pytest.mark.parametrize("models", ['"a/b"', "7", "{}", "[7]", '["a",null]', '[["a"]]', "true", str(["a"] * 33)])
def test_odd_lists_of_models_are_refused_with_what_is_accepted(models):
    with pytest.raises(BadRequest, match="`models` must be a list of at most 32 strings"):
        read_body(b'{"models":%s,%s}' % (models.replace("'", '"').encode(), HELLO))


def test_as_many_models_as_the_list_may_have_are_accepted():
    assert len(read_body(b'{"models":[%s],%s}' % (b",".join([b'"a"'] * 32), HELLO)).models) == 32


@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_any_bytes_are_read_or_refused(body):
    try:
        read_body(body)
    except AppError as error:
        assert error.status == 400


def test_only_listed_headers_go_up():
    environ = {
        "HTTP_X_SESSION_ID": "s-1",
        "HTTP_X_OPENROUTER_METADATA": "enabled",
        "HTTP_AUTHORIZATION": "Bearer theirs",
        "HTTP_COOKIE": "a=b",
        "HTTP_X_OPENROUTER_CACHE": "true",
        "HTTP_HTTP_REFERER": "https://theirs",
        "HTTP_X_TITLE": "theirs",
        "HTTP_X_FORWARDED_FOR": "1.2.3.4",
    }
    assert forwarded_headers(environ) == b"X-Session-Id: s-1\r\nX-OpenRouter-Metadata: enabled\r\n"


@pytest.mark.parametrize("value", ["", "a\r\nAuthorization: Bearer x", "a\nb", "\x00", "é", "x" * 1025, "a\x7f"])
@pytest.mark.parametrize("variable", sorted(FORWARDED))
def test_a_value_that_is_no_header_is_refused(variable, value):
    with pytest.raises(BadRequest, match=FORWARDED[variable]):
        forwarded_headers({variable: value})


HEADER = b"X-OpenRouter-Metadata: X-Session-Id: no\r\nX-Session-Id: of-header\r\n"


@pytest.mark.parametrize(
    ("rule", "headers", "session", "expected"),
    [
        ("off", HEADER, "of-body", None),
        ("user", HEADER, "of-body", "7"),
        ("session", b"", None, None),
        ("session", b"", "of-body", "7/of-body"),
        ("session", HEADER, None, "7/of-header"),
        ("session", HEADER, "of-body", "7/of-body"),
    ],
)
def test_what_keeps_calls_together_is_always_the_callers_own(rule, headers, session, expected):
    call = request(headers=headers, user_id=7)
    assert call.sticky_text(rule, ChatBody("m", False, session)) == expected
