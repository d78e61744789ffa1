"""Counting a prompt's tokens: an estimate that errs upwards, and in which a picture's bytes are no text."""

from __future__ import annotations

import base64
import json
import time

import pytest

from formats.token_counts import BYTES_PER_TOKEN, IMAGE_TOKENS, PAGE_TOKENS, estimated_tokens
from foundation.errors import BadRequest

TEXT = "The quick brown fox jumps over the lazy dog. " * 100


def body(*content: object, **more: object) -> bytes:
    return json.dumps({"model": "a/b", "messages": [{"role": "user", "content": list(content)}], **more}).encode()


def text(said: str) -> dict[str, str]:
    return {"type": "text", "text": said}


def attachment(kind: str, data: bytes) -> dict[str, object]:
    source = {"type": "base64", "media_type": "x/y", "data": base64.b64encode(data).decode()}
    return {"type": kind, "source": source}


def test_an_english_text_is_counted_higher_than_it_is():
    """Its words and dots are a thousand tokens of any tokenizer."""
    assert 1000 <= estimated_tokens(body(text(TEXT))) <= 2000


def test_what_the_model_reads_counts_and_all_else_does_not():
    bare = estimated_tokens(body(text("Hi")))
    for name, value in {"system": TEXT, "tools": [{"name": "x", "description": TEXT, "input_schema": {}}]}.items():
        assert estimated_tokens(body(text("Hi"), **{name: value})) >= bare + len(TEXT) // BYTES_PER_TOKEN
    assert estimated_tokens(body(text("Hi"), metadata={"user_id": TEXT}, stop_sequences=[TEXT])) == bare


def test_pictures_and_documents_count_as_such_and_not_by_their_bytes():
    bare = estimated_tokens(body(text("Hi")))
    picture, pdf = attachment("image", bytes(3_000_000)), attachment("document", b"%PDF-1.7" + bytes(100_000))
    assert 0 <= estimated_tokens(body(text("Hi"), picture)) - bare - IMAGE_TOKENS < 100
    assert 0 <= estimated_tokens(body(text("Hi"), picture, picture)) - bare - 2 * IMAGE_TOKENS < 200
    assert 0 <= estimated_tokens(body(text("Hi"), pdf)) - bare - PAGE_TOKENS < 100


@pytest.mark.parametrize("said", ['"data": "' + "A" * 2000, '{"data":"short"}', '"data"', "data" * 300])
def test_a_text_that_speaks_of_data_is_a_text(said):
    counted = estimated_tokens(body(text(said), text(TEXT)))
    assert counted >= len(TEXT) // BYTES_PER_TOKEN


@pytest.mark.parametrize(
    "wrong", [b"", b"[]", b"{", b'{"model":"a/b"}', b'{"model":7,"messages":[{}]}', b'{"messages":[]}', b"\xff"]
)
def test_what_is_no_request_is_refused(wrong):
    with pytest.raises(BadRequest):
        estimated_tokens(wrong)


def test_large_bodies_are_not_built():
    """Forty megabytes of pictures are found, not read: a tree of them would take seconds."""
    large = bytearray(body(*[attachment("image", bytes(3_000_000))] * 10))
    begun = time.process_time()
    assert estimated_tokens(large) >= 10 * IMAGE_TOKENS
    assert time.process_time() - begun < 2
