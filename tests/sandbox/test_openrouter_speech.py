"""Speech of the stand-in, as OpenAI's client hears it."""

import pytest

from tests.support.lazily import Lazily

openai = Lazily("openai")

MODEL = "mistralai/voxtral-mini-tts-2603"


@pytest.fixture
def speak(stand_in):
    key = stand_in.new_key()
    return key, lambda **more: stand_in.call("POST", "/audio/speech", key["key"], json={"model": MODEL} | more)


def test_openais_client_gets_sound(stand_in):
    with openai.OpenAI(api_key=stand_in.new_key()["key"], base_url=stand_in.address) as client:
        raw = client.audio.speech.create(model=MODEL, input="ab", voice="en", response_format="pcm").read()
        named = client.audio.speech.create(model=MODEL, input="ab", voice="en", response_format="mp3").read()
    assert len(raw) == 2 * 2 * 240
    assert named[4:] == raw


def test_the_bill_is_in_the_record_only(stand_in, speak):
    key, ask = speak
    answer = ask(input="Hello", response_format="pcm")
    assert answer.headers["content-type"] == "audio/pcm; rate=24000; channels=1"
    made = answer.headers["x-generation-id"]
    record = stand_in.call("GET", "/generation", key["key"], params={"id": made}).json()["data"]
    assert (record["api_type"], round(record["total_cost"] * 1e9)) == ("tts", stand_in.spent(key["hash"]))
    assert record["total_cost"] > 0


@pytest.mark.parametrize("wrong", [{}, {"input": 5}, {"input": "a", "response_format": "wav"}])
def test_what_cannot_be_spoken_is_refused(speak, wrong):
    answer = speak[1](**wrong)
    assert (answer.status_code, answer.headers["content-type"]) == (400, "application/json")
