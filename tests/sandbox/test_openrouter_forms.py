"""Forms in the stand-in: what the standard library makes of them."""

from types import SimpleNamespace

import pytest
import requests

from sandbox.openrouter_faults import Refused
from sandbox.openrouter_forms import form_document


def exchange(files):
    sent = requests.Request("POST", "http://x", files=files).prepare()
    return SimpleNamespace(header=lambda _: sent.headers["content-type"].encode(), body=sent.body)


def test_a_form_is_read_as_json_would_be():
    told = form_document(exchange({"file": ("a.wav", b"\0\r\n--", "audio/wav"), "model": (None, "m")}))
    assert told == {"stream": False, "input_audio": {"data": "AA0KLS0=", "format": "wav"}, "model": "m"}


def test_what_is_no_form_is_nothing_and_a_form_needs_its_file():
    assert form_document(SimpleNamespace(header=lambda _: b"application/json", body=b"{}")) == {}
    with pytest.raises(Refused):
        form_document(exchange({"model": (None, "m")}))
