"""Headers that come down: those of a list, and a stream's type for a stream."""

from types import SimpleNamespace

import pytest

from gateway.answer import STREAM_HEADERS, headers_of


def shown(is_stream, **headers):
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return headers_of(SimpleNamespace(headers=sent), is_stream=is_stream)


def test_only_those_of_the_list_come_down():
    assert shown(False, content_type="application/json", x_generation_id="gen-1", retry_after="5", set_cookie="a") == [
        ("Content-Type", "application/json"),
        ("X-Generation-Id", "gen-1"),
    ]


@pytest.mark.parametrize("sent", ["text/event-stream", "Text/Event-Stream; charset=utf-8"])
def test_a_streams_type_stays(sent):
    assert shown(True, content_type=sent) == [("Content-Type", sent), *STREAM_HEADERS]


@pytest.mark.parametrize("sent", [{}, {"content_type": "application/json"}, {"content_type": "text/plain"}])
def test_what_is_a_stream_is_called_so(sent):
    headers = shown(True, x_generation_id="gen-1", **sent)
    assert headers == [("Content-Type", "text/event-stream"), ("X-Generation-Id", "gen-1"), *STREAM_HEADERS]
