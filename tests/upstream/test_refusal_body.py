"""What a refusal says is found in whatever body it comes."""

import json

import pytest

from tests.support.rows import each_row
from upstream.refusal_body import MAX_REASON, object_in, reason_in

ERROR = {"error": {"code": 400, "message": "Unknown name seed"}}


def test_openrouters_object_stays_as_it_was_sent():
    body = json.dumps(ERROR).encode()
    assert object_in(400, body) == (ERROR, body)
    assert object_in(400, b'{"error":"no"}') == ({"error": "no"}, b'{"error":"no"}')


@pytest.mark.parametrize(
    ("sent", "message"),
    [
        ([ERROR], "Unknown name seed"),
        ([1, ERROR, {}], "Unknown name seed"),
        ({"detail": [{"loc": ["n"]}]}, '[{"loc":["n"]}]'),
        ({"detail": "n must be 1"}, "n must be 1"),
        ({"message": "no\nway", "error": None}, "no way"),
        ({"errors": {"n": ["too large"]}}, '{"n":["too large"]}'),
        ({"message": "of user_2abcdefghij"}, "of ***"),
    ],
)
def test_an_error_that_stands_elsewhere_is_put_where_clients_look(sent, message):
    found, body = object_in(400, json.dumps(sent).encode())
    assert found["error"]["message"] == message
    assert body == b""


@each_row("body", [b"", b"no", b"<html>", b'"no"', b"1", b"[]", b"[1]", b'{"error":'])
def test_what_has_no_object_has_none(body):
    assert object_in(400, body) == (None, body)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", ""),
        (b" bad\r\n  request ", "bad request"),
        (b"<html><head><title>413 Too &amp; Large</title></head><body>x</body>", "413 Too & Large"),
        (b"<!-- a --><style>b</style><h1>Not</h1><p>here</p><script>c</script>", "Not here"),
        (b"\x1f\x8b\xff", ""),
        (b"x" * 9000, "x" * MAX_REASON),
        (b"key sk-or-v1-0123456789abcdef of user_2abcdefghij", "key *** of ***"),
    ],
)
def test_a_text_or_a_page_says_its_reason_in_one_line(body, reason):
    assert reason_in(body) == reason
