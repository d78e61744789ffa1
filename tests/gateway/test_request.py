"""What goes up beside the body: a few headers; and what keeps a caller's calls together."""

import pytest

from formats.body import CallBody
from formats.registry import CHAT, COMPLETIONS, EMBEDDINGS, MESSAGES, RESPONSES
from foundation.errors import BadRequest
from gateway.request import asked_timeout, forwarded_headers, model_to_log
from tests.support.data_plane import request
from tests.support.rows import each_row


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
        "HTTP_X_API_KEY": "theirs",
        "HTTP_ANTHROPIC_VERSION": "2023-06-01",
        "HTTP_ANTHROPIC_BETA": "a,b",
        "HTTP_ANTHROPIC_DANGEROUS_DIRECT_BROWSER_ACCESS": "true",
    }
    shared = b"X-Session-Id: s-1\r\nX-OpenRouter-Metadata: enabled\r\n"
    for api in (CHAT, COMPLETIONS, EMBEDDINGS, RESPONSES):
        assert forwarded_headers(api, environ) == shared
    of_anthropic = b"Anthropic-Version: 2023-06-01\r\nAnthropic-Beta: a,b\r\n"
    assert forwarded_headers(MESSAGES, environ) == shared + of_anthropic


@each_row("value, seconds", [(None, 0), ("", 0), ("1", 1), ("1800", 1800), ("3600", 3600)])
def test_a_call_may_ask_for_its_time(value, seconds):
    assert asked_timeout({} if value is None else {"HTTP_X_TIMEOUT": value}, 3600) == seconds


@each_row("value", ["0", "3601", "-1", "+5", "1.5", "1e3", "60s", " 60", "٣", "9" * 40, "none"])
def test_what_is_no_time_is_refused_with_what_is_accepted(value):
    with pytest.raises(BadRequest, match="X-Timeout must be a whole number of seconds from 1 to 3600"):
        asked_timeout({"HTTP_X_TIMEOUT": value}, 3600)


@each_row("value", ["a\r\nAuthorization: Bearer x", "a\nb", "\x00", "é", "x" * 8001, "a\x7f"])
@each_row("variable", sorted(MESSAGES.forwarded))
def test_a_value_that_is_no_header_is_refused(variable, value):
    with pytest.raises(BadRequest, match=MESSAGES.forwarded[variable]):
        forwarded_headers(MESSAGES, {variable: value})


def test_an_empty_header_is_none():
    assert forwarded_headers(MESSAGES, dict.fromkeys(MESSAGES.forwarded, "")) == b""
    assert (
        forwarded_headers(MESSAGES, {"HTTP_X_SESSION_ID": "", "HTTP_ANTHROPIC_BETA": "a"}) == b"Anthropic-Beta: a\r\n"
    )


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
    assert call.sticky_text(rule, CallBody("m", False, session)) == expected


@each_row(
    ("model", "of_openrouter", "of_others"),
    [
        ("openai/gpt-4o-mini:free", True, True),
        ("~vendor/model", True, True),
        ("llama3", False, True),
        ("sk-or-v1-0123", False, False),
        ("eyJhbGciOi", False, False),
        ("or_api_x", False, False),
        ("a question about/something", False, False),
        ("x" * 49, False, False),
    ],
)
def test_only_what_looks_like_a_model_is_written_down(model, of_openrouter, of_others):
    assert model_to_log(model, is_openrouters=True) == (model if of_openrouter else "")
    assert model_to_log(model, is_openrouters=False) == (model if of_others else "")
