"""Transcriptions of the stand-in, as OpenAI's client sends and reads them."""

import pytest

from tests.support.lazily import Lazily

openai = Lazily("openai")

MODEL = "openai/whisper-large-v3"
SOUND = {"data": "UklGRiQA", "format": "wav"}


@pytest.fixture
def write_down(stand_in):
    key = stand_in.new_key()["key"]
    body = {"model": MODEL, "input_audio": SOUND}
    return lambda **more: stand_in.call("POST", "/audio/transcriptions", key, json=body | more)


def test_openais_client_sends_a_form(stand_in):
    with openai.OpenAI(api_key=stand_in.new_key()["key"], base_url=stand_in.address) as client:
        answer = client.audio.transcriptions.create(model=MODEL, file=("a.wav", b"\0" * 64_000), language="en")
    assert "64000 bytes of wav" in answer.text
    assert answer.to_dict()["usage"]["seconds"] == 2


def test_more_is_told_to_whom_asks(write_down):
    assert write_down().json().keys() == {"text", "usage"}
    assert write_down(response_format="verbose_json").json()["segments"]
    assert write_down().json()["usage"]["cost"] > 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"input_audio": None},
        {"input_audio": {"data": "?", "format": "wav"}},
        {"input_audio": {"data": "UklGRiQA"}},
        {"response_format": "srt"},
    ],
)
def test_what_cannot_be_written_down_is_refused(write_down, wrong):
    assert write_down(**wrong).status_code == 400
