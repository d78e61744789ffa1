"""What an answer is: by its head, and by its first bytes, however they are cut."""

from types import SimpleNamespace

import pytest

from gateway.forms import EVENT_FIELDS, Form, form_of_body, form_of_head
from tests.support.rows import each_row


def head(status=200, **headers):
    return SimpleNamespace(status=status, headers={name.replace("_", "-"): value for name, value in headers.items()})


@pytest.mark.parametrize(
    ("exchange", "form"),
    [
        (head(content_type="text/event-stream; charset=utf-8"), Form.STREAM),
        (head(content_type="application/json"), Form.PLAIN),
        (head(), Form.PLAIN),
        (head(content_type="Text/HTML"), Form.PAGE),
        (head(content_type="text/event-stream", content_encoding="gzip"), Form.UNREAD),
        (head(content_type="audio/pcm; rate=24000"), Form.UNREAD),
        (head(content_type="application/octet-stream"), Form.UNREAD),
        (head(400, content_type="audio/mpeg"), Form.REFUSAL),
        (head(400, content_encoding="gzip"), Form.REFUSAL),
        (head(302), Form.REFUSAL),
    ],
)
def test_what_a_head_says(exchange, form):
    assert form_of_head(exchange) is form


@each_row("told", [Form.PLAIN, Form.STREAM, Form.PAGE])
@each_row("before", [b"", b"\n         \n", b"\xef\xbb\xbf"])
def test_a_body_shows_what_it_is_as_soon_as_it_can_be_nothing_else(told, before):
    assert form_of_body(before, told) is None
    assert form_of_body(before + b"{", told) is form_of_body(before + b"[", told) is Form.PLAIN
    assert form_of_body(before + b"<html>", told) is form_of_body(before + b"error: no", told) is told
    for field in EVENT_FIELDS:
        begun = [form_of_body(before + field[:length], told) for length in range(1, len(field) + 1)]
        assert begun == [*[None] * (len(field) - 1), Form.STREAM]
