"""Forms: the fields of what clients send, wherever they stand; what could be read in two ways is refused."""

import pytest

from formats import form_data
from foundation.errors import BadRequest

FILE = (
    b'--b1\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n'
    b"Content-Type: audio/wav\r\n\r\n\0\r\n--\r\n"
)
MODEL = b'--b1\r\nContent-Disposition: form-data; name="model"\r\n\r\nopenai/whisper\r\n'
WORD = b'--b1\r\nContent-Disposition: form-data; name="granularities[]"\r\n\r\nword\r\n'
END = b"--b1--\r\n"


@pytest.mark.parametrize("parts", [MODEL + FILE, FILE + MODEL, WORD + MODEL + WORD + FILE])
def test_a_field_is_found_wherever_it_stands_and_can_be_replaced(parts):
    body = bytearray(parts + END)
    assert form_data.border_of(body) == "b1"
    assert form_data.text(body, form_data.places(body), "model") == "openai/whisper"
    assert b"".join(form_data.replaced(body, "model", "w")) == bytes(body).replace(b"openai/whisper", b"w")


def test_files_have_names_of_their_own_and_may_hold_anything():
    body = MODEL + FILE + END
    begin, end = form_data.places(body)[" file"]
    assert body[begin:end] == b"\0\r\n--"


@pytest.mark.parametrize("body", [b"", b"{}", b"--\r\n", b"--b 1\r\n", b"-b1\r\n", b"\r\n--b1\r\n", b"--" + b"b" * 71])
def test_what_is_no_form_has_no_border(body):
    assert form_data.border_of(body) == ""


AS_FILE = MODEL.replace(b'"model"', b'"model"; filename="m"')


@pytest.mark.parametrize(
    ("body", "word"),
    [
        (MODEL + MODEL + END, "'model' twice"),
        (MODEL + AS_FILE + END, "'model' twice"),
        (AS_FILE + MODEL + END, "'model' twice"),
        (MODEL + FILE, "no end"),
        (MODEL[:-10], "no end"),
        (MODEL + b"--b1x\r\n" + END, "something else"),
        (MODEL.replace(b'"model"', b"model") + END, "Content-Disposition"),
        (MODEL.replace(b"form-data", b"attachment") + END, "Content-Disposition"),
        (MODEL.replace(b"\r\n\r\n", b"\r\nContent-Transfer-Encoding: base64\r\n\r\n") + END, "other ones"),
        (MODEL.replace(b"\r\n\r\n", b"\r\nContent-Type: text/plain; charset=utf-16\r\n\r\n") + END, "else than text"),
        (MODEL + FILE + END + MODEL, "follows its last border"),
        (MODEL + FILE + END[:-2] + MODEL, "follows its last border"),
        (WORD * 101 + END, "100 parts"),
        (MODEL.replace(b"model", b"m" * 5000) + END, "no end"),
    ],
)
def test_what_can_be_read_in_two_ways_is_refused(body, word):
    with pytest.raises(BadRequest, match=word):
        form_data.places(body)


def test_a_field_that_is_read_is_a_short_text():
    for value, word in ((b"\xff", "UTF-8"), (b"x" * 70_000, "too long")):
        body = MODEL.replace(b"openai/whisper", value) + END
        with pytest.raises(BadRequest, match=word):
            form_data.text(body, form_data.places(body), "model")
